"""What a client tells of its requests: to `logging`, and as lines of JSON in a file.

The logger is "portico.client" or the caller's own, all at DEBUG. By itself it says one line a request: method, address,
status, seconds. `debug` adds the bodies with long texts cut, `raw_debug` adds them whole. Headers are not told, and a key that
stands in a body or in an error's text is struck out.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import msgspec

from portico.client.exchange import request_id
from portico.client.servers import Server
from portico.client.wishes import Send

NAME = "portico.client"
CUT = 180
"""Characters of a text that `debug` shows, unless debug_truncate_length says otherwise."""
STRUCK = "***"
_SECRETS = ("authorization", "api-key", "api_key", "apikey", "token", "secret", "password", "cookie")
"""Parts of the names of headers and of fields of a body whose values are nobody's business."""
_NOT_SECRET = ("tokens", "token_id", "top_")
"""... but max_tokens, token_ids, stop_token_ids and the like are."""
_TAIL = 16_384
"""Bytes of a stream's end that are kept, for its usage."""


_numbers = count(1)
"""Of the requests of all clients of this process."""


class _Choice(msgspec.Struct):
    finish_reason: str | None = None


class _Ending(msgspec.Struct):
    """What is read of a reply, or of a chunk."""

    usage: dict[str, Any] | None = None
    choices: list[_Choice] = []


class Watch:
    """Owns the file of events. Threads, tasks and several clients may write to the same one: a line is one write."""

    def __init__(
        self,
        *,
        logger: logging.Logger | None,
        debug: bool,
        raw_debug: bool,
        debug_truncate_length: int,
        events: str | Path | None,
        secrets: frozenset[str],
        environ: Mapping[str, str],
    ) -> None:
        asked = environ.get("VLLM_DEBUG", "").strip().lower() in ("1", "true", "yes", "on")
        self._bodies, self._raw = debug or raw_debug or asked, raw_debug
        self._cut = debug_truncate_length
        self._logger = logger or logging.getLogger(NAME)
        self._secrets = sorted((each for each in secrets if len(each) >= 4), key=len, reverse=True)
        self._path = Path(events) if events is not None else None
        self._lock = threading.Lock()
        if self._bodies and logger is None:
            _show(self._logger)

    @property
    def idle(self) -> bool:
        """Nobody listens."""
        return self._path is None and not self._logger.isEnabledFor(logging.DEBUG)

    def asked(self, server: Server, wish: Send) -> Exchange:
        exchange = Exchange(self, next(_numbers), server, wish)
        body = _read(wish.body)
        self._write("request", exchange, stream=wish.stream, body=self._shown(body))
        if self._bodies and body is not None:
            self._log("%s -> %s", exchange.name, self._text(body))
        return exchange

    # ---- what an exchange has to tell

    def answered(
        self, exchange: Exchange, status: int, headers: Mapping[str, str], body: bytes, **more: Any
    ) -> None:
        streamed = "ended" in more
        said = _read(body) if not streamed else None
        usage, finish = _ending(body, streamed=streamed)
        told = {
            "status": status,
            "request_id": request_id(headers),
            "seconds": exchange.seconds,
            "usage": usage,
            "finish_reason": finish,
            **more,
        }
        if not streamed:
            told["body"] = self._shown(said)
        self._write("response", exchange, **told)
        self._log("%s: %s in %.3f s%s", exchange.name, status, exchange.seconds, _about(told))
        if self._bodies:
            text = (
                self._text(said)
                if not streamed
                else self._masked(self._clipped(body.decode("utf-8", "replace")))
            )
            self._log("%s <- %s", exchange.name, text)

    def failed(self, exchange: Exchange, error: BaseException) -> None:
        kind, text = type(error).__name__, self._masked(str(error))
        self._write("response", exchange, seconds=exchange.seconds, error=kind, message=text)
        self._log("%s: %s after %.3f s: %s", exchange.name, kind, exchange.seconds, text)

    # ---- inside

    def _log(self, text: str, *values: object) -> None:
        if self._logger.isEnabledFor(logging.DEBUG):
            self._logger.debug(text, *values)

    def _write(self, event: str, exchange: Exchange, **told: Any) -> None:
        if self._path is None:
            return
        line = {
            "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
            "event": event,
            "process": os.getpid(),
            "number": exchange.number,
            "method": exchange.wish.method,
            "url": exchange.url,
            **{name: value for name, value in told.items() if value is not None and value != ""},
        }
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("ab", buffering=0) as file:
                file.write(json.dumps(line, ensure_ascii=False).encode("utf-8", "replace") + b"\n")

    def _text(self, said: Any) -> str:
        return json.dumps(self._shown(said), ensure_ascii=False)

    def _shown(self, said: Any) -> Any:
        """A body without secrets, and with long texts cut unless everything is wanted."""
        if isinstance(said, Mapping):
            return {name: STRUCK if is_secret(name) else self._shown(value) for name, value in said.items()}
        if isinstance(said, list):
            return [self._shown(each) for each in said]
        if isinstance(said, str):
            return self._masked(said if self._raw else self._clipped(said))
        return said

    def _clipped(self, text: str) -> str:
        if self._raw or len(text) <= self._cut:
            return text
        return f"{text[: self._cut]}... ({len(text)} characters)"

    def _masked(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, STRUCK)
        return text


class Exchange:
    """One request that is under way, and what has come of its answer."""

    def __init__(self, watch: Watch, number: int, server: Server, wish: Send) -> None:
        self._watch, self.number, self.wish = watch, number, wish
        self.url = server.url + wish.path
        self._began = time.monotonic()
        self._first: float | None = None
        self._chunks = self._bytes = 0
        self._tail = b""
        self._over = False

    @property
    def name(self) -> str:
        return f"#{self.number} {self.wish.method} {self.url}"

    @property
    def seconds(self) -> float:
        return round(time.monotonic() - self._began, 4)

    def answered(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self._watch.answered(self, status, headers, body)

    def chunk(self, data: bytes) -> None:
        if self._first is None:
            self._first = self.seconds
        self._chunks += 1
        self._bytes += len(data)
        self._tail = (self._tail + data)[-_TAIL:]

    def ended(self, how: str, headers: Mapping[str, str]) -> None:
        """Whole, left (by the caller) or cut (by the server)."""
        if not self._over:
            self._over = True
            more = {"first_byte": self._first, "chunks": self._chunks, "bytes": self._bytes, "ended": how}
            self._watch.answered(self, 200, headers, self._tail, **more)

    def failed(self, error: BaseException) -> None:
        self._watch.failed(self, error)


def secrets_of(keys: Mapping[str, str], *known: str | None) -> frozenset[str]:
    """What must never be told: keys, and headers that carry one."""
    found = {each for each in known if each}
    for name, value in keys.items():
        if any(part in name.lower() for part in _SECRETS):
            found |= {value, value.rpartition(" ")[2]}
    return frozenset(found)


def is_secret(name: str) -> bool:
    lower = name.lower()
    return any(part in lower for part in _SECRETS) and not any(part in lower for part in _NOT_SECRET)


def _read(body: bytes) -> Any:
    """JSON, or the text that it is."""
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace")


def _ending(body: bytes, *, streamed: bool) -> tuple[dict[str, Any] | None, str | None]:
    """Usage and finish_reason of a reply, or of the chunks of its end."""
    lines = (
        [line[5:].strip() for line in body.split(b"\n") if line.startswith(b"data:")] if streamed else [body]
    )
    usage: dict[str, Any] | None = None
    finish: str | None = None
    for line in lines:
        try:
            said = msgspec.json.decode(line, type=_Ending)
        except msgspec.DecodeError:
            continue
        usage = said.usage or usage
        finish = next((choice.finish_reason for choice in said.choices if choice.finish_reason), finish)
    return usage, finish


def _about(told: Mapping[str, Any]) -> str:
    parts = [str(told[name]) for name in ("finish_reason", "ended") if told.get(name)]
    usage = told.get("usage") or {}
    if "completion_tokens" in usage:
        parts.append(f"{usage.get('prompt_tokens', 0)} + {usage['completion_tokens']} tokens")
    if told.get("request_id"):
        parts.append(f"request {told['request_id']}")
    return f" ({', '.join(parts)})" if parts else ""


def _show(logger: logging.Logger) -> None:
    """Whoever asks for debugging and has set up no logging sees it on stderr."""
    if not logger.hasHandlers():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(message)s"))
        logger.addHandler(handler)
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.DEBUG)


__all__ = ["CUT", "NAME", "Exchange", "Watch", "secrets_of"]

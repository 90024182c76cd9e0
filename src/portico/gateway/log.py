"""The request log: one line a request, as text for people or JSON for machines, on stderr.

What ended is noted, and worded and written a few times a second: both together would else be an eighth of the
cost of a short request. Keys are never in it; prompts and answers only when asked for.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sys
import time
import traceback
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

import msgspec

from portico.web import Account
from portico.web.request import Receive, Scope, Send

_PAUSE = 0.05
_MOST = 256
"""Lines noted before they are written at once: wording more would hold up who waits for a token."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Overheard:
    """What one caller sent and was sent, of each at most the first `MOST` bytes. Owned by the request's task.

    It stands between the application and the server, so the ways past ASGI's `send` are closed in `scope`.
    """

    MOST = 64 * 1024

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        extensions = {
            name: each for name, each in scope.get("extensions", {}).items() if name != "portico.exchange"
        }
        self.scope: Scope = {**scope, "extensions": extensions}
        self._receive, self._send = receive, send
        self._asked, self._answered = bytearray(), bytearray()

    async def receive(self) -> Mapping[str, Any]:
        message = await self._receive()
        self._keep(self._asked, message)
        return message

    async def send(self, message: dict[str, Any]) -> None:
        self._keep(self._answered, message)
        await self._send(message)

    def _keep(self, heard: bytearray, message: Mapping[str, Any]) -> None:
        # One byte more than is shown, so that what was cut off can be told.
        heard += message.get("body", b"")[: self.MOST + 1 - len(heard)]

    @property
    def prompt(self) -> str:
        return self._text(self._asked)

    @property
    def answer(self) -> str:
        return self._text(self._answered)

    def _text(self, heard: bytearray) -> str:
        text = heard[: self.MOST].decode("utf-8", "replace")
        return text if len(heard) <= self.MOST else f"{text}... (cut after {self.MOST} bytes)"


class Ended(msgspec.Struct, frozen=True, gc=False):
    """A request that has ended, `at` seconds since the epoch, `took` nanoseconds after it came."""

    at: float
    took: int
    tag: str
    method: str
    path: str
    status: int
    account: Account
    note: str
    said: Overheard | None = None


class RequestLog:
    """Owns what is not written yet. `level` above info silences all but failures (status 500 and up). `prompts`:
    what is asked of a model and what it answers is written too, as it went over the wire."""

    def __init__(
        self,
        *,
        form: Literal["text", "json"] = "text",
        level: str = "info",
        prompts: bool = False,
        descriptor: int | None = None,
    ) -> None:
        self.prompts = prompts
        self._json = form == "json"
        self.level = _LEVELS[level]
        self._descriptor = descriptor if descriptor is not None else sys.stderr.fileno()
        self._ended: list[Ended] = []
        self._timer: asyncio.TimerHandle | None = None

    def request(
        self,
        tag: str,
        method: str,
        path: str,
        status: int,
        account: Account,
        note: str = "",
        said: Overheard | None = None,
    ) -> None:
        """One line for a request that has ended. `note` is an error's message, `said` what it was about."""
        if self.level > 20 and status < 500:
            return
        if not account.model and status < 400 and self.level > 10:
            return  # health checks and listings say nothing unless asked for
        took = time.perf_counter_ns() - account.started
        self._ended.append(Ended(time.time(), took, tag, method, path, status, account, note, said))
        if len(self._ended) >= _MOST:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self.flush)

    def say(self, event: str, **facts: object) -> None:
        """A line about the server itself, such as an engine that died."""
        if self.level > 30:
            return
        if self._json:
            line = msgspec.json.encode({"at": _utc(time.time()), "event": event, **facts}) + b"\n"
        else:
            told = "  ".join(f"{key} {_on_one_line(value)}" for key, value in facts.items())
            line = f"{time.strftime('%H:%M:%S')} {event}  {told}\n".encode()
        self.flush(line)

    def record(self, record: logging.LogRecord) -> None:
        """A line of what code said through `logging`, from any thread: what is noted is left to the loop."""
        message, trace = record.getMessage(), ""
        if record.exc_info:
            trace = "".join(traceback.format_exception(*record.exc_info)).rstrip()
        level = record.levelname.lower()
        if self._json:
            entry: dict[str, object] = {"at": _utc(record.created), "event": "log", "level": level}
            entry |= {"logger": record.name, "message": message, "traceback": trace or None}
            line = msgspec.json.encode(entry) + b"\n"
        else:
            clock = time.strftime("%H:%M:%S", time.localtime(record.created))
            line = _line(f"{clock} {level} {record.name}: {message}" + (f"  {trace}" if trace else ""))
        self._write(line)

    def flush(self, last: bytes = b"") -> None:
        """Writes everything noted, and `last` behind it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        ended, self._ended = self._ended, []
        lines = [_as_json(each) for each in ended] if self._json else _as_texts(ended)
        self._write(b"".join([*lines, last]))

    def _write(self, lines: bytes) -> None:
        rest = memoryview(lines)
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            pass  # nobody reads the log any more; that must not stop the server


class Records(logging.Handler):
    """`with Records(log):` what code says through `logging` becomes lines of the request log: all of Portico's
    from the log's level on, and asyncio's warnings, which are about tasks that failed where nobody looked.

    For a process that is a server and nothing else: a program that embeds one decides itself about its logging.
    """

    _LOGGERS = ("portico", "asyncio")

    def __init__(self, log: RequestLog) -> None:
        super().__init__(log.level)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._log.record(record)
        except Exception:  # as every handler: a message that cannot be put together must not fail its request
            self.handleError(record)

    def __enter__(self) -> Self:
        self._before = logging.getLogger("portico").level
        logging.getLogger("portico").setLevel(self._log.level)
        for name in self._LOGGERS:
            logging.getLogger(name).addHandler(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in self._LOGGERS:
            logging.getLogger(name).removeHandler(self)
        logging.getLogger("portico").setLevel(self._before)


def _as_texts(ended: list[Ended]) -> list[bytes]:
    lines, second, clock = [], -1, ""
    for each in ended:
        if int(each.at) != second:  # wording the time is a quarter of wording the line
            second = int(each.at)
            clock = time.strftime("%H:%M:%S", time.localtime(second))
        lines.append(_as_text(each, clock))
        if each.said is not None and each.account.model:
            lines.append(_line(f"{clock} {each.tag} prompt {each.said.prompt}"))
            lines.append(_line(f"{clock} {each.tag} answer {each.said.answer}"))
    return lines


def _as_text(ended: Ended, clock: str) -> bytes:
    account, usage = ended.account, ended.account.usage
    if account.model:
        what = f"{account.route.rpartition('/')[2] or account.route} {account.model.removesuffix(':latest')}"
    else:
        what = f"{ended.method} {ended.path}"
    tokens = first = ""
    if usage is not None:
        cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
        tokens = f"  {usage.input_tokens} in{cached}  {usage.output_tokens} out"
    if account.first:
        first = f"  first {seconds((account.first - account.started) / 1e9)}"
    note = f"  {ended.note}" if ended.note else ""
    took = seconds(ended.took / 1e9)
    return _line(f"{clock} {ended.status} {ended.tag} {what}{tokens}{first}  {took}{note}")


def _line(text: str) -> bytes:
    if not (text.isascii() and text.isprintable()):
        # A path or a prompt may hold anything, also what a terminal would obey.
        text = _CONTROL.sub("?", text.replace("\n", "\\n"))
    return text.encode("utf-8", "replace") + b"\n"


def _as_json(ended: Ended) -> bytes:
    account = ended.account
    usage = account.usage
    entry: dict[str, object] = {
        "at": _utc(ended.at),
        "event": "request",
        "request_id": ended.tag,
        "method": ended.method,
        "path": ended.path,
        "status": ended.status,
        "dialect": account.dialect,
        "model": account.model or None,
        "input_tokens": usage.input_tokens if usage else None,
        "output_tokens": usage.output_tokens if usage else None,
        "cached_tokens": usage.cached_tokens if usage else None,
        "finish_reason": account.finish or None,
        "load_ms": account.load_ns / 1e6,
        "first_ms": (account.first - account.started) / 1e6 if account.first else None,
        "took_ms": ended.took / 1e6,
    }
    if ended.note:
        entry["error"] = ended.note
    if ended.said is not None and account.model:
        entry |= {"prompt": ended.said.prompt, "answer": ended.said.answer}
    return msgspec.json.encode(entry) + b"\n"


def seconds(value: float) -> str:
    """8.4 ms, 142 ms, 5.4 s, 28 s."""
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _on_one_line(value: object) -> str:
    return str(value).replace("\n", " ")


def _utc(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"

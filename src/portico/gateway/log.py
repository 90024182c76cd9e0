"""The request log: one line a request, as text for people or JSON for machines, on stderr.

Lines are collected and written together a few times a second: a write for each would be a tenth of the cost
of a short request. Prompts and keys are never in it; prompts and answers only when asked for.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from typing import Literal

import msgspec

from portico.web import Account

_PAUSE = 0.05
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class RequestLog:
    """Owns the lines not written yet. `level` above info silences all but failures (status 500 and up)."""

    def __init__(
        self, *, form: Literal["text", "json"] = "text", level: str = "info", descriptor: int | None = None
    ) -> None:
        self._json = form == "json"
        self._level = _LEVELS[level]
        self._descriptor = descriptor if descriptor is not None else sys.stderr.fileno()
        self._lines: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None

    def request(
        self, tag: str, method: str, path: str, status: int, account: Account, note: str = ""
    ) -> None:
        """One line for a request that has ended. `note` is an error's message."""
        if self._level > 20 and status < 500:
            return
        if not account.model and status < 400 and self._level > 10:
            return  # health checks and listings say nothing unless asked for
        line = self._as_json if self._json else self._as_text
        self._lines.append(line(tag, method, path, status, account, note))
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_PAUSE, self.flush)

    def say(self, event: str, **facts: object) -> None:
        """A line about the server itself, such as an engine that died."""
        if self._level > 30:
            return
        if self._json:
            line = msgspec.json.encode({"at": _utc(), "event": event, **facts}) + b"\n"
        else:
            told = "  ".join(f"{key} {value}" for key, value in facts.items())
            line = f"{time.strftime('%H:%M:%S')} {event}  {told}\n".encode()
        self._lines.append(line)
        self.flush()

    def flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        lines, self._lines = self._lines, []
        rest = memoryview(b"".join(lines))
        try:
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
        except OSError:
            pass  # nobody reads the log any more; that must not stop the server

    def _as_text(self, tag: str, method: str, path: str, status: int, account: Account, note: str) -> bytes:
        took = (time.perf_counter_ns() - account.started) / 1e9
        what = account.route.rpartition("/")[2] or account.route if account.model else f"{method} {path}"
        pieces = [time.strftime("%H:%M:%S"), str(status), tag, what]
        if account.model:
            pieces.append(account.model)
        usage = account.usage
        if usage is not None:
            cached = f" ({usage.cached_tokens} cached)" if usage.cached_tokens else ""
            pieces.append(f" {usage.input_tokens} in{cached}  {usage.output_tokens} out")
        if account.first:
            pieces.append(f" first {seconds((account.first - account.started) / 1e9)}")
        pieces.append(f" {seconds(took)}")
        if note:
            pieces.append(f" {note}")
        # A path may hold anything, also what a terminal would obey.
        return _CONTROL.sub("?", " ".join(pieces)).encode("utf-8", "replace") + b"\n"

    def _as_json(self, tag: str, method: str, path: str, status: int, account: Account, note: str) -> bytes:
        usage = account.usage
        entry: dict[str, object] = {
            "at": _utc(),
            "event": "request",
            "request_id": tag,
            "method": method,
            "path": path,
            "status": status,
            "dialect": account.dialect,
            "model": account.model or None,
            "input_tokens": usage.input_tokens if usage else None,
            "output_tokens": usage.output_tokens if usage else None,
            "cached_tokens": usage.cached_tokens if usage else None,
            "finish_reason": account.finish or None,
            "load_ms": account.load_ns / 1e6,
            "first_ms": (account.first - account.started) / 1e6 if account.first else None,
            "took_ms": (time.perf_counter_ns() - account.started) / 1e6,
        }
        if note:
            entry["error"] = note
        return msgspec.json.encode(entry) + b"\n"


def seconds(value: float) -> str:
    """8.4 ms, 142 ms, 5.4 s, 28 s."""
    if value < 0.01:
        return f"{value * 1000:.1f} ms"
    if value < 1:
        return f"{value * 1000:.0f} ms"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"


def _utc() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime()) + f".{time.time_ns() // 1_000_000 % 1000:03d}Z"

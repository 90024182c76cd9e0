"""What the connections of one listener share: limits, how an error is worded, whether it is stopping."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from email.utils import formatdate
from typing import TYPE_CHECKING

import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from portico.config import Config
from portico.errors import PorticoError

if TYPE_CHECKING:
    from portico.gateway.listen.connection import GuardedProtocol

log = logging.getLogger("portico.listen")

# (path, error) -> (body, content type, further headers) in that path's dialect. Called exactly once for each
# request that is answered before the application ran, or in its place: the composer counts there.
Refuse = Callable[[str, PorticoError], tuple[bytes, bytes, Sequence[tuple[bytes, bytes]]]]


_AT_ONCE = 100  # connections looked at before others get their turn


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What one caller may ask of the listener. Bytes, and seconds that are met to within two ticks."""

    body_bytes: int = 128 * 1024 * 1024  # of one request: 413
    streamed_paths: tuple[str, ...] = ()  # beginnings of paths whose bodies go to disk and may be larger
    header_bytes: int = 64 * 1024  # of one request, its first line included: 431
    header_count: int = 256  # 431
    connections: int = 4096  # further ones: 503
    header_seconds: float = 20.0  # from a request's first byte to the end of its headers: 408
    body_seconds: float = 60.0  # without progress in a request's body: 408
    idle_seconds: float = 75.0  # without a request: the connection is closed
    unread_seconds: float = 300.0  # an answer of which nothing is read: the connection is closed
    linger_seconds: float = 2.0  # what a refused caller still sends is read and thrown away this long
    pipelined: int = 64  # requests waiting on one connection behind the one that runs: 400

    @classmethod
    def of(cls, config: Config) -> Limits:
        return cls(
            body_bytes=config.max_body_bytes,
            header_bytes=config.max_header_bytes,
            connections=config.max_connections,
            header_seconds=config.header_timeout,
            body_seconds=config.body_timeout,
            idle_seconds=config.idle_timeout,
        )

    def body_limit(self, path: str) -> float:
        return math.inf if self.streamed_paths and path.startswith(self.streamed_paths) else self.body_bytes

    @property
    def tick(self) -> float:
        """Seconds between two looks at every connection."""
        shortest = min(self.header_seconds, self.body_seconds, self.idle_seconds, self.unread_seconds)
        return min(1.0, max(0.02, shortest / 3))


class Patience(msgspec.Struct, frozen=True):
    """The time limits in ticks. A connection counts ticks: it reads no clock, and a loop that was blocked
    or a laptop that slept does not cut callers off."""

    header: int
    body: int
    idle: int
    unread: int
    linger: int

    @classmethod
    def of(cls, limits: Limits) -> Patience:
        def ticks(seconds: float) -> int:
            # + 1: the first tick may come right after the count began.
            return math.ceil(seconds / limits.tick) + 1

        return cls(
            ticks(limits.header_seconds),
            ticks(limits.body_seconds),
            ticks(limits.idle_seconds),
            ticks(limits.unread_seconds),
            ticks(limits.linger_seconds),
        )

    @property
    def least(self) -> int:
        return min(self.header, self.body, self.idle, self.unread, self.linger)


class Gate(ServerState):
    """Counts connections and running requests. Owned by the Listener; connections come and go by themselves."""

    connections: set[GuardedProtocol]  # type: ignore[assignment]

    def __init__(self, limits: Limits, refuse: Refuse) -> None:
        super().__init__()
        self.limits, self.refuse = limits, refuse
        self.patience = Patience.of(limits)
        self.least = self.patience.least
        self.stopping = False
        self.changed = asyncio.Event()  # set, while stopping, when the last request or connection ended
        self.lines = _lines()  # headers of every answer, as they are written

    async def watch(self) -> None:
        """Ticks for ever."""
        while True:
            await asyncio.sleep(self.limits.tick)
            self.lines = _lines()
            present = tuple(self.connections)
            for first in range(0, len(present), _AT_ONCE):
                for connection in present[first : first + _AT_ONCE]:
                    self._look_at(connection)
                await asyncio.sleep(0)  # 4,000 connections take 10 ms: not while others wait for a token

    def _look_at(self, connection: GuardedProtocol) -> None:
        try:
            if connection in self.connections:
                connection.tick()
        except Exception:  # or no connection would have time limits any more
            log.exception("Looking at a connection failed; it is cut.")
            connection.transport.abort()

    @property
    def full(self) -> bool:
        return len(self.connections) > self.limits.connections

    @property
    def overrun(self) -> bool:
        """So many over the limit that they are not even told: each refusal costs memory too."""
        return len(self.connections) > self.limits.connections * 9 // 8 + 32

    def left(self, connection: GuardedProtocol) -> None:
        self.connections.discard(connection)
        if self.stopping and not self.connections:
            self.changed.set()

    def ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if self.stopping and not self.tasks:
            self.changed.set()

    def error_answer(self, path: str, error: PorticoError, *, bodiless: bool) -> bytes:
        """A whole answer that ends its connection."""
        body, content_type, more = self.refuse(path, error)
        framing = ((b"content-type", content_type), (b"content-length", b"%d" % len(body)))
        headers = (*framing, *error.headers, *more)
        lines = b"".join(b"%b: %b\r\n" % header for header in headers)
        head = b"%b%b%bconnection: close\r\n\r\n" % (STATUS_LINE[error.status], self.lines, lines)
        return head if bodiless else head + body


def _lines() -> bytes:
    return b"server: portico\r\ndate: %b\r\n" % formatdate(usegmt=True).encode()

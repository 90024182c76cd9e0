"""Pooled, kept-alive HTTP/1.1 connections to one server: how the gateway talks to engines.

Our own because the client is what a gateway costs: measured, 40 us of CPU a request against 105 for aiohttp
and over 1,000 for httpx. It does what an engine's HTTP needs and no more: no redirects, no cookies, no
compression (it never offers any), no HTTP/2.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools

from portico.errors import (
    EngineError,
    UpstreamClosed,
    UpstreamTimeout,
    UpstreamUnreachable,
    UpstreamUntrusted,
)
from portico.web.dial import Dial, basic, read_proxy, tls_context, why_untrusted
from portico.web.tracing import passed_on

IDLE_SECONDS = 4.0
"""llama.cpp closes a connection that idles for 5 s; one taken from the pool just then would fail."""
TLS_IDLE_SECONDS = 30.0
"""A new connection costs several round trips there. A server that closes it earlier says so, and it is dropped."""
AT_ONCE_SECONDS = 1.0
"""Within this a request that was sent on a kept connection is told that the connection was gone."""
READ_BYTES = 16 * 1024
"""Read at once at most. A transport's own reads (256 KB) would alone be what one slow caller may hold."""
QUEUED_BYTES = 32 * 1024
"""What the kernel holds of a reply from this machine before the engine has to wait; by itself it takes megabytes,
thousands of tokens that a caller who does not read may never want. Far servers need them to be fast."""
HIGH_WATER = 16 * 1024
"""Bytes of a reply held for a caller who reads slowly; beyond them the engine's socket is not read."""

Headers = Sequence[tuple[bytes, bytes]]


class Answer(NamedTuple):
    """A whole reply."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


class Reply:
    """A reply whose head has arrived. Close it: `read()` to the end does, `close()` ends it at once."""

    __slots__ = (
        "_connection",
        "_pieces",
        "_sink",
        "_size",
        "complete",
        "error",
        "headers",
        "status",
        "waiter",
    )

    def __init__(self, connection: _Connection) -> None:
        self._connection = connection
        self._pieces: list[bytes] = []
        self._size = 0
        self.waiter: asyncio.Future[None] | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.complete = False
        self.error: EngineError | None = None

    def header(self, name: bytes) -> bytes | None:
        """The first header of that (lower-case) name."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    @property
    def has_end(self) -> bool:
        """It tells where it ends; another one ends with its connection."""
        return any(name in (b"content-length", b"transfer-encoding") for name, _ in self.headers)

    async def chunk(self) -> bytes:
        """All bytes that have arrived since, waiting for some; b"" at the end.

        Raises UpstreamClosed if the connection ends before the reply does, UpstreamTimeout if it is silent.
        """
        while not self._pieces:
            if self.complete:
                return b""
            if self.error is not None:
                raise self.error
            # Not a method: a stream waits here for every chunk.
            self.waiter = self._connection.loop.create_future()
            await self.waiter
        return self._take()

    async def pour(self, sink: Callable[[bytes], bool]) -> None:
        """Calls `sink` with the bytes as they arrive, straight from the event loop, until it returns False or the
        reply has ended; `chunk` goes on from there. What it saves is waking a task for every chunk, a fifth of
        what relaying one costs."""
        if self._pieces or self.complete or self.error is not None:
            return
        self._sink = sink
        self.waiter = self._connection.loop.create_future()
        try:
            await self.waiter
        finally:
            self._sink = None

    async def read(self) -> bytes:
        """The rest of the body."""
        if self.complete:
            return self._take()
        parts = []
        while piece := await self.chunk():
            parts.append(piece)
        return b"".join(parts)

    def close(self) -> None:
        """Ends the connection at once, so that the engine stops generating; after the end, does nothing."""
        if not self.complete:
            self._connection.abort()

    def wake(self) -> None:
        """Something has happened: bytes, the end, or an error (called by the connection)."""
        sink = self._sink
        if sink is not None and self._pieces:
            try:
                more = sink(self._take())
            except Exception as error:  # belongs to the task that pours, not to the event loop
                self._sink = None
                if self.waiter is not None and not self.waiter.done():
                    self.waiter.set_exception(error)
                return
            if more and not self.complete and self.error is None:
                return
            self._sink = None
        waiter = self.waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    @property
    def unread(self) -> int:
        """Bytes that have arrived and were not asked for yet."""
        return self._size

    def push(self, body: bytes) -> int:
        """Takes a stretch of the body; the bytes that are unread now (called by the connection)."""
        self._pieces.append(body)
        self._size = size = self._size + len(body)
        return size

    def _take(self) -> bytes:
        pieces, self._pieces, self._size = self._pieces, [], 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        connection = self._connection
        if connection.paused and not self.complete:
            connection.resume()
        return body


def shown(url: str) -> str:
    """The URL without what stands before its @, and without a slash at its end: errors quote it, and callers read
    them."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return url.rstrip("/").replace(parts.netloc, host, 1) if parts.netloc else url.rstrip("/")


class Upstream:
    """Connections to one server. Owns its pool; belongs to one event loop.

    `url` is `http(s)://host:port[/prefix]` or `unix:///path/of.sock`. `headers` go with every request.
    Seconds, 0 for no limit: `connect` until there is a connection; `first_byte` until the body of a reply begins,
    for some engines send its head before they have read the prompt; `between` two stretches of it. `tls` is what
    https is checked against, `proxy` the URL of an HTTP proxy.
    """

    def __init__(
        self,
        url: str,
        *,
        headers: Headers = (),
        connect: float = 10.0,
        first_byte: float = 600.0,
        between: float = 300.0,
        tls: ssl.SSLContext | None = None,
        proxy: str | None = None,
    ) -> None:
        parts = urlsplit(url)
        host = "localhost" if parts.scheme == "unix" else parts.netloc.rpartition("@")[2]
        self.url = self.told = shown(url)
        self.first_byte, self.between = first_byte or math.inf, between or math.inf
        secure = (tls or tls_context()) if parts.scheme == "https" else None
        self.idle_seconds = TLS_IDLE_SECONDS if secure else IDLE_SECONDS
        through = read_proxy(proxy) if proxy else None
        self.dial = dial = Dial(parts, self.url, seconds=connect, tls=secure, proxy=through)
        self._prefix = "" if parts.scheme == "unix" else parts.path.rstrip("/")
        if (authorization := basic(parts)) and not any(name == b"authorization" for name, _ in headers):
            headers = [*headers, (b"authorization", authorization)]
        if through is not None and dial.forwarded:
            self.told = f"{self.url}, through the proxy {through.url},"
            self._prefix = f"http://{host}{self._prefix}"
            headers = [*headers, *through.headers]
        fixed = [(b"host", host.encode()), (b"accept-encoding", b"identity"), *headers]
        self._fixed = b"".join(b"%b: %b\r\n" % pair for pair in fixed)
        self.buffer = memoryview(bytearray(READ_BYTES))
        self._heads: dict[tuple[str, str], bytes] = {}
        self._idle: list[_Connection] = []
        self._open: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self.closed = False

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._open)

    @property
    def busy(self) -> int:
        """Connections that carry a request now."""
        return len(self._open) - len(self._idle)

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Headers = (),
        *,
        first_byte: float | None = None,
    ) -> Reply:
        """Sends a request and returns its reply as soon as the head is there.

        A reused connection that closes at once, before any byte, was idle too long for the server: the request is sent
        once more on a new one. One that closes later was worked on, and is not asked for a second time unasked. Raises UpstreamUnreachable, UpstreamClosed, UpstreamTimeout.
        """
        if further := passed_on.get():
            headers = (*headers, *further)
        message = self._message(method, path, body, headers)
        connection = self._reuse()
        if connection is not None:
            try:
                reply = await connection.exchange(message, first_byte or self.first_byte)
            except UpstreamClosed:
                if connection.heard or time.monotonic() - connection.since > AT_ONCE_SECONDS:
                    raise
            else:
                return self._checked(reply) if self.dial.forwarded else reply
        connection = await self._connect()
        reply = await connection.exchange(message, first_byte or self.first_byte)
        return self._checked(reply) if self.dial.forwarded else reply

    def _checked(self, reply: Reply) -> Reply:
        """A reply that is the server's. Raises ProxyFailed for one that the proxy gave in its place: 407 is, and so
        is a page for people that says it got none."""
        status = reply.status
        page = status in (502, 503, 504) and (reply.header(b"content-type") or b"").startswith(b"text/html")
        if status == 407 or page:
            reply.close()
            raise self.dial.refused(status)
        return reply

    async def fetch(self, method: str, path: str, body: bytes = b"", headers: Headers = ()) -> Answer:
        """Sends a request and reads the whole reply."""
        reply = await self.request(method, path, body, headers)
        try:
            return Answer(reply.status, reply.headers, await reply.read())
        finally:
            reply.close()

    def close(self) -> None:
        """Ends every connection, those in use too: their requests get UpstreamClosed."""
        self.closed = True
        for connection in list(self._open):
            connection.abort()
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None

    # ---- inside

    def _message(self, method: str, path: str, body: bytes, headers: Headers) -> bytes:
        head = self._heads.get((method, path))
        if head is None:
            head = f"{method} {self._prefix}{path} HTTP/1.1\r\n".encode() + self._fixed
            if len(self._heads) < 256:  # paths may carry ids: the table of heads stays small
                self._heads[method, path] = head
        extra = b"".join([b"%b: %b\r\n" % pair for pair in headers]) if headers else b""
        if body or method == "POST":
            return b"%bcontent-type: application/json\r\ncontent-length: %d\r\n%b\r\n%b" % (
                head,
                len(body),
                extra,
                body,
            )
        return b"%b%b\r\n" % (head, extra)

    def _reuse(self) -> _Connection | None:
        idle, oldest = self._idle, time.monotonic() - self.idle_seconds
        while idle:
            connection = idle.pop()
            if connection.since >= oldest and not connection.transport.is_closing():
                return connection
            connection.abort()
        return None

    async def _connect(self) -> _Connection:
        if self.closed:
            raise UpstreamUnreachable(url=self.url, reason="it is being stopped")
        connection = await self.dial.connect(lambda: _Connection(self))
        if not connection.lost:
            self._open.add(connection)
        if self._sweeper is None:
            self._sweep()
        return connection

    def _sweep(self) -> None:
        """Looks at all connections a few times in the shortest limit, which costs less than a timer for
        every chunk: closes what idles too long, fails what is silent too long."""
        self._sweeper = None
        now = time.monotonic()
        for connection in list(self._open):
            connection.check(now)
        if self._open:
            pause = min(1.0, self.first_byte / 4, self.between / 4)
            self._sweeper = asyncio.get_running_loop().call_later(pause, self._sweep)

    def release(self, connection: _Connection) -> None:
        """A connection whose reply is whole comes back (called by the connection)."""
        if self.closed:
            connection.abort()
        else:
            self._idle.append(connection)

    def forget(self, connection: _Connection) -> None:
        """A connection has ended (called by the connection)."""
        self._open.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)


class _Connection(asyncio.BufferedProtocol):
    """One connection: carries one request at a time and feeds its reply."""

    __slots__ = (
        "_cause",
        "_keep",
        "headed",
        "heard",
        "limit",
        "loop",
        "lost",
        "parser",
        "paused",
        "reply",
        "since",
        "transport",
        "upstream",
    )

    transport: asyncio.Transport

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpResponseParser(self)
        self.reply: Reply | None = None
        self.heard = False
        self.lost = False
        self.since = time.monotonic()
        self.limit = 0.0
        self.headed = 0.0
        """The value that `since` had when the head of the reply came, as long as nothing has come after it."""
        self._cause: EngineError | None = None
        self._keep = True
        self.paused = False

    async def exchange(self, message: bytes, first_byte: float) -> Reply:
        """Sends `message` and waits for the reply's head."""
        self.reply = reply = Reply(self)
        self.heard = False
        self.since = time.monotonic()
        self.limit = first_byte
        if self.lost:
            raise self._cause or UpstreamClosed(url=self.upstream.told)
        self.transport.write(message)
        try:
            while not reply.status:
                if reply.error is not None:
                    raise reply.error
                reply.waiter = self.loop.create_future()
                await reply.waiter
            reply.waiter = None
            if reply.unread:
                self.headed = 0.0
        except BaseException:
            self.abort()
            raise
        return reply

    def abort(self) -> None:
        """Ends the connection now; a reply under way gets UpstreamClosed."""
        self._fail(UpstreamClosed(url=self.upstream.told))
        self.upstream.forget(self)
        self.transport.abort()

    def resume(self) -> None:
        if self.paused:
            self.paused = False
            if not self.transport.is_closing():
                self.transport.resume_reading()

    def check(self, now: float) -> None:
        """Called from time to time: gives up on a silent server, closes an idle connection."""
        silent, reply = now - self.since, self.reply
        if reply is None:
            if silent > self.upstream.idle_seconds:
                self.abort()
            return
        began = reply.status and self.since != self.headed
        limit = self.upstream.between if began else self.limit
        if silent > limit and not reply.unread:
            # Unread bytes mean that our caller is slow, not the engine.
            first = "first_token_timeout" if limit == self.upstream.first_byte else None
            setting = "token_timeout" if began else first
            self._fail(UpstreamTimeout(url=self.upstream.told, seconds=limit, setting=setting))
            self.abort()

    def _fail(self, error: EngineError) -> None:
        reply, self.reply = self.reply, None
        if reply is not None and reply.error is None:
            reply.error = error
            reply.wake()

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        sock, peer = transport.get_extra_info("socket"), transport.get_extra_info("peername")
        if sock is not None and isinstance(peer, tuple) and str(peer[0]).startswith("127."):
            with contextlib.suppress(OSError):  # of a server that has hung up already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUEUED_BYTES)

    def get_buffer(self, sizehint: int) -> memoryview:
        # All connections read into the same one: it is used up before anything else is read.
        return self.upstream.buffer

    def buffer_updated(self, size: int) -> None:
        self.since = time.monotonic()
        self.heard = True
        reply = self.reply
        try:
            self.parser.feed_data(self.upstream.buffer[:size])
        except httptools.HttpParserError:
            self.abort()
            return
        if reply is not None:
            reply.wake()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.upstream.forget(self)
        reply = self.reply
        if reply is not None and reply.status and not reply.has_end and error is None:
            self.reply = None
            reply.complete = True
            reply.wake()
            return
        self._cause = UpstreamClosed(url=self.upstream.told)
        if isinstance(error, ssl.SSLError) and not self.heard:
            # In TLS 1.3 a server says only after the handshake that it does not accept our certificate.
            self._cause = UpstreamUntrusted(url=self.upstream.url, reason=why_untrusted(error, ""))
        self._fail(self._cause)

    # ---- httptools

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.reply is not None:
            self.reply.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        reply = self.reply
        if reply is None:
            return
        status = self.parser.get_status_code()
        if status < 200:  # 100 Continue and 103 Early Hints come before the reply
            reply.headers.clear()
            return
        self._keep = self.parser.should_keep_alive()
        self.headed = self.since
        reply.status = status

    def on_body(self, body: bytes) -> None:
        reply = self.reply
        if reply is None:
            return
        if reply.push(body) > HIGH_WATER and not self.paused:
            self.paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        reply = self.reply
        if reply is None or not reply.status:
            return
        self.reply = None
        reply.complete = True
        if self.paused:
            self.resume()
        if self._keep:
            self.upstream.release(self)
        else:
            self.upstream.forget(self)
            self.transport.close()

"""One caller's connection: uvicorn's HTTP protocol with limits, time limits, hang-ups and an orderly end."""

from __future__ import annotations

import logging
import select
from collections import deque
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import httptools
import uvicorn
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from portico.errors import (
    BodyTooLarge,
    ConnectionsFull,
    HeadersTooLarge,
    InvalidRequest,
    PorticoError,
    RequestTimeout,
    ShuttingDown,
)
from portico.gateway.listen.exchange import Exchange, Hangup
from portico.gateway.listen.gate import Gate

log = logging.getLogger("portico.listen")

WRITE_BUFFER = 32 * 1024  # bytes of answers waiting in the process before `send` blocks
ASGI = {"version": "3.0", "spec_version": "2.3"}


class Refused(Exception):
    """Raised from a callback of the parser: it is the only way to stop it in the middle of its input."""


class GuardedProtocol(HttpToolsProtocol):
    """Owns a connection's exchanges: `running` has its application at work, `pipeline` wait behind it, and
    `cycle` is the newest, whose body is coming in.

    uvicorn's part: the parser and its callbacks for line and headers, addresses, flow control. Its own
    timers are replaced by `tick`, its cycle by Exchange, its pausing of pipelined connections by a count,
    since a connection that is not read does not notice that its caller left.
    """

    cycle: Exchange | None  # type: ignore[assignment]
    pipeline: deque[Exchange]  # type: ignore[assignment]

    def __init__(self, config: uvicorn.Config, gate: Gate) -> None:
        super().__init__(config, gate, {})
        self.gate, self.logger, self.access_log = gate, log, False
        self.running: Exchange | None = None
        self.cycle = None
        self.in_head = False  # a request's first byte is there, the end of its headers is not
        self.skipped_body = b""  # the header that frames a body which the parser left out
        self.owed = 0  # bytes received that became neither a head nor a body
        self.age = 0  # ticks since the last progress
        self.unsent = 0  # bytes waiting to be written at the last tick
        self.surplus = False  # over the limit of connections
        self.deaf = False  # whatever still comes is thrown away
        self.lingering = False  # our side is closed, we wait for theirs
        self.refusal: bytes | None = None  # written when the exchanges before it are through

    # ---- transport

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=WRITE_BUFFER)
        self.surplus = self.gate.full
        if self.gate.overrun:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up()
        self.flow.resume_writing()
        self.running = self.cycle = None
        self.deaf = True
        self.parser = None  # type: ignore[assignment]  # it holds our bound methods: a cycle for the collector
        self.gate.left(self)

    def eof_received(self) -> None:
        """A caller who closes its sending half counts as gone; the transport then closes by itself, after
        what it still holds of answers that are complete."""
        cut_short = self.running is not None
        self._hang_up()
        self.deaf, self.age = True, 0
        if cut_short:
            self.transport.abort()

    def _hang_up(self) -> None:
        if self.running is not None:
            exchanges = (self.running, *self.pipeline)
            self.pipeline.clear()
            for exchange in exchanges:
                exchange.hang_up()

    def data_received(self, data: bytes) -> None:
        if self.deaf:
            return
        if not self.owed and not self.in_head:
            self.age = 0
        self.owed += len(data)
        self._feed(data)
        if self.owed > self.gate.limits.header_bytes and not self.deaf:
            self._unreadable(self._headers_too_large())

    def _feed(self, data: bytes) -> None:
        while data:
            try:
                self.parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                self._refuse_upgrade()
                data = data[upgrade.args[0] :]
            except httptools.HttpParserError as error:
                if isinstance(error.__context__, Refused):
                    return
                if isinstance(error, httptools.HttpParserCallbackError):
                    log.error("%s: a callback of the parser failed", self.client, exc_info=error)
                log.debug("%s: not HTTP: %s", self.client, error)
                self._unreadable(InvalidRequest("This is not a valid HTTP request."))
                return

    def _refuse_upgrade(self) -> None:
        """Goes on as if the caller had not asked for another protocol (Java's client asks for h2c each time).

        The parser takes nothing after such a request, not even its body: a new one does, told of the body by
        a head of our own, which `on_headers_complete` passes over.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        if self.skipped_body:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n\r\n" % self.skipped_body)

    # ---- parser

    def on_message_begin(self) -> None:
        self.url = b""
        self.headers = []
        self.in_head, self.age = True, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        headers, self.headers = self.headers, []  # what the parser still adds are trailers: nobody's
        owed, self.owed, self.age = self.owed, 0, 0
        self.in_head = False
        if self.skipped_body:
            self.skipped_body = b""
            return
        named = dict(headers)
        declared = int(named.get(b"content-length", 0))
        method = self.parser.get_method().decode()
        path, raw_path, query = _target(self.url)
        error = self._objection(headers, owed, declared, path)
        if error is not None:
            self.refuse(error, path, bodiless=method == "HEAD")
            raise Refused
        if self.parser.should_upgrade():
            framing = (b"content-length", b"transfer-encoding")
            self.skipped_body = b"\r\n".join(b"%b: %b" % each for each in headers if each[0] in framing)
        version, hangup = self.parser.get_http_version(), Hangup()
        scope = {
            "type": "http",
            "asgi": ASGI,
            "http_version": version,
            "server": self.server,
            "client": self.client,
            "scheme": "http",
            "method": method,
            "root_path": "",
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
            "extensions": {"portico.hangup": hangup},
        }
        self.cycle = exchange = Exchange(
            self,
            scope,
            hangup,
            named,
            keep_alive=version == "1.1" and self.parser.should_keep_alive(),
            awaits_continue=version == "1.1" and named.get(b"expect", b"").lower() == b"100-continue",
        )
        if self.running is None:
            self._start(exchange)
        else:
            self.pipeline.append(exchange)

    def _objection(
        self, headers: list[tuple[bytes, bytes]], owed: int, declared: int, path: str
    ) -> PorticoError | None:
        """Why this request is not even given to the application, or None."""
        limits = self.gate.limits
        if owed > limits.header_bytes or len(headers) > limits.header_count:
            # `owed` may hold bytes of the body too: only now it is worth adding up.
            size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in headers)
            if size > limits.header_bytes or len(headers) > limits.header_count:
                return self._headers_too_large()
        if self.gate.stopping:
            return ShuttingDown()
        if self.surplus and self.gate.full:
            return ConnectionsFull(limit=limits.connections)
        if declared > limits.body_bytes and declared > limits.body_limit(path):
            return BodyTooLarge(limit=limits.body_bytes)
        if not path:
            return InvalidRequest("The request's target is not a path.")
        if len(self.pipeline) >= limits.pipelined:
            return InvalidRequest(f"More than {limits.pipelined} requests are waiting on this connection.")
        return None

    def _headers_too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(limit=self.gate.limits.header_bytes, count=self.gate.limits.header_count)

    def on_body(self, body: bytes) -> None:
        self.age = self.owed = 0
        exchange = self.cycle
        if exchange is None:
            return
        exchange.taken += len(body)
        limits = self.gate.limits
        if exchange.taken > limits.body_bytes and exchange.taken > limits.body_limit(exchange.path):
            self._give_up_body(exchange, BodyTooLarge(limit=limits.body_bytes))
        elif not exchange.response_complete:
            exchange.feed(body)
            if exchange.held > HIGH_WATER_LIMIT:
                self.flow.pause_reading()

    def on_message_complete(self) -> None:
        self.age = self.owed = 0
        if self.cycle is not None and not self.skipped_body:
            self.cycle.end_body()

    # ---- exchanges

    def _start(self, exchange: Exchange) -> None:
        self.running = exchange
        self.tasks.add(exchange.begin(self.app))

    def answered(self, exchange: Exchange) -> None:
        """The running exchange's answer is complete."""
        self.running, self.age = None, 0
        if self.cycle is exchange and not exchange.more_body:
            self.cycle = None  # a silent connection holds nothing of its last request
        if self.transport.is_closing():
            return
        if not exchange.keep_alive:
            self._leave(linger=exchange.more_body)
        elif self.pipeline:
            self._start(self.pipeline.popleft())
        elif self.refusal is not None:
            self.transport.write(self.refusal)
            self._leave(linger=True)
        elif self.flow.read_paused:
            self.flow.resume_reading()

    def answer_error(self, error: PorticoError, exchange: Exchange) -> None:
        """Answers in place of the application, and ends the connection."""
        self.running = None
        self.pipeline.clear()
        self.refuse(error, exchange.path, bodiless=exchange.scope["method"] == "HEAD")

    def break_off(self) -> None:
        """Half an answer is out and the rest will not come."""
        self.running = None
        self._leave()

    def refuse(self, error: PorticoError, path: str, *, bodiless: bool = False) -> None:
        """Answers with `error` once the exchanges before it are through; then the connection ends."""
        self.deaf = True
        log.debug("%s: refused %s: %s", self.client, path, error)
        self.refusal = self.gate.error_answer(path, error, bodiless=bodiless)
        if self.running is None and not self.transport.is_closing():
            self.transport.write(self.refusal)
            self._leave(linger=True)

    def _unreadable(self, error: PorticoError) -> None:
        """What comes in cannot be read any further: it was a head, or the body of the newest exchange."""
        if self.cycle is not None and self.cycle.more_body:
            self._give_up_body(self.cycle, error)
        else:
            self.refuse(error, _target(self.url)[0] if self.in_head else "/")

    def _give_up_body(self, exchange: Exchange, error: PorticoError) -> None:
        self.deaf = True
        if exchange.response_complete:
            self._leave(linger=True)
        else:
            exchange.fail_body(error)
            self.flow.resume_reading()

    def _leave(self, *, linger: bool = False) -> None:
        """Closes. A caller who may still be sending is read for a moment: closing on unread bytes resets the
        connection, and the caller would lose the answer it is about to read."""
        self.deaf, self.age = True, 0
        if not linger:
            self.transport.close()
        elif not self.lingering:
            self.lingering = True
            self.flow.resume_reading()
            try:
                self.transport.write_eof()
            except OSError:  # asyncio's own loop raises it where the other side has reset the connection
                self.transport.abort()

    # ---- time

    def tick(self) -> None:
        """Called by the gate. Decides in this order; each limit counts ticks without progress."""
        self.age += 1
        if self.flow.read_paused and self.running is not None and _peer_left(self.transport):
            return self.transport.abort()  # (1) a connection that is not read does not tell us by itself
        if self.age < self.gate.least:
            return
        patience, exchange = self.gate.patience, self.cycle
        before, self.unsent = self.unsent, self.transport.get_write_buffer_size()
        if self.unsent:  # (2) an answer that is not read
            if self.unsent != before:
                self.age = 0
            elif self.age >= patience.unread:
                self.transport.abort()
        elif self.lingering or self.transport.is_closing():  # (3) on its way out
            if self.age >= patience.linger:
                self.transport.abort()
        elif exchange is not None and exchange.more_body:  # (4) a body that is coming in
            if self.age >= patience.body and not self.flow.read_paused:
                self._give_up_body(exchange, RequestTimeout("The request's body did not arrive in time."))
        elif self.running is not None:  # (5) the application's own time
            pass
        elif self.in_head:  # (6) half a head
            if self.age >= patience.header:
                self._unreadable(RequestTimeout("The request's headers did not arrive in time."))
        elif self.age >= (patience.header if self.surplus else patience.idle):  # (7) silence
            self._leave()

    def drain(self) -> None:
        """The server is stopping: what runs may finish, nothing new begins."""
        if self.running is not None:
            self.running.keep_alive = False
            self.pipeline.clear()
        elif self.in_head:
            self.refuse(ShuttingDown(), _target(self.url)[0])
        elif not self.lingering:
            self._leave(linger=self.cycle is not None and self.cycle.more_body)


@lru_cache(maxsize=256)
def _target(url: bytes) -> tuple[str, bytes, bytes]:
    """(path, raw path, query) of a request's target; the path is empty if there is none in it."""
    if not url.startswith(b"/") or b"#" in url:
        try:
            parsed = httptools.parse_url(url)
        except httptools.HttpParserError:
            return "", b"", b""
        raw, query = parsed.path or b"", parsed.query or b""
    else:
        raw, _, query = url.partition(b"?")
    path = raw.decode("ascii")  # the parser lets nothing else through
    return (unquote(path) if "%" in path else path), raw, query


def _peer_left(transport: Any) -> bool:
    """Whether the other side has closed, seen without reading. False where the system cannot say."""
    flags = getattr(select, "POLLRDHUP", 0) | getattr(select, "POLLHUP", 0)
    sock = transport.get_extra_info("socket")
    if not flags or sock is None or sock.fileno() < 0:
        return False
    poll = select.poll()
    poll.register(sock.fileno(), flags)
    return bool(poll.poll(0))

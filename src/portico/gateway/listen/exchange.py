"""One request and its answer on a connection: ASGI's receive and send, and the news that the caller left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from portico.errors import PorticoError, ShuttingDown

if TYPE_CHECKING:
    from portico.gateway.listen.connection import GuardedProtocol

Message = MutableMapping[str, Any]
App = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]

log = logging.getLogger("portico.listen")

# Headers of an answer that decide how it is framed, so the server has to know them.
FRAMING = frozenset((b"content-length", b"transfer-encoding", b"connection"))


class Hangup:
    """Tells an application that its caller left, so that no task has to wait for it on `receive`.

    The application finds it in `scope["extensions"]["portico.hangup"]`. Owned by the connection.
    """

    __slots__ = ("_callbacks", "gone")

    def __init__(self) -> None:
        self.gone = False  # whether the caller left before its answer was complete
        self._callbacks: tuple[Callable[[], object], ...] | None = ()  # None: nobody is told any more

    def on_hangup(self, callback: Callable[[], object]) -> None:
        """`callback` runs once, from the event loop, when the caller leaves before the answer is complete.

        If the caller has left already it runs in the loop's next turn, never from inside this call. After
        the answer is complete it is dropped.
        """
        if self.gone:
            asyncio.get_running_loop().call_soon(callback)
        elif self._callbacks is not None:
            self._callbacks += (callback,)

    def forget(self, callback: Callable[[], object]) -> None:
        """`callback` is not called any more, unless the caller has left already."""
        if self._callbacks:
            self._callbacks = tuple(each for each in self._callbacks if each != callback)

    def settle(self) -> None:
        """The answer is complete (for the connection): a caller who leaves now is no hang-up."""
        self._callbacks = None

    def ring(self) -> None:
        """The caller left (for the connection)."""
        if self._callbacks is None:
            return
        callbacks, self._callbacks, self.gone = self._callbacks, None, True
        for callback in callbacks:
            try:
                callback()
            except Exception:  # one application's mistake must not keep the others from hearing
                log.exception("A hang-up callback failed.")


class Exchange:
    """One request and its answer. Owned by its connection; the application sees `receive` and `send`.

    `receive` raises a PorticoError when the request's body will not come: RequestTimeout (408), BodyTooLarge
    (413) or InvalidRequest (400). An application may answer it itself, or let it pass: then it is answered
    here. An answer's head is written together with the first `http.response.body`, as ASGI allows: one
    system call less, and an application that fails before it can still be given a proper status.
    """

    __slots__ = (
        "_bodiless",
        "_chunked",
        "_failure",
        "_flow",
        "_head",
        "_left",
        "_news",
        "_parts",
        "_started",
        "_taken_whole",
        "_task",
        "_transport",
        "_written",
        "awaits_continue",
        "connection",
        "disconnected",
        "hangup",
        "headers",
        "held",
        "keep_alive",
        "more_body",
        "response_complete",
        "scope",
        "taken",
    )

    def __init__(
        self,
        connection: GuardedProtocol,
        scope: dict[str, Any],
        hangup: Hangup,
        headers: dict[bytes, bytes],
        *,
        keep_alive: bool,
        awaits_continue: bool,
    ) -> None:
        self.connection, self.scope, self.hangup, self.headers = connection, scope, hangup, headers
        self._transport, self._flow = connection.transport, connection.flow
        self.keep_alive, self.awaits_continue = keep_alive, awaits_continue
        self.disconnected = False
        self._task: asyncio.Task[None] | None = None
        # the request
        self.more_body = True  # the body is not whole yet
        self.taken = self.held = 0  # bytes of body received, and of these not yet given to the application
        self._parts: list[bytes] = []
        self._taken_whole = False
        self._failure: PorticoError | None = None
        self._news: asyncio.Event | None = None  # made by the first `receive` that has to wait
        # the answer
        self.response_complete = False
        self._started = self._written = self._chunked = self._bodiless = False
        self._head = b""
        self._left: int | None = None  # bytes that the announced content-length still lacks

    @property
    def path(self) -> str:
        return self.scope["path"]  # type: ignore[no-any-return]

    # ---- what the connection does with it

    def begin(self, app: App) -> asyncio.Task[None]:
        """Runs the application in a task, and answers in its place where it does not."""
        self._task = task = self.connection.loop.create_task(self._run(app))
        return task

    async def _run(self, app: App) -> None:
        extensions = self.scope["extensions"]
        extensions["portico.exchange"] = self
        try:
            await app(self.scope, self.receive, self.send)
        except PorticoError as error:
            self._fail(error)
        except asyncio.CancelledError:
            # Only the stop of the server or a hang-up cancels: the first is answered, nobody hears the second.
            self._fail(ShuttingDown())
        except (
            Exception
        ):  # the last one who can tell: an application's mistake is logged and answered with 500
            log.exception("%s %s failed.", self.scope["method"], self.path)
            self._fail(PorticoError("The server failed on this request; its log says why."))
        else:
            if not (self.response_complete or self.disconnected):
                log.error("%s %s ended without a complete answer.", self.scope["method"], self.path)
                self._fail(PorticoError("The server gave no answer to this request."))
        finally:
            # Else scope and exchange would hold each other until a collection, and so would task and exchange.
            del extensions["portico.exchange"]
            if self._task is not None:
                self.connection.gate.ended(self._task)
                self._task = None

    def _fail(self, error: PorticoError) -> None:
        if self.response_complete or self.disconnected:
            return
        self.response_complete = True
        self.hangup.settle()
        if self._written:  # half an answer is out: all that is left to say is that it is not whole
            self.connection.break_off()
        else:
            self.connection.answer_error(error, self)

    def feed(self, body: bytes) -> None:
        """A stretch of the request's body has arrived."""
        self._parts.append(body)
        self.held += len(body)
        if self._news is not None:
            self._news.set()

    def end_body(self) -> None:
        self.more_body = False
        if self._news is not None:
            self._news.set()

    def fail_body(self, error: PorticoError) -> None:
        """The rest of the request's body will not come: `receive` raises `error`."""
        if self._failure is None:
            self._failure = error
        self._parts, self.held = [], 0
        self.keep_alive = False
        self._wake()

    def hang_up(self) -> None:
        """The caller left."""
        if not self.response_complete and not self.disconnected:
            self.disconnected = True
            self._wake()
            self.hangup.ring()

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()

    # ---- what the application does with it

    def body_now(self) -> bytes | None:
        """The whole body; None if it has to be taken through `receive`: it is not there yet, or not whole."""
        if self.more_body or self._taken_whole or self._failure is not None:
            return None
        if self.disconnected or self.response_complete:
            return None
        if self._flow.read_paused:
            self._flow.resume_reading()
        return self._take()

    async def receive(self) -> Message:
        if self.awaits_continue:
            self.awaits_continue = False
            if self.more_body and not (self._parts or self._written or self.disconnected):
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        while not (self.disconnected or self.response_complete):
            if self._failure is not None:
                raise self._failure
            self._flow.resume_reading()
            if self._parts or not (self.more_body or self._taken_whole):
                return {"type": "http.request", "body": self._take(), "more_body": self.more_body}
            if self._news is None:
                self._news = asyncio.Event()
            self._news.clear()
            await self._news.wait()
        return {"type": "http.disconnect"}

    def _take(self) -> bytes:
        parts, self._parts, self.held = self._parts, [], 0
        self._taken_whole = not self.more_body  # from now on `receive` waits for the end
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def send(self, message: Message) -> None:
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if self.response_complete:
            raise RuntimeError(f"{message['type']} was sent after the end of the answer.")
        if not self._started:
            if message["type"] != "http.response.start":
                raise RuntimeError(f"{message['type']} was sent before the answer's start.")
            self._head = self._build_head(message["status"], message.get("headers", ()))
            self._started = True
        elif message["type"] == "http.response.body":
            self._write(message.get("body", b""), not message.get("more_body", False))
        else:
            raise RuntimeError(f"{message['type']} was sent twice.")

    # What Portico's own application does instead, with `body_now`, where it need not wait: it finds this in
    # `extensions["portico.exchange"]`.

    def answer_now(self, status: int, lines: bytes, body: bytes) -> bool:
        """A whole answer; False if it has to go through `send`: the caller has left, or reads too slowly. `lines`:
        the head's, but for those that frame the body."""
        if self._started or self.disconnected or self.response_complete or self._flow.write_paused:
            return False
        self._started = True
        if status != 204:  # RFC 9110, 8.6: a 204 has no content-length
            lines = b"%bcontent-length: %d\r\n" % (lines, len(body))
        head = self._framed(status, lines, framed=True)
        self._written = True
        self._transport.write(head if self._bodiless else head + body)
        self._complete()
        return True

    def write_now(self, data: bytes) -> bool:
        """A further stretch of a streamed answer; False once the caller reads too slowly: then the next stretch
        goes through `send`, which waits for them."""
        if self.disconnected or self.response_complete:
            return False
        if self._chunked and data and not self._head:  # as `_write` does, in the fewest steps
            self._transport.write(b"%x\r\n%b\r\n" % (len(data), data))
        else:
            self._write(data, False)
        return not self._flow.write_paused

    def _build_head(self, status: int, headers: Headers) -> bytes:
        lines = []
        framed = False
        for name, value in headers:
            name = name.lower()
            if name in FRAMING:
                if name == b"content-length":
                    self._left, framed = int(value), True
                elif name == b"connection" and b"close" in value.lower():
                    self.keep_alive = False
                    continue  # written below
                elif name == b"transfer-encoding":
                    continue  # framing is decided below
            lines.append(b"%b: %b\r\n" % (name, value))
        joined = b"".join(lines)
        # A line break inside a value would let it write headers and bodies of its own.
        if joined.count(b"\n") != len(lines) or joined.count(b"\r") != len(lines):
            raise RuntimeError("A header of the answer has a line break in its value.")
        return self._framed(status, joined, framed=framed)

    def _framed(self, status: int, lines: bytes, *, framed: bool) -> bytes:
        """The head. `framed`: the length of the body is among `lines`."""
        if self.scope["method"] == "HEAD" or status in (204, 304):
            self._bodiless = True
        elif not framed:
            # HTTP/1.0 does not know chunks: there the end of the connection is the end of the answer.
            self._chunked = self.scope["http_version"] == "1.1"
            if self._chunked:
                lines += b"transfer-encoding: chunked\r\n"
        # Without "100 Continue" nobody knows whether the body still comes: what follows cannot be read.
        if self.awaits_continue and self.more_body:
            self.keep_alive = False
        if not self.keep_alive:
            lines += b"connection: close\r\n"
        return b"%b%b%b\r\n" % (STATUS_LINE[status], self.connection.gate.lines, lines)

    def _write(self, body: bytes, last: bool) -> None:
        if self._chunked:
            data = b"%b%x\r\n%b\r\n" % (self._head, len(body), body) if body else self._head
            if last:
                data += b"0\r\n\r\n"
        elif self._bodiless:
            data = self._head
        else:
            if self._left is not None:
                self._left -= len(body)
                if self._left < 0 or (last and self._left):
                    raise RuntimeError("The answer's body is not as long as its content-length.")
            data = self._head + body
        if data:
            self._transport.write(data)
            self._head, self._written = b"", True
        if last:
            self._complete()

    def _complete(self) -> None:
        self.response_complete = True
        self._parts.clear()  # what the application did not ask for
        self.hangup.settle()
        if self._news is not None:
            self._news.set()
        self.connection.answered(self)

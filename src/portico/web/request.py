"""One request and its answer: raw ASGI, nothing in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any, Protocol

from portico.errors import PorticoError, ShuttingDown, TookTooLong
from portico.web.account import Account

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

LAST_WORDS = 2.0
"""Seconds a caller has to take the last chunk of an answer that is cut."""

JSON_TYPE = b"application/json; charset=utf-8"


_STOPPING = ShuttingDown()


class HungUp(Exception):
    """The caller has left; there is nobody to answer."""


class Exchange(Protocol):
    """What our own listener can do besides ASGI: read and write at once, where nothing has to be waited for. `headers`
    are the request's, by name; of several the last."""

    headers: dict[bytes, bytes]

    def body_now(self) -> bytes | None:
        """None: not the whole body is there, `receive` must be used."""
        ...

    def answer_now(self, status: int, lines: bytes, body: bytes) -> bool:
        """`lines` are the head's, without those that frame the body. False: nothing was written, `send` must be
        used."""
        ...

    def write_now(self, data: bytes) -> bool:
        """False: the next stretch must go through `send`."""
        ...


class Request:
    """One request and its answer, for as long as it takes.

    Owned by the task that handles it. `tag` is the request's id, which every answer carries, and so do the headers in
    `extra` (CORS's). `gone` turns true when the caller hangs up, which also cancels the task; it is cancelled
    too when it takes too long, and when the server stops: `cut_by` then says why.
    """

    __slots__ = (
        "_exchange",
        "_extensions",
        "_loop",
        "_receive",
        "_send",
        "_task",
        "_timer",
        "_watcher",
        "account",
        "cut_by",
        "extra",
        "gone",
        "headers",
        "marks",
        "method",
        "opened",
        "params",
        "path",
        "scope",
        "started",
        "status",
        "tag",
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """`loop`: the running one, from a caller who knows it; asking for it costs a system call (getpid)."""
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.params: dict[str, str] = {}
        self.extra: list[tuple[bytes, bytes]] = []
        self.marks: Callable[[Account], tuple[bytes, int]] | None = None
        """What the answer says of how it came about, asked for when its head is written: lines, and how many."""
        self.tag = ""
        self.status = 0
        self.started = False
        self.opened = False
        """Its head is out, with nothing of an answer after it yet: the caller sees that it is waited for."""
        self.gone = False
        self.account = Account()
        self._receive, self._send, self._loop = receive, send, loop
        self._extensions: Mapping[str, Any] = scope.get("extensions") or {}
        self._exchange: Exchange | None = self._extensions.get("portico.exchange")
        exchange = self._exchange
        self.headers: dict[bytes, bytes] = dict(scope["headers"]) if exchange is None else exchange.headers
        self._task: asyncio.Task[Any] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.cut_by: PorticoError = _STOPPING

    def header(self, name: bytes) -> bytes | None:
        """The header of that (lower-case) name; of several the last."""
        return self.headers.get(name)

    async def body(self) -> bytes:
        """The whole body; the listener has limited its size."""
        if self._exchange is not None and (body := self._exchange.body_now()) is not None:
            return body
        message = await self._receive()
        if message["type"] == "http.request" and not message.get("more_body"):
            return message.get("body", b"")  # type: ignore[no-any-return]
        return b"".join([piece async for piece in self._following(message)])

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body as it arrives, for one that is too large to hold."""
        async for piece in self._following(await self._receive()):
            yield piece

    async def _following(self, message: Mapping[str, Any]) -> AsyncIterator[bytes]:
        while message["type"] != "http.disconnect":
            yield message.get("body", b"")
            if not message.get("more_body"):
                return
            message = await self._receive()
        raise HungUp

    def watch(self) -> None:
        """From now on the task that handles this request is cancelled when the caller leaves.

        uvicorn does not tell an application on `send` that nobody listens any more: without this, an engine
        generates for the dead. Our listener calls back; any other server is asked by a task of its own.
        """
        if self._task is not None:
            return
        self._task = asyncio.current_task(self._loop)
        hangup = self._extensions.get("portico.hangup")
        if hangup is not None:
            hangup.on_hangup(self._hung_up)
        else:
            self._watcher = asyncio.ensure_future(self._watch())

    def limit(self, seconds: float) -> None:
        """A request that is watched is cut when it is not answered within so many seconds from its arrival."""
        left = seconds - (time.perf_counter_ns() - self.account.started) / 1e9
        loop = self._loop or asyncio.get_running_loop()
        self._timer = loop.call_later(max(left, 0.0), self._cut, seconds)

    def _cut(self, seconds: float) -> None:
        if self._task is not None and not self._task.done() and not self.gone:
            self.cut_by = TookTooLong(seconds=seconds)
            self._task.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._hung_up()

    def _hung_up(self) -> None:
        if self._task is not None and not self._task.done():
            self.gone = True
            self._task.cancel()

    def unwatch(self) -> None:
        """The answer is out: a caller who leaves now cancels nothing."""
        self._task = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    # ---- answering

    async def answer(
        self,
        status: int,
        body: bytes = b"",
        content_type: bytes = JSON_TYPE,
        headers: Iterable[tuple[bytes, bytes]] = (),
    ) -> None:
        """A whole answer. `content_type=b""` sends none."""
        if self.opened:  # the status is out: what is told now is an event of the stream
            self.started = True
            return await self.end(b"data: %b\n\n" % body)
        self.status, self.started = status, True
        lines = self._lines(content_type, headers)
        exchange = self._exchange
        if exchange is None or not exchange.answer_now(status, lines, body):
            pairs = _pairs(lines)
            if status != 204:  # RFC 9110, 8.6: a 204 has no content-length
                pairs.append((b"content-length", b"%d" % len(body)))
            await self._send({"type": "http.response.start", "status": status, "headers": pairs})
            await self._send({"type": "http.response.body", "body": body})

    async def begin(self, content_type: bytes, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """The head of a streamed answer, status 200."""
        if self.opened:
            self.started = True
            return
        pairs = _pairs(self._lines(content_type, ((b"cache-control", b"no-cache"), *headers)))
        self.status, self.started = 200, True
        await self._send({"type": "http.response.start", "status": 200, "headers": pairs})

    def _lines(self, content_type: bytes, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        """The head's lines, without those that frame the body."""
        lines, count = b"x-request-id: %b\r\n" % self.tag.encode(), 1
        if content_type:
            lines, count = b"%bcontent-type: %b\r\n" % (lines, content_type), 2
        for pair in (*self.extra, *headers):
            lines, count = b"%b%b: %b\r\n" % (lines, *pair), count + 1
        if self.marks is not None:
            marks, more = self.marks(self.account)
            lines, count = lines + marks, count + more
        # A line break inside a value would let it write headers and bodies of its own.
        if lines.count(b"\n") != count or lines.count(b"\r") != count:
            raise RuntimeError("A header of the answer has a line break in its value.")
        return lines

    async def wait(self, content_type: bytes, comment: str) -> None:
        """Tells a caller who wants a stream that it is being worked on, where nothing could be answered yet. From
        then on a failure is told in the stream."""
        if self.started:
            return
        if not self.opened:
            await self.begin(content_type)
            self.started, self.opened = False, True
        await self.write(b": %b\n\n" % " ".join(comment.split()).encode())

    async def write(self, chunk: bytes) -> None:
        """A stretch of a streamed answer; waits while the caller reads too slowly."""
        await self._send({"type": "http.response.body", "body": chunk, "more_body": True})

    @property
    def write_now(self) -> Callable[[bytes], bool] | None:
        """Writes a stretch of a streamed answer without waiting, and says whether there is room for another; None
        under a server that only has ASGI's `send`."""
        return None if self._exchange is None else self._exchange.write_now

    async def end(self, chunk: bytes = b"") -> None:
        await self._send({"type": "http.response.body", "body": chunk})

    async def break_off(self, chunk: bytes) -> None:
        """The end of an answer that was cut. A caller who does not read gets a moment to take it."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self.end(chunk)
        except TimeoutError:
            self.gone = True


def _pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    """The same as ASGI has it."""
    split = (line.partition(b": ") for line in lines.split(b"\r\n") if line)
    return [(name, value) for name, _, value in split]

"""A listener in the test's own loop, callers on raw sockets, and small applications."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest

from portico.config import Config
from portico.errors import PorticoError
from portico.gateway.listen import Limits, Listener

PATIENCE = 15.0  # seconds after which a test that waits for an event has failed

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {"asyncio": asyncio.new_event_loop}
if sys.platform != "win32":
    import uvloop

    LOOPS["uvloop"] = uvloop.new_event_loop


def each_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs the test on asyncio's loop and on uvloop: they differ in what they do at the end of a connection."""

    @pytest.mark.parametrize("loop_name", LOOPS)
    @functools.wraps(test)
    def run(loop_name: str, **fixtures: Any) -> None:
        with asyncio.Runner(loop_factory=LOOPS[loop_name]) as runner:
            runner.run(asyncio.wait_for(test(**fixtures), 3 * PATIENCE))
            runner.run(_settled())

    parameters = [inspect.Parameter("loop_name", inspect.Parameter.KEYWORD_ONLY)]
    run.__signature__ = inspect.Signature([*inspect.signature(test).parameters.values(), *parameters])  # type: ignore[attr-defined]
    return run


async def _settled() -> None:
    """Returns when what still answers has answered. A connection in the middle of its end when its loop closes is one
    that uvloop may wait for, for ever and where no signal reaches it."""
    if others := asyncio.all_tasks() - {asyncio.current_task()}:
        await asyncio.wait(others, timeout=PATIENCE)
    for _ in range(3):
        await asyncio.sleep(0)


def refuse(path: str, error: PorticoError) -> tuple[bytes, bytes, list[tuple[bytes, bytes]]]:
    """Both dialects' shapes, as the composer would pass them in."""
    body: Any = str(error)
    if path.startswith("/v1/"):
        body = {"message": str(error), "type": "t", "param": error.param, "code": error.code}
    return json.dumps({"error": body}).encode(), b"application/json", [(b"x-tag", b"refused")]


@contextlib.asynccontextmanager
async def listening(app: Any, **limits: Any) -> AsyncIterator[Listener]:
    """`limits` are fields of Limits."""
    listener = Listener(app, Config(port=0), refuse=refuse, limits=Limits(**limits))
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(0)


async def soon(condition: Callable[[], object], what: str = "the condition") -> None:
    """Waits for something that has no event to wait for."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Caller:
    """A client that does exactly what it is told, also what no client should."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> Answer:
        async with asyncio.timeout(PATIENCE):
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = text.rstrip().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        return Answer(int(first.split()[1]), headers)

    async def chunk(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            size = int(await self.reader.readline(), 16)
            return (await self.reader.readexactly(size + 2))[:-2]

    async def answer(self, *, bodiless: bool = False) -> Answer:
        found = await self.head()
        async with asyncio.timeout(PATIENCE):
            if bodiless or found.status in (204, 304):
                pass
            elif "content-length" in found.headers:
                found.body = await self.reader.readexactly(int(found.headers["content-length"]))
            elif found.headers.get("transfer-encoding") == "chunked":
                while piece := await self.chunk():
                    found.body += piece
            else:
                found.body = await self.reader.read()
        return found

    async def end(self) -> bytes:
        """What still comes until the server closes; a reset counts as an end."""
        async with asyncio.timeout(PATIENCE):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    def close(self) -> None:
        self.writer.close()

    def half_close(self) -> None:
        self.writer.write_eof()

    def reset(self) -> None:
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def calling(listener: Listener) -> AsyncIterator[Caller]:
    host, port = listener.addresses[0]
    caller = Caller(*await asyncio.open_connection(host, port))
    try:
        yield caller
    finally:
        caller.writer.close()
        with contextlib.suppress(ConnectionError):
            await caller.writer.wait_closed()


async def ask(listener: Listener, request: bytes) -> Answer:
    async with calling(listener) as caller:
        await caller.say(request)
        return await caller.answer()


def get(path: str = "/", *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    return f"GET {path} HTTP/1.1\r\nhost: here\r\n{lines}\r\n".encode()


def post(path: str, body: bytes, *headers: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in headers)
    head = f"POST {path} HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body


# ---- applications


async def read_body(receive: Any) -> bytes:
    body = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise EOFError
        body += message["body"]
        if not message["more_body"]:
            return body


async def answer(send: Any, body: bytes, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": status, "headers": [length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it understood."""
    body = await read_body(receive)
    names = [name.decode() for name, _ in scope["headers"]]
    seen = {key: scope[key] for key in ("method", "path", "http_version")}
    await answer(send, json.dumps({**seen, "headers": names, "body": body.decode("latin-1")}).encode())


@dataclass
class Streaming:
    """An application that streams for as long as it is wanted, and remembers what it was told."""

    started: asyncio.Event = field(default_factory=asyncio.Event)
    hung_up: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    calls: int = 0  # of the hang-up callback
    silent: bool = False  # sends nothing, like an engine in prefill

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await read_body(receive)
        scope["extensions"]["portico.hangup"].on_hangup(self._on_hangup)
        if not self.silent:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"first", "more_body": True})
        self.started.set()
        ends = [asyncio.ensure_future(event.wait()) for event in (self.hung_up, self.go_on)]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        if self.go_on.is_set():
            if self.silent:
                await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"last"})

    def _on_hangup(self) -> None:
        self.calls += 1
        self.hung_up.set()

"""Limits on callers: sizes, counts and times. Each is answered in the path's dialect, then the line is cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from typing import Any

import pytest

from listen_fixtures import (
    Answer,
    Caller,
    Streaming,
    answer,
    ask,
    calling,
    each_loop,
    echo,
    get,
    listening,
    post,
    read_body,
    soon,
)
from portico.config import Config
from portico.errors import BodyTooLarge, PorticoError, RequestTimeout
from portico.gateway.listen import Limits


class Never:
    """An application that must not be called."""

    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1


class Seen:
    """Reads the body and remembers the error that ended it; answers it itself if `polite`."""

    def __init__(self, *, polite: bool) -> None:
        self.polite = polite
        self.error: PorticoError | None = None
        self.reading = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.reading.set()
        try:
            body = await read_body(receive)
        except PorticoError as error:
            self.error = error
            if not self.polite:
                raise
            return await answer(send, b"my own words", error.status)
        await answer(send, b"%d" % len(body))


async def refused(caller: Caller, status: int) -> Answer:
    """The answer to a refused request; the server then closes."""
    found = await caller.answer()
    assert found.status == status
    assert found.headers["connection"] == "close"
    assert await caller.end() == b""
    return found


def test_the_limits_come_from_the_config() -> None:
    limits = Limits.of(Config(max_body_bytes=1, max_connections=2, header_timeout=3, idle_timeout=4))
    assert (limits.body_bytes, limits.connections) == (1, 2)
    assert (limits.header_seconds, limits.idle_seconds) == (3, 4)
    assert limits.tick == 1.0


# ---- headers


HEADS = {
    "one long value": get("/v1/x", "x-long: " + "v" * 5000),
    "many": get("/v1/x", *(f"x-{number}: 1" for number in range(60))),
    "a long line": get("/v1/" + "x" * 5000),
    "never ending": b"GET /v1/x HTTP/1.1\r\nx: " + b"v" * 5000,
    "a name without end": b"GET /v1/x HTTP/1.1\r\n" + b"v" * 5000,
}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("pieces", [1, 7])
@each_loop
async def test_too_large_headers_get_431(head: str, pieces: int) -> None:
    app = Never()
    async with listening(app, header_bytes=4096, header_count=50) as listener, calling(listener) as caller:
        data, size = HEADS[head], len(HEADS[head]) // pieces + 1
        for start in range(0, len(data), size):
            await caller.say(data[start : start + size])
            await asyncio.sleep(0.002)  # so that the pieces arrive as pieces
        found = await refused(caller, 431)
        assert found.json["error"]["code"] == "headers_too_large"
    assert app.calls == 0


@each_loop
async def test_headers_within_the_limit_beside_a_large_body() -> None:
    async with listening(echo, header_bytes=4096) as listener:
        found = await ask(listener, post("/", b"x" * 50_000, "x-long: " + "v" * 3500))
    assert len(found.json["body"]) == 50_000


@pytest.mark.parametrize("junk", [b"\r\n" * 3000, b"1;ext=" + b"x" * 6000, b"0\r\nx-trailer: " + b"x" * 6000])
@each_loop
async def test_bytes_that_are_neither_head_nor_body_are_limited(junk: bytes) -> None:
    app = Seen(polite=False)
    async with listening(app, header_bytes=4096) as listener, calling(listener) as caller:
        if not junk.startswith(b"\r\n"):
            await caller.say(b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
            await app.reading.wait()
        await caller.say(junk)
        await refused(caller, 431)


@each_loop
async def test_half_a_head_gets_408() -> None:
    app = Never()
    async with listening(app, header_seconds=0.3) as listener, calling(listener) as caller:
        begin = time.monotonic()

        async def drip() -> None:  # a byte now and then is no progress
            for byte in get("/v1/chat/completions", "x-slow: " + "z" * 1000):
                with contextlib.suppress(ConnectionError):
                    await caller.say(bytes([byte]))
                await asyncio.sleep(0.01)

        dripping = asyncio.ensure_future(drip())
        found = await refused(caller, 408)
        dripping.cancel()
        assert 0.25 < time.monotonic() - begin < 1.5
        assert found.json["error"]["code"] == "request_timeout"
    assert app.calls == 0


# ---- bodies


@each_loop
async def test_a_body_announced_too_large_gets_413_before_the_application() -> None:
    app = Never()
    async with listening(app, body_bytes=1000) as listener:
        async with calling(listener) as caller:
            await caller.say(post("/v1/completions", b"x" * 1001))
            assert (await refused(caller, 413)).json["error"]["code"] == "body_too_large"
        async with calling(listener) as caller:  # asks first: is told at once
            await caller.say(post("/api/chat", b"", "expect: 100-continue").replace(b": 0", b": 5000"))
            assert "1000" in (await refused(caller, 413)).json["error"]
    assert app.calls == 0


@each_loop
async def test_a_body_at_the_limit_passes() -> None:
    async with listening(Seen(polite=False), body_bytes=1000) as listener:
        assert (await ask(listener, post("/", b"x" * 1000))).body == b"1000"
        chunked = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n3e8\r\n%b\r\n0\r\n\r\n"
        assert (await ask(listener, chunked % (b"x" * 1000))).body == b"1000"


@pytest.mark.parametrize("polite", [True, False])
@each_loop
async def test_a_chunked_body_over_the_limit_gets_413(polite: bool) -> None:
    app = Seen(polite=polite)
    async with listening(app, body_bytes=100_000) as listener, calling(listener) as caller:
        await caller.say(b"POST /v1/x HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(3):
            await caller.say(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        await caller.say(b"8000\r\n" + b"x" * 0x8000 + b"\r\n")
        found = await refused(caller, 413)
        assert (found.body == b"my own words") == polite
    assert isinstance(app.error, BodyTooLarge)


@each_loop
async def test_a_caller_who_sends_without_looking_still_reads_413() -> None:
    """Closing on what it still sends would reset the connection and lose the answer."""

    def upload(host: str, port: int) -> bytes:
        with socket.create_connection((host, port), timeout=10) as sock:
            sock.sendall(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 5000000\r\n\r\n")
            sock.sendall(b"x" * 5_000_000)
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
            return answer

    async with listening(Never(), body_bytes=1_000_000) as listener:
        answer = await asyncio.to_thread(upload, *listener.addresses[0])
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize("polite", [True, False])
@each_loop
async def test_half_a_body_gets_408(polite: bool) -> None:
    app = Seen(polite=polite)
    async with listening(app, body_seconds=0.3) as listener, calling(listener) as caller:
        begin = time.monotonic()
        await caller.say(post("/v1/x", b"half").replace(b": 4", b": 8"))
        found = await refused(caller, 408)
        assert 0.25 < time.monotonic() - begin < 1.5
        assert (found.body == b"my own words") == polite
    assert isinstance(app.error, RequestTimeout)


@each_loop
async def test_a_slow_body_that_makes_progress_passes() -> None:
    async with listening(Seen(polite=False), body_seconds=0.3) as listener, calling(listener) as caller:
        await caller.say(post("/", b"").replace(b": 0", b": 8"))
        for _ in range(8):
            await asyncio.sleep(0.1)
            await caller.say(b"x")
        assert (await caller.answer()).body == b"8"


@each_loop
async def test_a_body_that_the_application_does_not_read_is_no_reason_to_cut_it() -> None:
    read = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await read.wait()
        await answer(send, b"%d" % len(await read_body(receive)))

    async with listening(app, body_seconds=0.2) as listener, calling(listener) as caller:
        sending = asyncio.ensure_future(caller.say(post("/", b"x" * 3_000_000)))
        await asyncio.sleep(0.8)
        read.set()
        assert (await caller.answer()).body == b"3000000"
        await sending


@each_loop
async def test_an_answer_before_the_body_leaves_the_connection_usable() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 401)

    async with listening(app) as listener, calling(listener) as caller:
        await caller.say(post("/", b"x" * 500_000) + get())
        assert (await caller.answer()).status == 401
        assert (await caller.answer()).status == 401


@each_loop
async def test_a_body_that_stops_after_its_answer_ends_the_connection() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await answer(send, b"no", 401)

    async with listening(app, body_seconds=0.2) as listener, calling(listener) as caller:
        await caller.say(post("/", b"x").replace(b": 1", b": 9"))
        assert (await caller.answer()).status == 401
        assert await caller.end() == b""


# ---- connections


@each_loop
async def test_silent_connections_are_closed() -> None:
    async with listening(echo, idle_seconds=0.3) as listener:
        async with calling(listener) as silent, calling(listener) as idle:
            begin = time.monotonic()
            await idle.say(get())
            assert (await idle.answer()).status == 200
            assert await silent.end() == b""
            assert await idle.end() == b""
            assert 0.25 < time.monotonic() - begin < 1.5
        await soon(lambda: not listener.gate.connections)


@each_loop
async def test_a_long_answer_is_not_silence() -> None:
    app = Streaming()
    limits = {"idle_seconds": 0.1, "body_seconds": 0.1, "header_seconds": 0.1}
    async with listening(app, **limits) as listener, calling(listener) as caller:
        await caller.say(get())
        await app.started.wait()
        await asyncio.sleep(0.6)
        app.go_on.set()
        assert (await caller.answer()).body == b"firstlast"


@each_loop
async def test_connections_over_the_limit_get_503() -> None:
    async with listening(echo, connections=3) as listener, contextlib.AsyncExitStack() as others:
        held = [await others.enter_async_context(calling(listener)) for _ in range(3)]
        await soon(lambda: len(listener.gate.connections) == 3)
        for path, shape in (("/v1/models", dict), ("/api/tags", str)):
            async with calling(listener) as caller:
                await caller.say(get(path))
                found = await refused(caller, 503)
                assert found.headers["retry-after"] == "1"
                assert isinstance(found.json["error"], shape)
        held[0].close()
        await soon(lambda: len(listener.gate.connections) == 2)
        assert (await ask(listener, get())).status == 200


@each_loop
async def test_a_surplus_connection_may_stay_once_there_is_room() -> None:
    async with listening(echo, connections=1) as listener, calling(listener) as first:
        await soon(lambda: len(listener.gate.connections) == 1)
        async with calling(listener) as second:
            await soon(lambda: len(listener.gate.connections) == 2)
            first.close()
            await soon(lambda: len(listener.gate.connections) == 1)
            await second.say(get())
            assert (await second.answer()).status == 200


@each_loop
async def test_a_flood_of_connections_is_not_even_answered() -> None:
    async with listening(echo, connections=2) as listener, contextlib.AsyncExitStack() as others:
        for _ in range(60):
            with contextlib.suppress(ConnectionError):
                await others.enter_async_context(calling(listener))
        await asyncio.sleep(0.05)
        assert len(listener.gate.connections) < 40


# ---- answers that are not read


class Endless:
    """Streams without end, and counts what it could get rid of."""

    def __init__(self, size: int) -> None:
        self.piece, self.sent = b"x" * size, 0
        self.ended = asyncio.Event()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        scope["extensions"]["portico.hangup"].on_hangup(self.ended.set)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not self.ended.is_set():
            await send({"type": "http.response.body", "body": self.piece, "more_body": True})
            self.sent += len(self.piece)


@pytest.mark.parametrize("buffer", [None, 2048])
@pytest.mark.parametrize("size", [200, 4096, 30_000])
@each_loop
async def test_a_reader_that_never_reads_holds_at_most_256_kb(size: int, buffer: int | None) -> None:
    """Also with what the caller's own kernel takes in, which is not the server's."""
    app = Endless(size)
    async with listening(app) as listener:
        with socket.socket() as sock:
            if buffer:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
            await asyncio.to_thread(sock.connect, listener.addresses[0])
            await asyncio.to_thread(sock.sendall, get())
            await soon(lambda: app.sent)
            before = -1
            while app.sent != before:  # until it stands still
                before = app.sent
                await asyncio.sleep(0.1)
            print(f"{size=} {buffer=}: {app.sent} bytes")
            assert app.sent <= 256 * 1024


@each_loop
async def test_an_answer_that_is_never_read_is_cut_in_the_end() -> None:
    app = Endless(4096)
    async with listening(app, unread_seconds=0.3) as listener:
        with socket.create_connection(listener.addresses[0]) as sock:
            await asyncio.to_thread(sock.sendall, get())
            async with asyncio.timeout(10):
                await app.ended.wait()
        await soon(lambda: not listener.gate.connections)


@each_loop
async def test_a_slow_reader_gets_all_of_an_answer_that_ends_the_connection() -> None:
    """The time limit for a connection on its way out must not cut off what it still has to send."""
    body = b"y" * 400_000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": body})

    async with listening(app, linger_seconds=0.05, unread_seconds=1.0, idle_seconds=0.06) as listener:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(sock, listener.addresses[0])
            await loop.sock_sendall(sock, get())
            received = bytearray()
            while piece := await loop.sock_recv(sock, 65536):
                received += piece
                await asyncio.sleep(0.01)
    assert received.count(b"y") == len(body)

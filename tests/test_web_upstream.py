"""The pooled upstream connection, against a server that follows a script byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portico.errors import UpstreamClosed, UpstreamTimeout, UpstreamUnreachable
from portico.web import Upstream
from portico.web.upstream import HIGH_WATER, READ_BYTES

Script = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def server(script: Script, path: str | None = None) -> AsyncIterator[str]:
    """A server that runs `script` for each connection; gives its URL."""
    tasks: set[asyncio.Task[None]] = set()

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())  # type: ignore[arg-type]
        try:
            await script(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    if path is not None:
        listening = await asyncio.start_unix_server(run, path)
        url = f"unix://{path}"
    else:
        listening = await asyncio.start_server(run, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield url
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def read_request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            length = int(line.split(b":")[1])
    return head + (await reader.readexactly(length) if length else b"")


async def test_a_connection_is_used_again() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await read_request(reader)
            writer.write(WHOLE)

    async with server(script) as url:
        upstream = Upstream(url)
        for _ in range(5):
            assert (await upstream.fetch("GET", "/")).body == b"hello"
        assert connections == 1
        assert (upstream.connections, upstream.busy) == (1, 0)
        upstream.close()


async def test_prefix_headers_and_body_arrive() -> None:
    seen: list[bytes] = []

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await read_request(reader))
        writer.write(WHOLE)

    async with server(script) as url:
        upstream = Upstream(url + "/base/", headers=[(b"authorization", b"Bearer k")])
        await upstream.fetch("POST", "/v1/x", b"{}", [(b"x-request-id", b"7")])
        upstream.close()
    assert seen[0].startswith(b"POST /base/v1/x HTTP/1.1\r\n")
    assert b"authorization: Bearer k\r\n" in seen[0]
    assert b"x-request-id: 7\r\n" in seen[0]
    assert seen[0].endswith(b"\r\n\r\n{}")


async def test_unix_socket(tmp_path: Path) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(WHOLE)

    async with server(script, str(tmp_path / "e.sock")) as url:
        upstream = Upstream(url)
        assert (await upstream.fetch("GET", "/")).body == b"hello"
        upstream.close()


async def test_stale_connection_is_retried_once_on_a_new_one() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(WHOLE)
        if connections == 1:
            await read_request(reader)  # takes the second request and closes without a byte

    async with server(script) as url:
        upstream = Upstream(url)
        await upstream.fetch("GET", "/")
        assert (await upstream.fetch("POST", "/", b"{}")).body == b"hello"
        assert connections == 2
        upstream.close()


async def test_what_was_worked_on_is_not_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in between may cut a connection that was silent for a minute."""
    monkeypatch.setattr("portico.web.upstream.AT_ONCE_SECONDS", 0.05)
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)
        await asyncio.sleep(0.2)

    async with server(script) as url:
        upstream = Upstream(url)
        await upstream.fetch("GET", "/")
        with pytest.raises(UpstreamClosed):
            await upstream.fetch("POST", "/", b"{}")
        assert connections == 1
        upstream.close()


async def test_a_new_connection_that_closes_is_not_retried() -> None:
    connections = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await read_request(reader)

    async with server(script) as url:
        upstream = Upstream(url)
        with pytest.raises(UpstreamClosed):
            await upstream.fetch("POST", "/", b"{}")
        assert connections == 1
        assert upstream.connections == 0


async def test_never_retried_after_the_first_byte() -> None:
    requests = 0

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests
        await read_request(reader)
        writer.write(WHOLE)
        await read_request(reader)
        requests += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-le")
        await writer.drain()

    async with server(script) as url:
        upstream = Upstream(url)
        await upstream.fetch("GET", "/")
        with pytest.raises(UpstreamClosed):
            await upstream.fetch("GET", "/")
        assert requests == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.integers(1, 7))
def test_chunked_replies_are_whole_however_they_are_cut(pieces: list[bytes], size: int) -> None:
    wire = CHUNKED + b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        for start in range(0, len(wire), size):
            writer.write(wire[start : start + size])
            await asyncio.sleep(0)

    async def scenario() -> bytes:
        async with server(script) as url:
            upstream = Upstream(url)
            answer = await upstream.fetch("GET", "/")
            upstream.close()
            return answer.body

    assert asyncio.run(scenario()) == b"".join(pieces)


async def test_reply_cut_in_the_middle_is_an_error() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await writer.drain()

    async with server(script) as url:
        upstream = Upstream(url)
        reply = await upstream.request("GET", "/")
        assert await reply.chunk() == b"hello"
        with pytest.raises(UpstreamClosed):
            await reply.chunk()


async def test_reply_without_a_length_ends_with_its_connection() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nhello")
        await writer.drain()

    async with server(script) as url:
        assert (await Upstream(url).fetch("GET", "/")).body == b"hello"


async def test_silence_before_and_between_bytes_times_out() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await reader.read()

    async def stalls(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    async with server(silent) as url:
        with pytest.raises(UpstreamTimeout, match=r"did not begin .* 0\.1 s \(first_token_timeout\)"):
            await Upstream(url, first_byte=0.1).fetch("GET", "/")
        with pytest.raises(UpstreamTimeout, match=r"for 0\.1 s\.") as caught:
            await Upstream(url, between=0.4).request("GET", "/", first_byte=0.1)
        assert caught.value.setting is None, "nobody can set this one"
    async with server(stalls) as url:
        reply = await Upstream(url, between=0.1).request("GET", "/")
        assert await reply.chunk() == b"hello"
        with pytest.raises(UpstreamTimeout, match=r"in the middle .* 0\.1 s \(token_timeout\)"):
            await reply.chunk()


async def test_the_body_begins_late_after_its_head() -> None:
    """vLLM sends the head of a stream before it has read the prompt: what counts is when the body begins."""

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED)
        await asyncio.sleep(0.5)
        writer.write(b"5\r\nhello\r\n")
        await reader.read()

    async with server(script) as url:
        upstream = Upstream(url, first_byte=10, between=0.1)
        reply = await upstream.request("GET", "/")
        assert await reply.chunk() == b"hello"
        with pytest.raises(UpstreamTimeout, match="token_timeout"):
            await reply.chunk()
        reply = await Upstream(url, first_byte=0.1, between=10).request("GET", "/")
        with pytest.raises(UpstreamTimeout, match="first_token_timeout"):
            await reply.chunk()


@pytest.mark.parametrize("none", [0.0, float("inf")])
async def test_no_limits(none: float) -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        await asyncio.sleep(0.2)
        writer.write(WHOLE)

    async with server(script) as url:
        upstream = Upstream(url, connect=none, first_byte=none, between=none)
        assert (await upstream.fetch("GET", "/")).body == b"hello"
        upstream.close()


async def test_no_password_in_an_error() -> None:
    with pytest.raises(UpstreamUnreachable, match=r"http://127\.0\.0\.1:1/far: ") as caught:
        await Upstream("http://me:sesame@127.0.0.1:1/far").fetch("GET", "/")
    assert "sesame" not in str(caught.value)


async def test_a_slow_reader_is_not_a_silent_engine() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        await reader.read()

    async with server(script) as url:
        upstream = Upstream(url, between=0.05)
        reply = await upstream.request("GET", "/")
        await asyncio.sleep(0.3)  # longer than the limit, with unread bytes
        assert await reply.chunk() == b"hello"
        reply.close()


async def test_close_ends_the_connection_at_once() -> None:
    ended = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(CHUNKED + b"5\r\nhello\r\n")
        try:
            await reader.read()
        finally:
            ended.set()

    async with server(script) as url:
        upstream = Upstream(url)
        reply = await upstream.request("GET", "/")
        await reply.chunk()
        reply.close()
        await asyncio.wait_for(ended.wait(), 0.25)
        assert upstream.connections == 0


async def test_cancelling_a_waiting_request_ends_its_connection() -> None:
    arrived, ended = asyncio.Event(), asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        arrived.set()
        try:
            await reader.read()
        finally:
            ended.set()

    async with server(script) as url:
        upstream = Upstream(url)
        task = asyncio.create_task(upstream.fetch("GET", "/"))
        await arrived.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(ended.wait(), 0.25)
        assert upstream.connections == 0


async def test_an_unread_reply_holds_little() -> None:
    """The engine is not read any further while the caller does not read."""
    stuck = asyncio.Event()

    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.transport.set_write_buffer_limits(high=0)
        writer.write(CHUNKED)
        piece = b"%x\r\n%b\r\n" % (65536, b"x" * 65536)
        for _ in range(1000):
            writer.write(piece)
            try:
                await asyncio.wait_for(writer.drain(), 0.3)
            except TimeoutError:
                stuck.set()
                return

    async with server(script) as url:
        upstream = Upstream(url)
        reply = await upstream.request("GET", "/")
        await asyncio.wait_for(stuck.wait(), 10)
        assert reply.unread <= HIGH_WATER + READ_BYTES  # and at most one read of the socket more
        reply.close()


async def test_a_connection_released_before_its_bytes_are_read_serves_the_next_request() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for number in range(2):
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n%d" % number)

    async with server(script) as url:
        upstream = Upstream(url)
        first = await upstream.request("GET", "/")
        second = await upstream.request("GET", "/")
        assert (await first.read(), await second.read()) == (b"0", b"1")
        assert await first.chunk() == b""
        upstream.close()


async def test_nothing_listens() -> None:
    with pytest.raises(UpstreamUnreachable, match=r"127\.0\.0\.1:1"):
        await Upstream("http://127.0.0.1:1").fetch("GET", "/")


async def test_not_http() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"SSH-2.0-OpenSSH\r\n")
        await writer.drain()

    async with server(script) as url:
        with pytest.raises(UpstreamClosed):
            await Upstream(url).fetch("GET", "/")


async def test_early_hints_come_before_the_reply() -> None:
    async def script(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + WHOLE)

    async with server(script) as url:
        answer = await Upstream(url).fetch("GET", "/")
        assert answer.status == 200
        assert answer.body == b"hello"
        assert (b"link", b"x") not in answer.headers

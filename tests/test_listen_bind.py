"""Where a server listens, and what is said when it cannot."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from listen_fixtures import answer, ask, each_loop, echo, get, listening, refuse
from portico.config import Config
from portico.errors import CannotListen
from portico.gateway.listen import Listener
from portico.gateway.listen.bind import _reason, bind


def has_ipv6() -> bool:
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6) as sock:
        sock.bind(("::1", 0))
        return True
    return False


needs_ipv6 = pytest.mark.skipif(not has_ipv6(), reason="no IPv6 on this machine")


async def answers(host: str, port: int) -> bool:
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.write(get("/", "connection: close"))
    found = await reader.read()
    writer.close()
    return found.startswith(b"HTTP/1.1 200")


@contextlib.asynccontextmanager
async def at(host: str, port: int = 0) -> AsyncIterator[Listener]:
    listener = Listener(echo, Config(host=host, port=port), refuse=refuse)
    await listener.start()
    try:
        yield listener
    finally:
        await listener.stop(0)


@each_loop
async def test_port_0_gives_the_real_port() -> None:
    async with at("127.0.0.1") as listener:
        host, port = listener.addresses[0]
        assert host == "127.0.0.1"
        assert port > 0
        assert await answers(host, port)


@needs_ipv6
@each_loop
async def test_localhost_is_both() -> None:
    async with at("localhost") as listener:
        (first, port), (second, same) = listener.addresses
        assert (first, second, port) == ("127.0.0.1", "::1", same)
        assert await answers("127.0.0.1", port)
        assert await answers("::1", port)


@needs_ipv6
@pytest.mark.parametrize(("host", "reached"), [("::1", (False, True)), ("::", (True, True))])
@each_loop
async def test_ipv6(host: str, reached: tuple[bool, bool]) -> None:
    async with at(host) as listener:
        port = listener.addresses[0][1]
        assert (await answers("127.0.0.1", port), await answers("::1", port)) == reached


@each_loop
async def test_a_port_is_free_again_at_once() -> None:
    async with at("127.0.0.1") as listener:
        port = listener.addresses[0][1]
        await ask(listener, get("/", "connection: close"))
    async with at("127.0.0.1", port) as listener:
        assert (await ask(listener, get())).status == 200


async def fault(port: int, host: str = "127.0.0.1") -> str:
    with pytest.raises(CannotListen) as caught:
        await bind(host, port)
    return str(caught.value)


async def ollama(scope: Any, receive: Any, send: Any) -> None:
    await answer(send, {"/": b"Ollama is running", "/api/version": b'{"version":"0.33.0"}'}[scope["path"]])


@each_loop
async def test_a_port_taken_by_portico() -> None:
    async with listening(ollama) as other:
        port = other.addresses[0][1]
        said = await fault(port)
        assert said.startswith(f"127.0.0.1:{port} is taken by another Portico")
        assert f"portico serve --port {port + 1}" in said
        assert "another Portico" in await fault(port, "0.0.0.0")


@pytest.mark.parametrize("version", [True, False])
@each_loop
async def test_a_port_taken_by_ollama(version: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"GET / "):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 17\r\n\r\nOllama is running")
        elif version:
            writer.write(b'HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n{"version":"0.33.0"}')
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    said = await fault(port)
    server.close()
    assert said.startswith(f"127.0.0.1:{port} is taken by Ollama{' 0.33.0' if version else ''}. Stop it (")
    assert said.endswith(f", or take another port: portico serve --port {port + 1}")


@each_loop
async def test_a_port_taken_by_something_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.gateway.listen.bind._ANSWER_WITHIN", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert (await fault(port)).startswith(f"127.0.0.1:{port} is taken by another program. Stop it, or")


@each_loop
async def test_a_host_that_is_not_here() -> None:
    assert "'no.such.host.invalid' is not an address" in await fault(0, "no.such.host.invalid")
    assert "Cannot listen on 192.0.2.1:0" in await fault(0, "192.0.2.1")


@each_loop
async def test_a_port_that_is_not_allowed() -> None:
    said = await _reason("::1", 80, PermissionError(errno.EACCES, "Permission denied"))
    assert (
        said == "Listening on [::1]:80 is not allowed. Take a port from 1024 up: portico serve --port 11434"
    )

"""The sockets of an address, and who holds it when it is taken."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import re
import socket
import sys

from portico.errors import CannotListen

BACKLOG = 2048
_TAKEN = (errno.EADDRINUSE, errno.EACCES) if sys.platform == "win32" else (errno.EADDRINUSE,)
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_ANSWER_WITHIN = 1.0  # seconds the holder of a port has to say who it is


async def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets for `host`: both loopback addresses for localhost, IPv4 too for `::`.

    Port 0 takes a free one, the same on each. Raises CannotListen with what to do.
    """
    try:
        addresses = await _resolve(host, port)
        return _listen(addresses, port)
    except OSError as error:
        raise CannotListen(await _reason(host, port, error)) from error


async def _resolve(host: str, port: int) -> list[tuple[socket.AddressFamily, str]]:
    if host == "localhost":  # whatever the resolver calls it: some know only one of the two
        return [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, str(address[0])) for family, _, _, _, address in found))


def _listen(addresses: list[tuple[socket.AddressFamily, str]], port: int) -> list[socket.socket]:
    for last_try in (False, False, False, False, True):
        with contextlib.ExitStack() as opened:
            sockets: list[socket.socket] = []
            try:
                for family, address in addresses:
                    taken = sockets[0].getsockname()[1] if sockets else port
                    if made := _socket(family, address, taken, optional=bool(sockets)):
                        sockets.append(opened.enter_context(made))
            except OSError as error:
                # The free port of the first address may be taken on the second: take another.
                if last_try or port or not sockets or error.errno not in _TAKEN:
                    raise
                continue
            opened.pop_all()
            return sockets
    raise AssertionError("the last try raises")


def _socket(family: socket.AddressFamily, address: str, port: int, *, optional: bool) -> socket.socket | None:
    """None where this machine has no such address and can do without it."""
    sock = None
    try:
        sock = socket.socket(family, socket.SOCK_STREAM)
        # Windows would let a second server take the same port with SO_REUSEADDR; elsewhere a restart needs it.
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR if exclusive is None else exclusive, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address != "::")
        sock.setblocking(False)
        sock.bind((address, port))
        sock.listen(BACKLOG)
    except OSError as error:
        if sock is not None:
            sock.close()
        if optional and error.errno in _ABSENT:
            return None
        raise
    return sock


async def _reason(host: str, port: int, error: OSError) -> str:
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    if error.errno in _TAKEN and (error.errno != errno.EACCES or port >= 1024):
        return f"{where} is taken by {await _holder(host, port)}, or take another port: portico serve --port {port + 1}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"Listening on {where} is not allowed. Take a port from 1024 up: portico serve --port 11434"
    if isinstance(error, socket.gaierror):
        return f"{host!r} is not an address of this machine, nor a name of one. Try --host 127.0.0.1"
    return f"Cannot listen on {where}: {error.strerror or error}. Try --host 127.0.0.1"


async def _holder(host: str, port: int) -> str:
    """Who listens there, and how it is stopped: the middle of a sentence."""
    head, body = await _ask(host, port, "/")
    if re.search(rb"\r\nserver: portico\r", head, re.IGNORECASE):
        return "another Portico, which may do (try: portico ps). Stop it"
    if b"Ollama is running" in body:
        _, answer = await _ask(host, port, "/api/version")
        found = re.search(rb'"version"\s*:\s*"([\w.+-]{1,40})"', answer)
        version = f" {found[1].decode()}" if found else ""
        stop = "systemctl stop ollama" if sys.platform == "linux" else "quit its app"
        return f"Ollama{version}. Stop it ({stop})"
    return "another program. Stop it"


async def _ask(host: str, port: int, path: str) -> tuple[bytes, bytes]:
    """(head, body) of its answer, empty where it gives none. Only the first 4 KB: nobody knows what it is."""
    target = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    answer = b""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_ANSWER_WITHIN):
            reader, writer = await asyncio.open_connection(target, port)
            try:
                writer.write(
                    f"GET {path} HTTP/1.1\r\nhost: {target}:{port}\r\nconnection: close\r\n\r\n".encode()
                )
                while len(answer) < 4096 and (piece := await reader.read(4096)):
                    answer += piece
            finally:
                writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    return head + b"\r", body

"""An HTTP proxy that works, or fails as a test asks. It runs in a thread of its own, for tests of any kind."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from base64 import b64encode
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

WAIT_SECONDS = 10.0
PAGE = b"<html><body><h1>The requested URL could not be retrieved</h1></body></html>"


@dataclass
class ScriptedProxy:
    """Lets CONNECT through, and sends on requests with a whole URL.

    `password` is `user:password` that it wants. `fails` says how it fails: with a status, by keeping silent, by
    closing, by talking nonsense. `requests` are the first lines it got; `credentials` what it was shown, one each.
    """

    password: str = ""
    fails: int | Literal["silent", "closes", "nonsense"] | None = None
    requests: list[str] = field(default_factory=list)
    credentials: list[str | None] = field(default_factory=list)
    port: int = 0

    def __post_init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="scripted proxy", daemon=True)
        self._ready = threading.Event()

    def __enter__(self) -> ScriptedProxy:
        self._thread.start()
        assert self._ready.wait(WAIT_SECONDS)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(WAIT_SECONDS)

    @property
    def address(self) -> str:
        """As errors call it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """With what it wants to be shown."""
        return f"http://{self.password}@127.0.0.1:{self.port}" if self.password else self.address

    # ---- inside its thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        self._loop.run_forever()
        server.close()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.wait([*tasks, self._loop.create_task(asyncio.sleep(0))]))
        self._loop.run_until_complete(asyncio.sleep(0))  # closed transports let go
        self._loop.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while await self._exchange(reader, writer):
                pass
        writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether another may come on this connection."""
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")[:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        shown = headers.pop("proxy-authorization", None)
        self.requests.append(first)
        self.credentials.append(shown)
        method, target, _ = first.split()
        if self.fails == "silent":
            await reader.read()
            return False
        if self.fails == "closes":
            return False
        if self.fails == "nonsense":
            writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
            return False
        if isinstance(self.fails, int):
            return _refuse(writer, self.fails)
        if self.password and shown != "Basic " + b64encode(unquote(self.password).encode()).decode():
            return _refuse(writer, 407)
        if method == "CONNECT":
            host, _, port = target.rpartition(":")
            await _joined(
                reader, writer, host, int(port), b"", b"HTTP/1.1 200 Connection established\r\n\r\n"
            )
            return False
        parts = urlsplit(target)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        kept = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        message = f"{method} {parts.path} HTTP/1.1\r\n{kept}\r\n".encode() + body
        return await _sent_on(writer, parts.hostname or "", parts.port or 80, message)


def _refuse(writer: asyncio.StreamWriter, status: int) -> bool:
    writer.write(
        b"HTTP/1.1 %d No\r\ncontent-type: text/html;charset=utf-8\r\ncontent-length: %d\r\n\r\n%b"
        % (status, len(PAGE), PAGE)
    )
    return True


async def _joined(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int, out: bytes, back: bytes
) -> None:
    """Bytes both ways until one side closes."""
    try:
        there, to_there = await asyncio.open_connection(host, port)
    except OSError:
        _refuse(writer, 503)
        return
    to_there.write(out)
    writer.write(back)

    async def pour(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        sink.close()

    try:
        await asyncio.gather(pour(reader, to_there), pour(there, writer))
    finally:
        to_there.close()


async def _sent_on(writer: asyncio.StreamWriter, host: str, port: int, message: bytes) -> bool:
    """One request and its reply, whose end is found as a proxy finds it: by its length or its last chunk."""
    try:
        there, to_there = await asyncio.open_connection(host, port)
    except OSError:
        return _refuse(writer, 503)
    try:
        to_there.write(message)
        head = await there.readuntil(b"\r\n\r\n")
        writer.write(head)
        lowered = head.lower()
        if b"content-length:" in lowered:
            length = int(lowered.partition(b"content-length:")[2].partition(b"\r\n")[0])
            writer.write(await there.readexactly(length))
            return True
        size = -1
        while size != 0:
            line = await there.readuntil(b"\r\n")
            size = int(line, 16)
            writer.write(line + await there.readexactly(size + 2))
            await writer.drain()
        return True
    finally:
        to_there.close()

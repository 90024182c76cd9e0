"""2,000 callers, half of whom vanish: afterwards everything is as it was."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CROWD = 2000
BATCH = 200  # at once: two sockets each in this process and its child, where 1,024 files may be the limit

CHILD = textwrap.dedent("""
    import asyncio, gc, importlib, json, os, sys
    from portico.config import Config
    from portico.gateway.listen import Listener
    from listen_fixtures import refuse

    def rss():
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    async def main():
        module, name = sys.argv[1].split(":")
        app = getattr(importlib.import_module(module), name)()
        listener = Listener(app, Config(port=0), refuse=refuse)
        host, port = await listener.start()
        print(port, flush=True)
        loop = asyncio.get_running_loop()
        while await loop.run_in_executor(None, sys.stdin.readline):
            for _ in range(500):  # callers who left a moment ago
                if not listener.gate.connections and not listener.gate.tasks:
                    break
                await asyncio.sleep(0.01)
            gc.collect()
            print(json.dumps({
                "tasks": len(asyncio.all_tasks()),
                "connections": len(listener.gate.connections),
                "files": len(os.listdir("/proc/self/fd")),
                "rss": rss(),
            }), flush=True)
        await listener.stop(0)

    import uvloop
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
""")


def streaming_app() -> Any:
    """Ten chunks, slowly enough that callers can leave between them; the hang-up cancels the task."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        task = asyncio.current_task()
        assert task is not None
        scope["extensions"]["portico.hangup"].on_hangup(task.cancel)
        while True:
            message = await receive()
            if not message.get("more_body"):
                break
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for _ in range(10):
            await send({"type": "http.response.body", "body": b"x" * 300, "more_body": True})
            await asyncio.sleep(0.005)
        await send({"type": "http.response.body", "body": b"end"})

    return app


@dataclass
class Crowd:
    """Callers of one server: how many were answered whole, and how many left."""

    port: int
    request: bytes
    whole: int = 0
    left: int = 0

    async def caller(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            leave_at = (None, "head", None, "body", None, "stream")[number % 6]
            if leave_at == "head":
                writer.write(self.request[:20])
            elif leave_at == "body":
                writer.write(self.request[:-5])
            else:
                writer.write(self.request)
                if leave_at == "stream":
                    await reader.readuntil(b"\r\n\r\n")
                else:
                    await self._read_whole(reader)
            await writer.drain()
        finally:
            if number % 4 == 1:
                writer.transport.abort()
            writer.close()
        if leave_at:
            self.left += 1

    async def _read_whole(self, reader: asyncio.StreamReader) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        last = b""
        while not last.endswith(b"0\r\n\r\n"):
            piece = await reader.read(65536)
            assert piece, last
            last = last[-10:] + piece
        self.whole += 1

    async def come(self, count: int) -> None:
        for first in range(0, count, BATCH):
            await asyncio.gather(*(self.caller(number) for number in range(first, first + BATCH)))


def look(child: subprocess.Popen[str]) -> dict[str, int]:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write("\n")
    child.stdin.flush()
    found: dict[str, int] = json.loads(child.stdout.readline())
    return found


def crowd(factory: str, request: bytes) -> tuple[dict[str, int], dict[str, int], Crowd]:
    """What a server for the application of `factory` ("module:name") holds before and after a crowd."""
    here = Path(__file__).parent
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, factory],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(here), str(here.parent / "src")))},
    )
    try:
        assert child.stdout is not None
        made = Crowd(int(child.stdout.readline()), request)
        asyncio.run(made.come(BATCH))  # what is only ever allocated once
        made.whole = made.left = 0
        before = look(child)
        asyncio.run(made.come(CROWD))
        return before, look(child), made
    finally:
        child.kill()
        child.communicate()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts in /proc")
def test_a_crowd_of_which_half_vanishes() -> None:
    body = b"x" * 2000
    request = b"POST /api/chat HTTP/1.1\r\nhost: x\r\ncontent-length: 2000\r\n\r\n" + body
    before, after, seen = crowd("test_listen_crowd:streaming_app", request)
    print(before, after, seen.whole, seen.left)
    assert (seen.whole, seen.left) == (CROWD // 2, CROWD // 2)
    for count in ("tasks", "connections", "files"):
        assert after[count] == before[count], count
    assert after["rss"] - before["rss"] < 5_000_000

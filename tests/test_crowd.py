"""2,000 callers of the whole server, half of whom vanish: in its head, its body or its stream. Afterwards the
server holds what it held before."""

from __future__ import annotations

import asyncio
import gc
import json
import os
from pathlib import Path

import pytest

from live_server import LiveServer, serve, wait_until
from test_listen_crowd import CROWD, Crowd


def files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def rss(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def post(path: str, body: dict[str, object]) -> bytes:
    raw = json.dumps(body).encode()
    return b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (
        path.encode(),
        len(raw),
        raw,
    )


def is_quiet(server: LiveServer) -> bool:
    health = server.health()
    return (
        health["requests_in_flight"] == 0
        and health["open_connections"] == 1  # the one that asks
        and all(engine["in_flight"] == engine["waiting"] == 0 for engine in health["engines"])
    )


@pytest.mark.timeout(240)
def test_a_crowd_leaves_nothing_behind(tmp_path: Path) -> None:
    with serve(tmp_path / "server", "--log-level", "error") as own:
        pid = own.process.pid
        chat = {
            "model": own.model,
            "messages": [{"role": "user", "content": "Hello!"}],
            "options": {"num_predict": 4},
        }
        crowd = Crowd(own.port, post("/api/chat", chat))
        asyncio.run(crowd.come(400))  # what is loaded and grown at the first requests
        wait_until(lambda: is_quiet(own), seconds=30, what="the first callers are gone")
        before_files, before_rss = files(pid), rss(pid)
        crowd = Crowd(own.port, post("/api/chat", chat))
        asyncio.run(crowd.come(CROWD))
        assert crowd.left == CROWD // 2 == crowd.whole
        wait_until(lambda: is_quiet(own), seconds=30, what="all callers are gone")
        # Idle connections to the engine close after 4 s.
        wait_until(lambda: files(pid) <= before_files, seconds=30, what=f"files are {before_files} again")
        gc.collect()
        assert rss(pid) - before_rss < 5 * 1024 * 1024

"""What takes too long for every run: `make test-long`. Its last result stands in docs/performance.md."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import httpx2
import pytest

from live_server import serve, wait_until
from test_crash import body, engine_pid, is_alive
from test_crowd import files, is_quiet, post, rss
from test_listen_crowd import Crowd

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]


def test_ten_crowds_leave_nothing_behind(tmp_path: Path) -> None:
    """20,000 callers, half of whom vanish."""
    with serve(tmp_path / "server", "--log-level", "error") as own:
        pid = own.process.pid
        chat = {
            "model": own.model,
            "messages": [{"role": "user", "content": "Hello!"}],
            "options": {"num_predict": 4},
        }
        request = post("/api/chat", chat)
        asyncio.run(Crowd(own.port, request).come(2000))
        wait_until(lambda: is_quiet(own), seconds=60, what="the first callers are gone")
        before_files, before_rss = files(pid), rss(pid)
        for _ in range(10):
            crowd = Crowd(own.port, request)
            asyncio.run(crowd.come(2000))
            assert crowd.whole == crowd.left == 1000
        wait_until(lambda: is_quiet(own), seconds=60, what="all callers are gone")
        wait_until(lambda: files(pid) <= before_files, seconds=30, what="files are as before")
        assert rss(pid) - before_rss < 5 * 1024 * 1024


def test_an_engine_may_die_thirty_times(tmp_path: Path) -> None:
    """In the middle of a stream each time; the next request is always answered."""
    with serve(tmp_path / "server") as own:
        for number in range(30):
            pid = engine_pid(own)
            path, request = body(own, "openai" if number % 2 else "ollama")
            with httpx2.stream("POST", own.url + path, json=request, timeout=60) as reply:
                lines = reply.iter_lines()
                next(lines)
                os.kill(pid, (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT)[number % 3])
                assert "error" in [line for line in lines if line][-1]
            assert not is_alive(pid)
            chat = {"model": own.model, "messages": [{"role": "user", "content": "Hello!"}], "stream": False}
            # A cold engine after many deaths waits before it starts: up to 30 s.
            answer = httpx2.post(own.url + "/api/chat", json=chat, timeout=90)
            assert answer.status_code == 200, answer.text

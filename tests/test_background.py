"""`portico.local()`: a server of the program's own, started once, gone with the program however it ends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import portico
from live_server import plain_environment, wait_until
from portico import background, configured
from portico.errors import NotRunning, WrongKey
from scripted_upstream import ScriptedUpstream

PROGRAM = """
import json, os, sys, portico
client = portico.local()
print(json.dumps([os.getpid(), client.url, client.chat("Hello", temperature=0, max_tokens=8).text]), flush=True)
sys.stdin.readline()
{end}
"""


@pytest.fixture(scope="module", autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No models but the bundled one, no settings, and no server is left when the tests have ended."""
    home = tmp_path_factory.mktemp("local")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("PORTICO_", "OLLAMA_"))]:
            patch.delenv(name)
        patch.setenv("PORTICO_HOME", str(home / "portico"))
        patch.setenv("OLLAMA_MODELS", str(home / "ollama"))
        yield
        background.stop()


def test_it_answers_and_is_started_once() -> None:
    clients: list[Any] = []
    threads = [threading.Thread(target=lambda: clients.append(portico.local())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({client.url for client in clients}) == 1
    (model,) = clients[0].models()
    assert model.id.startswith("portico-tiny")
    assert clients[0].chat("Hello", temperature=0).text
    for client in clients:
        client.close()
    with portico.local() as again:
        assert again.url == clients[0].url


def test_in_an_event_loop() -> None:
    async def run() -> tuple[str, str]:
        async with await portico.alocal() as client:
            return await client.url(), (await client.chat("Hello", temperature=0)).text

    url, text = asyncio.run(run())
    with portico.local() as client:
        assert client.url == url and text == client.chat("Hello", temperature=0).text


def test_a_replay_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> str:
        with portico.local() as client:
            return client.chat("Hello", temperature=0).text

    async def aask() -> str:
        async with await portico.alocal() as client:
            return (await client.chat("Hello", temperature=0)).text

    with portico.record(tmp_path / "run.jsonl"):
        first = [ask(), asyncio.run(aask())]
    monkeypatch.setattr(background, "_Server", None)
    background.stop()
    with portico.replay(tmp_path / "run.jsonl") as player:
        assert [ask(), asyncio.run(aask())] == first and player.left == 0


def test_others_have_no_business_there() -> None:
    with portico.local() as client, portico.Client(client.url, api_key="a guess") as other:
        with pytest.raises(WrongKey):
            other.chat("Hello")
        assert client.url.startswith("http://127.0.0.1:")


def test_one_that_is_gone_is_started_again() -> None:
    with portico.local() as client:
        before = client.url
    (server,) = background._running.values()
    assert server._process.pid
    os.killpg(server._process.pid, signal.SIGTERM)
    server._process.wait(20)
    with portico.local() as client:
        assert client.chat("Hello", temperature=0).text and client.url != before


def test_one_that_does_not_start_says_why() -> None:
    with pytest.raises(NotRunning, match=r"no-such-model.*`portico serve no-such-model` shows more"):
        portico.local("no-such-model")
    assert len(background._running) <= 1


def test_the_bundled_model_is_the_one_that_serve_means() -> None:
    assert background.BUNDLED == configured.BUNDLED


def test_another_server_is_neither_used_nor_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    with ScriptedUpstream() as others:
        for name in ("PORTICO_HOST", "OLLAMA_HOST", "VLLM_BASE_URL", "OPENAI_BASE_URL"):
            monkeypatch.setenv(name, others.url)
        monkeypatch.setenv("PORTICO_MAX_QUEUE", "nonsense")
        with portico.local(context=1024) as client:
            assert client.models()[0].context == 1024
            assert client.chat("Hello", temperature=0).text != "Hello there"
        assert others.received == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no guard")
@pytest.mark.parametrize("end", ["", "os._exit(3)", "os.kill(os.getpid(), 9)", "1 // 0", "os.abort()"])
def test_it_ends_with_the_program(tmp_path: Path, end: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(end=end)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=plain_environment(tmp_path),
    )
    assert process.stdout is not None and process.stdin is not None
    with process.stdin as lifeline, process.stdout as said:
        pid, url, text = json.loads(said.readline())
        family = psutil.Process(pid).children(recursive=True)
        assert url and text and len(family) >= 3, "guard, server, engine"
        lifeline.write(b"\n")
        lifeline.flush()
        process.wait(30)
    wait_until(lambda: not any(_lives(each) for each in family), seconds=20, what="the server is gone")


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def test_files_beside_the_program_are_none_of_its_modules(tmp_path: Path) -> None:
    for name in ("click", "queue", "portico"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    done = subprocess.run(
        [sys.executable, "-P", "-c", PROGRAM.format(end="")],
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=50,
        env=plain_environment(tmp_path),
        cwd=tmp_path,
    )
    assert done.returncode == 0 and json.loads(done.stdout)[2], done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_takes_nothing_along(tmp_path: Path) -> None:
    """It neither ends its parent's server nor keeps it alive."""
    program = (
        "import os, sys, portico\n"
        "client = portico.local()\n"
        "child = os.fork()\n"
        "if not child:\n    sys.exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(client.chat('Hello', temperature=0).text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        timeout=50,
        env=plain_environment(tmp_path),
    )
    assert done.returncode == 0 and done.stdout.strip(), done.stderr

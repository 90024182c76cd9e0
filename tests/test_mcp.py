"""MCP servers as tools: a real one, over stdio and over HTTP. Nothing of it outlives its use."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_server import plain_environment, wait_until
from portico import McpServer, recording
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.errors import InvalidRequest, NotRunning
from scripted_answers import CHAT
from scripted_upstream import ScriptedUpstream
from test_client_tools import Both, calls, get_weather, says, told

pytest.importorskip("mcp", reason="the extra [mcp] is not installed")
SERVER = str(Path(__file__).with_name("mcp_server.py"))


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


def stdio(folder: Path, **more: Any) -> McpServer:
    return McpServer([sys.executable, SERVER, str(folder)], **more)


def is_gone(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return True
    return False


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its URL, and the folder in which it leaves its marks."""
    folder = tmp_path_factory.mktemp("http")
    command = [sys.executable, SERVER, str(folder), "http"]
    env = plain_environment(folder)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as child:
        assert child.stdout is not None
        port = int(child.stdout.readline())
        url = f"http://127.0.0.1:{port}/mcp"
        wait_until(lambda: _answers(url), seconds=30, what="the MCP server listens")
        yield url, folder
        child.terminate()


def _answers(url: str) -> bool:
    try:
        with McpServer(url):
            return True
    except NotRunning:
        return False


def test_over_stdio(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(
        CHAT,
        calls(("get_weather", {"city": "Rome"}), ("add", {"a": 1, "b": 2}), ("add", {"a": "x"})),
        calls(("broken", {}), ("mine", {"x": 1})),
        says("Sunny, and 3."),
    )

    def mine(x: int) -> int:
        return x + 1

    run = both.run(tools=[stdio(tmp_path), mine])
    assert run.text == "Sunny, and 3."
    sunny, three, wrong, broken, two = told(upstream)
    assert (sunny, three, two) == ("It is sunny in Rome.", "3", "2")
    assert wrong.startswith("Error: Wrong arguments: ") and "'b' is a required property" in wrong
    assert broken == "Error: ToolFailed: Error executing tool broken: the disk is on fire"
    offered = [each["function"]["name"] for each in upstream.last(CHAT)["tools"]]
    assert offered == ["get_weather", "add", "broken", "whole_environment", "slow", "die", "mine"]
    assert is_gone(tmp_path), "it has ended with the run"


def test_over_http(
    both: Both, upstream: ScriptedUpstream, http: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")  # not for this machine
    upstream.script(
        CHAT, calls(("add", {"a": 1, "b": 2}), ("get_weather", {"city": "Oslo"})), says("3, sunny.")
    )
    run = both.run(tools=[McpServer(http[0], only=["add", "get_weather"])])
    assert run.text == "3, sunny." and told(upstream) == ["3", "It is sunny in Oslo."]
    assert [each["function"]["name"] for each in upstream.last(CHAT)["tools"]] == ["get_weather", "add"]


def test_a_block_keeps_it_for_several_runs(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with stdio(tmp_path) as tools, Client(upstream.url, model="m") as client:
        for number in range(2):
            upstream.script(CHAT, calls(("add", {"a": number, "b": 1})), says("Done."))
            client.run("Go on", tools=[tools])
            assert told(upstream) == [str(number + 1)]
        assert not is_gone(tmp_path)
        assert [each.name for each in tools.tools()][:2] == ["get_weather", "add"]
    assert is_gone(tmp_path)
    with pytest.raises(NotRunning, match="is not started: use it in a `with`"):
        tools.tools()


def test_runs_at_once_share_it(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, *[calls(("add", {"a": 1, "b": 2}))] * 5)

    async def work() -> list[Any]:
        tools = stdio(tmp_path)
        async with AsyncClient(upstream.url, model="m") as client:
            return await asyncio.gather(*(client.run("Go on", tools=[tools]) for _ in range(5)))

    runs = asyncio.run(work())
    assert all(run.steps[0].outcome == "3" for run in runs) and is_gone(tmp_path)


def test_two_with_the_same_names(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="Two tools are called get_weather"):
        both.run(tools=[stdio(tmp_path), get_weather])
    upstream.script(CHAT, calls(("mcp_add", {"a": 1, "b": 1})), says("2"))
    both.run(tools=[stdio(tmp_path, prefix="mcp_"), get_weather])
    assert told(upstream) == ["2"] and is_gone(tmp_path)
    with pytest.raises(InvalidRequest, match=r"has no tool subtract\. It has: add, "):
        both.run(tools=[stdio(tmp_path, only=["subtract"])])
    assert is_gone(tmp_path)


def test_it_sees_no_key_of_ours(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTICO_API_KEY", "sesame")
    upstream.script(CHAT, calls(("whole_environment", {})), says("Done."))
    both.run(tools=[stdio(tmp_path, env={"GIVEN": "1"})])
    (names,) = told(upstream)
    assert "GIVEN" in names and "PATH" in names and "PORTICO_API_KEY" not in names


def test_one_that_does_not_start(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with pytest.raises(NotRunning, match=r"cannot be used: .* Its last lines: cannot read the configuration"):
        both.run(tools=[McpServer([sys.executable, SERVER, str(tmp_path), "dumb"])])
    with pytest.raises(NotRunning, match="no-such-program x cannot be used"):
        both.run(tools=[McpServer("no-such-program x")])
    with pytest.raises(NotRunning, match=r"http://127.0.0.1:9/mcp cannot be used"):
        both.run(tools=[McpServer("http://127.0.0.1:9/mcp?key=sesame")])
    with pytest.raises(NotRunning, match=r"it was not ready within 0\.2 s"):
        both.run(tools=[McpServer("sleep 60", start_seconds=0.2)])
    assert not upstream.requests(CHAT)


ODD = """
import json, sys, time

for line in sys.stdin:
    asked = json.loads(line)
    result = None
    if asked["method"] == "initialize":
        if sys.argv[1] == "late":
            time.sleep(0.5)
        about = {"name": "odd", "version": "1"}
        version = asked["params"]["protocolVersion"]
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": about}
    elif asked["method"] == "tools/list" and sys.argv[1] == "endless":
        result = {"tools": [], "nextCursor": "on"}
    elif asked["method"] == "tools/list" and sys.argv[1] == "late":
        result = {"tools": [{"name": "t", "inputSchema": {"type": "object"}}]}
    if result is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": result}), flush=True)
"""


@pytest.mark.parametrize("how", ["silent", "endless"])
def test_one_that_never_says_what_it_offers(both: Both, upstream: ScriptedUpstream, how: str) -> None:
    """It greets, and then is silent, or has always one more page."""
    with pytest.raises(NotRunning, match=r"it was not ready within 1 s"):
        both.run(tools=[McpServer([sys.executable, "-c", ODD, how], start_seconds=1)])
    assert not upstream.requests(CHAT)


def test_who_leaves_while_it_starts_leaves_it_to_the_others() -> None:
    server = McpServer([sys.executable, "-c", ODD, "late"])

    async def use() -> list[str]:
        async with server:
            return [tool.name for tool in server.tools()]

    async def work() -> list[Any]:
        first, second = asyncio.create_task(use()), asyncio.create_task(use())
        await asyncio.sleep(0)
        first.cancel()
        return await asyncio.gather(first, second, return_exceptions=True)

    left, stayed = asyncio.run(work())
    assert isinstance(left, asyncio.CancelledError) and stayed == ["t"]


def test_no_key_is_in_its_name() -> None:
    """Which a recording and errors have."""
    shown = {
        "https://user:sesame@host/mcp?key=sesame": "https://host/mcp",
        "tool --api-key sesame --token=sesame -v": "tool --api-key '***' '--token=***' -v",
        "uvx mcp-server-time --local-timezone Europe/Rome": "uvx mcp-server-time --local-timezone Europe/Rome",
    }
    assert {where: McpServer(where).name for where in shown} == shown


def test_one_that_dies_in_a_call(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, calls(("die", {})), calls(("add", {"a": 1, "b": 1})), says("It is gone."))
    run = both.run(tools=[stdio(tmp_path)])
    assert run.text == "It is gone." and all(step.failed for step in run.steps)
    assert "Connection closed" in told(upstream)[0]


def test_a_call_that_takes_too_long(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, calls(("slow", {})), calls(("add", {"a": 1, "b": 1})), says("Too slow."))
    run = both.run(tools=[stdio(tmp_path, seconds=0.5)])
    slow, added = run.steps
    assert slow.failed and slow.outcome.startswith("ToolFailed: ") and added.outcome == "2"
    assert is_gone(tmp_path)


def test_cancelling_cancels_the_call_and_ends_the_server(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, calls(("slow", {})))

    async def work() -> None:
        async with AsyncClient(upstream.url, model="m") as client:
            task = asyncio.create_task(client.run("Go on", tools=[stdio(tmp_path)]))
            await asyncio.to_thread(
                wait_until, (tmp_path / "began").exists, seconds=30, what="the call has begun"
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(work())
    assert is_gone(tmp_path) and (tmp_path / "cancelled").exists()


PROGRAM = """
import sys, time
from pathlib import Path
from portico import McpServer

folder = Path(sys.argv[2])
server = McpServer([sys.executable, sys.argv[1], str(folder)])
server.__enter__()
print("ready", flush=True)
if sys.argv[3] == "wait":
    time.sleep(60)
"""


def test_cancelling_over_http(upstream: ScriptedUpstream, http: tuple[str, Path]) -> None:
    """It is over at once, and the server answers others."""
    upstream.script(CHAT, calls(("slow", {})))

    url, folder = http

    async def work() -> None:
        async with AsyncClient(upstream.url, model="m") as client, McpServer(url) as tools:
            task = asyncio.create_task(client.run("Go on", tools=[tools]))
            await asyncio.to_thread(
                wait_until, (folder / "began").exists, seconds=30, what="the call has begun"
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            upstream.script(CHAT, calls(("add", {"a": 1, "b": 2})), says("3"))
            assert (await client.run("Go on", tools=[tools])).steps[0].outcome == "3"

    began = time.monotonic()
    asyncio.run(work())
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("how", ["leave", "wait"])
def test_it_ends_with_its_program(tmp_path: Path, how: str) -> None:
    """Which forgets it, or is killed."""
    command = [sys.executable, "-c", PROGRAM, SERVER, str(tmp_path), how]
    began = time.monotonic()
    with subprocess.Popen(command, env=plain_environment(tmp_path), stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        if how == "wait":
            child.kill()
    assert child.returncode == (-9 if how == "wait" else 0)
    wait_until(lambda: is_gone(tmp_path), seconds=10, what="the server has ended")
    assert time.monotonic() - began < 50


def test_a_replay_starts_no_server(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, calls(("add", {"a": 1, "b": 2})), says("3."))
    with recording.record(tmp_path / "run.jsonl"):
        first = both.run(tools=[stdio(tmp_path)])
    (tmp_path / "pid").unlink()
    with recording.replay(tmp_path / "run.jsonl") as player:
        second = both.run(tools=[stdio(tmp_path)])
        assert player.left == 0
    assert second.steps == first.steps and second.text == "3." and not (tmp_path / "pid").exists()

"""Recording and replay: a replay makes no connection, gives every byte again, and says what differs."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from portico import recording
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.settings import NO_RETRY, Retry
from portico.errors import NotRunning, ReplayDiffers, ServerFailed
from portico.recording import record, replay
from scripted_answers import CHAT, chat_stream, reply
from scripted_upstream import RESET, ScriptedUpstream

SEEN = ("text", "reasoning", "tool_calls", "finish_reason", "usage", "model", "id", "choices")


def seen(result: Any) -> dict[str, Any]:
    return {name: getattr(result, name) for name in SEEN}


def twice(path: Path, work: Callable[[str], Any]) -> tuple[Any, Any]:
    """What `work` gives while it is recorded, and in a replay after the server has gone."""
    with ScriptedUpstream() as upstream:
        numbers = iter(range(10_000))

        def answer(request: Any) -> Any:
            message = {"role": "assistant", "content": f"Answer {next(numbers)} é"}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return reply(200, {"id": "c", "model": "mock-model", "choices": [choice]})

        upstream.script(CHAT, *[answer] * 1000)
        url = upstream.url
        with record(path):
            first = work(url)
    with replay(path) as player:
        second = work(url)
        assert player.left == 0
    return first, second


def test_a_run_is_the_same_again(tmp_path: Path) -> None:
    def work(url: str) -> Any:
        with Client(url, api_key="sesame") as client:
            return [seen(client.chat(f"Hello {at % 3}", temperature=0)) for at in range(9)]

    first, second = twice(tmp_path / "run.jsonl", work)
    assert first == second and len({each["text"] for each in first}) == 9, (
        "the same question, each its own answer"
    )
    assert "sesame" not in (tmp_path / "run.jsonl").read_text()


def test_two_hundred_at_once(tmp_path: Path) -> None:
    """Whatever order they end in, and whatever order they are asked in again."""

    def work(url: str) -> Any:
        async def run() -> Any:
            async with AsyncClient(url, model="mock-model") as client:

                async def one(at: int) -> Any:
                    await asyncio.sleep(random.random() * 0.05)
                    return seen(await client.chat(f"Question {at}"))

                return await asyncio.gather(*map(one, range(200)))

        return asyncio.run(run())

    first, second = twice(tmp_path / "run.jsonl", work)
    assert first == second and len({each["text"] for each in first}) == 200


def test_a_stream_is_the_same_chunks(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, chat_stream("one", "zwölf", "👋"), (*chat_stream("one", "two")[:3], RESET))

        def work() -> Any:
            found = []
            with Client(upstream.url, retry=NO_RETRY) as client:
                for _ in range(2):
                    events: list[Any] = []
                    try:
                        with client.stream("Hello") as stream:
                            events.extend(stream)
                    except Exception as error:
                        events.append(type(error))
                    found.append(events)
            return found

        with record(tmp_path / "run.jsonl"):
            first = work()
    with replay(tmp_path / "run.jsonl"):
        assert work() == first and len(first[0]) > 3


def test_what_failed_fails_again_and_retries_are_the_same(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, reply(503, {"error": {"message": "busy"}}), (RESET,))

        def work() -> Any:
            with Client(upstream.url, retry=Retry(first=0.001)) as client:
                return [attempt.status for attempt in client.chat("Hello").attempts]

        with record(tmp_path / "run.jsonl"):
            first = work()
    with replay(tmp_path / "run.jsonl"):
        assert work() == first == [503, 502, 200]


def test_a_difference_is_shown(tmp_path: Path) -> None:
    def work(url: str) -> Any:
        with Client(url, model="mock-model", retry=NO_RETRY) as client:
            return client.chat("What is the capital of France?", temperature=0).text

    twice(tmp_path / "run.jsonl", work)
    with replay(tmp_path / "run.jsonl"), pytest.raises(ReplayDiffers) as caught:
        Client("http://127.0.0.1:9", model="mock-model", retry=NO_RETRY).chat("What is the capital of Spain?")
    said = str(caught.value)
    assert '-      "content": "What is the capital of France?"' in said.replace("    ", "  ").replace(
        "   ", "  "
    ) or ("France" in said and "Spain" in said)
    assert "temperature" in said


def test_other_effects(tmp_path: Path) -> None:
    def work() -> Any:
        drawn = recording.effect("random", "seed", lambda: random.random())
        at = recording.effect("clock", None, time.time_ns)
        return [drawn, at, recording.effect("tool", {"command": "ls"}, lambda: {"out": "é", "code": 0})]

    with record(tmp_path / "run.jsonl"):
        first = work()
    with replay(tmp_path / "run.jsonl"):
        assert work() == first
        with pytest.raises(ReplayDiffers, match="no further clock effect"):
            recording.effect("clock", None, time.time_ns)
    assert work() != first, "outside it is done"


def test_a_recording_that_was_killed_is_replayed_as_far_as_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with record(path):
        for at in range(3):
            recording.effect("clock", at, lambda: 7)
    path.write_bytes(path.read_bytes()[:-5])
    with replay(path) as player:
        assert player.left == 2
        assert [recording.effect("clock", at, lambda: 8) for at in range(2)] == [7, 7]


def test_nothing_is_written_of_an_error_but_that_it_was(tmp_path: Path) -> None:
    with record(tmp_path / "run.jsonl"), pytest.raises(NotRunning):
        Client("http://127.0.0.1:9", model="m", api_key="sesame", retry=NO_RETRY).chat("Hello")
    (line,) = (tmp_path / "run.jsonl").read_text().splitlines()
    assert json.loads(line)["response"]["failed"] == "NotRunning" and "sesame" not in line
    with replay(tmp_path / "run.jsonl"), pytest.raises((NotRunning, ServerFailed)):
        Client("http://127.0.0.1:9", model="m", retry=NO_RETRY).chat("Hello")

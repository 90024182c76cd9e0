"""Recording and replay: a replay makes no connection, gives every byte again, and says what differs."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from live_server import plain_environment
from portico import recording
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.settings import NO_RETRY, Retry, Timeouts
from portico.dialects import openai
from portico.errors import (
    InUse,
    InvalidRequest,
    NotRunning,
    NotSupported,
    ReplayDiffers,
    ServerFailed,
    TimedOut,
)
from portico.messages import ChatRequest, Message, Text
from portico.recording import record, replay
from scripted_answers import CHAT, chat_events, chat_stream, reply, stream
from scripted_upstream import HOLD, RESET, ScriptedUpstream
from test_client_tools import calls

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


def changing(request: Any) -> Any:
    """Another answer each time, as a model at a temperature gives it; a stream that is cut anywhere, also in a character."""
    text = f"{request.json['messages'][0]['content']}: {random.random()} é 👋"
    if not request.json.get("stream"):
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        return reply(200, {"id": "c", "model": "mock-model", "choices": [choice]})
    whole = b"".join(chat_events(*text))
    at = sorted(random.sample(range(1, len(whole)), 5))
    pieces = [whole[begin:end] for begin, end in zip([0, *at], [*at, len(whole)], strict=True)]
    return stream(pieces)


def asked_for(number: int, streamed: bool) -> ChatRequest:
    """Every question five times, each time with an answer of its own."""
    question = Message(role="user", parts=(Text(text=f"Question {number % 40}"),))
    return ChatRequest(model="mock-model", messages=(question,), stream=streamed)


def in_threads(url: str, streamed: bool) -> list[tuple[str, bytes]]:
    """The bytes of 200 replies, 50 at once, in threads that the program begins by itself."""
    with Client(url, model="mock-model", retry=NO_RETRY) as client:

        def one(number: int) -> tuple[str, bytes]:
            request = asked_for(number, streamed)
            if streamed:
                reply = client.carry_out(lambda flows: flows.opened(CHAT, request)).reply
                return request.messages[0].text, b"".join(iter(reply.chunk, b""))
            body = json.loads(openai.write_chat(request, model="mock-model"))
            return request.messages[0].text, client.carry_out(lambda flows: flows.raw(CHAT, body)).reply.body

        with ThreadPoolExecutor(50) as pool:
            return list(pool.map(one, range(200)))


def in_tasks(url: str, streamed: bool) -> list[tuple[str, bytes]]:
    async def run() -> list[tuple[str, bytes]]:
        async with AsyncClient(url, model="mock-model", retry=NO_RETRY) as client:

            async def one(number: int) -> tuple[str, bytes]:
                request = asked_for(number, streamed)
                await asyncio.sleep(random.random() * 0.02)
                if streamed:
                    reply = (await client.carry_out(lambda flows: flows.opened(CHAT, request))).reply
                    said = b""
                    while chunk := await reply.chunk():
                        said += chunk
                    return request.messages[0].text, said
                body = json.loads(openai.write_chat(request, model="mock-model"))
                exchanged = await client.carry_out(lambda flows: flows.raw(CHAT, body))
                return request.messages[0].text, exchanged.reply.body

            return await asyncio.gather(*map(one, range(200)))

    return asyncio.run(run())


@pytest.mark.parametrize("streamed", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("work", [in_threads, in_tasks])
def test_two_hundred_at_once_are_the_same_bytes(
    tmp_path: Path, work: Callable[[str, bool], list[tuple[str, bytes]]], streamed: bool
) -> None:
    """Whatever order they end in, and whatever order they are asked in again."""
    path = tmp_path / "run.jsonl"
    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, *[changing] * 200)
        with record(path):
            first = work(upstream.url, streamed)
        assert len(upstream.received) == 200
        with replay(path) as player:
            second = work(upstream.url, streamed)
            assert player.left == 0
        assert len(upstream.received) == 200, "nothing was asked"
    with replay(path) as player:
        third = work(upstream.url, streamed)  # there is nobody to connect to
        assert player.left == 0
    assert sorted(first) == sorted(second) == sorted(third)
    assert len(set(first)) == 200 and len({question for question, _ in first}) == 40
    with record(tmp_path / "empty.jsonl"), pytest.raises(NotRunning):
        work(upstream.url, streamed)


def test_threads_belong_to_the_recording_that_goes_on(tmp_path: Path) -> None:
    def in_a_thread(work: Callable[[], Any]) -> Any:
        with ThreadPoolExecutor(1) as pool:
            return pool.submit(work).result()

    def tick() -> int:
        return recording.effect("clock", None, time.time_ns)

    assert in_a_thread(recording.current) is None
    with record(tmp_path / "a.jsonl") as outer:
        first = in_a_thread(tick)
        with record(tmp_path / "b.jsonl") as inner:
            assert recording.current() is inner
            with pytest.raises(InUse, match="begin it in a copy of the context"):
                in_a_thread(recording.current)
            assert in_a_thread(partial(copy_context().run, recording.current)) is inner
        assert in_a_thread(recording.current) is outer
    with replay(tmp_path / "a.jsonl"):
        assert in_a_thread(tick) == first
    assert in_a_thread(recording.current) is None


async def test_another_task_has_nothing_to_do_with_it(tmp_path: Path) -> None:
    """As in a server that records one of its runs."""
    began, over = asyncio.Event(), asyncio.Event()

    async def recorded() -> None:
        with record(tmp_path / "run.jsonl"):
            began.set()
            await over.wait()

    task = asyncio.create_task(recorded())
    await began.wait()
    assert recording.current() is None
    over.set()
    await task


async def test_one_task_may_begin_it_and_another_end_it(tmp_path: Path) -> None:
    """As pytest's plugins do with an async fixture."""

    async def fixture() -> AsyncIterator[None]:
        with record(tmp_path / "run.jsonl", everywhere=True):
            yield

    running = fixture()
    await asyncio.create_task(anext(running))  # type: ignore[arg-type]
    recording.effect("clock", None, lambda: 1)
    assert await asyncio.create_task(anext(running, None)) is None  # type: ignore[arg-type]
    assert recording.current() is None
    with replay(tmp_path / "run.jsonl") as player:
        assert player.left == 1


PROGRAM = """
import asyncio, sys
from portico import AsyncClient, record

async def work():
    async with AsyncClient(sys.argv[1], model="mock-model") as client:
        turns = asyncio.Semaphore(8)

        async def one(number):
            async with turns:
                if number % 2:
                    return await client.chat(f"Question {number}")
                async with client.stream(f"Question {number}") as events:
                    async for event in events:
                        pass

        await asyncio.gather(*map(one, range(10_000)))

with record(sys.argv[2]):
    asyncio.run(work())
"""


@pytest.mark.parametrize("wanted", [1, 40, 120])
def test_a_recording_that_is_killed_holds_what_was_finished(tmp_path: Path, wanted: int) -> None:
    path = tmp_path / "run.jsonl"
    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, *[changing] * 10_000)
        command = [sys.executable, "-c", PROGRAM, upstream.url, str(path)]
        with subprocess.Popen(command, env=plain_environment(tmp_path)) as child:
            upstream.wait_for_request(CHAT, wanted)
            child.kill()
        asked = [request.json["messages"][0]["content"] for request in upstream.requests(CHAT)]
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    kept = [json.loads(line) for line in whole]
    names = {effect["request"]["body"]["messages"][0]["content"] for effect in kept}
    assert len(asked) - 8 <= len(kept) <= len(asked) and names <= set(asked), "but for what was in flight"
    with replay(path) as player, Client("http://127.0.0.1:9", model="mock-model", retry=NO_RETRY) as client:
        assert player.left == len(kept)
        for name in names:
            if int(name.split()[1]) % 2:
                assert client.chat(name).text.startswith(f"{name}: ")
            else:
                with client.stream(name) as events:
                    assert "".join(events.text()).startswith(f"{name}: ")
        assert player.left == 0
        with pytest.raises(ReplayDiffers):
            client.chat("Question 1")


def test_a_stream_is_the_same_chunks(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, chat_stream("one", "zwölf", "👋"), (*chat_stream("one", "two")[:3], RESET))

        def work() -> Any:
            found = []
            with Client(upstream.url, retry=NO_RETRY) as client:
                for _ in range(2):
                    events: list[Any] = []
                    try:
                        with client.stream("Hello") as arriving:
                            events.extend(arriving)
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


def test_a_difference_in_a_long_text_is_shown_alone(tmp_path: Path) -> None:
    story = "\n".join(f"Line {at} of the story, which goes on and on." for at in range(900))
    with record(tmp_path / "run.jsonl"):
        for at in range(3):
            recording.effect("model", {"text": story.replace("Line 500", f"Line 50{at}")}, lambda: 1)
            recording.effect("model", {"text": "x" * 5000 + str(at)}, lambda: 1)
    with replay(tmp_path / "run.jsonl"):
        with pytest.raises(ReplayDiffers) as caught:
            recording.effect("model", {"text": story.replace("Line 700", "Row 700")}, lambda: 1)
        assert "\n-Line 700 of the story" in str(caught.value) and "\n+Row 700" in str(caught.value)
        assert len(str(caught.value)) < 1000
        with pytest.raises(ReplayDiffers) as caught:
            recording.effect("model", {"text": "x" * 5000 + "7"}, lambda: 1)
        assert "x7" in str(caught.value) and len(str(caught.value)) < 1000


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


def test_what_a_client_knew_before_is_in_its_recording_too(tmp_path: Path) -> None:
    """The model's name, the context and the routes that a server lacks are asked for once, and once in each recording."""

    def asked(client: Client) -> list[Any]:
        with pytest.raises(NotSupported):
            client.tokenize("Hello")
        return [client.chat("Hello").text, client.chat("Hello").text]

    with ScriptedUpstream() as upstream:
        upstream.script("/tokenize", *[reply(404, {"detail": "Not Found"})] * 4)
        with Client(upstream.url) as client:
            asked(client)
            with record(tmp_path / "run.jsonl"):
                first = asked(client)
            asked(client)
        paths = [request.path for request in upstream.received]
        assert paths.count("/v1/models") == 2, "the first time, and in the recording"
        with Client(upstream.url) as client, replay(tmp_path / "run.jsonl") as left:
            assert asked(client) == first and left.left == 0
        assert len(upstream.received) == len(paths)


def test_an_interrupted_effect_leaves_the_recording_as_it_was(tmp_path: Path) -> None:
    """Ctrl-C in a tool: what the program does next is recorded."""

    def interrupted() -> str:
        """Is interrupted."""
        raise KeyboardInterrupt

    with ScriptedUpstream() as upstream, record(tmp_path / "run.jsonl") as recorder:
        upstream.script(CHAT, *[calls(("interrupted", {}))] * 2)
        with Client(upstream.url, model="m") as client:
            with pytest.raises(KeyboardInterrupt) as caught:
                client.run("Go on", tools=[interrupted])
            assert recording.current() is recorder and caught.traceback
            with pytest.raises(KeyboardInterrupt):
                recording.effect("tool", None, interrupted)
            assert recording.current() is recorder


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_replay_looks_for_no_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Recorded where a server was found on loopback, replayed where a variable names one, and the other way round."""
    for name in [*os.environ]:
        if name.endswith(("_HOST", "_BASE_URL", "_ENDPOINT")):
            monkeypatch.delenv(name)

    async def aask() -> str:
        async with AsyncClient() as client:
            return (await client.chat("Hello")).text

    def ask() -> str:
        if kind == "async":
            return asyncio.run(aask())
        with Client() as client:
            return client.chat("Hello").text

    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, *[changing] * 2)
        monkeypatch.setattr(
            "portico.client.servers.LOOPBACK", ("http://127.0.0.1:9", upstream.url.removesuffix("/v1"))
        )
        with record(tmp_path / "found.jsonl"):
            found = ask()
        monkeypatch.setenv("VLLM_BASE_URL", upstream.url)
        with record(tmp_path / "named.jsonl"):
            named = ask()
    with replay(tmp_path / "found.jsonl") as player:
        assert ask() == found and player.left == 0
    monkeypatch.delenv("VLLM_BASE_URL")
    for name, text in (("found", found), ("named", named)):
        with replay(tmp_path / f"{name}.jsonl") as player:
            assert ask() == text and player.left == 0


class NotPythons(Exception):
    """An error that a replay in another program does not know."""


def test_an_effect_that_raised_raises_again(tmp_path: Path) -> None:
    made: list[str] = []

    def failing(error: Exception) -> int:
        made.append(str(error))
        raise error

    async def later(error: Exception) -> int:
        return failing(error)

    errors = [
        FileNotFoundError(2, "No such file"),
        KeyError("name"),
        NotPythons("the tape is full"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ]

    def work() -> list[str]:
        told = []
        for error in errors:
            for begin in (
                recording.effect,
                lambda kind, at, do: asyncio.run(recording.aeffect(kind, at, do)),
            ):
                with pytest.raises(Exception) as caught:
                    begin("disk", str(error), partial(failing if begin is recording.effect else later, error))
                told.append((type(caught.value), str(caught.value)))
        return told

    with record(tmp_path / "run.jsonl"):
        first = work()
    with replay(tmp_path / "run.jsonl") as player:
        second = work()
        assert player.left == 0
    assert len(made) == 8
    assert second[:4] == first[:4], "Python's own errors are the same"
    assert second[4] == (recording.EffectFailed, "NotPythons: the tape is full")
    assert second[6][0] is recording.EffectFailed and "invalid start byte" in second[6][1]


def test_a_value_is_the_same_while_it_is_recorded(tmp_path: Path) -> None:
    """A pair is a list in JSON: what is made of it must not be another prompt in the replay."""

    def work() -> str:
        value: Any = recording.effect("tool", ("a", "b"), lambda: {"pair": (1, 2), 3: "half \ud800"})
        return f"{value!r}"

    with record(tmp_path / "run.jsonl"):
        first = work()
    with replay(tmp_path / "run.jsonl"):
        assert work() == first == repr({"pair": [1, 2], "3": "half \ud800"})


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_what_an_effect_asks_itself_is_part_of_it(tmp_path: Path, kind: str) -> None:
    """A replay does not do it again, so nothing of it is left over: a tool that asks a model, a step with a clock."""

    def work() -> list[Any]:
        def inner() -> int:
            return recording.effect("clock", None, time.time_ns)

        async def ainner() -> int:
            assert recording.current() is None
            return await asyncio.to_thread(inner)

        if kind == "sync":
            first = recording.effect("step", "one", inner)
        else:
            first = asyncio.run(recording.aeffect("step", "one", ainner))
        return [first, recording.effect("clock", None, time.time_ns)]

    with record(tmp_path / "run.jsonl"):
        first = work()
    assert len((tmp_path / "run.jsonl").read_text().splitlines()) == 2
    with replay(tmp_path / "run.jsonl") as player:
        assert work() == first and player.left == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_two_recordings_do_not_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    with record(path):
        recording.effect("clock", None, lambda: 1)
        with pytest.raises(InUse, match=r"run\.jsonl"), record(path):
            raise AssertionError("it was let in")
        recording.effect("clock", None, lambda: 2)
    assert [json.loads(line)["response"] for line in path.read_text().splitlines()] == [1, 2]
    with record(path):
        pass
    assert path.read_bytes() == b"", "it is begun anew"


@pytest.mark.parametrize(
    "line", ["hello", "[1]", '{"kind":"clock"}', '{"number":"x","kind":"k","request":1}']
)
def test_a_file_that_is_no_recording_says_so(tmp_path: Path, line: str) -> None:
    path = tmp_path / "run.jsonl"
    with record(path):
        recording.effect("clock", None, lambda: 1)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(InvalidRequest, match=r"run\.jsonl:2 is no line of a recording"), replay(path):
        raise AssertionError("it was replayed")


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_replay_does_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """The pauses between attempts were for the server, and none is asked."""
    slept: list[float] = []
    here, sleep, asyncs_sleep = threading.current_thread(), time.sleep, asyncio.sleep

    def pause(seconds: float) -> None:
        if threading.current_thread() is not here:  # what another test left to its end
            return sleep(seconds)
        slept.append(seconds)

    async def asleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncs_sleep(0)

    monkeypatch.setattr("portico.client.drive_sync.time.sleep", pause)
    monkeypatch.setattr("portico.client.drive_async.asyncio.sleep", asleep)

    def work() -> str:
        async def awork() -> str:
            async with AsyncClient(upstream.url) as client:
                return (await client.chat("Hello")).text

        if kind == "async":
            return asyncio.run(awork())
        with Client(upstream.url) as client:
            return client.chat("Hello").text

    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, reply(503, {"error": {"message": "busy"}}, headers={"retry-after": "7"}))
        with record(tmp_path / "run.jsonl"):
            first = work()
    assert any(seconds >= 7 for seconds in slept)
    slept.clear()
    with replay(tmp_path / "run.jsonl") as player:
        assert work() == first and player.left == 0
    assert not any(slept)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_stream_that_fell_silent_does_so_again(tmp_path: Path, kind: str) -> None:
    with ScriptedUpstream() as upstream:
        upstream.script(CHAT, (*chat_stream("one", "two")[:3], HOLD))
        options: Any = {"retry": NO_RETRY, "timeouts": Timeouts(between_tokens=0.2), "model": "mock-model"}

        async def awork() -> None:
            async with AsyncClient(upstream.url, **options) as client, client.stream("Hello") as events:
                async for _ in events:
                    pass

        def work() -> None:
            if kind == "async":
                return asyncio.run(awork())
            with Client(upstream.url, **options) as client, client.stream("Hello") as events:
                for _ in events:
                    pass

        with record(tmp_path / "run.jsonl"), pytest.raises(TimedOut) as first:
            work()
    with replay(tmp_path / "run.jsonl"), pytest.raises(TimedOut) as second:
        work()
    assert str(second.value) == str(first.value)

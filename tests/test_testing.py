"""What comes along for the tests of others: a model with scripted answers, and recordings for pytest."""

from __future__ import annotations

import asyncio
import json
import re
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import ollama
import openai
import pytest

from portico import AsyncClient, Client, Retry, Timeouts
from portico.client.settings import NO_RETRY
from portico.errors import CutOff, NotRunning, NotSupported, RateLimited, ServerFailed, TimedOut
from portico.testing import Asked, Call, Dropped, Failure, ScriptedModel

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parent.parent


def scripted(*answers: Any, **how: Any) -> ScriptedModel:
    return ScriptedModel().say(*answers, **how)


# ---- the scripted model


def test_texts_values_and_calls_in_order() -> None:
    with scripted(
        "Hello there!", {"name": "Ada"}, Call("get_weather", city="Oslo"), [Call("a"), Call("b", x=1)]
    ) as model:
        with Client(model.url) as client:
            hello = client.chat("Hi", temperature=0)
            assert (hello.text, hello.finish_reason, hello.model) == ("Hello there!", "stop", "scripted")
            assert (hello.usage.input_tokens, hello.usage.output_tokens) == (1, 2)
            assert json.loads(client.chat("Who?").text) == {"name": "Ada"}
            (call,) = client.chat("Weather?").tool_calls
            assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Oslo"})
            assert [call.name for call in client.chat("Both?").tool_calls] == ["a", "b"]
        assert [asked.prompt for asked in model.asked] == ["Hi", "Who?", "Weather?", "Both?"]
        assert model.asked[0].body["temperature"] == 0 and model.asked[0].path == "/v1/chat/completions"
        assert model.left == 0


def test_a_whole_tool_round() -> None:
    def get_weather(city: str) -> str:
        """Get the weather."""
        return f"rain in {city}"

    with (
        scripted(Call("get_weather", city="Oslo"), "It rains in Oslo.") as model,
        Client(model.url) as client,
    ):
        run = client.run("Weather in Oslo?", tools=[get_weather])
        assert run.text == "It rains in Oslo." and run.steps[0].outcome == "rain in Oslo"
        assert model.asked[0].tools == ["get_weather"]
        assert model.asked[1].messages[-1]["content"] == "rain in Oslo"


def test_streams_come_in_pieces() -> None:
    with scripted("one two three", reasoning="hm so") as model, Client(model.url) as client:
        with client.stream("Count") as events:
            assert list(events.text()) == ["one ", "two ", "three"]
        assert events.result.reasoning == "hm so" and events.result.usage.output_tokens == 5


def test_functions_and_conditions_for_those_who_ask_side_by_side() -> None:
    def shout(asked: Asked) -> str:
        return asked.prompt.upper()

    async def run(url: str) -> list[str]:
        async with AsyncClient(url) as client:
            told = await asyncio.gather(*(client.chat(text) for text in ("red?", "blue?", "other")))
            return [each.text for each in told]

    with ScriptedModel() as model:
        model.say("it is blue", when="blue").say("it is red", when=lambda asked: "red" in asked.prompt).say(
            shout
        )
        assert asyncio.run(run(model.url)) == ["it is red", "it is blue", "OTHER"]


def test_errors_and_what_the_client_makes_of_them() -> None:
    with scripted(
        Failure(429, "slow down", headers={"retry-after": "60"}), Failure(503, "busy"), "there"
    ) as model:
        with Client(model.url, retry=Retry(first=0.001)) as client:
            with pytest.raises(RateLimited) as caught:
                client.chat("Hi")
            assert caught.value.retry_after == 60
            assert client.chat("Hi").text == "there"
        assert len(model.asked) == 3


@pytest.mark.parametrize("text", ["", "Hel lo"])
def test_a_dropped_connection(text: str) -> None:
    with scripted(Dropped(text), Dropped()) as model, Client(model.url, retry=NO_RETRY) as client:
        with pytest.raises(CutOff) as caught, client.stream("Hi") as events:
            list(events)
        assert caught.value.text == text
        with pytest.raises(CutOff):
            client.chat("Hi")


def test_a_dropped_connection_in_an_event_loop() -> None:
    async def run(url: str) -> str:
        async with AsyncClient(url, retry=NO_RETRY) as client:
            with pytest.raises(CutOff):
                await client.chat("Hi")
            with pytest.raises(CutOff) as caught:
                async with client.stream("Hi") as events:
                    async for _ in events:
                        pass
            return caught.value.text

    with scripted(Dropped(), Dropped("Hel lo")) as model:
        assert asyncio.run(run(model.url)) == "Hel lo"


def test_nobody_is_answered_after_its_end() -> None:
    with scripted("Hello") as model:
        client = Client(model.url, retry=NO_RETRY)
        assert client.chat("Hi").text == "Hello"
    with client, pytest.raises((CutOff, NotRunning)):  # its connection was kept
        client.chat("Hi")


def test_delays() -> None:
    late = Timeouts(first_token=0.2, between_tokens=0.2)
    with scripted("late", delay=30).say("one two", pause=30).say("soon", delay=0.05) as model:
        with Client(model.url, retry=NO_RETRY, timeouts=late) as client:
            with pytest.raises(TimedOut) as caught:
                client.chat("Hi")
            assert caught.value.which == "first_token"
            with pytest.raises(TimedOut) as caught, client.stream("Hi") as events:
                list(events)
            assert caught.value.which == "between_tokens"
        began = time.monotonic()
        with Client(model.url) as client:
            assert client.chat("Hi").text == "soon" and time.monotonic() - began >= 0.05


def test_other_clients_in_both_dialects() -> None:
    with scripted("Hello from OpenAI", "and streamed", "Hello Ollama", Call("f", x=1), "a b", "raw") as model:
        with openai.OpenAI(base_url=f"{model.url}/v1", api_key="x", max_retries=0) as theirs:
            told = theirs.chat.completions.create(model="m", messages=[{"role": "user", "content": "Hi"}])
            assert told.choices[0].message.content == "Hello from OpenAI"
            chunks = theirs.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
            )
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "and streamed"
        ours = ollama.Client(host=model.url)
        hi = [{"role": "user", "content": "Hi"}]
        assert ours.chat("m", hi).message.content == "Hello Ollama"
        (call,) = ours.chat("m", hi).message.tool_calls or ()
        assert (call.function.name, call.function.arguments) == ("f", {"x": 1})
        assert [part.message.content for part in ours.chat("m", hi, stream=True)] == ["a ", "b", ""]
        assert ours.generate("m", "Hi").response == "raw"
        assert [asked.path for asked in model.asked][-1] == "/api/generate"
        ours._client.close()


def test_a_request_without_an_answer_fails_the_test() -> None:
    with pytest.raises(AssertionError) as caught, ScriptedModel() as model:
        with (
            Client(model.url, retry=NO_RETRY) as client,
            pytest.raises(ServerFailed, match="no answer to this"),
        ):
            client.chat("Is anybody there?")
        told = httpx2.post(
            f"{model.url}/api/chat", json={"model": "m", "messages": [{"role": "user", "content": "Hm"}]}
        )
        assert told.status_code == 501 and "no answer" in told.json()["error"]
    assert "2 requests came for which there was no answer" in str(caught.value)
    assert "POST /v1/chat/completions 'Is anybody there?'" in str(caught.value)


def test_an_answer_that_is_left_fails_the_test() -> None:
    with pytest.raises(AssertionError, match=r"1 answers were not asked for:\n.*Hello"), scripted("Hello"):
        pass


def test_a_function_that_raises_fails_the_test() -> None:
    """An assertion in it as well; the next answer is not given in its place."""

    def answer(asked: Asked) -> str:
        assert asked.prompt == "Hello", "the wrong question"
        return "x"

    with (
        pytest.raises(AssertionError, match=r"'Hi' raised AssertionError: the wrong question"),
        ScriptedModel() as model,
        Client(model.url) as client,
    ):
        model.say(answer)
        with pytest.raises(ServerFailed, match="raised AssertionError: the wrong question"):
            client.chat("Hi")
    assert len(model.asked) == 1


def test_another_error_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError) as caught, scripted("Hello"):
        1 // 0  # noqa: B018
    assert any("1 answers were not asked for" in note for note in caught.value.__notes__)


def test_what_it_has_no_route_for_and_cannot_read() -> None:
    with scripted("x") as model, Client(model.url) as client:
        with pytest.raises(NotSupported):
            client.tokenize("Hello", model="m")
        assert client.models()[0].context == 8192
        told = httpx2.post(f"{model.url}/v1/chat/completions", content=b"no JSON")
        assert told.status_code == 400
        assert client.complete("Once").text == "x"


# ---- recordings

TEST = """
import asyncio, os, threading
import pytest
from portico import AsyncClient, Client
from portico.client.settings import NO_RETRY

URL = os.environ["TEST_URL"]
TEXT = os.environ.get("TEST_TEXT", "Hi")

def ask():
    with Client(URL, retry=NO_RETRY) as client:
        return client.chat(TEXT, model="m").text

def test_sync(portico_recording):
    assert ask() == "first"

@pytest.mark.asyncio
async def test_async(portico_recording):
    async with AsyncClient(URL, retry=NO_RETRY) as client:
        assert (await client.chat(TEXT, model="m")).text == "second"

@pytest.mark.parametrize("word", ["a/b", "c d"])
def test_threads(portico_recording, word):
    found = []
    thread = threading.Thread(target=lambda: found.append(ask()))
    thread.start()
    thread.join()
    assert found == ["third"]
"""
PLUGIN = (
    *("-p", "no:portico", "-p", "portico.testing.fixtures", "-p", "no:cacheprovider", "-q"),
    *("-o", "asyncio_default_fixture_loop_scope=function"),
)


def test_the_first_run_is_recorded_and_others_replayed(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytester.makepyfile(test_sample=TEST)
    with scripted("first", "second", "third", "third") as model:
        monkeypatch.setenv("TEST_URL", model.url)
        pytester.runpytest(*PLUGIN).assert_outcomes(passed=4)
    names = sorted(path.name for path in (pytester.path / "recordings" / "test_sample").iterdir())
    assert [re.sub("-[0-9a-f]{8}[.]", ".", name) for name in names] == [
        "test_async.jsonl",
        "test_sync.jsonl",
        "test_threads-a-b.jsonl",
        "test_threads-c-d.jsonl",
    ]
    pytester.runpytest(*PLUGIN).assert_outcomes(passed=4)  # nobody answers there any more
    pytester.runpytest(*PLUGIN, "--portico-record", "none").assert_outcomes(passed=4)
    monkeypatch.setenv("TEST_TEXT", "Something else")
    changed = pytester.runpytest(*PLUGIN, "-k", "test_sync")
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(
        ["*has no such model effect. The nearest:*", '*+*"content": "Something else"*']
    )
    with scripted("first") as model:
        monkeypatch.setenv("TEST_URL", model.url)
        again = pytester.runpytest(*PLUGIN, "-k", "test_sync", "--portico-record", "all")
        again.assert_outcomes(passed=1)
    pytester.runpytest(*PLUGIN, "-k", "test_sync").assert_outcomes(passed=1)


def test_each_test_has_a_recording_of_its_own(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where names are long, or differ in what no file's name may have."""
    words = ["a/b", "a:b", "a-b", "x" * 200 + "1", "x" * 200 + "2", "é" * 90, "plain"]
    pytester.makepyfile(
        test_sample=TEST + f"@pytest.mark.parametrize('word', {words!r})\n"
        "def test_it(portico_recording, word):\n    assert ask()\n"
    )
    with scripted(*map(str, range(len(words)))) as model:
        monkeypatch.setenv("TEST_URL", model.url)
        pytester.runpytest(*PLUGIN, "-k", "test_it").assert_outcomes(passed=len(words))
    names = [path.name for path in (pytester.path / "recordings" / "test_sample").iterdir()]
    assert len(names) == len(words) and "test_it-plain.jsonl" in names and max(map(len, names)) < 143
    pytester.runpytest(*PLUGIN, "-k", "test_it").assert_outcomes(passed=len(words))


def test_only_what_passed_is_kept(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    pytester.makepyfile(test_sample=TEST)
    with scripted("wrong") as model:
        monkeypatch.setenv("TEST_URL", model.url)
        pytester.runpytest(*PLUGIN, "-k", "test_sync").assert_outcomes(failed=1)
    folder = pytester.path / "recordings" / "test_sample"
    assert not folder.exists() or not list(folder.iterdir())
    none = pytester.runpytest(*PLUGIN, "-k", "test_sync", "--portico-record", "none")
    none.assert_outcomes(errors=1)
    none.stdout.fnmatch_lines(["*There is no recording *test_sync.jsonl: run this test once*"])


def test_a_replay_of_which_something_is_left_over_fails(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "def test_it(portico_recording):\n    for _ in range({n}):\n        ask()\n"
    pytester.makepyfile(test_sample=TEST + body.format(n=2))
    with scripted("x", "x") as model:
        monkeypatch.setenv("TEST_URL", model.url)
        pytester.runpytest(*PLUGIN, "-k", "test_it").assert_outcomes(passed=1)
    pytester.makepyfile(test_sample=TEST + body.format(n=1))
    less = pytester.runpytest(*PLUGIN, "-k", "test_it")
    less.assert_outcomes(passed=1, errors=1)
    less.stdout.fnmatch_lines(["*has 1 effects more than this test asked for*"])


def test_the_model_as_a_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_sample="""
        from portico import Client

        def test_good(portico_model):
            portico_model.say("Hello")
            with Client(portico_model.url) as client:
                assert client.chat("Hi").text == "Hello"

        def test_left_over(portico_model):
            portico_model.say("Hello")
        """
    )
    found = pytester.runpytest(*PLUGIN)
    found.assert_outcomes(passed=2, errors=1)
    found.stdout.fnmatch_lines(["*1 answers were not asked for*"])


def test_pytest_finds_it_by_itself_and_it_is_light() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["pytest11"] == {"portico": "portico.testing.fixtures"}

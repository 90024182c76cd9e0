"""Who stands in for a server that cannot answer: in which order, after which errors, with which key; and what is told of it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.conversation import Conversation
from portico.client.fallback import Fallback, Place
from portico.client.settings import NO_RETRY, Timeouts
from portico.errors import ClientError, ConfigError, CutOff, NotRunning, RateLimited, Refused, WrongKey
from scripted_answers import CHAT, COMPLETIONS, EMBEDDINGS, chat_stream, reply
from scripted_upstream import HOLD, RESET, ScriptedUpstream
from test_client import QUICK, Both, error, said


@pytest.fixture(scope="module")
def _pair() -> Iterator[tuple[ScriptedUpstream, ScriptedUpstream]]:
    with ScriptedUpstream(model="ours") as first, ScriptedUpstream(model="theirs") as second:
        yield first, second


@pytest.fixture
def first(_pair: tuple[ScriptedUpstream, ScriptedUpstream]) -> ScriptedUpstream:
    _pair[0].reset()
    return _pair[0]


@pytest.fixture
def second(_pair: tuple[ScriptedUpstream, ScriptedUpstream]) -> ScriptedUpstream:
    _pair[1].reset()
    return _pair[1]


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, first: ScriptedUpstream) -> Both:
    return Both(request.param, first.url)


@pytest.fixture
def nobody() -> str:
    """A URL at which nothing answers."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def root(upstream: ScriptedUpstream) -> str:
    return upstream.url.removesuffix("/v1")


# ---- when


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_another_answers(both: Both, first: ScriptedUpstream, second: ScriptedUpstream, status: int) -> None:
    first.script(CHAT, *[error(status, "too much")] * 3)
    result = both.chat(fallback=[(second.url, "gpt-x")], told={"model": "mine"})
    assert (result.text, result.url) == ("Hello there", root(second))
    seen = [(attempt.url, attempt.model, attempt.status, attempt.error) for attempt in result.attempts]
    failed = (root(first), "mine", status, "too much")
    assert seen == [failed, failed, failed, (root(second), "gpt-x", 200, "")]
    assert second.last(CHAT)["model"] == "gpt-x"


def test_nothing_listens(both: Both, second: ScriptedUpstream, nobody: str) -> None:
    """The model is that of the server that answers, even where the first cannot be asked what it has."""
    both.url = nobody
    result = both.chat(fallback=[second.url])
    assert result.url == root(second) and second.last(CHAT)["model"] == "theirs"
    assert [attempt.status for attempt in result.attempts] == [502, 502, 502, 200]


@pytest.mark.parametrize("status", [400, 401, 404, 422])
def test_what_would_fail_elsewhere_too_is_told(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream, status: int
) -> None:
    first.script(CHAT, error(status))
    with pytest.raises(ClientError) as caught:
        both.chat(fallback=[second.url], told={"model": "mine"})
    assert caught.value.url == root(first) and not second.requests(CHAT)


def test_the_policy_says_when(both: Both, first: ScriptedUpstream, second: ScriptedUpstream) -> None:
    places = (Place(url=second.url),)
    first.script(CHAT, *[error(429, "slow down")] * 3)
    with pytest.raises(RateLimited):
        both.chat(fallback=Fallback(places=places, rate_limits=False))
    missing = reply(404, {"error": {"message": "The model `x` does not exist.", "code": 404}})
    first.script(CHAT, missing)
    assert both.chat(fallback=Fallback(places=places, missing_models=True)).url == root(second)


def test_a_limit_on_the_whole_call_is_one_for_all(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    first.script(CHAT, *[error(503)] * 3)
    second.script(CHAT, (HOLD,))
    with pytest.raises(ClientError, match=r"timeouts=total") as caught:
        both.chat(fallback=[second.url], timeouts=Timeouts(total=0.5))
    assert caught.value.url == root(second)
    second.release()


def test_the_first_is_asked_first_again(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    first.script(CHAT, error(503))

    def twice(one: Any) -> Any:
        if both.kind == "sync":
            return [one.chat("a").url, one.chat("b").url]

        async def run() -> Any:
            return [(await one.chat("a")).url, (await one.chat("b")).url]

        return run()

    assert both.do(twice, fallback=[second.url], retry=NO_RETRY) == [root(second), root(first)]


# ---- what is told


def test_all_fail(both: Both, first: ScriptedUpstream, second: ScriptedUpstream) -> None:
    first.script(CHAT, error(503, "the engine is gone"))
    second.script(CHAT, error(401, "bad key"))
    with pytest.raises(WrongKey) as caught:
        both.chat(fallback=[second.url], retry=NO_RETRY)
    assert [attempt.url for attempt in caught.value.tried] == [root(first), root(second)]
    assert str(caught.value).endswith(f"Before it, {root(first)}: the engine is gone")


def test_it_is_logged(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    first.script(CHAT, error(503, "the engine is gone"))
    with caplog.at_level(logging.WARNING, "portico.client"):
        both.chat(fallback=[second.url], retry=NO_RETRY)
    (line,) = caplog.messages
    assert line.startswith(f"{root(first)} has no answer, {root(second)} is asked: the engine is gone")


def test_each_has_a_key_of_its_own(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PORTICO_HOST", "VLLM_BASE_URL", "VLLM_ENDPOINT", "OLLAMA_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OPENAI_BASE_URL", second.url)
    monkeypatch.setenv("OPENAI_API_KEY", "theirs")
    first.script(CHAT, error(503), error(503))
    both.chat(fallback=[second.url], retry=NO_RETRY, api_key="ours", headers={"x-secret": "s"})
    assert first.requests(CHAT)[0].headers["authorization"] == "Bearer ours"
    there = second.requests(CHAT)[0].headers
    assert there["authorization"] == "Bearer theirs" and "x-secret" not in there
    monkeypatch.delenv("OPENAI_API_KEY")
    both.chat(fallback=[second.url], retry=NO_RETRY, api_key="ours")
    assert "authorization" not in second.requests(CHAT)[1].headers
    place = Place(url=second.url, api_key="given", headers={"x-team": "red"})
    first.script(CHAT, error(503))
    both.chat(fallback=[place], retry=NO_RETRY)
    there = second.requests(CHAT)[2].headers
    assert there["authorization"] == "Bearer given" and there["x-team"] == "red"


def test_a_place_is_read(first: ScriptedUpstream) -> None:
    with pytest.raises(ConfigError, match=r"neither a Place nor \(url, model\) nor a URL"):
        Client(first.url, fallback=[("a", "b", "c")])
    with pytest.raises(ConfigError, match=r"fallback is a list of places"):
        Client(first.url, fallback="http://x")
    with pytest.raises(ConfigError, match="expected host:port or an http URL"):
        AsyncClient(first.url, fallback=["ftp://x"])


# ---- every call


def test_streams_before_their_first_byte(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    first.script(CHAT, error(503))
    result = both.stream(fallback=[second.url], retry=NO_RETRY)
    assert (result.text, result.url, result.model) == ("Hello there", root(second), "theirs")
    first.script(CHAT, (*chat_stream("one two")[:3], RESET))
    with pytest.raises(CutOff) as caught:
        both.stream(fallback=[second.url], retry=NO_RETRY)
    assert len(second.requests(CHAT)) == 1 and caught.value.url == root(first)


def test_completions_and_vectors(both: Both, first: ScriptedUpstream, second: ScriptedUpstream) -> None:
    first.script(COMPLETIONS, error(500))
    first.script(EMBEDDINGS, error(500))
    options: dict[str, Any] = {"fallback": [second.url], "retry": NO_RETRY}
    assert both.do(lambda one: one.complete("Once"), **options).url == root(second)
    assert second.last(COMPLETIONS)["max_tokens"] > 8000
    vectors = both.do(lambda one: one.embed(["a", "b"]), **options)
    assert len(vectors.vectors) == 2 and (vectors.url, vectors.model) == (root(second), "theirs")
    assert [attempt.status for attempt in vectors.attempts] == [500, 200]


def test_a_run_goes_on_elsewhere_and_makes_no_call_twice(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream
) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": "sky"}'}}
    turn = {"index": 0, "message": {"role": "assistant", "tool_calls": [call]}, "finish_reason": "tool_calls"}
    first.script(CHAT, reply(200, {"id": "1", "choices": [turn]}), error(503))
    second.script(CHAT, said("Blue."))
    looked: list[str] = []

    def look(at: str) -> str:
        looked.append(at)
        return "blue"

    run = both.do(lambda one: one.run("Look", tools=[look]), fallback=[second.url], retry=NO_RETRY)
    assert run.text == "Blue." and looked == ["sky"]
    assert [result.url for result in run.results] == [root(first), root(second)]
    assert second.last(CHAT)["messages"][-1]["content"] == "blue"


def test_a_batchs_rows_go_elsewhere_each_by_itself(
    both: Both, first: ScriptedUpstream, second: ScriptedUpstream, tmp_path: Path
) -> None:
    first.script(CHAT, error(500), error(500))
    second.script(CHAT, said("elsewhere"), said("elsewhere"))
    rows, journal = ["a", "b", "c", "d"], tmp_path / "out.jsonl"
    options: dict[str, Any] = {"fallback": [second.url], "retry": NO_RETRY}
    if both.kind == "sync":
        with Client(first.url, **options) as one:
            found = list(one.batch(rows, journal=journal, at_once=1))
    else:

        async def run() -> list[Any]:
            async with AsyncClient(first.url, **options) as one:
                return [done async for done in one.batch(rows, journal=journal, at_once=1)]

        found = asyncio.run(run())
    told = sorted((str(done.result), done.result.url) for done in found)
    assert told == [("Hello there", root(first))] * 2 + [("elsewhere", root(second))] * 2
    assert {request.json["model"] for request in second.requests(CHAT)} == {"theirs"}


def test_a_conversation_goes_on_elsewhere(second: ScriptedUpstream, nobody: str) -> None:
    with Client(nobody, fallback=[second.url], retry=NO_RETRY) as one:
        assert Conversation(one).ask("Hello").url == root(second)


def test_a_server_that_refuses_extensions_is_not_sent_them() -> None:
    """OpenAI refuses what it does not know, and max_tokens of newer models."""
    from portico.client import options
    from portico.client.flows import Flows
    from portico.client.servers import Server
    from portico.client.settings import Settings

    flows = Flows(Server(url="https://api.openai.com"), Settings())
    request = options.chat("gpt-x", "Hello", options={"max_tokens": 5, "top_k": 3})
    sent = flows._written(request)
    assert b"top_k" not in sent and b'"max_completion_tokens":5' in sent


# ---- one question for all who ask at once


def test_tasks_that_begin_at_once_list_the_models_once(first: ScriptedUpstream) -> None:
    async def run() -> list[str]:
        async with AsyncClient(first.url) as one:
            results = await asyncio.gather(*(one.chat("Hello") for _ in range(200)))
            return [result.text for result in results]

    assert asyncio.run(run()) == ["Hello there"] * 200
    assert len(first.requests("/v1/models")) == 1


def test_threads_that_begin_at_once_list_the_models_once(first: ScriptedUpstream) -> None:
    answers: list[str] = []
    together = threading.Barrier(16)

    def ask() -> None:
        together.wait()
        answers.append(one.chat("Hello").text)

    first.script("/v1/models", (HOLD, *reply(200, {"data": [{"id": "ours"}]})))
    with Client(first.url) as one:
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        first.wait_for_request("/v1/models")
        first.release()
        for thread in threads:
            thread.join()
    assert answers == ["Hello there"] * 16
    assert len(first.requests("/v1/models")) == 1


def test_all_who_waited_are_told_the_same_error(nobody: str) -> None:
    async def run() -> list[Any]:
        async with AsyncClient(nobody, retry=QUICK) as one:
            return await asyncio.gather(*(one.models() for _ in range(20)), return_exceptions=True)

    told = asyncio.run(run())
    assert all(isinstance(each, NotRunning) and each.attempts == 3 for each in told)


def test_one_who_leaves_takes_nothing_from_the_others(first: ScriptedUpstream) -> None:
    first.script("/v1/models", (HOLD, *reply(200, {"data": [{"id": "ours"}]})))

    async def run() -> Any:
        async with AsyncClient(first.url) as one:
            leaver, stayer = asyncio.create_task(one.models()), asyncio.create_task(one.models())
            await asyncio.to_thread(first.wait_for_request, "/v1/models")
            leaver.cancel()
            first.release()
            with pytest.raises(asyncio.CancelledError):
                await leaver
            return await stayer

    assert [card.id for card in asyncio.run(run())] == ["ours"]
    assert len(first.requests("/v1/models")) == 1


def test_a_refusal_by_the_second_names_the_second(first: ScriptedUpstream, second: ScriptedUpstream) -> None:
    first.script(CHAT, error(503))
    second.script(CHAT, error(422, "no"))
    with Client(first.url, fallback=[second.url], retry=NO_RETRY) as one, pytest.raises(Refused) as caught:
        one.chat("Hello")
    assert caught.value.url == root(second)

"""Beam search: the sequences are those of transformers, on both engines; what a server lacks is named."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from gguf_edit import TINY
from live_server import LiveServer
from portico.client.async_client import AsyncClient
from portico.client.beams import Beams, Search
from portico.client.budget import Budget
from portico.client.client import Client
from portico.client.settings import NO_RETRY
from portico.errors import ClientError, InvalidRequest, NotSupported, OverBudget, PromptTooLong
from portico.recording import record, replay
from scripted_answers import COMPLETIONS, completion_chunk, reply
from scripted_upstream import HOLD, ScriptedUpstream
from toy_model import ENDS, VOCABULARY, completion, logprobs, speak

GOLDEN = json.loads((TINY.parent / "golden.json").read_text(encoding="utf-8"))
NEAR = 0.05
"""For a score: the engines count with 16 bit weights, transformers with 32."""


@pytest.fixture(scope="module", params=["llamacpp", "vllm"])
def server(request: pytest.FixtureRequest) -> LiveServer:
    found = request.getfixturevalue({"llamacpp": "embedded", "vllm": "vllm_server"}[request.param])
    assert isinstance(found, LiveServer)
    return found


@pytest.fixture
def toy() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(manners=speak) as running:
        yield running


# ---- on real engines


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize("prompt", GOLDEN["prompts"], ids=lambda prompt: prompt["name"])
def test_the_sequences_are_those_of_transformers(server: LiveServer, prompt: Any, width: int) -> None:
    with Client(server.url, model=server.model) as client:
        found = client.beam_search(prompt["prompt"], width, max_tokens=64)
    golden = prompt["beams"][str(width)]
    assert found.prompt_token_ids == tuple(prompt["prompt_ids"]) and found.by == "client"
    scores = [beam.score for beam in found]
    assert len(found) == width and scores == sorted(scores, reverse=True)
    # Where two of four stood near each other on the way, 16 bits may have kept the other one, but never for the first.
    theirs = {tuple(beam["ids"]): beam for beam in golden}
    shared = [(beam, theirs[beam.token_ids]) for beam in found if beam.token_ids in theirs]
    assert found[0].token_ids == tuple(golden[0]["ids"]) and len(shared) >= 2
    assert [beam.text for beam, _ in shared] == [beam["text"] for _, beam in shared]
    assert [beam.score for beam, _ in shared] == pytest.approx(
        [beam["score"] for _, beam in shared], abs=NEAR
    )
    assert all(beam.finish_reason == "stop" for beam in found)
    assert found.usage.output_tokens == found.requests > len(golden[0]["ids"])


def test_messages_go_through_the_chat_template(server: LiveServer) -> None:
    async def run() -> Beams:
        async with AsyncClient(server.url, model=server.model) as client:
            hello = [{"role": "user", "content": "Hello, how are you?"}]
            found = await client.beam_search(hello, 3, max_tokens=48)
            asked = await client.chat(hello, temperature=0)
            assert asked.text in [beam.text for beam in found]
            return found

    found = asyncio.run(run())
    assert len(found) == 3 and str(found) == found[0].text != ""
    assert [beam.score for beam in found] == sorted((beam.score for beam in found), reverse=True)


def test_vllms_own(vllm_server: LiveServer) -> None:
    """Its rules are its own: the likeliest answer is among them, the others may differ from transformers'."""
    prompt = GOLDEN["prompts"][0]
    with Client(vllm_server.url, model=vllm_server.model) as client:
        found = client.beam_search(prompt["prompt_ids"], 2, max_tokens=32, early_stopping="never")
        with_ours = client.beam_search(
            prompt["prompt_ids"], 2, max_tokens=32, early_stopping="never", by="client"
        )
    assert (found.by, found.requests, len(found)) == ("server", 1, 2)
    assert found[0].token_ids == with_ours[0].token_ids and found[0].text == with_ours[0].text
    assert found[0].score == pytest.approx(with_ours[0].score, abs=NEAR)
    assert found[0].finish_reason == "stop" and with_ours.by == "client"


def test_the_embedded_engine_has_none_of_its_own(embedded: LiveServer) -> None:
    with Client(embedded.url) as client:
        assert client.beam_search("Hello", 2, max_tokens=2, early_stopping="never").by == "client"
        with pytest.raises(NotSupported, match="no beam search of its own"):
            client.beam_search("Hello", 2, max_tokens=2, by="server")


def test_tokens_are_named_by_their_numbers(server: LiveServer) -> None:
    """vLLM's return_tokens_as_token_ids, which Portico has for the embedded engine too."""
    more = {"model": server.model, "temperature": 0, "max_tokens": 4, "return_tokens_as_token_ids": True}
    raw = server.ask("POST", "/v1/completions", {**more, "prompt": "One two", "logprobs": 2})["choices"][0]
    hello = [{"role": "user", "content": "Hello"}]
    body = {**more, "messages": hello, "logprobs": True, "top_logprobs": 2}
    chat = server.ask("POST", "/v1/chat/completions", body)["choices"][0]
    for text, said in (
        (raw["text"], raw["logprobs"]["tokens"]),
        (chat["message"]["content"], [token["token"] for token in chat["logprobs"]["content"]]),
    ):
        ids = [int(token.removeprefix("token_id:")) for token in said]
        told = server.ask("POST", "/detokenize", {"model": server.model, "tokens": ids})
        assert told["prompt"].removesuffix("<|im_end|>") == text
    assert all(name.startswith("token_id:") for top in raw["logprobs"]["top_logprobs"] for name in top)
    assert all(
        top["token"].startswith("token_id:")
        for token in chat["logprobs"]["content"]
        for top in token["top_logprobs"]
    )


# ---- the rules, on a model that anybody can compute


def every(prompt: tuple[int, ...], most: int) -> list[tuple[float, tuple[int, ...]]]:
    """All answers of a model of seven tokens, by the sum of their log probabilities."""
    found = []
    for length in range(1, most + 1):
        for ids in product(range(VOCABULARY), repeat=length):
            ended = ids[-1] in ENDS
            if any(token in ENDS for token in ids[:-1]) or (length < most and not ended):
                continue
            total = sum(logprobs((*prompt, *ids[:at]))[token] for at, token in enumerate(ids))
            found.append((total, ids))
    return sorted(found, reverse=True)


@pytest.mark.parametrize("seed", range(6))
def test_a_search_that_is_wide_enough_finds_the_likeliest_of_all(toy: ScriptedUpstream, seed: int) -> None:
    prompt = (seed, 1)
    best = every(prompt, 3)
    with Client(toy.url) as client:
        found = client.beam_search(prompt, 40, max_tokens=3, length_penalty=0.0, early_stopping="never")
    assert [beam.token_ids for beam in found][:20] == [ids for _, ids in best[:20]]
    assert [beam.logprob for beam in found][:20] == pytest.approx([total for total, _ in best[:20]])
    assert all((beam.finish_reason == "stop") == (beam.token_ids[-1] in ENDS) for beam in found)


def test_which_tokens_end_an_answer_is_asked_once_or_told(toy: ScriptedUpstream) -> None:
    def forced() -> list[Any]:
        return [one.json for one in toy.requests(COMPLETIONS) if one.json.get("logit_bias")]

    with Client(toy.url) as client:
        told = client.beam_search((3, 1), 3, max_tokens=4, ends=ENDS)
        assert not forced()
        first = client.beam_search((3, 1), 3, max_tokens=4)
        tried = [tuple(body["logit_bias"]) for body in forced()]
        assert len(tried) == len(set(tried)) > 0, "no token twice"
        again = client.beam_search((3, 1), 3, max_tokens=4)
        assert len(forced()) == len(tried)
    assert told.sequences == first.sequences == again.sequences


def test_a_replay_needs_nothing_that_was_known_before(toy: ScriptedUpstream, tmp_path: Path) -> None:
    with Client(toy.url, model="m") as client:
        client.beam_search((3, 1), 3, max_tokens=4)
        with record(tmp_path / "run.jsonl"):
            first = client.beam_search((3, 1), 3, max_tokens=4)
            with pytest.raises(NotSupported, match="of its own"):
                client.beam_search((3, 1), 3, max_tokens=4, by="server")
    seen = len(toy.received)
    with Client(toy.url, model="m") as client, replay(tmp_path / "run.jsonl") as left:
        again = client.beam_search((3, 1), 3, max_tokens=4)
        with pytest.raises(NotSupported, match="of its own"):
            client.beam_search((3, 1), 3, max_tokens=4, by="server")
    assert again.sequences == first.sequences and len(toy.received) == seen and left.left == 0


def test_a_search_keeps_to_a_budget(toy: ScriptedUpstream) -> None:
    budget = Budget(tokens=60)
    with Client(toy.url, budget=budget, retry=NO_RETRY) as client, pytest.raises(OverBudget):
        client.beam_search((3, 1), 3, max_tokens=16)
    assert 0 < budget.used_tokens <= 60 and budget.held_tokens == 0


def test_length_penalty_and_early_stopping() -> None:
    """By hand: two ends at once fill a search of two, which is over for True and not for "never"."""
    told = [[(0, -0.1), (1, -0.2), (2, -0.3), (3, -5.0)]]
    ends = frozenset({0, 1}).__contains__
    for early, over in ((True, True), (False, True), ("never", False)):
        search = Search(2, max_tokens=10, length_penalty=1.0, early_stopping=early)  # type: ignore[arg-type]
        search.go_on(search.followers(told), ends)
        assert [ended.line.ids for ended in search.ended] == [(0,), (1,)]
        assert [line.ids for line in search.running] == [(2,), (3,)]
        assert search.over is over, early
    search = Search(2, max_tokens=10, length_penalty=2.0, early_stopping="never")
    search.go_on(search.followers(told), ends)
    search.go_on(search.followers([[(0, -0.1), (4, -0.2)], [(4, -0.1)]]), ends)
    # -0.4 / 2**2 = -0.1: as good as the first, and better than the second.
    assert [round(ended.score, 4) for ended in search.ended] == [-0.1, -0.1]


def test_a_limit_ends_what_runs(toy: ScriptedUpstream) -> None:
    with Client(toy.url) as client:
        found = client.beam_search((2,), 3, max_tokens=1, ends=())
    assert [beam.finish_reason for beam in found] == ["length"] * 3
    assert found.requests == 1 and found.usage.input_tokens == 1 and found.usage.output_tokens == 1


# ---- what can be wrong


@pytest.mark.parametrize("kind", ["text", "none", "few"])
def test_a_server_that_lacks_something_is_told_by_name(toy: ScriptedUpstream, kind: str) -> None:
    told = completion({"prompt": [1, 2], "logprobs": 5})
    if kind == "text":
        told["choices"][0]["logprobs"]["top_logprobs"] = [{"a": -0.5, "b": -1.0}]
    elif kind == "few":
        told["choices"][0]["logprobs"]["top_logprobs"] = [{"token_id:1": -0.5}]
    else:
        told = completion_chunk("Hello", finish="length")
    toy.script(COMPLETIONS, *[reply(200, told)] * 2)
    with Client(toy.url) as client, pytest.raises(NotSupported, match=r"beam search.*token ids") as caught:
        client.beam_search((1, 2), 2, max_tokens=4)
    assert caught.value.feature == "beam search" and caught.value.url == toy.url.removesuffix("/v1")


def test_a_server_that_cannot_tokenize(toy: ScriptedUpstream) -> None:
    toy.script("/tokenize", reply(404, {"detail": "Not Found"}))
    with Client(toy.url) as client, pytest.raises(NotSupported, match="give the prompt as token ids"):
        client.beam_search("Hello", 2, max_tokens=4)


def test_a_server_that_refuses(toy: ScriptedUpstream) -> None:
    toy.script(COMPLETIONS, reply(400, {"error": {"message": "prompt must be a text", "code": 400}}))
    with Client(toy.url) as client, pytest.raises(NotSupported, match="it says: prompt must be a text"):
        client.beam_search((1, 2), 2, max_tokens=4)


def test_a_server_that_gives_too_few_alternatives(embedded: LiveServer) -> None:
    with Client(embedded.url) as client, pytest.raises(NotSupported, match=r"does not give 30.*width=30"):
        client.beam_search("Hello", 30, max_tokens=4)


def test_a_server_that_does_not_keep_to_logit_bias(toy: ScriptedUpstream) -> None:
    def deaf(upstream: ScriptedUpstream, request: Any) -> Any:
        if request.path != COMPLETIONS:
            return speak(upstream, request)
        return reply(200, completion({**request.json, "logit_bias": {"3": 100}}))

    toy.manners = deaf
    with Client(toy.url) as client, pytest.raises(NotSupported, match="ends="):
        client.beam_search((1, 2), 2, max_tokens=4)


def test_arguments(toy: ScriptedUpstream) -> None:
    with Client(toy.url) as client:
        with pytest.raises(PromptTooLong):
            client.beam_search((1, 2), 2, max_tokens=8191)
        for prompt, width in (((1, 2), 0), ((), 2), ([["no"]], 2)):
            with pytest.raises(InvalidRequest):
                client.beam_search(prompt, width)  # type: ignore[arg-type]
    assert not toy.requests(COMPLETIONS)


@pytest.mark.parametrize("status", [400, 500])
def test_an_error_in_the_middle_is_the_clients(toy: ScriptedUpstream, status: int) -> None:
    """Also where several requests run side by side, which an event loop reports as a group."""

    def failing(upstream: ScriptedUpstream, request: Any) -> Any:
        if request.path == COMPLETIONS and len(request.json["prompt"]) > 2:
            return reply(status, {"error": {"message": "lost", "code": status}})
        return speak(upstream, request)

    toy.manners = failing

    async def run() -> None:
        async with AsyncClient(toy.url, retry=NO_RETRY) as client:
            await client.beam_search((1, 2), 3, max_tokens=4)

    with pytest.raises(ClientError, match="lost"):
        asyncio.run(run())
    with Client(toy.url, retry=NO_RETRY) as client, pytest.raises(ClientError, match="lost"):
        client.beam_search((1, 2), 3, max_tokens=4)


def test_cancelling_leaves_nothing_running_and_no_more_run_than_may(toy: ScriptedUpstream) -> None:
    def held(upstream: ScriptedUpstream, request: Any) -> Any:
        last = request.path == COMPLETIONS and len(request.json["prompt"]) > 2
        return (HOLD,) if last else speak(upstream, request)

    toy.manners = held

    async def run() -> None:
        async with AsyncClient(toy.url) as client:
            task = asyncio.create_task(client.beam_search((1, 2), 5, max_tokens=4, ends=ENDS, at_once=2))
            await asyncio.to_thread(toy.wait_for_request, COMPLETIONS, 3)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    toy.wait_for_hangup(2)
    assert len(toy.requests(COMPLETIONS)) == 3, "one step, and two of the five of the next"

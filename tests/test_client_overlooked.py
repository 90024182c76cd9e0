"""Parameters that a server would overlook: an error that names them, before anything is sent; and those that it keeps to, sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_server import LiveServer
from portico.client import options
from portico.client import wishes as whole
from portico.client.budget import Budget
from portico.client.client import Client
from portico.client.drive_sync import drive
from portico.client.flows import Flows
from portico.client.overlooked import BY_SOFTWARE, asked_for
from portico.client.servers import Server
from portico.client.settings import Settings
from portico.client.wishes import Send
from portico.errors import NotSupported, OverBudget
from portico.messages import ChatRequest
from scripted_answers import CHAT, COMPLETIONS, reply, usual_answer
from scripted_upstream import Answer, Received, ScriptedUpstream
from test_client import Both

LLAMACPP: dict[str, Any] = {
    "min_tokens": 50,
    "stop_token_ids": [21],
    "include_stop_str_in_output": True,
    "allowed_token_ids": [1, 2],
    "bad_words": ["2"],
    "repetition_detection": {"max_pattern_size": 1},
    "prompt_logprobs": 0,
    "logprob_token_ids": [1],
    "truncate_prompt_tokens": 3,
    "thinking_token_budget": 5,
    "chat_template": "{{ messages }}",
    "kv_transfer_params": {"a": 1},
    "vllm_xargs": {"a": 1},
    "mm_processor_kwargs": {"a": 1},
}
BEYOND: dict[str, Any] = {
    "top_k": 5,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "ignore_eos": True,
    "continue_final_message": True,
    "add_generation_prompt": False,
    "chat_template_kwargs": {"a": 1},
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_HOME", str(tmp_path / "home"))


class World:
    """`kind`: the software that it is, or Portico before it."""

    def __init__(self) -> None:
        self.kind = ""
        self.upstream = ScriptedUpstream(manners=self._manners)

    def _manners(self, upstream: ScriptedUpstream, request: Received) -> Answer:
        if request.path == "/v1/models":
            owner = {"llama.cpp": "llamacpp", "vLLM": "vllm"}.get(self.kind, "x")
            portico = {"server": "Portico"} if self.kind.startswith("Portico") else {}
            return reply(200, {"data": [{"id": "m", "owned_by": owner}]}, headers=portico)
        if request.path == "/api/version" and self.kind in ("Ollama", "Portico"):
            return reply(200, {"version": "0.13.0"})
        if request.path == "/api/show":
            engine = "safetensors" if self.kind.endswith("vLLM") else "gguf"
            return reply(200, {"capabilities": ["completion"], "details": {"format": engine}})
        return usual_answer(upstream, request)


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with made.upstream:
        yield made


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, world: World) -> Both:
    return Both(request.param, world.upstream.url)


def test_every_name_is_tried_here() -> None:
    assert set(LLAMACPP) == BY_SOFTWARE["llama.cpp"]
    assert {*LLAMACPP, *BEYOND} == BY_SOFTWARE["OpenAI"]
    assert BY_SOFTWARE["Ollama"] == {*BY_SOFTWARE["OpenAI"], "n", "logit_bias"}
    assert {*LLAMACPP, *BEYOND} <= set(options.Options.__annotations__)


@pytest.mark.parametrize("name", LLAMACPP)
@pytest.mark.parametrize("kind", ["llama.cpp", "Portico", "Ollama"])
def test_what_would_be_overlooked_is_not_sent(world: World, kind: str, name: str) -> None:
    world.kind = kind
    with Client(world.upstream.url) as client, pytest.raises(NotSupported) as caught:
        client.chat("Hello", **{name: LLAMACPP[name]})  # type: ignore[call-overload]
    assert caught.value.feature == name and name in str(caught.value) and kind in str(caught.value)
    assert not world.upstream.requests(CHAT)


def test_it_is_so_with_both_clients_and_raw_completions(both: Both, world: World) -> None:
    world.kind = "Portico"
    with pytest.raises(NotSupported, match="overlook min_tokens, bad_words with m"):
        both.chat(told={"min_tokens": 5, "bad_words": ["a"]})
    with pytest.raises(NotSupported, match="prompt_logprobs"):
        both.do(lambda one: one.complete("a", prompt_logprobs=1))
    with pytest.raises(NotSupported, match="min_tokens"):
        both.chat(told={"extra": {"min_tokens": 5}})
    assert not world.upstream.requests(CHAT) and not world.upstream.requests(COMPLETIONS)


@pytest.mark.parametrize("kind", ["vLLM", "Portico before vLLM", "somebody"])
def test_others_are_sent_all_of_it(both: Both, world: World, kind: str) -> None:
    world.kind = kind
    both.chat(told={**LLAMACPP, **BEYOND})
    sent = world.upstream.last(CHAT)
    assert {name: sent[name] for name in {**LLAMACPP, **BEYOND}} == {**LLAMACPP, **BEYOND}


def test_values_that_ask_for_nothing_ask_nothing(both: Both, world: World) -> None:
    both.chat(told={"min_tokens": 0, "bad_words": [], "top_k": -1, "repetition_penalty": 1.0, "n": 1})
    assert [request.path for request in world.upstream.received] == ["/v1/models", CHAT]


# ---- OpenAI, which is not asked


class _Heard:
    """What would be sent to OpenAI."""

    server = Server(url="https://api.openai.com")

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []

    def send(self, wish: Send) -> whole.Answer:
        self.bodies.append(json.loads(wish.body))
        choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
        return whole.Answer(200, {}, json.dumps({"choices": [choice]}).encode())

    def close(self) -> None: ...

    def chat(self, request: ChatRequest) -> None:
        drive(Flows(self.server, Settings()).chat(request), self)


def _at_openai(**given: Any) -> ChatRequest:
    extra = given.pop("extra", None)
    return options.chat("gpt", "Hello", extra=extra, options=given)


@pytest.mark.parametrize("name", [*LLAMACPP, *BEYOND])
def test_openai_is_sent_nothing_that_it_has_not(name: str) -> None:
    openai = _Heard()
    with pytest.raises(NotSupported, match=rf"OpenAI would overlook {name}"):
        openai.chat(_at_openai(**{name: {**LLAMACPP, **BEYOND}[name]}))
    assert not openai.bodies


def test_openai_is_sent_what_is_newer_than_we_are() -> None:
    openai = _Heard()
    openai.chat(_at_openai(extra={"service_tier": "flex"}, n=2, logit_bias={"1": 5}))
    (sent,) = openai.bodies
    assert (sent["service_tier"], sent["n"], sent["logit_bias"]) == ("flex", 2, {"1": 5})


# ---- extra


def test_a_parameter_in_extra_is_one(both: Both, world: World) -> None:
    request = options.chat("m", "Hello", extra={"n": 3, "max_completion_tokens": 7, "new": 1}, options={})
    assert (request.n, request.sampling.max_tokens, request.sampling.extra) == (3, 7, {"new": 1})
    assert not {"n"} & {*asked_for(options.chat("m", "Hello", options={}))}


def test_a_budget_counts_what_is_in_extra(both: Both, world: World) -> None:
    with pytest.raises(OverBudget):
        both.chat(budget=Budget(tokens=200), told={"max_tokens": 50, "extra": {"n": 4}})
    with pytest.raises(OverBudget):
        both.chat(budget=Budget(tokens=200), told={"extra": {"max_tokens": 500}})
    assert not world.upstream.requests(CHAT)


# ---- the embedded engine really does


COUNT = "Count from 1 to 10."


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_tokens", 60),
        ("stop_token_ids", [21]),  # 3
        ("bad_words", ["2", "3"]),
        ("allowed_token_ids", [19, 20]),
        ("truncate_prompt_tokens", 5),
        ("chat_template", "Hi"),
    ],
)
def test_the_embedded_engine_overlooks_it(server: LiveServer, name: str, value: Any) -> None:
    """Once it does not, it is time to take the name from the list."""
    body = {"model": "default", "messages": [{"role": "user", "content": COUNT}], "temperature": 0}
    with Client(server.url) as client:
        plain, given = (
            client.carry_out(lambda flows, sent=sent: flows.raw(CHAT, sent)).reply.body
            for sent in ({**body, "max_tokens": 40}, {**body, "max_tokens": 40, name: value})
        )
    assert json.loads(plain)["choices"][0]["message"] == json.loads(given)["choices"][0]["message"]

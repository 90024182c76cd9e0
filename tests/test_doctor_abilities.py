"""What a model that runs supports, found out by asking: a real Portico, servers as vLLM and Ollama, and broken ones."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from doctor_fixtures import CHAT, HANG, Place, doctor, line, listed, ollama, serving, states, vllm, vllms_chat
from live_server import LiveServer
from portico.cli.checks import Check
from portico.cli.checks.abilities import abilities, state
from portico.cli.checks.asking import Answer, Silence
from portico.cli.checks.probes import MOST_TOKENS
from portico.cli.checks.who import OLLAMA, VLLM, Model, Seen, loaded
from portico.cli.replies import EngineHealth, Health, Loaded

RUNNING = "running: "


def concluded(name: str, *bodies: Any, status: int = 200, kind: str = VLLM) -> Check:
    (ability,) = [one for one in abilities(Seen("u", kind), Model("m")) if one.name == name]
    answers = [
        body if isinstance(body, Answer) else Answer(status, json.dumps(body).encode()) for body in bodies
    ]
    return ability.conclude(tuple(answers))


def chat(content: str | None = "Hello", *, finish: str = "stop", **message: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"content": content, **message}, "finish_reason": finish}]}


def chunks(*deltas: dict[str, Any], finish: str | None = "length", **more: Any) -> Answer:
    events = [{"choices": [{"delta": delta}], **more} for delta in deltas]
    events.append({"choices": [{"delta": {}, "finish_reason": finish}]})
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return Answer(200, f"{text}data: [DONE]\n\n".encode())


NAMED = {"tool_calls": [{"index": 0, "id": "1", "type": "function", "function": {"name": "go"}}]}
BEGUN = {"tool_calls": [{"index": 0, "function": {"arguments": '{"'}}]}
CALL = [{"function": {"name": "go", "arguments": "{}"}}]
REFUSED = Answer(400, b'{"error": {"message": "no such thing"}}')


# ---- conclusions


@pytest.mark.parametrize(
    ("answers", "state", "found"),
    [
        ((chat("", tool_calls=CALL), chat()), "ok", "a call comes back parsed"),
        ((chat('{"name": "go"}'), chat()), "warn", "the call did not come back parsed, only text"),
        ((chat("I cannot", finish="length"), chat()), "warn", "only text"),
        ((chat("<tool_call>", finish="length"), chat()), "skip", "were not enough for a call"),
        ((chat("", finish="length", reasoning_content="Hm"), chat()), "skip", "were not enough for a call"),
        (
            (chat("", tool_calls=CALL), REFUSED),
            "warn",
            "a required call comes back parsed, but one that is left",
        ),
        ((REFUSED, REFUSED), "warn", "refused (400): no such thing"),
        ((chat("", tool_calls=[{"function": {"name": "stop"}}]), chat()), "warn", "did not come back parsed"),
        (
            (chunks({"role": "assistant", "content": ""}, NAMED, BEGUN), chat()),
            "ok",
            "a call comes back parsed",
        ),
        ((chunks({"content": "Hel"}, {"content": "lo"}), chat()), "warn", "only text"),
        ((chunks({"content": "<tool"}, {"content": "_call>"}), chat()), "skip", "were not enough for a call"),
        ((chunks({"reasoning_content": "Hm"}), chat()), "skip", "were not enough for a call"),
        ((chunks({}, error={"message": "oops"}), chat()), "warn", "is no chat completion"),
    ],
)
def test_tools(answers: tuple[Any, ...], state: str, found: str) -> None:
    check = concluded("tools", *answers)
    assert check.state == state and found in check.found


@pytest.mark.parametrize(
    ("answer", "state", "found"),
    [
        (chat(' "yes"\n'), "ok", "a JSON schema is kept"),
        (chat("Hello!"), "warn", "the answer is no JSON"),
        (chat('{"greeting": "hello"}'), "warn", "the answer is other JSON"),
        (chat('"y', finish="length"), "skip", "not whole after 16 tokens"),
        (chat("\n\n\n", finish="length"), "skip", "not whole after 16 tokens"),
        (chat("Hello, how are", finish="length"), "warn", "the answer is no JSON"),
        (chat(None, finish="length", reasoning="Let me"), "skip", "not whole"),
        (REFUSED, "warn", "refused (400): no such thing"),
    ],
)
def test_schemas(answer: Any, state: str, found: str) -> None:
    check = concluded("schema", answer)
    assert check.state == state and found in check.found


def usage(cached: Any) -> dict[str, Any]:
    details = None if cached is None else {"cached_tokens": cached}
    return chat() | {"usage": {"prompt_tokens": 130, "prompt_tokens_details": details}}


def test_cached_tokens() -> None:
    assert (
        concluded("cached", usage(0), usage(128)).found
        == "usage tells it: 128 of 130 tokens of a repeated prompt"
    )
    missing = concluded("cached", usage(None), usage(None))
    assert missing.state == "skip" and "--enable-prompt-tokens-details" in missing.do
    assert concluded("cached", usage(0), usage(0)).state == "warn"
    assert concluded("cached", chat(), chat()).found == "the answer tells no usage"


def test_the_rest() -> None:
    assert concluded("chat", chat()).state == "ok"
    template = Answer(
        400, b'{"error": {"message": "As of transformers v4.44, default chat template is no longer allowed"}}'
    )
    bare = concluded("chat", template)
    assert bare.state == "fail" and bare.found == "no chat template, so it cannot chat"
    assert "--chat-template FILE" in bare.do
    assert (
        concluded("chat", {"id": 1}).found == "it answers, but not as OpenAI's API does: there are no choices"
    )
    logprobs = {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{}]}}]}
    assert concluded("logprobs", logprobs).state == "ok" and concluded("logprobs", chat()).state == "skip"
    assert concluded("priority", chat()).state == "ok" and concluded("priority", REFUSED).state == "skip"
    assert concluded("tokenize", {"tokens": [1]}).state == "ok"
    assert concluded("tokenize", {}, status=404).found == "there is no /tokenize"


def test_no_answer() -> None:
    (ability, *_) = abilities(Seen("u", VLLM), Model("m"))
    late = ability.conclude((Silence("slow", 4.0),))
    assert late.found == "no answer within 4 s" and "--within 30" in late.do
    assert ability.conclude((Silence("closed"),)).state == "warn"


def test_the_state_of_a_model() -> None:
    ready = state(Model("m", context=8192, size=4 << 30, on_gpu=1 << 30), asked=True)
    assert ready.found == "ready, 4.0 GiB 25% on the GPU, context 8,192"
    assert state(Model("m", "sleeping"), asked=False).found == "sleeping; not asked"
    failed = state(Model("m", "failed", error="CUDA out\n of memory"), asked=False)
    assert (failed.state, failed.do) == ("fail", "portico logs m")
    assert failed.found == "its engine failed: CUDA out of memory"
    assert "not asked" in state(Model("m"), asked=False).found


def test_what_health_adds_to_what_is_loaded() -> None:
    health = Health(
        engines=(
            EngineHealth(model="a", state="sleeping"),
            EngineHealth(model="b", state="failed", error="oom"),
            EngineHealth(model="c", state="stopped"),
        )
    )
    found = loaded([Loaded(name="a:latest", context_length=5)], health)
    assert [(model.name, model.state) for model in found] == [("a:latest", "sleeping"), ("b", "failed")]


# ---- over sockets


def test_our_own_server(server: LiveServer, tmp_path: Path) -> None:
    server.ask("POST", "/api/generate", {"model": server.model, "prompt": ""})
    checks, _, _ = doctor("--within", "20", home=tmp_path, PORTICO_HOST=server.url)
    running = [one for one in checks if one["group"] == "running: portico-tiny:latest"]
    assert states(running) == dict.fromkeys(
        ("state", "chat", "tools", "schema", "logprobs", "priority", "cached", "tokenize"), "ok"
    )
    assert line(checks, "address")["state"] == "ok"


def test_no_ask_asks_nothing(tmp_path: Path) -> None:
    with serving(vllm()) as place:
        checks, _, _ = doctor("--no-ask", home=tmp_path, PORTICO_HOST=place.url)
    assert [one["name"] for one in checks if one["group"].startswith(RUNNING)] == ["state"]
    assert {method for method, _, _ in place.asked} == {"GET"}


def test_a_bare_vllm(tmp_path: Path) -> None:
    with serving(vllm("qwen")) as place:
        checks, code, _ = doctor(home=tmp_path, VLLM_BASE_URL=place.url, VLLM_MODEL="qwen")
    assert line(checks, "VLLM_MODEL")["state"] == "ok" and code == 0
    assert line(checks, "chat", RUNNING)["state"] == "ok"
    tools = line(checks, "tools", RUNNING)
    assert tools["found"] == 'refused (400): tool_choice="required" requires --tool-call-parser to be set'
    assert tools["state"] == "warn" and "--enable-auto-tool-choice" in tools["do"]
    assert line(checks, "schema", RUNNING)["state"] == "ok"
    assert "--enable-prompt-tokens-details" in line(checks, "cached", RUNNING)["do"]
    for path, body in place.bodies:
        if path == CHAT:
            assert body["max_tokens"] <= MOST_TOKENS and body["temperature"] == 0 and body["model"] == "qwen"


def test_a_template_that_refuses_to_be_told(tmp_path: Path) -> None:
    """With Mistral's tokenizer vLLM answers 400 to any chat_template_kwargs."""

    def answer(body: dict[str, Any]) -> Any:
        if "chat_template_kwargs" in body:
            return 400, {"error": {"message": "chat_template is not supported for Mistral tokenizers."}}
        return vllms_chat(body, parser=True)

    with serving(vllm(**{CHAT: answer})) as place:
        checks, _, _ = doctor(home=tmp_path, PORTICO_HOST=place.url)
    assert line(checks, "tools", RUNNING)["state"] == line(checks, "schema", RUNNING)["state"] == "ok"


def test_an_ollama_is_asked_in_its_own_words_and_loads_nothing(tmp_path: Path) -> None:
    """With another context than the one it was loaded with, Ollama would load the model again."""
    with serving(ollama("toy:latest", "asleep:latest")) as place:
        checks, _, _ = doctor(home=tmp_path, OLLAMA_HOST=place.url)
    running = [one for one in checks if one["group"] == "running: toy:latest"]
    assert states(running) == dict.fromkeys(("state", "chat", "tools", "schema", "logprobs"), "ok")
    assert line(running, "state")["found"] == "ready, 4.0 GiB 25% on the GPU, context 8,192"
    chats = [body for path, body in place.bodies if path == "/api/chat"]
    assert len(chats) == 4
    for body in chats:
        assert body["model"] == "toy:latest" and "keep_alive" not in body
        assert body["options"]["num_ctx"] == 8192 and body["options"]["num_predict"] <= MOST_TOKENS
    assert {path for path, _ in place.bodies if path != "/api/chat"} <= {
        "/v1/models", "/api/version", "/api/ps", "/v1/models/toy",
    }  # fmt: skip


def test_nothing_is_loaded(tmp_path: Path) -> None:
    with serving(ollama(**{"/api/ps": {"models": []}})) as place:
        checks, _, _ = doctor(home=tmp_path, OLLAMA_HOST=place.url)
    found = line(checks, "models", "running")
    assert found["state"] == "skip" and "the first request loads one and waits for that" in found["found"]
    assert "/api/chat" not in place.paths()


def test_a_server_that_does_not_tell_what_is_loaded_is_not_asked(tmp_path: Path) -> None:
    with serving(Place({"/v1/models": listed("a", owned_by="somebody")})) as place:
        checks, _, _ = doctor(home=tmp_path, OPENAI_BASE_URL=f"{place.url}/v1")
    assert "does not tell which models are loaded" in line(checks, "models", "running")["found"]
    assert {method for method, _, _ in place.asked} == {"GET"}


def test_only_some_of_many_models_are_asked(tmp_path: Path) -> None:
    names = [f"m{number}" for number in range(6)]
    with serving(vllm(*names)) as place:
        checks, _, _ = doctor("m5", home=tmp_path, PORTICO_HOST=place.url)
    asked = {body["model"] for path, body in place.bodies if path == CHAT}
    assert asked == {"m5", "m0", "m1", "m2"}
    assert line(checks, "state", "running: m4")["do"] == "portico doctor m4"
    assert OLLAMA not in str(checks[-1])


def test_a_model_that_hangs_costs_its_time_once(tmp_path: Path) -> None:
    with serving(vllm(**{CHAT: lambda body: HANG, "/tokenize": lambda body: HANG})) as place:
        began = time.monotonic()
        checks, code, _ = doctor("--within", "0.5", home=tmp_path, PORTICO_HOST=place.url)
        took = time.monotonic() - began
    late = [one for one in checks if one["found"] == "no answer within 0.5 s"]
    assert {one["name"] for one in late} == {
        "chat",
        "tools",
        "schema",
        "logprobs",
        "priority",
        "cached",
        "tokenize",
    }
    assert all(one["state"] == "warn" for one in late) and code == 0
    assert took < 8

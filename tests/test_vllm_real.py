"""vLLM itself, on a CPU, with the bundled model: what is promised of it is asked of it. Its start takes half a minute."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import httpx2
import psutil
import pytest

from conftest import serve_vllm
from fake_engines import command_of, processes, serve_fakes
from live_server import LiveServer, wait_until

pytestmark = pytest.mark.timeout(600)
CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello, how are you?"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Get the weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def ask(server: LiveServer, messages: Any = HELLO, **more: Any) -> Any:
    body = {"model": server.model, "messages": messages, "temperature": 0, **more}
    reply = httpx2.post(server.url + CHAT, json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply.json()


def test_both_dialects_answer_alike(vllm_server: LiveServer) -> None:
    openai = ask(vllm_server)["choices"][0]
    body = {"model": vllm_server.model, "messages": HELLO, "stream": False, "options": {"temperature": 0}}
    ollama = vllm_server.ask("POST", "/api/chat", body)
    assert openai["message"]["content"] == ollama["message"]["content"] != ""
    assert openai["finish_reason"] == ollama["done_reason"] == "stop"
    assert ollama["eval_count"] > 0 and ollama["prompt_eval_count"] > 0


def test_usage_tells_the_tokens_that_were_in_the_cache(vllm_server: LiveServer) -> None:
    long = [{"role": "user", "content": "Note this: " + "the red box, " * 60}]
    ask(vllm_server, long, max_tokens=1)
    usage = ask(vllm_server, long, max_tokens=1)["usage"]
    assert usage["prompt_tokens_details"]["cached_tokens"] > 100


@pytest.mark.parametrize(
    "choice", ["auto", "required", {"type": "function", "function": {"name": "get_weather"}}]
)
@pytest.mark.parametrize("stream", [False, True])
def test_tools(vllm_server: LiveServer, choice: Any, stream: bool) -> None:
    messages = [{"role": "user", "content": "What is the weather in Oslo?"}]
    more = {"tools": [WEATHER], "tool_choice": choice, "max_tokens": 100}
    if not stream:
        (call,) = ask(vllm_server, messages, **more)["choices"][0]["message"]["tool_calls"]
        name, said = call["function"]["name"], call["function"]["arguments"]
    else:
        body = {"model": vllm_server.model, "messages": messages, "temperature": 0, "stream": True, **more}
        text = httpx2.post(vllm_server.url + CHAT, json=body, timeout=120).text
        events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
        pieces = [
            call["function"]
            for event in events
            if event["choices"]
            for call in event["choices"][0]["delta"].get("tool_calls") or ()
        ]
        name = "".join(piece.get("name") or "" for piece in pieces)
        said = "".join(piece.get("arguments") or "" for piece in pieces)
    assert name == "get_weather"
    assert set(json.loads(said)) == {"city"}
    if choice == "auto":
        assert json.loads(said) == {"city": "Oslo"}


def test_a_schema_is_kept(vllm_server: LiveServer) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema, "strict": True}}
    messages = [{"role": "user", "content": "Extract name and age: Ada is 36 years old."}]
    said = json.loads(ask(vllm_server, messages, response_format=wanted)["choices"][0]["message"]["content"])
    assert set(said) == {"name", "age"} and isinstance(said["age"], int)
    body = {"model": vllm_server.model, "messages": messages, "stream": False, "format": schema}
    assert set(json.loads(vllm_server.ask("POST", "/api/chat", body)["message"]["content"])) == {
        "name",
        "age",
    }


def test_log_probabilities(vllm_server: LiveServer) -> None:
    choice = ask(vllm_server, logprobs=True, top_logprobs=3, max_tokens=4)["choices"][0]
    tokens = choice["logprobs"]["content"]
    assert len(tokens) == 4 or choice["finish_reason"] == "stop"
    for token in tokens:
        assert len(token["top_logprobs"]) == 3 and token["logprob"] <= 0
        assert token["top_logprobs"][0]["token"] == token["token"], "greedy: the first is the one taken"


def test_tokens_and_models(vllm_server: LiveServer) -> None:
    counted = vllm_server.ask("POST", "/tokenize", {"model": vllm_server.model, "prompt": "Hello there"})
    text = vllm_server.ask("POST", "/detokenize", {"model": vllm_server.model, "tokens": counted["tokens"]})
    assert text["prompt"] == "Hello there" and counted["count"] == len(counted["tokens"])
    (model,) = [one for one in vllm_server.ask("GET", "/v1/models")["data"] if one["id"] == vllm_server.model]
    assert model["max_model_len"] == 5120
    assert vllm_server.ask("GET", "/api/ps")["models"][0]["context_length"] == 5120


def test_a_prompt_that_is_too_long_tells_both_numbers(vllm_server: LiveServer) -> None:
    messages = [{"role": "user", "content": "word " * 6000}]
    body = {"model": vllm_server.model, "messages": messages}
    reply = httpx2.post(vllm_server.url + CHAT, json=body, timeout=120)
    error = reply.json()["error"]
    assert reply.status_code == 400 and error["code"] == "context_length_exceeded"
    assert "5120" in error["message"]


def test_a_caller_who_leaves_stops_the_engine(vllm_server: LiveServer) -> None:
    body = {
        "model": vllm_server.model,
        "messages": HELLO,
        "stream": True,
        "max_tokens": 4000,
        "ignore_eos": True,
    }
    with httpx2.stream("POST", vllm_server.url + CHAT, json=body, timeout=60) as reply:
        lines = reply.iter_lines()  # kept: an iterator that goes closes the reply
        next(lines)
        wait_until(lambda: vllm_server.metric("vllm:num_requests_running") == 1, seconds=10, what="it runs")
    wait_until(
        lambda: vllm_server.metric("vllm:num_requests_running") == 0, seconds=10, what="it was stopped"
    )


def test_developer_routes_are_not_forwarded(vllm_server: LiveServer) -> None:
    for path in ("/sleep", "/wake_up", "/reset_prefix_cache", "/collective_rpc", "/v1/load_lora_adapter"):
        assert httpx2.post(vllm_server.url + path, json={}, timeout=10).status_code in (404, 405)


# ---- the stand-in says what vLLM says


def shape(value: Any) -> Any:
    """The fields and their types, without what varies."""
    if isinstance(value, dict):
        return {name: shape(each) for name, each in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return type(value).__name__


# What the stand-in leaves out; nothing of it is read by Portico.
LEFT_OUT = {
    "annotations",
    "audio",
    "function_call",
    "kv_transfer_params",
    "prompt_logprobs",
    "prompt_token_ids",
    "refusal",
    "routed_experts",
    "service_tier",
    "system_fingerprint",
    "token_ids",
}


def without(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without(each) for name, each in value.items() if name not in LEFT_OUT}
    return [without(each) for each in value] if isinstance(value, list) else value


def told(server: LiveServer, path: str, **more: Any) -> list[Any]:
    """What the engine says, as it is relayed: the whole, or each kind of chunk once."""
    prompt: dict[str, Any] = {"messages": HELLO} if "chat" in path else {"prompt": "Once upon a time"}
    body = {"model": server.model, "temperature": 0, "max_tokens": 5, "ignore_eos": True, **prompt, **more}
    reply = httpx2.post(server.url + path, json=body, timeout=60)
    assert reply.status_code == 200, reply.text
    if not more.get("stream"):
        return [without(shape(reply.json()))]
    lines = [line[6:] for line in reply.text.splitlines() if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    shapes = [json.dumps(without(shape(json.loads(line))), sort_keys=True) for line in lines[:-1]]
    return [json.loads(each) for each in dict.fromkeys(shapes)]


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
@pytest.mark.parametrize(
    "more", [{}, {"stream": True, "stream_options": {"include_usage": True}}], ids=["whole", "stream"]
)
def test_the_stand_in_says_what_vllm_says(
    vllm_server: LiveServer, tmp_path: Path, path: str, more: dict[str, Any]
) -> None:
    """Field by field, in the same order of chunks."""
    with serve_fakes(tmp_path, {"name": "org/m"}) as fake:
        assert told(fake, path, **more) == told(vllm_server, path, **more)


# ---- kills


@pytest.fixture
def own(tmp_path: Path, vllm_python: Path) -> Any:
    with serve_vllm(tmp_path, vllm_python, "portico-tiny") as server:
        yield server


def engine_core(server: LiveServer) -> psutil.Process:
    (core,) = [process for process in processes(server) if "EngineCore" in " ".join(command_of(process))]
    return core


def test_a_stopped_and_a_killed_engine_core_and_a_killed_server(own: LiveServer) -> None:
    """One server for all three, because each start takes half a minute."""
    core = engine_core(own)
    core.suspend()
    began = time.monotonic()
    wait_until(lambda: not core.is_running(), seconds=15, what="the stopped EngineCore is noticed and ended")
    assert time.monotonic() - began < 15
    assert ask(own)["choices"], "the request waited for the restart"
    body = {"model": own.model, "messages": HELLO, "stream": True, "max_tokens": 4000, "ignore_eos": True}
    with httpx2.stream("POST", own.url + CHAT, json=body, timeout=60) as reply:
        lines = (line for line in reply.iter_lines() if line.startswith("data: "))
        for _ in range(3):
            next(lines)
        killed = time.monotonic()
        engine_core(own).kill()
        rest = list(lines)
        assert time.monotonic() - killed < 3
    assert "error" in json.loads(rest[-1][6:])
    assert ask(own)["choices"], "it is back"
    everything = processes(own)
    assert len(everything) >= 3
    os.kill(own.process.pid, signal.SIGKILL)
    _, alive = psutil.wait_procs(everything, timeout=10)
    assert not alive

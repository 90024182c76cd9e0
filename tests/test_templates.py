"""Chat templates: the model's own, one that is given, and none; and what is made of a model's abilities."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import httpx2
import pytest

from gguf_edit import TINY, edit
from live_server import LiveServer, serve

TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "My name is Ada."},
    {"role": "assistant", "content": "Hello Ada."},
    {"role": "user", "content": "What is my name?"},
]
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] "


def rendered(server: LiveServer, messages: list[dict[str, Any]], model: str = "default") -> str:
    """The prompt that a chat becomes, from its token ids."""
    tokens = server.ask("POST", "/tokenize", {"model": model, "messages": messages})["tokens"]
    return str(server.ask("POST", "/detokenize", {"model": model, "tokens": tokens})["prompt"])


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model: the bundled one without its chat template."""
    return edit(TINY, tmp_path_factory.mktemp("base") / "base.gguf", without=["tokenizer.chat_template"])


@pytest.fixture(scope="module")
def base_server(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with serve(tmp_path_factory.mktemp("base-server"), str(base)) as running:
        yield running


def test_the_models_own_template_renders_every_turn(server: LiveServer) -> None:
    assert rendered(server, TURNS) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nMy name is Ada.<|im_end|>\n"
        "<|im_start|>assistant\nHello Ada.<|im_end|>\n"
        "<|im_start|>user\nWhat is my name?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )


def test_a_developer_is_a_system_message(server: LiveServer) -> None:
    developer = [{**TURNS[0], "role": "developer"}, *TURNS[1:]]
    assert rendered(server, developer) == rendered(server, TURNS)


def test_tools_stand_in_the_prompt(server: LiveServer) -> None:
    tool = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}
    body = {"model": "default", "messages": TURNS[-1:], "tools": [tool]}
    count = server.ask("POST", "/tokenize", body)["count"]
    assert count > server.ask("POST", "/tokenize", {**body, "tools": None})["count"] + 10


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_a_base_model_cannot_chat(base_server: LiveServer, path: str, stream: bool) -> None:
    body = {"model": "base", "messages": TURNS, "stream": stream}
    reply = httpx2.post(base_server.url + path, json=body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    message = error if path.startswith("/api") else error["message"]
    assert "chat template" in message and "--chat-template" in message


def test_a_base_model_completes_and_generates(base_server: LiveServer) -> None:
    completion = {"model": "base", "prompt": "Once upon a time", "max_tokens": 5}
    assert base_server.ask("POST", "/v1/completions", completion)["usage"]["completion_tokens"] == 5
    options = {"num_predict": 3, "ignore_eos": True}
    generation = {"model": "base", "prompt": "Once", "options": options, "stream": False}
    assert base_server.ask("POST", "/api/generate", {**generation, "raw": True})["eval_count"] == 3


def test_a_base_model_generates_from_what_it_is_given(base_server: LiveServer) -> None:
    """Without `raw` too: Ollama's template for such a model is the prompt itself."""
    options = {"num_predict": 8, "temperature": 0}
    asked = {"model": "base", "stream": False, "options": options}
    plain = base_server.ask("POST", "/api/generate", {**asked, "prompt": "Once upon a time"})
    raw = base_server.ask("POST", "/api/generate", {**asked, "prompt": "Once upon a time", "raw": True})
    assert plain["response"] == raw["response"] and plain["eval_count"] == raw["eval_count"]
    assert plain["prompt_eval_count"] == raw["prompt_eval_count"]

    # What it sends back as `context` goes on from there, also after a system message.
    begun = base_server.ask("POST", "/api/generate", {**asked, "prompt": "Once", "system": "A tale."})
    text = base_server.ask("POST", "/detokenize", {"model": "base", "tokens": begun["context"]})["prompt"]
    assert text == "A tale.\n\nOnce" + begun["response"]
    on = {**asked, "prompt": " and", "context": begun["context"]}
    full = {**asked, "prompt": text + " and", "raw": True}
    assert (
        base_server.ask("POST", "/api/generate", on)["response"]
        == base_server.ask("POST", "/api/generate", full)["response"]
    )


def test_a_suffix_may_be_echoed_with_its_prompt(filling: LiveServer) -> None:
    asked = {"model": "fim", "prompt": "def f(", "suffix": "):", "temperature": 0, "max_tokens": 6}
    middle = filling.ask("POST", "/v1/completions", asked)["choices"][0]["text"]
    echoed = filling.ask("POST", "/v1/completions", {**asked, "echo": True})["choices"][0]["text"]
    assert echoed == "def f(" + middle


def test_a_base_model_is_not_said_to_have_tools(base_server: LiveServer) -> None:
    assert base_server.ask("POST", "/api/show", {"model": "base"})["capabilities"] == ["completion"]


def test_a_template_can_be_given(base: Path, tmp_path: Path) -> None:
    template = tmp_path / "plain.jinja"
    template.write_text(TEMPLATE)
    with serve(tmp_path / "server", str(base), "--chat-template", str(template)) as running:
        assert rendered(running, TURNS) == (
            "[system] Be brief.\n[user] My name is Ada.\n[assistant] Hello Ada.\n[user] What is my name?\n[assistant] "
        )
        body = {"model": "base", "messages": TURNS, "max_tokens": 3}
        assert running.ask("POST", "/v1/chat/completions", body)["usage"]["completion_tokens"] <= 3


def test_without_a_template_a_chat_can_be_plain_text(base: Path, tmp_path: Path) -> None:
    with serve(tmp_path / "server", str(base), "--chat-fallback", "prompt") as running:
        chat = {"model": "base", "messages": TURNS, "max_tokens": 4, "temperature": 0, "logprobs": True}
        said = running.ask("POST", "/v1/chat/completions", chat)
        prompt = (
            "System: Be brief.\n\nUser: My name is Ada.\n\nAssistant: Hello Ada.\n\n"
            "User: What is my name?\n\nAssistant:"
        )
        same = {"model": "base", "prompt": prompt, "max_tokens": 4, "temperature": 0, "stop": ["\nUser:"]}
        completed = running.ask("POST", "/v1/completions", same)
        assert said["choices"][0]["message"]["content"] == completed["choices"][0]["text"]
        assert said["usage"]["prompt_tokens"] == completed["usage"]["prompt_tokens"]


def test_what_the_model_lacks_says_so(server: LiveServer) -> None:
    image = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("/api/chat", {"messages": [{"role": "user", "content": "x", "images": [image]}]}, "vision"),
        ("/api/generate", {"prompt": "a", "suffix": "b"}, "insert"),
        ("/v1/completions", {"prompt": "a", "suffix": "b"}, "insert"),
        ("/api/embed", {"input": "a"}, "embedding"),
        ("/v1/embeddings", {"input": "a"}, "embedding"),
    ]
    for path, body, lacking in cases:
        with pytest.raises(HTTPError) as caught:
            server.ask("POST", path, {"model": "default", **body})
        assert caught.value.code == 400, path
        assert f"does not support {lacking}" in caught.value.read().decode(), path


@pytest.fixture(scope="module")
def filling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A model that is told to have fill-in-the-middle tokens."""
    folder = tmp_path_factory.mktemp("fim")
    tokens = {f"tokenizer.ggml.fim_{place}_token_id": 5 + n for n, place in enumerate(("pre", "suf", "mid"))}
    with serve(folder, str(edit(TINY, folder / "fim.gguf", integers=tokens))) as running:
        yield running


def test_a_suffix_is_filled_in_by_a_model_that_can(filling: LiveServer) -> None:
    assert "insert" in filling.ask("POST", "/api/show", {"model": "fim"})["capabilities"]
    greedy = {"model": "fim", "prompt": "def f(", "suffix": "):", "temperature": 0, "max_tokens": 6}
    completed = filling.ask("POST", "/v1/completions", greedy)
    assert completed["usage"]["completion_tokens"] <= 6
    other = filling.ask("POST", "/v1/completions", {**greedy, "suffix": " -> None: ..."})
    assert other["usage"]["prompt_tokens"] > completed["usage"]["prompt_tokens"]
    generation = {"model": "fim", "prompt": "def f(", "suffix": "):", "stream": False}
    options = {"temperature": 0, "num_predict": 6}
    generated = filling.ask("POST", "/api/generate", {**generation, "options": options})
    assert generated["response"] == completed["choices"][0]["text"]
    with_logprobs = filling.ask("POST", "/v1/completions", {**greedy, "logprobs": 2})
    assert len(with_logprobs["choices"][0]["logprobs"]["tokens"]) == completed["usage"]["completion_tokens"]

"""Real vLLM with other models than the bundled one: a long context, an adapter, two that take turns.

The weights are made up by vLLM itself (`--load-format dummy`): what they say is noise, and the same noise each time.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from conftest import serve_vllm
from fake_engines import command_of, processes
from library_fixtures import TINY
from live_server import LiveServer, wait_until

pytestmark = pytest.mark.timeout(900)
LIMIT = 32_768
RANK = 8
CHAT = "/v1/chat/completions"


def checkpoint(folder: Path, **changes: Any) -> Path:
    """Shaped like the bundled model, with two layers of its six."""
    folder.mkdir()
    for path in TINY.iterdir():
        if path.suffix in (".json", ".jinja", ".safetensors"):
            shutil.copy(path, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "num_hidden_layers": 2,
        "layer_types": config["layer_types"][:2],
        "max_window_layers": 2,
        **changes,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def adapter(folder: Path, model: Path) -> Path:
    """A LoRA adapter of the queries and values of every layer, in the form in which PEFT saves them."""
    config = json.loads((model / "config.json").read_text())
    width, head = config["hidden_size"], config["head_dim"]
    heads = {"q_proj": config["num_attention_heads"], "v_proj": config["num_key_value_heads"]}
    shapes = {}
    for layer in range(config["num_hidden_layers"]):
        for module, count in heads.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            shapes[f"{name}.lora_A.weight"] = (RANK, width)
            shapes[f"{name}.lora_B.weight"] = (count * head, RANK)
    drawn = random.Random(1)
    header: dict[str, Any] = {}
    content = b""
    for name, (rows, columns) in shapes.items():
        values = struct.pack(f"<{rows * columns}f", *(drawn.gauss(0, 1) for _ in range(rows * columns)))
        offsets = [len(content), len(content) + len(values)]
        header[name] = {"dtype": "F32", "shape": [rows, columns], "data_offsets": offsets}
        content += values
    head_bytes = json.dumps(header).encode()
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(
        struct.pack("<Q", len(head_bytes)) + head_bytes + content
    )
    described = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": RANK, "bias": "none"}
    (folder / "adapter_config.json").write_text(json.dumps({**described, "target_modules": list(heads)}))
    return folder


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("long")
    model = checkpoint(folder / "long", max_position_embeddings=LIMIT)
    arguments = [str(model), "--lora-modules", f"sql={adapter(folder / 'sql', model)}"]
    arguments += ["--vllm-arg=--load-format", "--vllm-arg=dummy"]
    with serve_vllm(folder, vllm_python, *arguments) as running:
        yield running


def counted(server: LiveServer, messages: Any) -> int:
    return int(server.ask("POST", "/tokenize", {"model": server.model, "messages": messages})["count"])


def user(words: int) -> list[dict[str, str]]:
    return [{"role": "user", "content": "1" * words}]  # single digits: each is a token


def of_tokens(server: LiveServer, count: int) -> list[dict[str, str]]:
    """A conversation that is exactly so long."""
    made = user(count - counted(server, user(0)))
    assert counted(server, made) == count
    return made


def openai(server: LiveServer, messages: Any, **more: Any) -> httpx2.Response:
    body = {"model": server.model, "messages": messages, "max_tokens": 1, **more}
    return httpx2.post(server.url + CHAT, json=body, timeout=600)


def ollama(server: LiveServer, messages: Any, **more: Any) -> httpx2.Response:
    body = {
        "model": server.model,
        "messages": messages,
        "stream": False,
        "options": {"num_predict": 1},
        **more,
    }
    return httpx2.post(server.url + "/api/chat", json=body, timeout=600)


def test_thirty_thousand_tokens_in_both_dialects(long: LiveServer) -> None:
    messages = of_tokens(long, 30_000)
    assert openai(long, messages).json()["usage"]["prompt_tokens"] == 30_000
    assert ollama(long, messages).json()["prompt_eval_count"] == 30_000


def test_one_token_too_many(long: LiveServer) -> None:
    fits = openai(long, of_tokens(long, LIMIT - 1))
    assert fits.status_code == 200 and fits.json()["usage"]["completion_tokens"] == 1
    too_long = of_tokens(long, LIMIT)
    refused = openai(long, too_long)
    error = refused.json()["error"]
    assert refused.status_code == 400 and error["code"] == "context_length_exceeded"
    assert error["message"].count(str(LIMIT)) >= 2, "the limit and the length, which are the same here"
    much_too_long = openai(long, of_tokens(long, LIMIT + 1234)).json()["error"]["message"]
    assert str(LIMIT) in much_too_long and str(LIMIT + 1234) in much_too_long


def test_ollama_drops_the_oldest_and_refuses_what_cannot_be_dropped(long: LiveServer) -> None:
    old, last = user(20_000), user(20_000)
    answer = {"role": "assistant", "content": "2"}
    dropped = ollama(long, [*old, answer, *last])
    assert dropped.status_code == 200 and 20_000 < dropped.json()["prompt_eval_count"] < 20_100
    kept = ollama(long, [*old, answer, *last], truncate=False)
    assert kept.status_code == 400 and str(LIMIT) in kept.json()["error"]
    alone = ollama(long, of_tokens(long, LIMIT))
    assert alone.status_code == 400 and str(LIMIT) in alone.json()["error"]


def test_an_adapter_answers_by_its_name(long: LiveServer) -> None:
    """It changes what the model says, and the model without it stays what it was."""

    def likely(name: str) -> list[float]:
        reply = openai(long, user(3), model=name, logprobs=True, top_logprobs=5, temperature=0)
        assert reply.status_code == 200, reply.text
        (token,) = reply.json()["choices"][0]["logprobs"]["content"]
        return [one["logprob"] for one in token["top_logprobs"]]

    plain, with_it = likely(long.model), likely("sql")
    assert plain != with_it
    assert likely(long.model) == plain and likely("sql") == with_it
    assert {"sql", long.model} <= {model["id"] for model in long.ask("GET", "/v1/models")["data"]}
    assert ollama(long, user(3), model="sql").json()["model"] == "sql"


def test_two_models_take_turns(tmp_path: Path, vllm_python: Path) -> None:
    """There is room for one. Each comes when it is asked for, and the other has left the memory by then."""
    small = checkpoint(tmp_path / "small")
    (tmp_path / "portico.toml").write_text(
        "max_loaded_models = 1\n"
        '[[model]]\nname = "portico-tiny"\n'
        f'[[model]]\nname = "small"\nsource = "{small}"\nvllm_args = ["--load-format", "dummy"]\n'
    )
    with serve_vllm(tmp_path, vllm_python, "--config", str(tmp_path / "portico.toml")) as server:

        def loaded() -> list[str]:
            return [model["name"] for model in server.ask("GET", "/api/ps")["models"]]

        def models_of_processes() -> set[str]:
            commands = [command_of(process) for process in processes(server)]
            return {command[command.index("--model") + 1] for command in commands if "--model" in command}

        for name, path in (("portico-tiny", TINY), ("small", small), ("portico-tiny", TINY)):
            reply = ollama(server, user(3), model=name)
            assert reply.status_code == 200, reply.text
            assert loaded() == [f"{name}:latest"]
            assert models_of_processes() == {str(path)}
        ollama(server, user(3), model="portico-tiny", keep_alive="1s")
        wait_until(lambda: not loaded(), seconds=30, what="it leaves by itself")
        wait_until(lambda: not processes(server), seconds=30, what="its processes end")
        assert ollama(server, user(3), model="small").status_code == 200

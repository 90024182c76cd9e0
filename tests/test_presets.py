"""create, copy and delete over the wire: on the bundled model, an uploaded file, and another server's model."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import httpx2
import pytest

from gguf_edit import TINY
from library_fixtures import ollama_model
from live_server import LiveServer, serve, wait_until
from scripted_answers import CHAT
from scripted_upstream import ScriptedUpstream

_direct = build_opener(ProxyHandler({})).open


def names(server: LiveServer) -> list[str]:
    return [model["name"] for model in server.ask("GET", "/api/tags")["models"]]


def test_a_preset_of_another_servers_model(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    made = {
        "model": "pirate",
        "from": gateway.model,
        "system": "Talk like a pirate.",
        "parameters": {"temperature": 0.25, "stop": ["Arr"]},
        "messages": [{"role": "user", "content": "Ahoy?"}, {"role": "assistant", "content": "Ahoy!"}],
        "stream": False,
    }
    assert gateway.ask("POST", "/api/create", made) == {"status": "success"}
    try:
        shown = gateway.ask("POST", "/api/show", {"model": "pirate"})
        assert shown["system"] == "Talk like a pirate."
        assert "temperature" in shown["parameters"]
        assert shown["details"]["parent_model"].startswith(gateway.model)
        chat = {"model": "pirate", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        assert gateway.ask("POST", "/api/chat", chat)["done"]
        sent = upstream.last(CHAT)
        assert [message["content"] for message in sent["messages"]] == [
            "Talk like a pirate.",
            "Ahoy?",
            "Ahoy!",
            "Hi",
        ]
        assert (sent["model"], sent["temperature"], sent["stop"]) == ("mock-model", 0.25, ["Arr"])
        # What the caller says wins; OpenAI's clients get the preset too.
        own = {
            **chat,
            "messages": [{"role": "system", "content": "Plain."}, *chat["messages"]],
            "temperature": 1,
        }
        assert gateway.ask("POST", "/v1/chat/completions", own)["choices"]
        sent = upstream.last(CHAT)
        assert sent["messages"][0]["content"] == "Plain."
        assert sent["temperature"] == 1
    finally:
        gateway.ask("DELETE", "/api/delete", {"model": "pirate"})
    assert not any(name.startswith("pirate") for name in names(gateway))


def test_a_preset_shares_the_engine_of_its_model(server: LiveServer) -> None:
    server.ask(
        "POST", "/api/create", {"model": "brief", "from": server.model, "system": "x", "stream": False}
    )
    try:
        pid = server.health()["engines"][0]["pid"]
        chat = {
            "messages": [{"role": "user", "content": "Hi"}],
            "options": {"num_predict": 2},
            "stream": False,
        }
        for model in ("brief", server.model, "brief:latest", "BRIEF"):
            assert server.ask("POST", "/api/chat", {"model": model, **chat})["model"] == model
        assert [engine["pid"] for engine in server.health()["engines"]] == [pid]
    finally:
        server.ask("DELETE", "/api/delete", {"model": "brief"})


def test_presets_outlive_the_server(tmp_path: Path) -> None:
    with serve(tmp_path / "server") as first:
        made = {"model": "kept", "from": "default", "system": "S", "template": "{{ .Prompt }}!"}
        first.ask("POST", "/api/create", {**made, "stream": False})
        first.ask("POST", "/api/copy", {"source": "kept", "destination": "copied"})
        first.process.kill()  # nothing is written at the end
    with serve(tmp_path / "server") as second:
        assert {"kept:latest", "copied:latest"} <= set(names(second))
        shown = second.ask("POST", "/api/show", {"model": "copied"})
        assert (shown["system"], shown["template"]) == ("S", "{{ .Prompt }}!")
        assert 'TEMPLATE """{{ .Prompt }}!"""' in shown["modelfile"]


def test_an_uploaded_file_becomes_a_model(tmp_path: Path) -> None:
    """Also one larger than the limit on bodies, which is for what is held in memory."""
    raw = TINY.read_bytes()
    digest = f"sha256:{hashlib.sha256(raw).hexdigest()}"
    with serve(tmp_path / "server", "--max-body-bytes", "1000") as own:
        blob = f"{own.url}/api/blobs/{digest}"
        assert httpx2.head(blob).status_code == 404
        assert httpx2.post(blob, content=raw).status_code == 201
        assert httpx2.head(blob).status_code == 200
        assert httpx2.post(blob, content=raw).status_code == 200
        wrong = httpx2.post(f"{own.url}/api/blobs/sha256:{'0' * 64}", content=b"something else")
        assert wrong.status_code == 400
        assert "digest mismatch" in wrong.json()["error"]
        own.ask("POST", "/api/create", {"model": "mine", "files": {"m.gguf": digest}, "stream": False})
        chat = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "stream": False}
        assert own.ask("POST", "/api/chat", chat)["done"]
        assert httpx2.post(own.url + "/api/chat", json={**chat, "padding": "x" * 2000}).status_code == 413


def test_a_start_removes_what_was_uploaded_long_ago_and_never_used(tmp_path: Path) -> None:
    blobs = tmp_path / "portico" / "models" / "blobs"
    blobs.mkdir(parents=True)
    old, new = blobs / f"sha256-{'1' * 64}", blobs / f"sha256-{'2' * 64}"
    for path in (old, new):
        path.write_bytes(b"GGUF")
    os.utime(old, (0, 0))
    with serve(tmp_path, environ={"OLLAMA_NOPRUNE": "1"}):
        assert (old.exists(), new.exists()) == (True, True)
    with serve(tmp_path) as running:
        assert (old.exists(), new.exists()) == (False, True)
        assert "files removed" in running.log_text()


# ---- one name, every route


ALIAS = "gpt-4o-mini"
HI = [{"role": "user", "content": "Hi"}]
NAMED: list[tuple[str, dict[str, Any], int]] = [
    ("/api/chat", {"model": ..., "messages": HI, "options": {"num_predict": 1}, "stream": False}, 200),
    ("/api/generate", {"model": ..., "prompt": "Hi", "options": {"num_predict": 1}, "stream": False}, 200),
    ("/api/embed", {"model": ..., "input": "Hi"}, 400),
    ("/api/embeddings", {"model": ..., "prompt": "Hi"}, 400),
    ("/api/show", {"model": ...}, 200),
    ("/api/copy", {"source": ..., "destination": "named-copy"}, 200),
    ("/api/create", {"model": "named-made", "from": ..., "system": "S", "stream": False}, 200),
    ("/api/pull", {"model": ..., "stream": False}, 200),
    ("/v1/chat/completions", {"model": ..., "messages": HI, "max_tokens": 1}, 200),
    ("/v1/completions", {"model": ..., "prompt": "Hi", "max_tokens": 1}, 200),
    ("/v1/embeddings", {"model": ..., "input": "Hi"}, 400),
    ("/v1/rerank", {"model": ..., "query": "a", "documents": ["b"]}, 400),
    ("/tokenize", {"model": ..., "prompt": "Hi"}, 200),
    ("/detokenize", {"model": ..., "tokens": [1, 2]}, 200),
]


@pytest.fixture(scope="module")
def aliased(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("aliased")
    (folder / "portico.toml").write_text(f'[aliases]\n"{ALIAS}" = "portico-tiny"\n')
    with serve(folder) as running:
        yield running


@pytest.mark.parametrize("asked", [ALIAS, "GPT-4o-mini:latest", "default", "auto", "PORTICO-TINY:latest"])
def test_a_model_is_meant_by_every_form_of_its_name_on_every_route(aliased: LiveServer, asked: str) -> None:
    statuses = {}
    for path, body, _ in NAMED:
        named = {key: asked if value is ... else value for key, value in body.items()}
        statuses[path] = httpx2.post(aliased.url + path, json=named).status_code
    assert statuses == {path: status for path, _, status in NAMED}
    found = aliased.ask("GET", f"/v1/models/{asked}")
    assert found["id"] == asked and found["max_model_len"]


def test_that_test_knows_every_route_that_takes_a_model(aliased: LiveServer) -> None:
    """A route of later days that looks its model up by itself would be missed."""
    described = aliased.ask("GET", "/openapi.json")
    takers = set()
    for path, methods in described["paths"].items():
        sent = json.dumps(methods.get("post", {}).get("requestBody", {}))
        for name in re.findall(r"#/components/schemas/([^\"]+)", sent):
            fields = described["components"]["schemas"][name].get("properties", {})
            takers |= {path} if {"model", "source"} & fields.keys() else set()
    assert takers == {path for path, _, _ in NAMED} | {"/api/push"}


def test_a_damaged_model_is_refused_with_its_reason_and_never_listed(tmp_path: Path) -> None:
    store, name = tmp_path / ".ollama" / "models", "registry.ollama.ai/library/bad/latest"
    whole = TINY.read_bytes()
    ollama_model(store, name, {"model": whole})
    blob = store / "blobs" / f"sha256-{hashlib.sha256(whole).hexdigest()}"
    blob.write_bytes(whole[:-1])
    with serve(tmp_path) as running:
        assert names(running) == ["portico-tiny:latest"]
        assert [model["id"] for model in running.ask("GET", "/v1/models")["data"]] == ["portico-tiny"]
        (damaged,) = running.ask("GET", "/api/tags")["damaged"]
        assert damaged["name"] == "bad:latest" and "truncated" in damaged["reason"]
        asked = [
            (path, {key: "bad" if value is ... else value for key, value in body.items()})
            for path, body, _ in NAMED
        ]
        for path, body in asked:
            answer = httpx2.post(running.url + path, json=body)
            if path == "/api/pull":  # which would mend it
                assert answer.status_code == 404
                continue
            assert (answer.status_code, "truncated" in answer.text) == (400, True), path
        assert httpx2.get(running.url + "/v1/models/bad").json()["error"]["code"] == "damaged_file"
        assert running.ask("POST", "/api/chat", {"model": "default"})["model"] == "default"
        blob.write_bytes(whole)
        wait_until(lambda: "bad:latest" in names(running), seconds=10, what="the mended model is listed")
        assert "damaged" not in running.ask("GET", "/api/tags")
        assert running.ask("POST", "/api/chat", {"model": "bad", "messages": HI, "stream": False})["done"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "x", "from": "nobody"}, 404, "not found"),
        ({"model": "x", "from": "default", "parameters": {"temperature": "hot"}}, 400, "temperature"),
        ({"model": "x", "files": {"a.gguf": "sha256:" + "1" * 64}}, 400, "not uploaded"),
        ({"model": "x", "from": "default", "quantize": "q4_0"}, 400, "quantize"),
        ({"from": "default"}, 400, "model is required"),
        ({"model": "a b", "from": "default"}, 400, "invalid model name"),
    ],
)
def test_what_cannot_be_created_says_why(server: LiveServer, body: object, status: int, words: str) -> None:
    with pytest.raises(HTTPError) as caught:
        server.ask("POST", "/api/create", body)
    assert caught.value.code == status
    assert words in json.loads(caught.value.read())["error"]


def test_the_bundled_model_stays(server: LiveServer) -> None:
    with pytest.raises(HTTPError) as caught:
        server.ask("DELETE", "/api/delete", {"model": server.model})
    assert caught.value.code == 400
    assert server.ask("POST", "/api/chat", {"model": server.model})["done_reason"] == "load"


def test_a_model_that_is_there_is_quickly_pulled(server: LiveServer) -> None:
    request = Request(f"{server.url}/api/pull", json.dumps({"model": server.model}).encode())
    with _direct(request, timeout=30) as reply:
        lines = [json.loads(line) for line in reply]
    assert lines[0] == {"status": "pulling manifest"}
    assert lines[-1] == {"status": "success"}


def test_a_preset_named_at_the_start_is_the_default(tmp_path: Path) -> None:
    with serve(tmp_path) as first:
        made = {"model": "sara", "from": "default", "system": "The user is Sara.", "stream": False}
        first.ask("POST", "/api/create", made)
    with serve(tmp_path, "sara", "--served-model-name", "gpt-4") as running:
        listed = [model["id"] for model in running.ask("GET", "/v1/models")["data"]]
        assert listed == ["sara", "portico-tiny"]
        for name in ("default", "sara", "gpt-4"):
            assert running.ask("POST", "/api/show", {"model": name})["system"] == "The user is Sara."
            chat = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "stream": False}
            assert running.ask("POST", "/api/chat", chat)["prompt_eval_count"] > 15
        assert running.health()["engines"][0]["model"] == "portico-tiny:latest"


def test_a_model_of_ollamas_named_at_the_start_keeps_what_ollama_gave_it(tmp_path: Path) -> None:
    store = tmp_path / ".ollama" / "models"
    layers = {"model": TINY.read_bytes(), "system": b"The user is Tom."}
    ollama_model(store, "registry.ollama.ai/library/theirs/latest", layers)
    with serve(tmp_path, "theirs", environ={"OLLAMA_MODELS": str(store)}) as running:
        for name in ("default", "theirs"):
            assert running.ask("POST", "/api/show", {"model": name})["system"] == "The user is Tom."

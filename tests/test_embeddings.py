"""Embeddings by the embedded engine: the bundled model's weights, told to be a model that embeds."""

from __future__ import annotations

import base64
import math
from array import array
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from gguf_edit import TINY, edit
from live_server import LiveServer, serve

WIDTH = 256
LONG = "one two three four " * 200


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("embedder")
    model = edit(TINY, folder / "embeds.gguf", integers={"qwen3.pooling_type": 1})
    with serve(folder, str(model), "--context", "256") as running:
        yield running


def ask(server: LiveServer, path: str, **fields: Any) -> httpx2.Response:
    return httpx2.post(server.url + path, json={"model": "default", **fields}, timeout=30)


def length(vector: list[float]) -> float:
    return math.sqrt(math.fsum(number * number for number in vector))


def test_every_route_gives_a_vector(embedder: LiveServer) -> None:
    many = ask(embedder, "/api/embed", input=["Hello", "Rome"]).json()
    assert [len(vector) for vector in many["embeddings"]] == [WIDTH, WIDTH]
    assert all(length(vector) == pytest.approx(1, abs=1e-5) for vector in many["embeddings"])
    assert many["prompt_eval_count"] > 0
    one = ask(embedder, "/v1/embeddings", input="Hello").json()
    assert one["data"][0]["embedding"] == pytest.approx(many["embeddings"][0], abs=1e-4)
    packed = ask(embedder, "/v1/embeddings", input="Hello", encoding_format="base64").json()
    floats = array("f", base64.b64decode(packed["data"][0]["embedding"]))
    assert floats.tolist() == pytest.approx(one["data"][0]["embedding"], abs=1e-4)


def test_the_older_route_gives_the_vector_as_the_model_does(embedder: LiveServer) -> None:
    raw = ask(embedder, "/api/embeddings", prompt="Hello").json()["embedding"]
    scaled = ask(embedder, "/api/embed", input="Hello").json()["embeddings"][0]
    assert abs(length(raw) - 1) > 0.01
    assert [number / length(raw) for number in raw] == pytest.approx(scaled, abs=1e-4)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_dimensions_cut_a_vector_and_it_keeps_its_length(embedder: LiveServer, encoding: str) -> None:
    whole = ask(embedder, "/v1/embeddings", input="Hello").json()["data"][0]["embedding"]
    reply = ask(embedder, "/v1/embeddings", input="Hello", dimensions=8, encoding_format=encoding).json()
    cut = reply["data"][0]["embedding"]
    vector = cut if encoding == "float" else array("f", base64.b64decode(cut)).tolist()
    assert len(vector) == 8 and length(vector) == pytest.approx(1, abs=1e-5)
    assert vector == pytest.approx([number / length(whole[:8]) for number in whole[:8]], abs=1e-4)
    assert len(ask(embedder, "/api/embed", input="Hello", dimensions=8).json()["embeddings"][0]) == 8
    assert (
        len(ask(embedder, "/v1/embeddings", input="x", dimensions=4096).json()["data"][0]["embedding"])
        == WIDTH
    )


def test_an_input_that_is_too_long(embedder: LiveServer) -> None:
    """Refused where nothing else was asked for, cut where Ollama cuts."""
    refused = ask(embedder, "/v1/embeddings", input=LONG)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"
    assert refused.json()["error"]["param"] == "input"
    assert ask(embedder, "/api/embeddings", prompt=LONG).status_code == 400
    told = ask(embedder, "/api/embed", input=LONG, truncate=False)
    assert told.status_code == 400 and "context" in told.json()["error"]

    cut = ask(embedder, "/api/embed", input=["Hello", LONG])
    assert cut.status_code == 200, cut.text
    short, long = cut.json()["embeddings"]
    assert short == pytest.approx(
        ask(embedder, "/api/embed", input="Hello").json()["embeddings"][0], abs=1e-4
    )
    assert length(long) == pytest.approx(1, abs=1e-5)
    assert 200 < cut.json()["prompt_eval_count"] <= 256 + 10

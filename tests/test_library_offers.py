"""What the hub has under a name, told without fetching it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from library_fixtures import FakeHub, Repository, gguf, hub, library
from portico.engines.llamacpp import cell_bytes
from portico.errors import DamagedFile, ModelNotFound, PullFailed
from portico.library import gguf as reader
from portico.library.hub import Unreachable

HEADS = {
    "llama.block_count": 1,
    "llama.attention.head_count": 8,
    "llama.attention.head_count_kv": 2,
    "llama.context_length": 4096,
    "llama.embedding_length": 64,
}
CONFIG = {
    "model_type": "qwen3",
    "architectures": ["Qwen3ForCausalLM"],
    "max_position_embeddings": 40960,
    "hidden_size": 1024,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
}


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with hub() as fake:
        yield fake


def model(**values: object) -> bytes:
    return gguf({**HEADS, "tokenizer.ggml.tokens": ["x" * 60] * 8000, **values})


def test_a_gguf_file_tells_by_its_first_bytes(tmp_path: Path, fake: FakeHub) -> None:
    content = model()
    assert len(content) > reader.WINDOW
    fake.repositories["org/toy-GGUF"] = Repository({"toy-Q4_K_M.gguf": content, "toy-Q8_0.gguf": content * 2})
    offer = library(tmp_path, fake).offered("org/toy-GGUF")
    assert (offer.repository, offer.license) == ("org/toy-GGUF", "apache-2.0")
    assert offer.download == offer.facts.size == len(content)
    assert (offer.facts.format, offer.facts.architecture, offer.facts.context) == ("gguf", "llama", 4096)
    assert cell_bytes(offer.facts) == 2 * 1 * 2 * (8 + 8)
    (asked,) = fake.gets("toy-Q4_K_M.gguf")
    assert asked.range == f"bytes=0-{reader.WINDOW - 1}"


def test_a_quantization_is_looked_for(tmp_path: Path, fake: FakeHub) -> None:
    fake.repositories["org/toy-GGUF"] = Repository({"a-Q4_K_M.gguf": model(), "a-Q8_0.gguf": model() * 2})
    assert library(tmp_path, fake).offered("org/toy-GGUF:q8_0").download == 2 * len(model())
    with pytest.raises(PullFailed, match="It has: Q4_K_M, Q8_0"):
        library(tmp_path, fake).offered("org/toy-GGUF:Q2_K")


def test_safetensors_tell_by_their_config(tmp_path: Path, fake: FakeHub) -> None:
    files = {
        "config.json": json.dumps(CONFIG).encode(),
        "model.safetensors": b"\0" * 9000,
        "tokenizer.json": b"{}",
    }
    fake.repositories["org/toy"] = Repository(files)
    offer = library(tmp_path, fake).offered("org/toy")
    assert offer.facts.size == 9000 and offer.download == sum(map(len, files.values()))
    assert (offer.facts.format, offer.facts.class_name, offer.facts.context) == (
        "safetensors", "Qwen3ForCausalLM", 40960,
    )  # fmt: skip
    assert cell_bytes(offer.facts) == 2 * 28 * 8 * (128 + 128)  # its heads are wider than 1024 / 16
    assert fake.gets("model.safetensors") == []


def test_a_gate_hides_what_it_is_and_not_how_large(tmp_path: Path, fake: FakeHub) -> None:
    fake.repositories["org/closed"] = Repository({"a-Q4_K_M.gguf": model()}, gated=True)
    offer = library(tmp_path, fake).offered("org/closed")
    assert offer.facts.size == len(model()) and offer.facts.context is None


def test_what_is_no_gguf_file_is_offered_all_the_same(tmp_path: Path, fake: FakeHub) -> None:
    """A pull would tell what is wrong; its size is true."""
    fake.repositories["org/toy"] = Repository({"a-Q4_K_M.gguf": b"no" * 4000})
    assert library(tmp_path, fake).offered("org/toy").facts.size == 8000


def test_a_name_nobody_knows(tmp_path: Path, fake: FakeHub) -> None:
    with pytest.raises(ModelNotFound):
        library(tmp_path, fake).offered("nothing-of-that-name")
    with pytest.raises(PullFailed, match="no repository org/none"):
        library(tmp_path, fake).offered("org/none")


def test_no_hub(tmp_path: Path) -> None:
    with pytest.raises(Unreachable):
        library(tmp_path).offered("org/toy")


@pytest.mark.parametrize("length", [24, 100, 300, 5000])
def test_the_beginning_of_a_file_cut_anywhere(length: int) -> None:
    found = reader.beginning(model()[:length].ljust(700, b"\0") if length < 700 else model()[:length])
    assert set(found) <= {"general.architecture", *HEADS}
    assert length < 5000 or found == {"general.architecture": "llama", **HEADS}


def test_the_beginning_of_something_else() -> None:
    with pytest.raises(DamagedFile, match="does not begin with GGUF"):
        reader.beginning(b"<html>" * 100)

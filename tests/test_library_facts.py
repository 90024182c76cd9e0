"""Facts from config.json, tokenizer and safetensors, and what Ollama's show makes of facts."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from library_fixtures import TINY, safetensors
from portico.engines import Facts
from portico.errors import DamagedFile
from portico.library import facts, model_info, parameter_size
from portico.library import safetensors as reader

WEIGHTS = {"w": ("BF16", (10, 10), 200), "b": ("F32", (4,), 16)}
CONFIG = {"model_type": "llama", "max_position_embeddings": 8192, "hidden_size": 512, "num_hidden_layers": 2}


def folder(
    tmp_path: Path,
    config: dict[str, Any] | None = None,
    *,
    weights: bytes | None = None,
    **files: dict[str, Any] | str,
) -> Path:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **(config or {})}))
    (tmp_path / "model.safetensors").write_bytes(safetensors(WEIGHTS) if weights is None else weights)
    for name, content in files.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


def test_the_bundled_folder() -> None:
    found = facts.read(TINY)
    assert (found.architecture, found.format, found.quantization) == ("qwen3", "safetensors", "BF16")
    assert (found.context, found.embedding, found.parameters) == (5120, 256, 5_115_904)
    assert "tools" in found.capabilities


def test_a_folder(tmp_path: Path) -> None:
    found = facts.read(folder(tmp_path, {"num_attention_heads": 8}))
    assert (found.architecture, found.family, found.context, found.embedding) == ("llama", "llama", 8192, 512)
    assert (found.parameters, found.quantization) == (104, "BF16")
    assert found.capabilities == ("completion",)
    assert found.metadata == {"llama.block_count": 2, "llama.attention.head_count": 8}
    assert found.size == sum(path.stat().st_size for path in tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "files", "capabilities"),
    [
        ({}, {"chat_template__jinja": "{{ tools }}"}, ("completion", "tools")),
        ({}, {"tokenizer_config__json": {"chat_template": "<think>"}}, ("completion", "thinking")),
        (
            {},
            {"tokenizer_config__json": {"chat_template": [{"name": "default", "template": "{{ tools }}"}]}},
            ("completion", "tools"),
        ),
        ({}, {"chat_template__json": {"chat_template": "{{ tools }}"}}, ("completion", "tools")),
        (
            {},
            {"tokenizer_config__json": {"added_tokens_decoder": {"5": {"content": "<|fim_prefix|>"}}}},
            ("completion", "insert"),
        ),
        ({"vision_config": {"depth": 3}}, {}, ("completion", "vision")),
        ({"architectures": ["BertModel"]}, {}, ("embedding",)),
        ({}, {"modules__json": "[]"}, ("embedding",)),
    ],
)
def test_capabilities(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], capabilities: tuple[str, ...]
) -> None:
    assert facts.read(folder(tmp_path, config, **files)).capabilities == capabilities


def test_a_model_that_sees_keeps_its_numbers_in_text_config(tmp_path: Path) -> None:
    config = {"max_position_embeddings": None, "hidden_size": None, "vision_config": {}}
    found = facts.read(
        folder(tmp_path, {**config, "text_config": {"max_position_embeddings": 4096, "hidden_size": 64}})
    )
    assert (found.context, found.embedding) == (4096, 64)


def test_packed_weights_are_counted_one_by_one(tmp_path: Path) -> None:
    packed = safetensors(
        {
            "l.qweight": ("I32", (64, 8), 64 * 8 * 4),
            "l.qzeros": ("I32", (1, 8), 32),
            "l.scales": ("F16", (1, 64), 128),
            "e": ("F16", (10, 10), 200),
        }
    )
    found = facts.read(
        folder(tmp_path, {"quantization_config": {"quant_method": "awq", "bits": 4}}, weights=packed)
    )
    assert (found.parameters, found.quantization) == (64 * 64 + 100, "AWQ")


def test_shards_by_their_index(tmp_path: Path) -> None:
    path = folder(tmp_path)
    (path / "model.safetensors").rename(path / "a.safetensors")
    (path / "b.safetensors").write_bytes(safetensors(WEIGHTS))
    index = {"weight_map": {"w": "a.safetensors", "v": "b.safetensors"}}
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert facts.read(path).parameters == 208
    (path / "b.safetensors").unlink()
    with pytest.raises(DamagedFile, match=r"its file b\.safetensors is missing"):
        facts.read(path)
    index["weight_map"]["v"] = "../b.safetensors"
    (path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(DamagedFile, match="outside its folder"):
        facts.read(path)


# ---- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("config.json", "{", "cannot be read"),
        ("config.json", "[1]", "cannot be read"),
        ("config.json", '{"max_position_embeddings": "x"}', "cannot be read"),
        ("config.json", "[" * 100_000, "cannot be read"),
        ("tokenizer_config.json", '{"chat_template": 5}', "cannot be read"),
        ("model.safetensors", "", "truncated"),
        ("model.safetensors", "x" * 100, "truncated"),
    ],
)
def test_broken_files(tmp_path: Path, name: str, content: str, reason: str) -> None:
    (folder(tmp_path) / name).write_text(content)
    with pytest.raises(DamagedFile, match=reason):
        facts.read(tmp_path)


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(DamagedFile, match=r"no config\.json"):
        facts.read(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(DamagedFile, match="no safetensors files"):
        facts.read(tmp_path)


def entry(**change: Any) -> bytes:
    header = {"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **change}}
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(8)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (struct.pack("<Q", 1 << 62) + b"{}", "truncated"),
        (struct.pack("<Q", 2) + b"[]", "does not begin"),
        (struct.pack("<Q", 4) + b"{[}]", "cannot be read"),
        (entry(shape=[3]), "8 bytes for 3"),
        (entry(shape=[1 << 60]), "absurd shape"),
        (entry(shape=[1] * 20), "absurd shape"),
        (entry(shape=[-2]), "absurd shape"),
        (entry(data_offsets=[0, 1 << 40]), "truncated"),
        (entry(data_offsets=[8, 0]), "bytes 8 to 0"),
        (entry(data_offsets=None), "no type or place"),
        (entry()[:-1], "truncated"),
    ],
)
def test_broken_safetensors(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(DamagedFile, match=reason) as caught:
        reader.read(path)
    assert caught.value.path == str(path)


@given(st.binary(max_size=200), st.integers(0, 300))
@settings(max_examples=200, deadline=1000)
def test_any_header_gives_tensors_or_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, header: bytes, length: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "x.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" + header)
    try:
        reader.read(path)
    except DamagedFile as error:
        assert error.reason


# ---- show -----------------------------------------------------------------------------------------


@given(
    st.builds(
        Facts,
        architecture=st.none() | st.just("llama"),
        parameters=st.none() | st.integers(1, 10**12),
        context=st.none() | st.integers(1, 10**6),
        license=st.none() | st.just("mit"),
        metadata=st.dictionaries(
            st.text(max_size=5), st.none() | st.integers() | st.text(max_size=5), max_size=3
        ),
    )
)
def test_model_info_never_lacks_what_ollamas_command_line_reads(found: Facts) -> None:
    info = model_info(found)
    assert None not in info.values()
    architecture = info["general.architecture"]
    assert isinstance(architecture, str) and architecture
    for key in (
        "general.parameter_count",
        f"{architecture}.context_length",
        f"{architecture}.embedding_length",
    ):
        assert isinstance(info[key], int)


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (None, ""),
        (0, ""),
        (999, "999"),
        (22_000, "22K"),
        (2_349_760, "2.35M"),
        (137_000_000, "137M"),
        (494_032_768, "494.03M"),
        (8_000_000_000, "8B"),
        (8_030_261_312, "8.0B"),
        (70_553_706_496, "70.6B"),
    ],
)
def test_parameter_size(count: int | None, shown: str) -> None:
    assert parameter_size(count) == shown

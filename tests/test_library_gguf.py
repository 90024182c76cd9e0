"""GGUF headers: what they say is read, and what is broken or hostile is refused with a reason, quickly."""

from __future__ import annotations

import os
import struct
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from library_fixtures import TINY, gguf
from portico.engines import Facts
from portico.errors import DamagedFile
from portico.library import facts
from portico.library.gguf import MAX_ELEMENTS, WINDOW, read

BUNDLED = TINY / "portico-tiny.gguf"
SIZE = BUNDLED.stat().st_size
HEADER = BUNDLED.read_bytes()[:40_000]


def write(folder: Path, content: bytes, *, size: int | None = None) -> Path:
    """`size`: the file is made that long, without taking room on the disk."""
    path = folder / "model.gguf"
    path.write_bytes(content)
    if size is not None:
        os.truncate(path, size)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(DamagedFile) as caught:
        facts.read(path)
    assert caught.value.path == str(path)
    return caught.value.reason


def test_the_bundled_model() -> None:
    found = facts.read(BUNDLED)
    assert (found.architecture, found.format, found.quantization) == ("qwen3", "gguf", "F16")
    assert (found.context, found.embedding) == (5120, 256)
    assert found.parameters == 5_115_904
    assert found.size == SIZE
    assert "tools" in found.capabilities and "completion" in found.capabilities
    assert found.chat_template and "<tool_call>" in found.chat_template
    assert found.metadata["tokenizer.ggml.model"] == "gpt2"
    assert "tokenizer.chat_template" not in found.metadata


def test_the_bundled_header_is_read_in_milliseconds() -> None:
    read(BUNDLED)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        read(BUNDLED)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.005


@pytest.mark.parametrize(
    ("values", "architecture", "capabilities"),
    [
        ({}, "llama", ("completion",)),
        ({"tokenizer.chat_template": "{% if tools %}x{% endif %}"}, "llama", ("completion", "tools")),
        ({"tokenizer.chat_template": "<think>{{ messages }}"}, "llama", ("completion", "thinking")),
        ({"tokenizer.chat_template": "{% if enable_thinking %}"}, "qwen3", ("completion", "thinking")),
        ({"tokenizer.chat_template": "I was thinking of {{ x }}"}, "llama", ("completion",)),
        ({"tokenizer.ggml.fim_pre_token_id": 5}, "llama", ("completion", "insert")),
        ({"tokenizer.ggml.tokens": ["a", "<|fim_prefix|>", "b"]}, "qwen2", ("completion", "insert")),
        ({"tokenizer.ggml.tokens": ["fim", "prefix"]}, "qwen2", ("completion",)),
        ({"gemma3.vision.block_count": 27}, "gemma3", ("completion", "vision")),
        ({}, "nomic-bert", ("embedding",)),
        ({"qwen3.pooling_type": 3}, "qwen3", ("embedding",)),
        ({}, "clip", ()),
    ],
)
def test_capabilities(
    tmp_path: Path, values: dict[str, Any], architecture: str, capabilities: tuple[str, ...]
) -> None:
    path = write(tmp_path, gguf(values, architecture=architecture))
    assert facts.read(path).capabilities == capabilities


@pytest.mark.parametrize(("number", "name"), [(0, "F32"), (15, "Q4_K_M"), (7 | 1024, "Q8_0"), (999, "F32")])
def test_quantization_by_its_number_else_by_the_weights(tmp_path: Path, number: int, name: str) -> None:
    assert facts.read(write(tmp_path, gguf({"general.file_type": number}))).quantization == name


def test_infinite_numbers_stay_out_of_json(tmp_path: Path) -> None:
    found = facts.read(write(tmp_path, gguf({"llama.rope.freq_base": float("inf"), "llama.x": 1.5})))
    assert "llama.rope.freq_base" not in found.metadata
    assert found.metadata["llama.x"] == 1.5


def test_tokens_across_the_windows_edge_are_still_found(tmp_path: Path) -> None:
    # Each of these puts the token elsewhere: before, on and behind the edge of the first window.
    for filler in range(WINDOW - 700, WINDOW + 100, 37):
        tokens = ["x" * 50] * (filler // 58) + ["y" * (filler % 58), "<|fim_prefix|>", "z"]
        assert read(write(tmp_path, gguf({"tokenizer.ggml.tokens": tokens}))).fim, filler


def test_a_large_vocabulary_is_stepped_over(tmp_path: Path) -> None:
    path = write(tmp_path, gguf({"tokenizer.ggml.tokens": ["token"] * 300_000, "z": 7}))
    tracemalloc.start()
    header = read(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert header.lengths == {"tokenizer.ggml.tokens": 300_000}
    assert header.values["z"] == 7
    assert peak < 4 * WINDOW


def test_shards_are_counted_together(tmp_path: Path) -> None:
    first = gguf({"split.tensors.count": 2, "llama.block_count": 2}, tensors={})
    rest = gguf(tensors={"a": (8, 8), "b": (16,)})
    for number, content in enumerate((first, rest, rest), 1):
        (tmp_path / f"m-{number:05}-of-00003.gguf").write_bytes(content)
    path = tmp_path / "m-00001-of-00003.gguf"
    found = facts.read(path)
    assert found.parameters == 2 * 80
    assert found.size == len(first) + 2 * len(rest)
    (tmp_path / "m-00003-of-00003.gguf").unlink()
    with pytest.raises(DamagedFile, match="00003-of-00003"):
        facts.read(path)


# ---- refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "only 0 bytes"),
        (b"GGUF", "only 4 bytes"),
        (b"PK\3\4" + bytes(100), "does not begin with GGUF"),
        (b"lmgg" + bytes(100), "old GGML format"),
        (b"GGUF" + struct.pack(">IQQ", 3, 1, 1) + bytes(100), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 1, 1, 1) + bytes(100), "version is 1"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1, 1 << 60) + bytes(100), "metadata keys"),
        (b"GGUF" + struct.pack("<IQQ", 3, 1 << 60, 1) + bytes(100), "tensors"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 1, 1, 1 << 62) + bytes(100), "name of a key"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + bytes(100), "general.architecture"),
    ],
)
def test_what_is_no_gguf(tmp_path: Path, content: bytes, reason: str) -> None:
    assert reason in refusal(write(tmp_path, content))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"llama.block_count": 1_000_000_000}, "1000000000 blocks in 1 tensors"),
        ({"llama.block_count": "many"}, "blocks"),
        ({"llama.context_length": 1 << 40}, "context_length"),
        ({"llama.embedding_length": -1}, "embedding_length"),
        ({"llama.attention.head_count": 1 << 30}, "head_count"),
        ({"llama.vocab_size": 1 << 60}, "vocab_size"),
        ({"general.alignment": 7}, "alignment"),
        ({"split.tensors.count": 1 << 40}, "split.tensors.count"),
        ({"general.architecture": "x" * 100}, "general.architecture"),
        ({"general.architecture": 5}, "general.architecture"),
    ],
)
def test_absurd_values(tmp_path: Path, values: dict[str, Any], reason: str) -> None:
    assert reason in refusal(write(tmp_path, gguf(values)))


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        ((9, 4, 4, 0, 0), "9 dimensions"),
        ((2, 1 << 40, 1 << 40, 0, 0), "weights at byte"),
        ((2, 4, 4, 0, 1 << 40), "truncated"),
        ((2, 4, 4, 4096, 0), "unknown type"),
        ((2, 4, 4, 12, 0), "multiple of 256"),
    ],
)
def test_absurd_tensors(tmp_path: Path, tensor: tuple[int, ...], reason: str) -> None:
    """`tensor`: dimensions, shape, type, offset."""
    content, good = gguf(), struct.pack("<I2QIQ", 2, 4, 4, 0, 0)
    assert content.count(good) == 1
    assert reason in refusal(write(tmp_path, content.replace(good, struct.pack("<I2QIQ", *tensor))))


def test_absurd_arrays(tmp_path: Path) -> None:
    content = gguf({"a": ["x"]})
    array = struct.pack("<IIQ", 9, 8, 1)
    for element, count, reason in [
        (8, 1 << 60, "claims to have"),
        (0, 1 << 60, "truncated"),
        (9, 1, "unknown type 9"),
        (99, 1, "unknown type 99"),
    ]:
        path = write(tmp_path, content.replace(array, struct.pack("<IIQ", 9, element, count)))
        assert reason in refusal(path)


def test_an_endless_array_of_empty_texts_ends_soon(tmp_path: Path) -> None:
    content = gguf({"a": ["x"]})
    end = content.index(struct.pack("<IIQ", 9, 8, 1)) + 16
    claims = content[: end - 8] + struct.pack("<Q", MAX_ELEMENTS)
    start = time.perf_counter()
    refusal(write(tmp_path, claims, size=20 * 1024**3))
    assert time.perf_counter() - start < 10


def test_a_key_that_appears_twice(tmp_path: Path) -> None:
    content = gguf({"aaaa": 1, "bbbb": 2}).replace(b"bbbb", b"aaaa")
    assert "appears twice" in refusal(write(tmp_path, content))


def test_a_truncated_file(tmp_path: Path) -> None:
    for size in (5000, 30_000, 40_000, SIZE - 1):
        assert "truncated" in refusal(write(tmp_path, BUNDLED.read_bytes()[:size]))


def test_a_file_without_weights(tmp_path: Path) -> None:
    assert "no weights" in refusal(write(tmp_path, gguf(tensors={})))


def test_what_is_no_file(tmp_path: Path) -> None:
    if hasattr(os, "mkfifo"):  # opening it would wait for ever
        os.mkfifo(tmp_path / "pipe.gguf")
        assert refusal(tmp_path / "pipe.gguf") == "it is not a file"
    assert refusal(tmp_path / "none.gguf") == "No such file or directory"


edits = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, 31_500), st.binary(min_size=1, max_size=12)),
        st.tuples(st.just("cut"), st.integers(0, 31_500), st.binary(max_size=0)),
        st.tuples(st.just("insert"), st.integers(0, 31_500), st.binary(min_size=1, max_size=12)),
        st.tuples(
            st.just("set"),
            st.integers(0, 31_500),
            st.sampled_from([1 << 63, (1 << 64) - 1, 1 << 32, 1 << 31, 1 << 20, 0]).map(
                lambda n: struct.pack("<Q", n)
            ),
        ),
    ),
    min_size=1,
    max_size=6,
)


@given(edits)
@settings(max_examples=300, deadline=20_000)
def test_any_change_of_a_header_gives_facts_or_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, int, bytes]]
) -> None:
    content = bytearray(HEADER)
    for kind, at, new in changes:
        if kind == "set":
            content[at : at + len(new)] = new
        elif kind == "insert":
            content[at:at] = new
        else:
            del content[at:]
    path = write(
        tmp_path_factory.getbasetemp(), bytes(content), size=SIZE if changes[0][0] != "cut" else None
    )
    _facts_or_damage(path)


@given(st.binary(max_size=300))
@settings(max_examples=300, deadline=20_000)
def test_any_bytes_after_the_magic_give_facts_or_damaged_file(
    tmp_path_factory: pytest.TempPathFactory, rest: bytes
) -> None:
    content = b"GGUF" + struct.pack("<I", 3) + rest
    _facts_or_damage(write(tmp_path_factory.getbasetemp(), content, size=1 << 33))


def _facts_or_damage(path: Path) -> None:
    tracemalloc.start()
    try:
        assert isinstance(facts.read(path), Facts)
    except DamagedFile as error:
        assert error.reason
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 16 * 1024 * 1024

"""The files of the bundled model are of one model, and its card was measured with them."""

from __future__ import annotations

import json
import re
import struct
import sys
from pathlib import Path
from typing import Any

from portico.library import gguf, safetensors

MODEL = Path(__file__).parents[1] / "models" / "portico-tiny"
sys.path.insert(0, str(MODEL))

from recipe import card  # noqa: E402

GGUF = MODEL / "portico-tiny.gguf"
END, PAD = "<|im_end|>", "<|endoftext|>"


def read(name: str) -> dict[str, Any]:
    found = json.loads((MODEL / name).read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found


def texts(key: bytes) -> list[str]:
    """An array of texts in the GGUF file."""
    raw = GGUF.read_bytes()
    at = raw.index(key) + len(key)
    kind, inner, count = struct.unpack_from("<IIQ", raw, at)
    assert (kind, inner) == (9, 8)
    at, found = at + 16, []
    for _ in range(count):
        (length,) = struct.unpack_from("<Q", raw, at)
        found.append(raw[at + 8 : at + 8 + length].decode())
        at += 8 + length
    return found


def test_the_sizes_are_the_same_in_every_file() -> None:
    config, header = read("config.json"), gguf.read(GGUF)
    for ours, theirs in {
        "block_count": "num_hidden_layers",
        "context_length": "max_position_embeddings",
        "embedding_length": "hidden_size",
        "feed_forward_length": "intermediate_size",
        "attention.head_count": "num_attention_heads",
        "attention.head_count_kv": "num_key_value_heads",
        "attention.key_length": "head_dim",
    }.items():
        assert header.number(f"qwen3.{ours}") == config[theirs], ours
    tensors = {tensor.name: tensor for tensor in safetensors.read(MODEL / "model.safetensors")}
    assert sum(tensor.elements for tensor in tensors.values()) == header.parameters
    hidden, heads, wide = config["hidden_size"], config["num_attention_heads"], config["intermediate_size"]
    last = f"model.layers.{config['num_hidden_layers'] - 1}"
    assert tensors["model.embed_tokens.weight"].shape == (config["vocab_size"], hidden)
    assert tensors[f"{last}.self_attn.q_proj.weight"].shape == (heads * config["head_dim"], hidden)
    assert tensors[f"{last}.mlp.up_proj.weight"].shape == (wide, hidden)
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}


def test_the_vocabulary_is_the_same_in_every_file() -> None:
    config, tokenizer, settings = read("config.json"), read("tokenizer.json"), read("tokenizer_config.json")
    known = {text: int(at) for text, at in tokenizer["model"]["vocab"].items()}
    known |= {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
    tokens = texts(b"tokenizer.ggml.tokens")
    assert len(tokens) == config["vocab_size"] == gguf.read(GGUF).number("qwen3.vocab_size")
    assert {text: at for at, text in enumerate(tokens) if text in known} == known
    merges = [each if isinstance(each, str) else " ".join(each) for each in tokenizer["model"]["merges"]]
    assert texts(b"tokenizer.ggml.merges") == merges
    assert (settings["eos_token"], settings["pad_token"]) == (END, PAD)
    assert (config["eos_token_id"], config["pad_token_id"]) == (known[END], known[PAD])
    assert read("generation_config.json")["eos_token_id"] == [known[END], known[PAD]]
    assert gguf.read(GGUF).number("tokenizer.ggml.eos_token_id") == known[END]


def test_the_template_is_the_same_in_every_file() -> None:
    template = (MODEL / "chat_template.jinja").read_text(encoding="utf-8")
    assert gguf.read(GGUF).text("tokenizer.chat_template") == template


def test_what_the_card_tells_was_measured_with_these_files() -> None:
    text = (MODEL / "README.md").read_text(encoding="utf-8")
    weights = {name: card.sha256(MODEL / name) for name in ("model.safetensors", GGUF.name)}
    wanted = {card.EVALUATION: {weights[GGUF.name]}, card.COMPARISON: set(weights.values())}
    for section, digests in wanted.items():
        told = card.written(text, section)
        if "|" in told:
            assert set(re.findall(r"\b[0-9a-f]{64}\b", told)) == digests, f"measure again: {section.command}"


def test_the_log_of_the_training_names_no_places() -> None:
    path = MODEL / "training.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    assert not [line for line in lines if json.loads(line).keys() & {"out", "tokenizer"}]

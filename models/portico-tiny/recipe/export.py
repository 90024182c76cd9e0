"""Writes the folder that is shipped, from one that the training left.

    python -m recipe.export TRAINED FOLDER [--earlier FIRST --earlier SECOND ...]

TRAINED: config.json, model.safetensors (float32 or bfloat16), tokenizer.json, chat_template.jinja and, if it is
there, log.jsonl, which becomes training.jsonl, behind those of FIRST and SECOND, the trainings that it went on from. FOLDER then has bfloat16 safetensors with all that transformers and
vLLM read, and the same weights as a GGUF file for llama.cpp: matrices as float16, norms as float32, both of the
values that bfloat16 kept, so that engines differ by their arithmetic alone. Both files are read again and compared,
and the embedded engine has to cut texts into the same tokens as the tokenizers library; before that nothing in FOLDER
is touched.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter, LlamaFileType, TokenType

from recipe import tensors
from recipe.serving import ServerFailed, parallel, serve
from recipe.staging import replacing
from recipe.tensors import Array
from recipe.words import invented

NAME, LICENSE = "portico-tiny", "apache-2.0"
END, PAD = "<|im_end|>", "<|endoftext|>"
GGUF = f"{NAME}.gguf"
SMALLEST_F16 = 2.0**-24
"""Below 2**-14 float16 has fixed steps of this size: what a matrix in the GGUF file may be off by, twice."""

_LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
Json = dict[str, Any]


class ExportFailed(Exception):
    """What was written is not what was trained, or what was trained cannot be written."""


def export(trained: Path, folder: Path, earlier: Sequence[Path] = ()) -> None:
    """Writes into `folder`, which is empty. Raises ExportFailed."""
    config: Json = json.loads((trained / "config.json").read_text())
    tokenizer: Json = json.loads((trained / "tokenizer.json").read_text())
    template = (trained / "chat_template.jinja").read_text()
    ids = {token["content"]: int(token["id"]) for token in tokenizer["added_tokens"]}
    weights = {
        name: tensors.rounded(value) for name, value in tensors.read(trained / "model.safetensors").items()
    }
    if config.get("tie_word_embeddings"):
        weights.pop("lm_head.weight", None)
    tensors.write_bf16(folder / "model.safetensors", weights)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copyfile(trained / name, folder / name)
    logs = [place / "log.jsonl" for place in (*earlier, trained)]
    if told := "".join(log.read_text(encoding="utf-8") for log in logs if log.exists()):
        (folder / "training.jsonl").write_text(told, encoding="utf-8")
    write_json(folder / "config.json", shipped_config(config, ids))
    write_json(folder / "generation_config.json", generation_config(config, ids))
    write_json(folder / "tokenizer_config.json", tokenizer_config(config, tokenizer))
    write_gguf(folder / GGUF, config, tokenizer, template, weights)


def write_json(path: Path, value: Json) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def shipped_config(config: Json, ids: dict[str, int]) -> Json:
    changed = {"bos_token_id": None, "eos_token_id": ids[END], "pad_token_id": ids[PAD], "dtype": "bfloat16"}
    kept = {name: value for name, value in config.items() if name not in ("torch_dtype", "_name_or_path")}
    return dict(sorted({**kept, **changed, "use_cache": True}.items()))


def generation_config(config: Json, ids: dict[str, int]) -> Json:
    """Both ends; a raw completion may come to the end of a text. Nothing about sampling: that is the caller's."""
    found: Json = {"eos_token_id": [ids[END], ids[PAD]], "pad_token_id": ids[PAD]}
    if version := config.get("transformers_version"):
        found["transformers_version"] = version
    return found


def tokenizer_config(config: Json, tokenizer: Json) -> Json:
    """The chat template lies beside it in its own file."""
    about = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    return {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            str(token["id"]): {name: token[name] for name in about} for token in tokenizer["added_tokens"]
        },
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": END,
        "model_max_length": config["max_position_embeddings"],
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": None,
    }


# ---- GGUF


def write_gguf(path: Path, config: Json, tokenizer: Json, template: str, weights: dict[str, Array]) -> None:
    writer = GGUFWriter(str(path), "qwen3")
    writer.add_type("model")
    writer.add_name(NAME)
    writer.add_basename(NAME)
    writer.add_size_label(size_label(sum(value.size for value in weights.values())))
    writer.add_license(LICENSE)
    writer.add_file_type(LlamaFileType.MOSTLY_F16)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(rope_theta(config))
    writer.add_vocab_size(config["vocab_size"])

    texts, kinds = vocabulary(tokenizer, config["vocab_size"])
    ids = {text: at for at, text in enumerate(texts)}
    merges = tokenizer["model"]["merges"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")  # digits one by one, then GPT-2's rule
    writer.add_token_list(texts)
    writer.add_token_types(kinds)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_eos_token_id(ids[END])
    writer.add_pad_token_id(ids[PAD])
    writer.add_add_bos_token(False)
    writer.add_chat_template(template)
    for name, values in gguf_tensors(config, weights).items():
        writer.add_tensor(name, values if values.ndim == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def size_label(count: int) -> str:
    return f"{count / 1e6:.1f}M" if count < 1e7 else f"{count / 1e6:.0f}M"


def rope_theta(config: Json) -> float:
    return float(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])


def vocabulary(tokenizer: Json, size: int) -> tuple[list[str], list[TokenType]]:
    """The text and kind of every token. Special ones end an answer and are not shown; the other added ones, such
    as <tool_call>, are text like any other that happens to be one token."""
    found: dict[int, tuple[str, TokenType]] = {
        at: (text, TokenType.NORMAL) for text, at in tokenizer["model"]["vocab"].items()
    }
    for token in tokenizer["added_tokens"]:
        kind = TokenType.CONTROL if token["special"] else TokenType.USER_DEFINED
        found[int(token["id"])] = (token["content"], kind)
    if found and max(found) >= size:
        raise ExportFailed(f"the tokenizer has token {max(found)}, the weights have only {size}")
    rows = [found.get(at, (f"[PAD{at}]", TokenType.UNUSED)) for at in range(size)]
    return [text for text, _ in rows], [kind for _, kind in rows]


def gguf_tensors(config: Json, weights: dict[str, Array]) -> dict[str, Array]:
    """The weights under llama.cpp's names. Raises ExportFailed for one that has none, or one that is missing."""
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    if not config.get("tie_word_embeddings"):
        names["lm_head.weight"] = "output.weight"
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in _LAYER.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"blk.{layer}.{ours}.weight"
    if names.keys() != weights.keys():
        odd = sorted(names.keys() ^ weights.keys())
        raise ExportFailed(f"unexpected or missing weights: {', '.join(odd[:5])}")
    return {names[name]: weights[name] for name in names}


# ---- checks


def check(folder: Path) -> None:
    """Reads back what was written. Raises ExportFailed."""
    check_weights(folder)
    check_tokens(folder)


def check_weights(folder: Path) -> None:
    config: Json = json.loads((folder / "config.json").read_text())
    wanted = gguf_tensors(config, tensors.read(folder / "model.safetensors"))
    found = {tensor.name: tensor for tensor in GGUFReader(folder / GGUF).tensors}
    if found.keys() != wanted.keys():
        raise ExportFailed(f"tensors differ: {sorted(found.keys() ^ wanted.keys())[:5]}")
    for name, values in wanted.items():
        data = np.asarray(found[name].data)
        if data.dtype != (np.float32 if values.ndim == 1 else np.float16) or data.shape != values.shape:
            raise ExportFailed(f"{name} is {data.dtype} {data.shape}")
        off = float(np.abs(data.astype(np.float32) - values).max())
        if off > (0 if values.ndim == 1 else SMALLEST_F16 / 2):
            raise ExportFailed(f"{name} differs by {off}")


def check_tokens(folder: Path) -> None:
    """The embedded engine and the tokenizers library cut the same tokens."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    added = [
        token["content"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ]
    with serve(folder / GGUF, *parallel(1)) as server:
        for text in texts(added):
            wanted = tokenizer.encode(text, add_special_tokens=False).ids
            found = server.ask(
                "/tokenize", {"model": "default", "prompt": text, "add_special_tokens": False}
            )["tokens"]
            if found != wanted:
                raise ExportFailed(f"{text!r} is {wanted} to tokenizers and {found} to the engine")
            back = server.ask("/detokenize", {"model": "default", "tokens": found})["prompt"]
            if back != text:
                raise ExportFailed(f"{text!r} comes back as {back!r}")


def texts(added: list[str], count: int = 200) -> list[str]:
    """Texts in which tokenizers like to differ: digits, white space, JSON, code, other scripts, emoji, invented
    words, and the added tokens within them. The same in every run."""
    from recipe.sample import Draw

    d = Draw("export/texts", training=False)
    pick = random.Random("export/texts/pieces")
    pieces = [
        "0", "7", "42", "1234567890", "3.14", "-5", "1,000", "2024-03-01", "12:30", "²³", "٣٤", "½", "Ⅷ",
        " ", "  ", "   ", "\n", "\n\n", " \n", "\n  ", "\t", "\r\n", "\u00a0", "\u3000", "        ",
        "{", "}", '{"a": 1}', '": "', '", "', "[]", "[1, 2]", "null", "true", '\\"', "\\n",
        "def f(x):\n    return x", "if (a != b) {", "a_b", "x += 1;", "//", "# ", "```python\n", "<b>", "=>",
        "don't", "I'm", "we'll", "'s", "It's 5 o'clock", "...", "?!", "$9.99", "50%", "a@b.org", "http://x.io/?q=1",
        "é", "ñandú", "Straße", "привет", "你好", "日本語", "한국어", "مرحبا", "👋", "👩‍👩‍👧", "🇮🇹", "e\u0301", "—", "…", "€",
        "The quick brown fox", "Hello!", "HELLO", "camelCase", "snake_case", "kebab-case", "file.txt", "A",
    ]  # fmt: skip
    found = []
    for at in range(count):
        parts = [
            pick.choice([pick.choice(pieces), invented(d), pick.choice(pieces)]) for _ in range(at % 12 + 1)
        ]
        if at % 5 == 0:
            parts.insert(pick.randrange(len(parts) + 1), pick.choice(added))
        found.append(pick.choice(["", " ", "\n"]).join(parts))
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.export",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("trained", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--earlier",
        type=Path,
        action="append",
        default=[],
        metavar="FIRST",
        help="its log comes first; may be repeated",
    )
    asked = parser.parse_args(arguments)
    try:
        with replacing(asked.folder) as made:
            export(asked.trained, made, asked.earlier)
            check(made)
    except (ExportFailed, ServerFailed) as error:
        print(f"Nothing is exported: {error}", file=sys.stderr)
        return 1
    sizes = ", ".join(
        f"{name} {(asked.folder / name).stat().st_size:,} bytes" for name in ("model.safetensors", GGUF)
    )
    print(f"Exported and checked: {sizes}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

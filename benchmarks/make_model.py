"""Write a Qwen3-shaped model of random weights as a GGUF: an engine works as hard on it as on a trained one.

    python make_model.py TOKENIZER.gguf OUT.gguf [--layers 16 --width 768 ...]

The tokenizer and the chat template are those of TOKENIZER.gguf. Needs the `gguf` package and numpy. A fixed seed: two
machines make the same model. The defaults give 101 million parameters; portico-tiny, with 2, spends so little on a
token that the HTTP around it decides the figure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import quantize

TYPES = {"f16": GGMLQuantizationType.F16, "q8_0": GGMLQuantizationType.Q8_0}


def copy_tokenizer(source: GGUFReader, writer: GGUFWriter) -> int:
    """Every tokenizer.* field; returns the size of the vocabulary."""
    for name, field in source.fields.items():
        if name.startswith("tokenizer."):
            kind, *inner = field.types
            writer.add_key_value(
                name, field.contents(), kind, inner[0] if kind == GGUFValueType.ARRAY else None
            )
    return len(source.fields["tokenizer.ggml.tokens"].data)


def write_model(tokenizer: Path, out: Path, shape: argparse.Namespace) -> int:
    """Returns the number of parameters."""
    writer = GGUFWriter(out, "qwen3")
    vocabulary = copy_tokenizer(GGUFReader(tokenizer), writer)
    writer.add_name("random weights for the benchmark")
    writer.add_block_count(shape.layers)
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_feed_forward_length(shape.feed_forward)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(vocabulary)

    random = np.random.default_rng(1)
    stored = TYPES[shape.type]
    parameters = 0

    def matrix(name: str, rows: int, columns: int) -> None:
        nonlocal parameters
        parameters += rows * columns
        # 1/sqrt(columns) keeps activations near 1 through all layers, so that no logit becomes infinite.
        weights = random.standard_normal((rows, columns), dtype=np.float32) / np.float32(columns**0.5)
        if stored == GGMLQuantizationType.F16:
            writer.add_tensor(name, weights.astype(np.float16))
        else:
            writer.add_tensor(name, quantize(weights, stored), raw_dtype=stored)

    def norm(name: str, size: int) -> None:
        nonlocal parameters
        parameters += size
        writer.add_tensor(name, np.ones(size, dtype=np.float32))

    query, key = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    matrix("token_embd.weight", vocabulary, shape.width)  # the output uses it too
    norm("output_norm.weight", shape.width)
    for layer in range(shape.layers):
        block = f"blk.{layer}."
        norm(block + "attn_norm.weight", shape.width)
        matrix(block + "attn_q.weight", query, shape.width)
        matrix(block + "attn_k.weight", key, shape.width)
        matrix(block + "attn_v.weight", key, shape.width)
        matrix(block + "attn_output.weight", shape.width, query)
        norm(block + "attn_q_norm.weight", shape.head_size)
        norm(block + "attn_k_norm.weight", shape.head_size)
        norm(block + "ffn_norm.weight", shape.width)
        matrix(block + "ffn_gate.weight", shape.feed_forward, shape.width)
        matrix(block + "ffn_up.weight", shape.feed_forward, shape.width)
        matrix(block + "ffn_down.weight", shape.width, shape.feed_forward)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return parameters


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a GGUF of random weights.")
    parser.add_argument("tokenizer", type=Path, help="GGUF whose tokenizer is copied")
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--feed-forward", type=int, default=2048)
    parser.add_argument("--heads", type=int, default=12)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--type", choices=TYPES, default="q8_0", help="how the matrices are stored")
    shape = parser.parse_args()
    unfinished = shape.out.with_suffix(".part")  # a run cut short must not leave half a model behind
    parameters = write_model(shape.tokenizer, unfinished, shape)
    unfinished.rename(shape.out)
    print(f"{shape.out}: {parameters / 1e6:.1f} million parameters, {shape.out.stat().st_size / 1e6:.0f} MB")


if __name__ == "__main__":
    main()

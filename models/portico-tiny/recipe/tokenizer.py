"""The tokenizer: byte-level BPE with single digits, learned from the training text itself.

A word is cut in the same way with and without a space before it: merges are learned from words alone, and
only then the space is merged onto the commonest whole words, as the last merges of all. So " Kowalski" is
"Kowalski" with one token more in front, and copying a word from a sentence into a JSON string is copying
tokens. (A usual BPE cuts the two differently, and first letters are lost by that.)

Run as a program it writes tokenizer.json: `python -m recipe.tokenizer OUT`.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from recipe import families, render
from recipe.sample import Draw

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MARKS = ["<tool_call>", "</tool_call>", "<think>", "</think>", "<tools>", "</tools>"]
VOCABULARY = 1536
# So many of the vocabulary are whole words with the space before them.
SPACED = 320
SAMPLES = 12_000
SPACE = "Ġ"  # how byte-level BPE writes a space


def splitter() -> Any:
    """llama.cpp's pre-tokenizer `smollm`: each digit alone, then GPT-2's expression."""
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )


def words_of(samples: int) -> Counter[str]:
    """How often each word, mark or run of spaces stands in that many samples."""
    split, counted = splitter(), Counter[str]()
    draw = Draw("tokenizer")
    for _ in range(samples):
        text = render.text(families.drawn(draw, 0.5)[1])
        for mark in SPECIAL + MARKS:
            text = text.replace(mark, "\n")
        counted.update(piece for piece, _ in split.pre_tokenize_str(text))
    return counted


def learned(counted: Counter[str]) -> dict[str, Any]:
    """The BPE part of tokenizer.json: vocabulary and merges."""
    bare = Counter[str]()
    for word, count in counted.items():
        bare[word.removeprefix(SPACE) if word.strip(SPACE) else word] += count
    # A word that stands only a few times was invented by the generator: merges of its letters mean nothing.
    known = {word: count for word, count in bare.items() if count >= 40}
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    inner.train_from_iterator(
        (word for word, count in known.items() for _ in range(min(count, 20_000) // 10)),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY - len(SPECIAL) - len(MARKS) - SPACED,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    model = json.loads(inner.to_str())["model"]
    merges = [tuple(merge) for merge in model["merges"]]
    pieces = set(model["vocab"])
    spaced = [
        word[1:]
        for word, _ in counted.most_common()
        if word.startswith(SPACE) and word[1:] in pieces and word.strip(SPACE)
    ][:SPACED]
    ordered = (
        SPECIAL + sorted(model["vocab"], key=model["vocab"].__getitem__) + [SPACE + word for word in spaced]
    )
    merges += [(SPACE, word) for word in spaced]
    return {"vocab": {token: at for at, token in enumerate(ordered)}, "merges": merges}


def made(samples: int = SAMPLES) -> Tokenizer:
    bpe = learned(words_of(samples))
    tokenizer = Tokenizer(models.BPE(vocab=bpe["vocab"], merges=bpe["merges"]))
    tokenizer.pre_tokenizer = splitter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL])
    # Not special: they are text, and stay in the answer of an engine that drops special tokens.
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in MARKS])
    return tokenizer


def main() -> None:
    out = Path(sys.argv[1])
    tokenizer = made()
    tokenizer.save(str(out))
    print(f"{out}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()

"""The training text as rows of tokens: batch i follows from the seed and i alone.

Documents are packed whole into rows, `<|endoftext|>` between them. Most batches have short rows; every
LONG_EVERY-th has long ones, filled with what does not fit a short row.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from tokenizers import Tokenizer

from recipe import families, render
from recipe.sample import Draw, Sample

SHORT = (12, 1024)  # rows, tokens
# Copying appears after a number of steps more than of tokens: the first batches are half as large.
FIRST = (6, 1024)
FIRST_STEPS = 600
LONG = (2, 5120)
LONG_EVERY = 5
# The share of the training over which the early drills fade out.
FADE = 0.6
SEPARATOR = 0  # <|endoftext|>

# A document's answers weigh together as the square root of their number of tokens, so that a sum of one token
# is not lost beside a file of two hundred. In a byte, the weight of a token is UNIT for answers of 32 tokens.
UNIT = 40

Batch = tuple[np.ndarray, np.ndarray]


@cache
def _tokenizer(path: str) -> Tokenizer:
    return Tokenizer.from_file(path)


def document(sample: Sample, tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    """Its tokens and their weights: 0 for what is no answer."""
    ids: list[int] = []
    answers: list[bool] = []
    for piece, is_answer in render.pieces(sample):
        encoded = tokenizer.encode(piece).ids
        ids += encoded
        answers += [is_answer] * len(encoded)
    weight = min(255, max(1, round(UNIT * (32 / sum(answers)) ** 0.5)))
    return ids, [weight * answer for answer in answers]


def batches(seed: int, step: int, steps: int, tokenizer: str) -> Batch:
    """Batch `step` of a training of `steps`: (tokens, weights), rows x (length + 1), uint16 and uint8."""
    draw = Draw(f"training/{seed}/{step}")
    early = max(0.0, 1 - step / (steps * FADE))
    long = step % LONG_EVERY == LONG_EVERY - 1
    rows, length = LONG if long else SHORT if step >= FIRST_STEPS else FIRST
    tokens = np.full((rows, length + 1), SEPARATOR, np.uint16)
    weights = np.zeros((rows, length + 1), np.uint8)
    filled = [0] * rows
    small = missed = 0
    while missed < 16:
        sample = families.drawn(draw, early)[1]
        ids, marks = document(sample, _tokenizer(tokenizer))
        if long and len(ids) <= SHORT[1] and small < 300:
            small += 1
            continue
        # The fullest row that still has room; after some that fit nowhere the batch is full.
        fitting = [at for at in range(rows) if filled[at] + len(ids) <= length + 1]
        if not fitting:
            missed += 1
            continue
        row = max(fitting, key=filled.__getitem__)
        at = filled[row]
        tokens[row, at : at + len(ids)] = ids
        weights[row, at : at + len(ids)] = marks
        filled[row] = at + len(ids) + 1  # the separator stands there already
    return tokens, weights

"""The training text as rows of tokens: batch i follows from the seed and i alone.

Documents are packed whole into rows, `<|endoftext|>` between them. Most batches have short rows; every
LONG_EVERY-th has long ones, filled with what does not fit a short row.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from recipe import families, render
from recipe.sample import Draw, Sample

SHORT = (12, 1024)  # rows, tokens
LONG = (2, 5120)
LONG_EVERY = 8
# The share of the training over which the early drills fade out.
FADE = 0.6
SEPARATOR = 0  # <|endoftext|>

Batch = tuple[np.ndarray, np.ndarray]
Document = tuple[list[int], list[bool]]


class Text:
    """The text of one training run: `batch(i)` for i in range(steps)."""

    def __init__(self, tokenizer: Path, seed: int, steps: int) -> None:
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        self.seed, self.steps = seed, steps

    def document(self, sample: Sample) -> Document:
        """Its tokens, and which of them are to be predicted."""
        ids: list[int] = []
        answers: list[bool] = []
        for piece, is_answer in render.pieces(sample):
            encoded = self.tokenizer.encode(piece).ids
            ids += encoded
            answers += [is_answer] * len(encoded)
        return ids, answers

    def documents(self, step: int) -> Iterator[Document]:
        draw = Draw(f"training/{self.seed}/{step}")
        early = max(0.0, 1 - step / (self.steps * FADE))
        while True:
            yield self.document(families.drawn(draw, early)[1])

    def is_long(self, step: int) -> bool:
        return step % LONG_EVERY == LONG_EVERY - 1

    def batch(self, step: int) -> Batch:
        """(tokens, answers), both rows x (length + 1); tokens int32, answers bool."""
        long = self.is_long(step)
        rows, length = LONG if long else SHORT
        tokens = np.full((rows, length + 1), SEPARATOR, np.int32)
        answers = np.zeros((rows, length + 1), bool)
        filled = [0] * rows
        missed = 0
        for ids, marks in self.documents(step):
            if len(ids) > length + 1 or (long and len(ids) <= SHORT[1] and missed < 400):
                missed += 1
                continue
            # The fullest row that still has room; after some that fit nowhere the batch is full.
            fitting = [at for at in range(rows) if filled[at] + len(ids) <= length + 1]
            if not fitting:
                missed += 1
                if missed > (420 if long else 40):
                    return tokens, answers
                continue
            row = max(fitting, key=filled.__getitem__)
            at = filled[row]
            tokens[row, at : at + len(ids)] = ids
            answers[row, at : at + len(ids)] = marks
            filled[row] = at + len(ids) + 1  # the separator stands there already
        raise AssertionError("documents never end")

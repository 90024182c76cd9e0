"""A stand-in for recipe.data while the trainer is measured: the trial's documents and tokenizer.

TRIAL (a folder with generate.py and model/tokenizer.json), TRIAL_ROWS, TRIAL_LENGTH and TRIAL_LONG (every how many
steps a batch is long; 0: never) come from the environment.
"""

import os
import random
import sys

import numpy as np
from tokenizers import Tokenizer

FOLDER = os.environ.get("TRIAL", "tiny-trial")
ROWS = int(os.environ.get("TRIAL_ROWS", "24"))
LENGTH = int(os.environ.get("TRIAL_LENGTH", "512"))
LONG = int(os.environ.get("TRIAL_LONG", "0"))
RAMP = int(os.environ.get("TRIAL_RAMP", "1500"))

sys.path.insert(0, FOLDER)
from generate import TASKS  # noqa: E402

TOKENIZER = Tokenizer.from_file(os.path.join(FOLDER, "model", "tokenizer.json"))
END = TOKENIZER.token_to_id("<|im_end|>")


def encode(messages: list[tuple[str, str]]) -> tuple[list[int], list[bool]]:
    """A document's tokens and, for each, whether an assistant wrote it."""
    ids, mask = [], []
    parts = []
    for role, content in messages:
        parts += [f"<|im_start|>{role}\n", content, "\n"]
    done = TOKENIZER.encode_batch_fast(parts)
    for i, (role, _) in enumerate(messages):
        a, b, c = (x.ids for x in done[3 * i : 3 * i + 3])
        ids += a + b + [END] + c
        mask += [False] * len(a) + [role == "assistant"] * (len(b) + 1) + [False] * len(c)
    return [*ids, 0], [*mask, False]


def batches(seed: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """tokens uint16 [B, T + 1] and mask bool [B, T + 1] of one step."""
    made = random.Random(seed * 1_000_003 + step)
    rows, length = (2, 5120) if LONG and step % LONG == LONG - 1 else (ROWS, LENGTH)
    tokens, mask = np.zeros((rows, length + 1), np.uint16), np.zeros((rows, length + 1), bool)
    f = min(1.0, step / RAMP)
    weights = {
        "copy": 5 * (1 - f) + 1, "arith": 0.5, "chat": 0.5, "recall": 1.5, "js": 1.5 + f,
        "tool": 1.5 + f, "agent": 1 + f, "transform": 0.6, "label": 0.3,
    }  # fmt: skip
    names = list(weights)
    for row in range(rows):
        at = misses = 0
        while misses < 12 and at < length - 8:
            ids, said = encode(TASKS[made.choices(names, list(weights.values()))[0]](made))
            n = len(ids)
            if at + n > length + 1:
                misses += 1
                continue
            tokens[row, at : at + n], mask[row, at : at + n] = ids, said
            at += n
    return tokens, mask

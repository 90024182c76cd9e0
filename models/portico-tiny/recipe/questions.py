"""The questions of the evaluation and of the comparisons: the same in every run.

Seeds are texts that begin with what they are for; those of the training begin with "training/". Names, words and
numbers come from lists that the training never draws from, so nearly all questions are new to the model. Families
that ask little else than a fixed question (BY_HEART) are the exception: in trained wordings many of theirs
stand in the training text word for word. In unseen wordings hardly any question does.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from recipe import families
from recipe.sample import Draw, Entry, Sample, Wordings

WORDINGS: tuple[Wordings, ...] = ("trained", "unseen")
TRIES = 10
"""For each question that is wanted, so many may be drawn until it is one that was not asked yet."""
BY_HEART = frozenset(
    (
        "chat",
        "JSON: a known person",
        "simple terms",
        "capitals",
        "haiku",
        "binary search",
        "factorial",
        "code review",
        "raw completions",
    )
)
"""Rows of which 15 or more of 100 questions in trained wordings are among 3,000 training samples of the same row."""


def entries() -> list[Entry]:
    """Every row, in the table's order."""
    return [replace(entry, by_heart=entry.name in BY_HEART) for entry in families.entries()]


def question(entry: Entry, wordings: Wordings, number: int, purpose: str = "evaluation") -> Sample:
    """Question `number` of an entry."""
    return entry.make(Draw(f"{purpose}/{entry.name}/{wordings}/{number}", training=False, wordings=wordings))


def distinct(entry: Entry, wordings: Wordings, count: int) -> Iterator[tuple[int, Sample]]:
    """Up to `count` questions of which no two are the same, each with its number."""
    seen: set[bytes] = set()
    for number in range(count * TRIES):
        if len(seen) == count:
            return
        sample = question(entry, wordings, number)
        if (mark := fingerprint(sample)) not in seen:
            seen.add(mark)
            yield number, sample


def fingerprint(sample: Sample) -> bytes:
    """Equal for questions that look the same to the model."""
    shown = [sample.completion, sample.prompt, list(sample.tools or ()), sample.thinking]
    return hashlib.sha256(json.dumps(shown, ensure_ascii=False).encode()).digest()


@dataclass(frozen=True)
class Asked:
    """A question with the name it is known by in files."""

    name: str
    sample: Sample


def fixed(count: int, purpose: str) -> Iterator[Asked]:
    """`count` questions, evenly over the entries, trained and unseen wordings in turn."""
    rows = families.entries()
    for at in range(count):
        entry, number = rows[at % len(rows)], at // len(rows)
        yield Asked(f"{entry.name}/{number}", question(entry, WORDINGS[number % 2], number, purpose))


def digest(asked: Sequence[Asked]) -> str:
    """Says whether two runs were asked the same."""
    whole = hashlib.sha256()
    for each in asked:
        whole.update(each.name.encode() + b"\0" + fingerprint(each.sample))
    return whole.hexdigest()

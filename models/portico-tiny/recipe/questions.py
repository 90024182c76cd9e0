"""The questions of the evaluation and of the comparisons: the same in every run, and never those of the training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from recipe import families
from recipe.sample import Draw, Entry, Sample, Wordings


def question(entry: Entry, wordings: Wordings, number: int, purpose: str = "evaluation") -> Sample:
    """Question `number` of an entry. Seeds are texts here and numbers in training: they never meet."""
    return entry.make(Draw(f"{purpose}/{entry.name}/{wordings}/{number}", training=False, wordings=wordings))


@dataclass(frozen=True)
class Asked:
    """A question with the name it is known by in files."""

    name: str
    sample: Sample


def fixed(count: int, purpose: str) -> Iterator[Asked]:
    """`count` questions, evenly over the entries, trained and unseen wordings in turn."""
    entries = families.entries()
    for at in range(count):
        entry, number = entries[at % len(entries)], at // len(entries)
        wordings: Wordings = "unseen" if number % 2 else "trained"
        yield Asked(f"{entry.name}/{number}", question(entry, wordings, number, purpose))

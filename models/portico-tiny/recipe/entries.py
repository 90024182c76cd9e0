"""All rows of the evaluation: what every file in families/ calls ENTRIES."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass

from recipe import families
from recipe.sample import Draw, Entry, Sample, Wordings


def entries() -> list[Entry]:
    """In the order of the files' names, and of their lists. Raises ValueError for a name that comes twice."""
    found: list[Entry] = []
    for module in sorted(module.name for module in pkgutil.iter_modules(families.__path__)):
        found += getattr(importlib.import_module(f"recipe.families.{module}"), "ENTRIES", [])
    names = [entry.name for entry in found]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two entries have the same name: {', '.join(sorted(twice))}")
    return found


def question(entry: Entry, wordings: Wordings, number: int, purpose: str = "evaluation") -> Sample:
    """Sample `number`, the same in every run. Seeds are texts here and numbers in training: they never meet."""
    return entry.make(Draw(f"{purpose}/{entry.name}/{wordings}/{number}", training=False, wordings=wordings))


@dataclass(frozen=True)
class Asked:
    """A question with the name it is known by in files."""

    name: str
    sample: Sample


def questions(per_entry: int, purpose: str) -> Iterator[Asked]:
    """A fixed set: every other one in a trained wording, the others in an unseen one."""
    for entry in entries():
        for number in range(per_entry):
            wordings: Wordings = "unseen" if number % 2 else "trained"
            yield Asked(f"{entry.name}/{number}", question(entry, wordings, number, purpose))

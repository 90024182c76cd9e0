"""All families: the rows of the evaluation's table and the mixture of the training text."""

from __future__ import annotations

from functools import cache
from importlib import import_module

from recipe.sample import Draw, Entry, Sample

_MODULES = """copying lookup recall chat arithmetic transforms labels reasoning json_answers tools call_or_finish
topics by_heart code_answers code_review design completions long_text agent team""".split()


@cache
def entries() -> tuple[Entry, ...]:
    """Every row, in the table's order."""
    found = tuple(entry for name in _MODULES for entry in import_module(f"recipe.families.{name}").ENTRIES)
    names = [entry.name for entry in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two families of one name: {sorted(name for name in names if names.count(name) > 1)}"
        )
    return found


def drawn(d: Draw, early: float) -> tuple[Entry, Sample]:
    """A sample of the training mixture. early: 1 at the start of the training, 0 once the drills that teach
    copying have faded out."""
    weights = [entry.weight + early * entry.early for entry in entries()]
    entry = d.random.choices(entries(), weights)[0]
    return entry, entry.make(d)

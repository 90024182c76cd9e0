"""All families: the rows of the evaluation's table and the mixture of the training text."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, lru_cache
from importlib import import_module
from itertools import accumulate

from recipe import render
from recipe.sample import Draw, Entry, Sample

_MODULES = {
    "copying": "",
    "lookup": "look-up",
    "recall": "recall",
    "chat": "",
    "arithmetic": "arithmetic",
    "transforms": "transforms",
    "labels": "classification",
    "reasoning": "reasoning",
    "json_answers": "JSON",
    "tools": "tool calls",
    "call_or_finish": "call or finish",
    "topics": "",
    "by_heart": "",
    "code_answers": "",
    "code_review": "",
    "design": "",
    "completions": "",
    "long_text": "",
    "agent": "agent turns",
    "team": "agent turns",
}
"""Where the entries are, and the family that those of a module make up together; none: each is one."""


@cache
def entries() -> tuple[Entry, ...]:
    """Every row, in the table's order."""
    found = tuple(
        replace(entry, family=family or entry.name)
        for name, family in _MODULES.items()
        for entry in import_module(f"recipe.families.{name}").ENTRIES
    )
    names = [entry.name for entry in found]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two families of one name: {sorted(name for name in names if names.count(name) > 1)}"
        )
    return found


# So many samples of an entry tell how long they are.
MEASURED = 60


@cache
def lengths() -> tuple[float, ...]:
    """The mean length of each entry's samples, in characters."""
    return tuple(
        sum(len(render.text(entry.make(Draw(f"length/{at}")))) for at in range(MEASURED)) / MEASURED
        for entry in entries()
    )


@lru_cache(maxsize=4)
def _weights(early: float) -> list[float]:
    """How often each entry is drawn so that it gets its share of the text: the longer it is, the more seldom."""
    rows = zip(entries(), lengths(), strict=True)
    return list(accumulate((entry.share + early * entry.early) / length for entry, length in rows))


def drawn(d: Draw, early: float) -> tuple[Entry, Sample]:
    """A sample of the training mixture. early: 1 at the start of the training, 0 once the drills that teach
    copying have faded out."""
    entry = d.random.choices(entries(), cum_weights=_weights(early))[0]
    return entry, entry.make(d)

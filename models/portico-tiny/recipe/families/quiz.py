"""Documents with questions about them: how much one holds, draws that stay apart, a quiz."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from recipe import words
from recipe.sample import Draw

T = TypeVar("T")

_FREQUENT = frozenset(
    """the is and in of are has live lives likes with key value as a an at to from code color city secret file
    user status action size works work job years old now speaks can speak uses was born comes best drinks
    drink every day home owns house flat belongs costs stands found price owned by euros dollars coins name
    id request task info warn error json html csv txt py com""".split()
)
_KNOWN = frozenset([*words.NOUNS, *words.ADJECTIVES, *words.VERBS, *words.UNITS])
_ATOMS = re.compile(r"[A-Z]?[a-z]+|[A-Z]|(?: ?)[0-9]|[^\sA-Za-z0-9]|\n")


def estimate(text: str) -> int:
    """About how many tokens: one for each digit, mark, capital and frequent word, more for rarer words."""
    total = 0.0
    for atom in _ATOMS.findall(text):
        if not atom.isalpha() or len(atom) == 1:
            total += len(atom)  # a space before a digit is a token of its own
        elif atom.lower() in _FREQUENT:
            total += 1
        elif atom in _KNOWN:
            total += max(1.0, len(atom) / 2.35)
        else:
            total += max(1.0, len(atom) / 1.8)
    return round(total)


def about(d: Draw, tokens: int) -> int:
    """A length near `tokens` to aim a document at: the question and the template's marks come on top."""
    return round(tokens * d.random.uniform(0.87, 0.96)) - 40


@dataclass
class Room:
    """How much a document may hold: so many items, or about so many tokens."""

    items: int = 0
    tokens: int = 0

    def fill(self, make: Callable[[], T], shown: Callable[[T], str]) -> list[T]:
        found: list[T] = []
        size = 0
        while len(found) < self.items or size < self.tokens:
            found.append(make())
            size += estimate(shown(found[-1])) + 1
        return found


class Distinct:
    """Draws that never come twice, nor as a part of one another (which would make a question ambiguous)."""

    def __init__(self, d: Draw) -> None:
        self.d = d
        self.taken: list[str] = []

    def __call__(self, make: Callable[[Draw], str]) -> str:
        for attempt in range(40):
            drawn = make(self.d) if attempt < 30 else words.invented(self.d, (3, 5))
            low = drawn.lower()
            if not any(low == other or self._within(low, other) for other in self.taken):
                break
        self.taken.append(drawn.lower())
        return drawn

    @staticmethod
    def _within(one: str, other: str) -> bool:
        return min(len(one), len(other)) > 2 and (one in other or other in one)


class Unequal(Distinct):
    """Draws that never come twice; parts of one another are fine (numbers)."""

    def __call__(self, make: Callable[[Draw], str]) -> str:
        drawn, attempts = make(self.d), 0
        while drawn.lower() in self.taken:  # a list may have too few for a long document
            attempts += 1
            drawn = make(self.d) if attempts < 30 else words.invented(self.d, (2, 3))
        self.taken.append(drawn.lower())
        return drawn


@dataclass(frozen=True)
class Quiz:
    """A document in parts, and questions about it with their answers: one, in the training several, since a
    question about a document that is there already teaches as much as one with a document of its own."""

    parts: list[str]
    asks: list[tuple[str, str]]
    join: str = "\n"
    head: str = ""
    tail: str = ""

    @property
    def text(self) -> str:
        return self.head + self.join.join(self.parts) + self.tail


def several(d: Draw, room: Room, ask: Callable[[], T]) -> list[T]:
    """What `ask` gives, once for the evaluation, and in the training as often as the document is worth."""
    if not d.training:
        return [ask()]
    return [ask() for _ in range(d.integer(4, 10) if room.tokens else d.choice([1, 1, 2, 2, 3, 4]))]

"""The model card's measured parts, each between two marks of its own, and the digests that say of which files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path


class NoPlace(Exception):
    """The card lacks a section."""


@dataclass(frozen=True)
class Section:
    """A part of the card that a command writes."""

    name: str
    command: str

    @property
    def begin(self) -> str:
        return f"<!-- {self.name}: written by `{self.command}` -->"

    @property
    def end(self) -> str:
        return f"<!-- /{self.name} -->"


EVALUATION = Section("evaluation", "make model-eval")
COMPARISON = Section("comparison", "make model-compare")
SECTIONS = (EVALUATION, COMPARISON)


def written(card: str, section: Section) -> str:
    """What stands in a section. Raises NoPlace."""
    return _parts(card, section)[1].strip()


def updated(card: str, section: Section, new: str) -> str:
    """The card with `new` in the section. Raises NoPlace."""
    before, _, after = _parts(card, section)
    return f"{before}{section.begin}\n{new}\n{section.end}{after}"


def _parts(card: str, section: Section) -> tuple[str, str, str]:
    before, begin, rest = card.partition(section.begin)
    inside, end, after = rest.partition(section.end)
    if not begin or not end:
        raise NoPlace(f"the model card lacks the lines {section.begin} and {section.end}")
    return before, inside, after


def check(path: Path) -> None:
    """Raises NoPlace or OSError if what is measured could not be written into this card."""
    card = path.read_text(encoding="utf-8")
    for section in SECTIONS:
        updated(card, section, "")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

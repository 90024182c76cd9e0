"""What the evaluation counted, as the model card's table and as results.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from recipe.sample import Entry

FORM_BAR = 0.98
COLUMNS = ("trained", "unseen", "grammar")


@dataclass
class Tally:
    """What came of the questions of one column."""

    asked: int = 0
    form: int = 0
    value: int = 0
    errors: int = 0

    def add(self, other: Tally) -> None:
        self.asked += other.asked
        self.form += other.form
        self.value += other.value
        self.errors += other.errors

    @property
    def forms(self) -> float | None:
        return self.form / self.asked if self.asked else None

    @property
    def values(self) -> float | None:
        return self.value / self.asked if self.asked else None


@dataclass
class Row:
    """An entry of the table."""

    entry: Entry
    columns: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in COLUMNS})
    prompts: list[int] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def below(self) -> list[str]:
        """What does not reach its bar."""
        found = []
        for name, tally in self.columns.items():
            if tally.forms is not None and tally.forms < FORM_BAR:
                found.append(f"{name} form")
            if tally.values is not None and tally.values < self.entry.bar:
                found.append(f"{name} value")
        return found


def families(rows: Sequence[Row]) -> list[Row]:
    """The entries of each family taken together."""
    found: dict[str, Row] = {}
    for row in rows:
        entry = row.entry
        name = entry.family or entry.name
        family = found.setdefault(name, Row(replace(entry, name=name)))
        family.entry = replace(family.entry, by_heart=family.entry.by_heart and entry.by_heart)
        for name, tally in row.columns.items():
            family.columns[name].add(tally)
        family.prompts += row.prompts
        family.answers += row.answers
    return list(found.values())


def table(rows: Sequence[Row], weights: str) -> str:
    """`weights`: the digest of the GGUF file. What is below its bar is bold."""
    together = families(rows)
    lines = [
        "Asked at temperature 0, from the GGUF file on the embedded engine. Form / value (questions): "
        f"share of answers of the right kind that end by themselves (bar {FORM_BAR:.2f}) / exactly right (bar as "
        "listed), rounded down. **Bold**: below its bar. Questions of a column all differ. *By heart*: the training "
        "text holds many of the questions in trained wordings word for word, so that column measures memory.",
        "",
        f"Weights: sha256 `{weights}`.",
        "",
        *lines_of("family", together),
        "",
        f"{reached(together)} of {len(together)} families reach every bar. Entry by entry, each with fewer questions:",
        "",
        *lines_of("entry", rows),
        "",
        f"{reached(rows)} of {len(rows)} entries reach every bar.",
    ]
    return "\n".join(lines)


def lines_of(kind: str, rows: Sequence[Row]) -> list[str]:
    lines = [
        f"| {kind} | prompt tokens | bar | trained wordings | unseen wordings | with a grammar | |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        name = row.entry.name + (" (*by heart*)" if row.entry.by_heart else "")
        cells = " | ".join(cell(row.columns[column], row.entry.bar) for column in COLUMNS)
        state = "below" if row.below() else "ok"
        lines.append(f"| {name} | {spread(row.prompts)} | {row.entry.bar:.2f} | {cells} | {state} |")
    return lines


def reached(rows: Sequence[Row]) -> int:
    return sum(not row.below() for row in rows)


def cell(tally: Tally, bar: float) -> str:
    if tally.forms is None or tally.values is None:
        return "–"
    return f"{figure(tally.forms, FORM_BAR)} / {figure(tally.values, bar)} ({tally.asked})"


def figure(share: float, bar: float) -> str:
    """Rounded down: a figure that looks like its bar has reached it."""
    text = f"{int(share * 1000 + 1e-9) / 1000:.3f}"
    return text if share >= bar else f"**{text}**"


def spread(counts: Sequence[int]) -> str:
    """least / mean / most."""
    if not counts:
        return "–"
    return f"{min(counts)} / {sum(counts) / len(counts):.0f} / {max(counts)}"


def results(rows: Sequence[Row], weights: str, seconds: float) -> dict[str, Any]:
    return {
        "weights": weights,
        "seconds": round(seconds, 1),
        "families": [
            {"name": row.entry.name, "bar": row.entry.bar, "below": row.below(), "columns": columns(row)}
            for row in families(rows)
        ],
        "entries": [
            {
                "name": row.entry.name,
                "bar": row.entry.bar,
                "by_heart": row.entry.by_heart,
                "below": row.below(),
                "prompt_tokens": least_mean_most(row.prompts),
                "answer_tokens": least_mean_most(row.answers),
                "family": row.entry.family,
                "columns": columns(row),
                "failures": row.failures,
            }
            for row in rows
        ],
    }


def columns(row: Row) -> dict[str, Any]:
    return {
        name: {"asked": t.asked, "form": t.forms, "value": t.values, "errors": t.errors}
        for name, t in row.columns.items()
        if t.asked
    }


def least_mean_most(counts: Sequence[int]) -> list[float]:
    return [min(counts), round(sum(counts) / len(counts), 1), max(counts)] if counts else []


def failures(rows: Sequence[Row], most: int) -> str:
    """Up to `most` failed answers of each column, for reading."""
    lines = []
    for row in rows:
        for column in COLUMNS:
            for failure in [each for each in row.failures if each["column"] == column][:most]:
                lines.append(f"\n{failure['seed']} ({column}; {failure['finish_reason']})")
                lines += [f"  {name:10} {failure[name]}" for name in ("prompt_end", "wanted", "got")]
    return "\n".join(lines)

"""Where engines gave the same answers, and where not, as the model card's table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations, takewhile
from pathlib import Path
from typing import Any

from recipe.judging import right
from recipe.questions import Asked, digest
from recipe.sample import Message, called

BAR = 0.98
SHOWN = 160
"""Characters of an answer that are listed, from a little before the place where the answers part."""
Told = dict[str, Any]


class NotComparable(Exception):
    """Answers of other weights, or to other questions."""


@dataclass(frozen=True)
class Run:
    """An engine's answers. weights: the digests of the model's files; questions: of what was asked."""

    weights: dict[str, str]
    questions: str
    answers: dict[str, Told]

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> Run:
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError):
            raise NotComparable(
                f"{path} does not say of which weights its answers are: ask that engine again"
            ) from None


def told(message: Message, reason: str) -> Told:
    """What is compared of an answer. Ids of calls are random."""
    return {
        "content": (message.get("content") or "").strip(),
        "reasoning": (message.get("reasoning_content") or "").strip(),
        "calls": [[name, arguments] for name, arguments in called(message)],
        "finish_reason": reason,
    }


def report(runs: Mapping[str, Run], asked: Sequence[Asked], weights: Mapping[str, str]) -> str:
    """The pairs, what is right, and every difference. Raises NotComparable unless all answers are to `asked` and
    of `weights`."""
    if len(runs) < 2:
        raise NotComparable(f"there are answers of {len(runs)} engines; two are compared")
    questions = digest(asked)
    for engine, run in runs.items():
        if run.weights != dict(weights):
            raise NotComparable(f"the answers of {engine} are of other weights: ask it again")
        if run.questions != questions or run.answers.keys() != {each.name for each in asked}:
            raise NotComparable(f"{engine} was asked other questions: ask it again")
    lines = [f"{len(asked)} questions, answered greedily. Bar: {BAR:.0%} the same. **Bold**: below it.", ""]
    lines += [f"Weights: {', '.join(f'{name} sha256 `{value}`' for name, value in weights.items())}.", ""]
    lines += ["| engines | the same answer | not the same |", "|---|--:|---|"]
    differing: dict[str, None] = {}
    for one, other in combinations(runs, 2):
        odd = [each.name for each in asked if runs[one].answers[each.name] != runs[other].answers[each.name]]
        differing |= dict.fromkeys(odd)
        same = f"{len(asked) - len(odd)} of {len(asked)}"
        same = same if len(asked) - len(odd) >= BAR * len(asked) else f"**{same}**"
        lines.append(f"| {one}, {other} | {same} | {', '.join(odd)} |")
    lines += ["", "| engine | exactly right |", "|---|--:|"]
    for engine, run in runs.items():
        hits = sum(right(each.sample, as_message(run.answers[each.name])) for each in asked)
        lines.append(f"| {engine} | {hits} of {len(asked)} |")
    samples = {each.name: each.sample for each in asked}
    for name in differing:
        sample = samples[name]
        before = sample.completion if sample.completion is not None else sample.prompt[-1].get("content", "")
        answers = {engine: short(run.answers[name]) for engine, run in runs.items()}
        answers["wanted"] = short(told(sample.answer, "stop"))
        alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*answers.values(), strict=False))
        first = max(0, sum(1 for _ in alike) - 20)
        lines += ["", f"**{name}**: `{quoted(before[-SHOWN:])}`", ""]
        lines += [f"- {who}: `{excerpt(answer, first)}`" for who, answer in answers.items()]
    return "\n".join(lines)


def as_message(answer: Told) -> Message:
    calls = [{"function": {"name": name, "arguments": said}} for name, said in answer.get("calls", [])]
    return {
        "content": answer.get("content", ""),
        "reasoning_content": answer.get("reasoning", ""),
        "tool_calls": calls,
    }


def short(answer: Told) -> str:
    kept = {name: value for name, value in answer.items() if value and value not in ("stop", "tool_calls")}
    return json.dumps(kept, ensure_ascii=False)


def excerpt(text: str, first: int) -> str:
    found = quoted(text[first : first + SHOWN])
    return f"{'…' if first else ''}{found}{'…' if len(text) > first + SHOWN else ''}"


def quoted(text: str) -> str:
    return text.replace("\n", "\\n").replace("`", "'")

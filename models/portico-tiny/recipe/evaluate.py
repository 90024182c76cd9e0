"""Measures the GGUF file that is shipped, on Portico's embedded engine, as a client of its API would.

    python -m recipe.evaluate                       the table, and results.json beside the model
    python -m recipe.evaluate --update README.md    ... and the table in the model card
    python -m recipe.evaluate --only NAME --failures 5

Every question of every entry is asked once, at temperature 0. Form: the answer is of the right kind and the model
ended it by itself. Value: it is exactly the wanted one. Each is measured with wordings that were trained and with
wordings that never were; names, words and numbers are unseen in both. Where an engine can hold an answer to a
grammar (a JSON schema, a tool call that is required) the same questions are asked again with it.

Needs nothing but Portico's own environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

import httpx2

from recipe import families, requests
from recipe.questions import question
from recipe.sample import Entry, Message, Sample, Wordings, right, well_formed
from recipe.serving import FOLDER, MODEL, Server, ServerFailed, parallel, serve

FORM_BAR = 0.98
SLOTS, AT_ONCE = 16, 32
ANSWER_SECONDS = 180.0
DEAR = 6000
"""Characters (about 1,800 tokens) above which a question costs as much as twenty others."""
COLUMNS = ("trained", "unseen", "grammar")
BEGIN, END = "<!-- evaluation: written by `make model-eval` -->", "<!-- /evaluation -->"


@dataclass(frozen=True)
class Job:
    """One question. The samples are made when they are asked, not before: the long ones are large."""

    entry: Entry
    column: str
    wordings: Wordings
    number: int

    def sample(self) -> Sample:
        return question(self.entry, self.wordings, self.number)


@dataclass
class Tally:
    """What came of the questions of one column."""

    asked: int = 0
    form: int = 0
    value: int = 0
    errors: int = 0

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


def jobs(rows: Sequence[Entry], samples: int) -> Iterator[Job]:
    """All questions. The entries take turns, so that long prompts and short ones are mixed and the engine's
    slots are never full of long ones alone."""
    lines = [list(_jobs(entry, samples)) for entry in rows]
    return (job for job in chain.from_iterable(zip_longest(*lines)) if job is not None)


def _jobs(entry: Entry, samples: int) -> Iterator[Job]:
    wordings: Wordings
    if size(question(entry, "trained", 0)) > DEAR:
        samples = (samples + 1) // 2
    for number in range(samples):
        for wordings in ("trained", "unseen"):
            yield Job(entry, wordings, wordings, number)
            # With a grammar half of them, so that its column has as many as each of the others.
            if number % 2 == 0 and requests.has_grammar(question(entry, wordings, number)):
                yield Job(entry, "grammar", wordings, number)


def size(sample: Sample) -> int:
    """Characters of the question, about."""
    if sample.completion is not None:
        return len(sample.completion)
    return len(json.dumps([sample.prompt, sample.tools], ensure_ascii=False))


class Evaluation:
    """Asks a running server; `rows` fill meanwhile."""

    def __init__(self, server: Server, chosen: Sequence[Entry], *, samples: int, failures: int) -> None:
        self._server, self._samples, self._failures = server, samples, failures
        self.rows = {entry.name: Row(entry) for entry in chosen}
        self._chosen = chosen

    async def run(self, at_once: int = AT_ONCE) -> None:
        """Raises ServerFailed if the server is gone or does not answer in time."""
        todo = jobs(self._chosen, self._samples)
        limits = httpx2.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        timeout = httpx2.Timeout(ANSWER_SECONDS, connect=10.0)
        async with (
            httpx2.AsyncClient(
                base_url=self._server.url, limits=limits, timeout=timeout, trust_env=False
            ) as client,
            asyncio.TaskGroup() as group,
        ):
            for _ in range(at_once):
                group.create_task(self._work(client, todo))

    async def _work(self, client: httpx2.AsyncClient, todo: Iterator[Job]) -> None:
        for job in todo:
            await self._ask(client, job)

    async def _ask(self, client: httpx2.AsyncClient, job: Job) -> None:
        sample = job.sample()
        path, body = requests.request(sample, grammar=job.column == "grammar")
        try:
            reply = await client.post(path, json=body)
        except httpx2.TimeoutException:
            raise self._server.failed(f"{job.entry.name}: no answer in {ANSWER_SECONDS:.0f} s") from None
        except httpx2.TransportError as error:
            raise self._server.failed(f"{job.entry.name}: the connection broke ({error!r})") from None
        row = self.rows[job.entry.name]
        tally = row.columns[job.column]
        tally.asked += 1
        if reply.status_code != 200:
            # The engine refuses an answer that it cannot read as a call, and a prompt that is too long.
            tally.errors += 1
            return self._failed(
                row, job, sample, {"error": f"{reply.status_code} {reply.text[:300]}"}, "error"
            )
        told = reply.json()
        if job.column != "grammar":
            row.prompts.append(told["usage"]["prompt_tokens"])
            row.answers.append(told["usage"]["completion_tokens"])
        message, reason = requests.answer(path, told)
        form = requests.ended(reason) and well_formed(sample, message)
        value = right(sample, message)
        tally.form += form
        tally.value += value
        if not (form and value):
            self._failed(row, job, sample, message, reason)

    def _failed(self, row: Row, job: Job, sample: Sample, got: Message, reason: str) -> None:
        if sum(each["column"] == job.column for each in row.failures) >= self._failures:
            return
        before = (
            sample.completion
            if sample.completion is not None
            else json.dumps(sample.prompt[-3:], ensure_ascii=False)
        )
        row.failures.append(
            {
                "column": job.column,
                "seed": f"evaluation/{job.entry.name}/{job.wordings}/{job.number}",
                "prompt_end": before[-600:],
                "wanted": told_of(sample.answer),
                "got": told_of(got),
                "finish_reason": reason,
            }
        )


def told_of(message: Message) -> str:
    """A message in one line."""
    kept = {
        name: message.get(name) for name in ("error", "reasoning_content", "content") if message.get(name)
    }
    if message.get("tool_calls"):
        kept["calls"] = [
            [call["function"]["name"], call["function"]["arguments"]] for call in message["tool_calls"]
        ]
    return json.dumps(kept, ensure_ascii=False)


# ---- what is told


def table(rows: Sequence[Row], samples: int) -> str:
    """The model card's table. What is below its bar is bold."""
    lines = [
        f"{samples} questions a column and entry ({(samples + 1) // 2} where prompts are long), "
        "temperature 0, the GGUF file on the embedded engine. Form / value: "
        f"share of answers of the right kind that end by themselves (bar {FORM_BAR:.2f}) / exactly right (bar as "
        "listed). **Bold**: below its bar.",
        "",
        "| entry | prompt tokens | bar | trained wordings | unseen wordings | with a grammar | |",
        "|---|--:|--:|--:|--:|--:|---|",
    ]
    for row in rows:
        cells = [cell(row.columns[name], row.entry.bar) for name in COLUMNS]
        state = "ok" if not row.below() else "below"
        lines.append(
            f"| {row.entry.name} | {spread(row.prompts)} | {row.entry.bar:.2f} | {' | '.join(cells)} | {state} |"
        )
    short = sum(bool(row.below()) for row in rows)
    lines += ["", f"{len(rows) - short} of {len(rows)} entries reach every bar."]
    return "\n".join(lines)


def cell(tally: Tally, bar: float) -> str:
    if tally.forms is None or tally.values is None:
        return "–"
    return f"{figure(tally.forms, FORM_BAR)} / {figure(tally.values, bar)}"


def figure(share: float, bar: float) -> str:
    """Rounded down: a figure that looks like its bar has reached it."""
    text = f"{int(share * 1000 + 1e-9) / 1000:.3f}"
    return text if share >= bar else f"**{text}**"


def spread(counts: Sequence[int]) -> str:
    """least / mean / most."""
    if not counts:
        return "–"
    return f"{min(counts)} / {sum(counts) / len(counts):.0f} / {max(counts)}"


def results(rows: Sequence[Row], samples: int, seconds: float) -> dict[str, Any]:
    return {
        "samples": samples,
        "seconds": round(seconds, 1),
        "entries": [
            {
                "name": row.entry.name,
                "bar": row.entry.bar,
                "below": row.below(),
                "prompt_tokens": least_mean_most(row.prompts),
                "answer_tokens": least_mean_most(row.answers),
                "columns": {
                    name: {"asked": t.asked, "form": t.forms, "value": t.values, "errors": t.errors}
                    for name, t in row.columns.items()
                    if t.asked
                },
                "failures": row.failures,
            }
            for row in rows
        ],
    }


def least_mean_most(counts: Sequence[int]) -> list[float]:
    return [min(counts), round(sum(counts) / len(counts), 1), max(counts)] if counts else []


def show_failures(rows: Sequence[Row]) -> None:
    for row in rows:
        for failure in row.failures:
            print(f"\n{failure['seed']} ({failure['column']}; {failure['finish_reason']})")
            for name in ("prompt_end", "wanted", "got"):
                print(f"  {name:10} {failure[name]}")


def updated(text: str, new: str) -> str:
    """The card with `new` between its markers. Raises ValueError without them."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the model card lacks the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{new}\n{END}{after}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="the GGUF file")
    parser.add_argument(
        "--samples",
        type=int,
        default=100,
        help="a column and entry [100]; half as many where prompts are long",
    )
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this entry alone; may be repeated; a* works"
    )
    parser.add_argument(
        "--failures", type=int, default=0, metavar="N", help="print N failed answers a column"
    )
    parser.add_argument("--json", type=Path, default=FOLDER / "results.json", help="where all figures go")
    parser.add_argument("--update", type=Path, metavar="README.md", help="put the table into this file")
    parser.add_argument("--slots", type=int, default=SLOTS, help="answers at once on the engine")
    asked = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server that is started here must end too
    chosen = pick(asked.only)
    if not chosen:
        print(
            "There is no such entry. There are: " + ", ".join(entry.name for entry in families.entries()),
            file=sys.stderr,
        )
        return 2
    card = asked.update.read_text(encoding="utf-8") if asked.update else ""
    if asked.update:
        updated(card, "")  # found out now, not after ten minutes
    started = time.monotonic()
    try:
        with serve(asked.model, *parallel(asked.slots)) as server:
            evaluation = Evaluation(server, chosen, samples=asked.samples, failures=max(asked.failures, 5))
            asyncio.run(evaluation.run(2 * asked.slots))
    except (ServerFailed, ExceptionGroup) as error:
        first = error.exceptions[0] if isinstance(error, ExceptionGroup) else error
        if not isinstance(first, ServerFailed):
            raise
        print(f"The evaluation stopped: {first}", file=sys.stderr)
        return 1
    rows = [evaluation.rows[entry.name] for entry in chosen]
    seconds = time.monotonic() - started
    made = table(rows, asked.samples)
    print(made)
    count = sum(tally.asked for row in rows for tally in row.columns.values())
    print(f"\n{count:,} questions in {seconds:.0f} s")
    if asked.failures:
        for row in rows:
            kept: list[dict[str, Any]] = []
            for column in COLUMNS:
                kept += [each for each in row.failures if each["column"] == column][: asked.failures]
            row.failures = kept
        show_failures(rows)
    if errors := {row.entry.name: n for row in rows if (n := sum(t.errors for t in row.columns.values()))}:
        print(f"\nRefused by the server, and counted as wrong: {errors}", file=sys.stderr)
    asked.json.write_text(
        json.dumps(results(rows, asked.samples, seconds), indent=1, ensure_ascii=False) + "\n",
        encoding="utf-8",
    )
    if asked.update:
        asked.update.write_text(updated(card, made), encoding="utf-8")
    return 0


def pick(only: Sequence[str] | None) -> list[Entry]:
    found = list(families.entries())
    if not only:
        return found
    from fnmatch import fnmatchcase

    return [entry for entry in found if any(fnmatchcase(entry.name, pattern) for pattern in only)]


if __name__ == "__main__":
    sys.exit(main())

"""Measures the GGUF file that is shipped, on Portico's embedded engine, as a client of its API would.

    python -m recipe.evaluate                       the table, and results.json beside the model
    python -m recipe.evaluate --update README.md    ... and the table in the model card
    python -m recipe.evaluate --check README.md     only whether the card has a place for it
    python -m recipe.evaluate --only NAME --failures 5      one row, into no file

Every question is asked once, at temperature 0. The bars are those of families; a family of several entries is asked all
of theirs, and each entry has a row of its own besides. Form: the answer is of the right kind and the model
ended it by itself. Value: it is exactly the wanted one. Each is measured with wordings that were trained and with
wordings that never were; names, words and numbers are unseen in both, except in the rows that are marked as known by
heart. Where an engine can hold an answer to a grammar (a JSON schema, a tool call that is required) some of the same
questions are asked again with it.

Needs nothing but Portico's own environment.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import zip_longest
from pathlib import Path

import httpx2

from recipe import asking, card, table
from recipe.judging import right, well_formed
from recipe.questions import WORDINGS, distinct, entries
from recipe.sample import Entry, Message, Sample, Wordings
from recipe.serving import FOLDER, MODEL, Server, ServerFailed, parallel, serve
from recipe.table import Row

SAMPLES, LEAST, FORCED = 100, 30, 30
"""Questions a column: of a family, of an entry at least, and of an entry with a grammar."""
SLOTS, AT_ONCE = 16, 32
ANSWER_SECONDS = 180.0
UNANSWERED = 10
"""So many in a row without an answer: the server hangs."""


@dataclass(frozen=True)
class Job:
    """One question. Its sample is drawn when it is asked, not before: the long ones are large."""

    entry: Entry
    column: str
    wordings: Wordings
    number: int
    sample: Sample


def counts(chosen: Sequence[Entry], samples: int, least: int) -> dict[str, int]:
    """How many questions a column each entry is asked, so that its family is asked at least `samples`."""
    sizes = Counter(entry.family or entry.name for entry in chosen)
    shares = {entry.name: -(-samples // sizes[entry.family or entry.name]) for entry in chosen}
    return {name: max(min(least, samples), share) for name, share in shares.items()}


def jobs(chosen: Sequence[Entry], wanted: Mapping[str, int], forced: int) -> Iterator[Job]:
    """All questions, drawn one by one: `wanted` a column of each entry. The entries take turns, so that long prompts and short ones are mixed and the
    engine's slots are never full of long ones alone."""
    lines = deque(_jobs(entry, wanted[entry.name], forced) for entry in chosen)
    while lines:
        line = lines.popleft()
        if (job := next(line, None)) is not None:
            lines.append(line)
            yield job


def _jobs(entry: Entry, samples: int, forced: int) -> Iterator[Job]:
    """`samples` of each wording, and of both together the first `forced` that can be asked with a grammar."""
    left = forced
    for pair in zip_longest(*(distinct(entry, wordings, samples) for wordings in WORDINGS)):
        for wordings, drawn in zip(WORDINGS, pair, strict=True):
            if drawn is None:
                continue
            yield Job(entry, wordings, wordings, *drawn)
            if left and asking.has_grammar(drawn[1]):
                left -= 1
                yield Job(entry, "grammar", wordings, *drawn)


class Evaluation:
    """Asks a running server; `rows` fill meanwhile."""

    def __init__(self, server: Server, chosen: Sequence[Entry], *, failures: int) -> None:
        self._server, self._failures = server, failures
        self._unanswered = 0
        self.rows = {entry.name: Row(entry) for entry in chosen}

    async def run(self, todo: Iterator[Job], at_once: int) -> None:
        """Raises ServerFailed, in a group, if the server is gone or answers nothing any more."""
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
        path, body = asking.request(job.sample, grammar=job.column == "grammar")
        try:
            reply = await client.post(path, json=body)
        except httpx2.TransportError as error:
            return await self._no_answer(job, error)
        self._unanswered = 0
        row = self.rows[job.entry.name]
        tally = row.columns[job.column]
        if reply.status_code != 200:
            # The engine refuses an answer that it cannot read as a call, and a prompt that is too long.
            return self._error(job, f"{reply.status_code} {reply.text[:300]}")
        tally.asked += 1
        told = reply.json()
        if job.column != "grammar":
            row.prompts.append(told["usage"]["prompt_tokens"])
            row.answers.append(told["usage"]["completion_tokens"])
        message, reason = asking.answer(path, told)
        form = asking.ended(reason) and well_formed(job.sample, message)
        value = right(job.sample, message)
        tally.form += form
        tally.value += value
        if not (form and value):
            self._failed(job, message, reason)

    async def _no_answer(self, job: Job, error: httpx2.TransportError) -> None:
        """One answer that does not come is wrong; if the server is gone, or hangs, nothing can be measured."""
        self._unanswered += 1
        what = f"{job.entry.name}: {error!r}, {self._unanswered} in a row"
        if self._unanswered >= UNANSWERED or await asyncio.to_thread(self._server.gone):
            raise self._server.failed(what)
        self._error(job, repr(error))

    def _error(self, job: Job, what: str) -> None:
        tally = self.rows[job.entry.name].columns[job.column]
        tally.asked += 1
        tally.errors += 1
        self._failed(job, {"error": what}, "error")

    def _failed(self, job: Job, got: Message, reason: str) -> None:
        row, sample = self.rows[job.entry.name], job.sample
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


def measured(model: Path, chosen: Sequence[Entry], options: argparse.Namespace) -> list[Row]:
    """Raises ServerFailed."""
    with serve(model, *parallel(options.slots)) as server:
        evaluation = Evaluation(server, chosen, failures=max(options.failures, 5))
        todo = jobs(chosen, counts(chosen, options.samples, options.least), options.forced)
        try:
            asyncio.run(evaluation.run(todo, AT_ONCE * options.slots // SLOTS))
        except ExceptionGroup as group:
            stopped, others = group.split(ServerFailed)
            if others is not None or stopped is None:
                raise
            raise stopped.exceptions[0] from None
    return [evaluation.rows[entry.name] for entry in chosen]


def main(arguments: Sequence[str] | None = None) -> int:
    options = parsed(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server that is started here must end too
    chosen = pick(options.only)
    if not chosen:
        names = ", ".join(entry.name for entry in entries())
        print(f"There is no such entry. There are: {names}", file=sys.stderr)
        return 2
    if place := options.check or options.update:
        try:
            card.check(place)  # found out now, not after ten minutes or after hours of training
        except (card.NoPlace, OSError) as error:
            print(f"{place}: {error}", file=sys.stderr)
            return 2
        if options.check:
            return 0
    started = time.monotonic()
    weights = card.sha256(options.model)
    try:
        rows = measured(options.model, chosen, options)
    except ServerFailed as error:
        print(f"The evaluation stopped: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    made = table.table(rows, weights)
    count = sum(tally.asked for row in rows for tally in row.columns.values())
    print(f"{made}\n\n{count:,} questions in {seconds:.0f} s")
    if options.failures:
        print(table.failures(rows, options.failures))
    if errors := {row.entry.name: n for row in rows if (n := sum(t.errors for t in row.columns.values()))}:
        print(f"\nRefused or not answered by the server, and counted as wrong: {errors}", file=sys.stderr)
    if options.json:
        found = json.dumps(table.results(rows, weights, seconds), indent=1, ensure_ascii=False)
        options.json.write_text(found + "\n", encoding="utf-8")
    if options.update:
        text = options.update.read_text(encoding="utf-8")
        options.update.write_text(card.updated(text, card.EVALUATION, made), encoding="utf-8")
    return 0


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m recipe.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--model", type=Path, default=MODEL, help="the GGUF file")
    parser.add_argument("--samples", type=int, default=SAMPLES, help=f"a column and family [{SAMPLES}]")
    parser.add_argument("--least", type=int, default=LEAST, help=f"... and entry at least [{LEAST}]")
    parser.add_argument("--forced", type=int, default=FORCED, help=f"an entry, with a grammar [{FORCED}]")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="this entry alone; may be repeated; a* works"
    )
    parser.add_argument(
        "--failures", type=int, default=0, metavar="N", help="print N failed answers a column"
    )
    parser.add_argument("--json", type=Path, help="where all figures go [results.json beside the model]")
    parser.add_argument("--update", type=Path, metavar="README.md", help="put the table into this file")
    parser.add_argument("--check", type=Path, metavar="README.md", help="only see whether that can be done")
    parser.add_argument("--slots", type=int, default=SLOTS, help="answers at once on the engine")
    options = parser.parse_args(arguments)
    if options.only and options.update:
        parser.error("--update writes the whole table, so it does not go with --only")
    if not options.only:
        options.json = options.json or FOLDER / "results.json"
    return options


def pick(only: Sequence[str] | None) -> list[Entry]:
    return [
        entry for entry in entries() if not only or any(fnmatchcase(entry.name, pattern) for pattern in only)
    ]


if __name__ == "__main__":
    sys.exit(main())

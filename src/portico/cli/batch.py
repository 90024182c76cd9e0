"""`portico batch`: a file of requests, each answered once, whatever ends the program in between."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import signal
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from portico.cli import options, units
from portico.cli.failure import usage
from portico.cli.live import Line
from portico.cli.screen import Screen, bold
from portico.cli.server import unreachable
from portico.errors import InvalidRequest, NotRunning

if TYPE_CHECKING:
    from portico.cli.address import Address
    from portico.client.batch import Batch, Progress
    from portico.client.journal import Journal
    from portico.client.rows import Row

AT_ONCE = 32
BAR_WIDTH = 24
WINDOW_SECONDS = 20.0
FIRST_ESTIMATE_SECONDS = 3.0
REFRESH_SECONDS = 0.5
PLAIN_SECONDS, PLAIN_PERCENT = 30.0, 10


@click.command()
@click.argument("requests", type=click.Path(path_type=Path, exists=True, dir_okay=False, allow_dash=True))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="Where answers go."
)
@click.option(
    "-m",
    "--model",
    shell_complete=options.complete_models,
    help="Ask this model, whatever the rows name. Default for rows that name none: the first that the server lists.",
)
@click.option(
    "-c",
    "--at-once",
    default=AT_ONCE,
    show_default=True,
    type=click.IntRange(1),
    help="Rows in flight, at most.",
)
@click.option("--again", is_flag=True, help="Ask rows again that failed in an earlier run.")
@options.as_json
@options.address
@options.screen
def batch(
    requests: Path,
    output: Path,
    model: str | None,
    at_once: int,
    again: bool,
    as_json: bool,
    address: Address,
    screen: Screen,
) -> int:
    """Answer every row of REQUESTS, a file in OpenAI's batch format; `-` reads stdin.

    Answers go to OUTPUT as they come, rows that fail to OUTPUT's name with .errors.jsonl. Whatever ends the command, the same
    command goes on from there and sends no finished row again. Ctrl-C waits for the rows in flight, a second one does not.

    \b
    portico batch in.jsonl -o out.jsonl
    portico batch in.jsonl -o out.jsonl -m qwen3:4b -c 64
    """
    from portico.client.journal import Journal

    if str(requests) != "-" and output.exists() and output.samefile(requests):
        raise usage("the output is the file of requests", attempt=f"portico batch {requests} -o out.jsonl")
    try:
        rows = _rows(requests, model)
        kept = Journal(output)
    except InvalidRequest as error:
        raise usage(str(error)) from error
    with contextlib.closing(kept):
        work = _Work(rows, kept, screen, address)
        stopped = asyncio.run(work.run(at_once, again))
    return work.report(requests, output, model, stopped=stopped, as_json=as_json)


def _rows(requests: Path, model: str | None) -> list[Row]:
    from portico.client.rows import read_rows

    if str(requests) == "-":
        with click.open_file("-", "rb") as stdin:
            return read_rows(stdin, name="stdin", model=model)
    with requests.open("rb") as file:
        return read_rows(file, name=str(requests), model=model)


class _Work:
    """One run of the command: asks, shows how far it is, says at the end what came of it."""

    def __init__(self, rows: list[Row], kept: Journal, screen: Screen, address: Address) -> None:
        self._rows, self._kept, self._screen, self._address = rows, kept, screen, address
        self._bar: _Bar = _Live(screen) if screen.live else _Plain(screen) if screen.plain else _Silent()
        self._failures: Counter[str] = Counter()
        self._signals = 0
        self._at_once = AT_ONCE
        self.progress: Progress | None = None

    async def run(self, at_once: int, again: bool) -> bool:
        """Whether it was stopped. Raises Failure, ClientError."""
        from portico.client.batch import Batch, arun, why
        from portico.client.drive_async import Pool
        from portico.client.flows import Flows
        from portico.client.servers import Server
        from portico.client.settings import Settings

        self._at_once = at_once
        server = Server(url=self._address.url.removesuffix("/v1"), key=self._address.key)
        flows = Flows(server, Settings())
        pool = Pool(server, flows.settings.timeouts)
        work: Batch | None = None
        try:
            work = Batch(
                self._rows,
                self._kept,
                flows=flows,
                at_once=at_once,
                again=again,
                on_progress=self._bar.show,
            )
            for outcome in work.earlier():
                if not outcome.ok:
                    self._failures[why(outcome).code] += 1
            with self._bar.drawn(work), self._stopping(work):
                async with contextlib.aclosing(arun(work, pool)) as outcomes:
                    async for outcome in outcomes:
                        if not outcome.ok:
                            self._failures[why(outcome).code] += 1
        except NotRunning as error:
            if work is not None and work.progress().done:
                self._screen.say(
                    f"{units.exact(work.progress().done)} rows are kept; the same command goes on"
                )
            raise unreachable(self._address) from error
        except asyncio.CancelledError:
            if not self._signals:
                raise
        finally:
            await pool.close()
            if work is not None:
                self.progress = work.progress()
        return bool(self._signals)

    @contextlib.contextmanager
    def _stopping(self, work: Batch) -> Iterator[None]:
        """The first Ctrl-C lets the rows in flight end, the second one cancels them."""
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupted() -> None:
            self._signals += 1
            if self._signals == 1:
                work.stop()
                flying = work.progress().in_flight
                self._bar.note(f"stopping; {flying} rows in flight are awaited, Ctrl-C again leaves them")
            else:
                task.cancel()

        try:
            loop.add_signal_handler(signal.SIGINT, interrupted)
        except NotImplementedError:  # Windows: Ctrl-C cancels at once
            yield
            return
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGINT)

    def report(self, requests: Path, output: Path, model: str | None, *, stopped: bool, as_json: bool) -> int:
        progress, screen = self.progress, self._screen
        assert progress is not None
        errors = self._kept.errors_path if progress.failed else None
        if as_json:
            screen.answer(json.dumps(self._as_json(progress, output, errors)))
        command = shlex.join(["portico", "batch", str(requests), "-o", str(output), *self._typed(model)])
        unfinished = progress.done < progress.total
        if stopped and unfinished:
            done, total = units.exact(progress.done), units.exact(progress.total)
            screen.say(f"{screen.sign('failed')} stopped; {done} of {total} rows are done and kept")
            screen.say(f"  go on    {command}")
            return 130
        good = units.exact(progress.total - progress.failed)
        if not progress.failed:
            what = f"{good} rows" if progress.here else f"{good} rows were answered already"
            screen.say(f"{screen.sign('done')} {bold(str(output))}  {what}{_took(progress)}")
            return 0
        causes = ", ".join(f"{count} {code}" for code, count in self._failures.most_common())
        screen.say(
            f"{screen.sign('failed')} {good} ok, {units.exact(progress.failed)} failed: {causes}{_took(progress)}"
        )
        screen.say(f"  why      {errors}")
        screen.say(f"  again    {command} --again")
        return 1

    def _typed(self, model: str | None) -> list[str]:
        """What the same command has besides."""
        at_once = [] if self._at_once == AT_ONCE else ["-c", str(self._at_once)]
        elsewhere = self._address.origin == "--host"
        where = ["--host", self._address.url.removeprefix("http://")] if elsewhere else []
        return [*(["-m", model] if model else []), *at_once, *where]

    def _as_json(self, progress: Progress, output: Path, errors: Path | None) -> dict[str, Any]:
        return {
            "schema": 1,
            "rows": progress.total,
            "ok": progress.done - progress.failed,
            "failed": progress.failed,
            "asked": progress.here,
            "tokens_out": progress.tokens,
            "took_ms": round(progress.seconds * 1000),
            "output": str(output),
            "errors": None if errors is None else str(errors),
            "failures": dict(self._failures),
        }


def _took(progress: Progress) -> str:
    if not progress.here:
        return ""
    speed = f"   {units.rate(progress.tokens_per_second)} tok/s" if progress.tokens else ""
    return f"   {units.duration(progress.seconds)}{speed}"


class Speed:
    """Rows and tokens a second over the last twenty seconds: short enough to follow the server, long enough not to jump."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int, int]] = deque()

    def heard(self, progress: Progress) -> None:
        self._marks.append((progress.seconds, progress.here, progress.tokens))
        while self._marks[0][0] < progress.seconds - WINDOW_SECONDS and len(self._marks) > 2:
            self._marks.popleft()

    @property
    def rates(self) -> tuple[float, float] | None:
        """None before there is anything to say."""
        if len(self._marks) < 2:
            return None
        (began, rows, tokens), (ended, more_rows, more_tokens) = self._marks[0], self._marks[-1]
        if ended <= began or more_rows == rows:
            return None
        return (more_rows - rows) / (ended - began), (more_tokens - tokens) / (ended - began)

    def line(self, progress: Progress) -> str:
        """63%   6,301 of 10,000 rows   12 failed   41 rows/s   2,480 tok/s   1m30s left"""
        parts = [f"{units.percent(progress.done, progress.total):3d}%"]
        parts.append(f"{units.exact(progress.done)} of {units.exact(progress.total)} rows")
        if progress.failed:
            parts.append(f"{units.exact(progress.failed)} failed")
        if (rates := self.rates) is not None:
            rows, tokens = rates
            parts.append(f"{units.rate(rows)} rows/s")
            if tokens:
                parts.append(f"{units.rate(tokens)} tok/s")
            if progress.seconds >= FIRST_ESTIMATE_SECONDS and progress.done < progress.total:
                parts.append(f"{units.whole((progress.total - progress.done) / rows)} left")
        return "   ".join(parts)


class _Bar(Protocol):
    def drawn(self, work: Batch) -> contextlib.AbstractContextManager[None]: ...

    def show(self, progress: Progress) -> None: ...

    def note(self, text: str) -> None: ...


class _Silent:
    def drawn(self, work: Batch) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def show(self, progress: Progress) -> None: ...

    def note(self, text: str) -> None: ...


class _Live:
    """One line that is drawn again and again, also while no row ends; it is taken away at the end."""

    def __init__(self, screen: Screen) -> None:
        self._line, self._width, self._speed = Line(screen), screen.width or 80, Speed()
        self._said = ""

    @contextlib.contextmanager
    def drawn(self, work: Batch) -> Iterator[None]:
        async def refresh() -> None:
            while True:
                self.show(work.progress())
                await asyncio.sleep(REFRESH_SECONDS)

        task = asyncio.create_task(refresh())
        try:
            yield
        finally:
            task.cancel()
            self._line.close()

    def show(self, progress: Progress) -> None:
        self._speed.heard(progress)
        drawn = units.bar(progress.done, progress.total, BAR_WIDTH)
        line, hint = f"{drawn} {self._speed.line(progress)}", "   Ctrl-C stops, and keeps what is done"
        self._line.show(self._said or (line + hint if len(line + hint) < self._width else line))

    def note(self, text: str) -> None:
        self._said = text
        self._line.show(text)


class _Plain:
    """Whole lines for a log: one each tenth, or each half minute."""

    def __init__(self, screen: Screen) -> None:
        self._screen, self._speed = screen, Speed()
        self._percent, self._at = 0, 0.0

    @contextlib.contextmanager
    def drawn(self, work: Batch) -> Iterator[None]:
        progress = work.progress()
        self._percent = units.percent(progress.done, progress.total)
        kept = f", {units.exact(progress.done)} are done already" if progress.done else ""
        self.note(f"{units.exact(progress.total)} rows{kept}")
        yield

    def show(self, progress: Progress) -> None:
        self._speed.heard(progress)
        percent = units.percent(progress.done, progress.total)
        if percent >= self._percent + PLAIN_PERCENT or progress.seconds - self._at >= PLAIN_SECONDS:
            self._percent, self._at = percent, progress.seconds
            self.note(self._speed.line(progress).strip())

    def note(self, text: str) -> None:
        self._screen.say(f"{self._screen.sign('running')} {text}")


__all__: Sequence[str] = ("Speed", "batch")

"""`portico pull`: fetch a model, with bytes that can be watched."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

import click

from portico.cli import options, units
from portico.cli.failure import Failure
from portico.cli.live import Line
from portico.cli.models_at import opened
from portico.cli.replies import Pulling
from portico.cli.screen import Screen, bold
from portico.cli.transfer import Transfer
from portico.errors import ModelNotFound

if TYPE_CHECKING:
    from portico.cli.address import Address

PLAIN_SECONDS = 30.0
PLAIN_PERCENT = 10
BAR_WIDTH = 24


@click.command()
@options.model
@options.as_json
@options.address
@options.screen
@options.environ
def pull(model: str, as_json: bool, address: Address, screen: Screen, environ: options.Environ) -> int:
    """Fetch a model from the Hugging Face hub: by a short name, or as OWNER/REPOSITORY[:QUANT].

    Ctrl-C stops; what has arrived is kept, and the same command goes on from there.
    """
    began = time.monotonic()
    transfer = Transfer(began)
    progress = _Live(screen, model) if screen.live else _Plain(screen, model) if screen.plain else _Silent()
    try:
        with opened(address, environ) as shelf:
            _follow(shelf.pull(model), transfer, progress)
    except ModelNotFound as error:
        raise _nowhere(error.message) from error
    except Failure as failure:
        if failure.slug == "model_not_found":
            raise _nowhere(failure.message) from failure
        raise
    except KeyboardInterrupt:
        progress.close()
        screen.say(f"{screen.sign('failed')} stopped; {units.file_size(transfer.done)} of {model} are kept")
        screen.say(f"  go on    portico pull {model}")
        return 130
    finally:
        progress.close()
    took = time.monotonic() - began
    if as_json:
        sizes = {"size_bytes": transfer.total or None, "fetched_bytes": transfer.fetched}
        screen.answer(json.dumps({"schema": 1, "model": model, **sizes, "took_ms": round(took * 1000)}))
        return 0
    what = (
        f"{units.file_size(transfer.total)} in {units.duration(took)}"
        if transfer.fetched
        else "is here already"
    )
    screen.say(f"{screen.sign('done')} {bold(model)}  {what}     try: portico chat {model}")
    return 0


def _nowhere(said: str) -> Failure:
    """It is not here, which is why it was to be fetched: to pull it is no advice."""
    takes = "a short name such as qwen3:4b, or OWNER/REPOSITORY[:QUANT] of the Hugging Face hub"
    return Failure("model_not_found", said, facts=(("takes", takes),), attempt="portico pull qwen3:4b")


def _follow(lines: Iterator[Pulling], transfer: Transfer, progress: _Progress) -> None:
    last = ""
    for line in lines:
        if line.error:
            raise Failure("pull_failed", line.error)
        transfer.heard(line, time.monotonic())
        progress.show(transfer, time.monotonic())
        last = line.status
    if last != "success":
        raise Failure("closed", f"the server stopped in the middle: its last word was {last!r}")


class _Progress(Protocol):
    def show(self, transfer: Transfer, now: float) -> None: ...

    def close(self) -> None: ...


class _Silent:
    def show(self, transfer: Transfer, now: float) -> None: ...

    def close(self) -> None: ...


class _Live:
    """One line that is drawn again and again; it is taken away at the end."""

    def __init__(self, screen: Screen, model: str) -> None:
        self._width = screen.width or 80
        self._line = Line(screen)
        self._line.show(f"{model}  asking")

    def show(self, transfer: Transfer, now: float) -> None:
        if transfer.counting:
            drawn = units.bar(transfer.percent, 100, BAR_WIDTH)
            line, hint = f"{drawn} {transfer.line(now)}", "   Ctrl-C keeps this part"
            self._line.show(line + hint if len(line + hint) < self._width else line)
        else:
            self._line.show(transfer.phase)

    def close(self) -> None:
        self._line.close()


class _Plain:
    """Whole lines for a log: one for each phase, each tenth, or each half minute."""

    def __init__(self, screen: Screen, model: str) -> None:
        self._screen, self._model = screen, model
        self._phase, self._percent, self._at = "", -PLAIN_PERCENT, 0.0

    def show(self, transfer: Transfer, now: float) -> None:
        if transfer.counting:
            due = transfer.percent >= self._percent + PLAIN_PERCENT or now - self._at >= PLAIN_SECONDS
            if due and (transfer.percent < 100 or self._percent < 100):
                self._percent, self._at = transfer.percent, now
                self._say(transfer.line(now))
        elif transfer.phase not in (self._phase, "success"):
            self._say(transfer.phase)
        self._phase = transfer.phase

    def _say(self, text: str) -> None:
        self._screen.say(f"{self._screen.sign('running')} {self._model}  {text.strip()}")

    def close(self) -> None: ...

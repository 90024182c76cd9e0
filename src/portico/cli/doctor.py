"""`portico doctor`: what works here, what does not, and what to do about it."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from portico.cli import options
from portico.cli.live import Waiting
from portico.cli.screen import Screen, bold, dim, printable

if TYPE_CHECKING:
    from portico.cli.checks import Check

SIGNS = {"ok": "done", "warn": "warning", "fail": "failed", "skip": "skipped"}
WITHIN = 3.0
_NARROWEST = 40
"""Columns beside the name; on a narrower screen the terminal wraps."""
_WIDEST_NAME = 16
_COMMAND = re.compile(r"`[^`]*`")


@click.command()
@click.argument("model", required=False, shell_complete=options.complete_models)
@click.option("--no-ask", "ask", flag_value=False, default=True, help="Ask the models that run nothing.")
@click.option(
    "--within",
    metavar="SECONDS",
    type=click.FloatRange(0.1, 3600),
    default=WITHIN,
    show_default=True,
    help="What a model that runs has for each answer.",
)
@options.as_json
@options.screen
@options.environ
def doctor(
    model: str | None, ask: bool, within: float, as_json: bool, screen: Screen, environ: options.Environ
) -> int:
    """Look at this machine, the server, what clients are told, and the models that run.

    With MODEL: would it fit here, from its files or from the hub's listing. Models that run are asked for a few
    tokens each; none is loaded. The exit code is 1 if something failed; warnings do not count.

    \b
    portico doctor
    portico doctor qwen3:8b
    portico doctor --json
    """
    from portico.cli.checks.examination import examine

    with Waiting(screen, "looking"):
        checks = examine(model, environ, ask=ask, within=within)
    if as_json:
        screen.answer(json.dumps({"schema": 1, "checks": [_json(check) for check in checks]}))
    else:
        for line in lines(checks, screen):
            screen.answer(line)
        screen.say(dim(_summary(checks)))
    return 1 if any(check.state == "fail" for check in checks) else 0


def _json(check: Check) -> dict[str, str | None]:
    return {**check._asdict(), "do": check.do or None}


def lines(checks: Sequence[Check], screen: Screen) -> list[str]:
    """The groups in their order, each with its title; a line each, and what to do behind it, or below where the
    screen is too narrow. Off a terminal nothing is wrapped."""
    signs = screen._replace(err_is_terminal=screen.out_is_terminal)
    column = min(max((len(check.name) for check in checks), default=0), _WIDEST_NAME)
    written: list[str] = []
    group = None
    for check in checks:
        if check.group != group:
            group = check.group
            written.append(bold(printable(group)))
        sign = signs.sign(SIGNS[check.state])
        head = f"{sign} {printable(check.name).ljust(column)}  "
        written += _line(check, head, len(click.unstyle(head)), screen.width)
    return written


def _line(check: Check, head: str, before: int, width: int | None) -> list[str]:
    found, do = _whole(check.found), _whole(check.do)
    if not do:
        first, *others = _wrapped(found, width, before)
        return [head + first, *(" " * before + line for line in others)]
    if width is None or before + len(found) + 8 + len(do) <= width:
        return [f"{head}{found}    {dim('do')}  {do}"]
    first, *others = _wrapped(found, width, before)
    below, *more = _wrapped(do, width, before + 4)
    return [
        head + first,
        *(" " * before + line for line in others),
        " " * before + f"{dim('do')}  {below}",
        *(" " * (before + 4) + line for line in more),
    ]


def _whole(text: str) -> str:
    return " ".join(printable(text).split())


def _wrapped(text: str, width: int | None, before: int) -> list[str]:
    """Lines of `text` where `before` characters stand in front of each. A command stays whole, so that it can be
    copied: one in backquotes, or a text without any that is a command itself."""
    if width is None or width - before < _NARROWEST or len(text) <= width - before:
        return [text]
    whole = _COMMAND.sub(lambda found: found[0].replace(" ", "\0"), text)
    wrapped = textwrap.wrap(whole, width - before, break_long_words=False, break_on_hyphens=False)
    return [line.replace("\0", " ") for line in wrapped] or [""]


def _summary(checks: Sequence[Check]) -> str:
    failed = sum(1 for check in checks if check.state == "fail")
    warned = sum(1 for check in checks if check.state == "warn")
    counts = [f"{failed} problem{'s' if failed != 1 else ''}"] if failed else []
    counts += [f"{warned} warning{'s' if warned != 1 else ''}"] if warned else []
    found = ", ".join(counts) or "no problem"
    return f"{found}.   For a bug report, without secrets: portico doctor --json"

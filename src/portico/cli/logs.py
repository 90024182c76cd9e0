"""`portico logs`: what a model's engine has written."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import click

from portico.cli import options
from portico.cli.failure import Failure, usage
from portico.cli.screen import Screen
from portico.names import nearest

LINES = 200
_LOOK_SECONDS = 0.2


@click.command()
@click.argument("model", required=False, shell_complete=options.complete_models)
@click.option("-f", "--follow", is_flag=True, help="Go on as more is written, until Ctrl-C.")
@click.option(
    "-n", "--lines", metavar="N", type=int, default=LINES, show_default=True, help="The last N lines."
)
@options.as_json
@options.screen
@options.environ
def logs(
    model: str | None, follow: bool, lines: int, as_json: bool, screen: Screen, environ: options.Environ
) -> int:
    """Print the log of MODEL's engine; without a name, list the logs there are."""
    folder = options.home(environ) / "logs"
    there = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if model is None:
        if as_json:
            screen.answer(json.dumps({"schema": 1, "logs": list(there)}))
            return 0
        for name in there:
            screen.answer(name)
        if not there:
            screen.say("no engine has written a log yet")
        return 0
    path = there.get(file_name(model)) or there.get(file_name(f"{model}:latest"))
    if path is None:
        near = f". Nearest: {', '.join(found)}" if (found := nearest(model, there)) else ""
        raise Failure("no_log", f"there is no log of {model}: it has not run here yet{near}")
    if as_json:
        if follow:
            raise usage(
                "--json prints what is there; it does not go with --follow",
                attempt="portico logs MODEL --json",
            )
        screen.answer(json.dumps({"schema": 1, "model": model, "lines": tail(path, lines)}))
        return 0
    try:
        for line in tail(path, lines):
            screen.answer(line)
        if follow:
            for line in followed(path):
                screen.answer(line)
    except KeyboardInterrupt:
        return 130
    return 0


def file_name(model: str) -> str:
    """As the engines name their logs."""
    return re.sub(r"[^\w.-]+", "_", model)[:100]


def tail(path: Path, count: int) -> list[str]:
    """The last lines, also of the file before this one where this one has too few."""
    older = path.with_name(path.name + ".1")
    text = path.read_text(encoding="utf-8", errors="replace")
    if text.count("\n") < count and older.exists():
        text = older.read_text(encoding="utf-8", errors="replace") + text
    return text.splitlines()[-count:] if count > 0 else []


def followed(path: Path) -> Iterator[str]:
    """Whole lines as they are written, for ever; also after the file was begun anew."""
    file = path.open("rb")
    file.seek(0, os.SEEK_END)
    half = b""
    while True:
        if piece := file.read():
            *whole, half = (half + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "replace")
            continue
        if path.exists() and path.stat().st_ino != os.fstat(file.fileno()).st_ino:
            file.close()
            file, half = path.open("rb"), b""
            continue
        time.sleep(_LOOK_SECONDS)

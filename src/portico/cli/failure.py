"""How a command fails: one cause, said once, as the last thing on the screen, ending in a line to paste.

    error[unreachable]: no server answers at http://127.0.0.1:11434
      try      portico serve

`slug` is part of the command line's promise: the same in `--json`, where stderr gets `{"error": {...}}`.
"""

from __future__ import annotations

import json
import sys
import tempfile
import traceback
from typing import TYPE_CHECKING

import click

from portico.errors import EngineStartFailed, ModelNotFound, PorticoError

if TYPE_CHECKING:
    from portico.cli.choices import Choices


class Failure(Exception):
    """A command cannot do what it was asked.

    `facts` are (label, text) lines; `do` is a line that will help, `attempt` one that may.
    """

    def __init__(
        self,
        slug: str,
        message: str,
        *,
        facts: tuple[tuple[str, str], ...] = (),
        do: str | None = None,
        attempt: str | None = None,
        exit_code: int = 1,
    ) -> None:
        super().__init__(message)
        self.slug, self.message, self.facts = slug, message, facts
        self.do, self.attempt, self.exit_code = do, attempt, exit_code


def usage(message: str, *, attempt: str | None = None) -> Failure:
    """The command was typed wrongly: exit code 2."""
    return Failure("usage", message, attempt=attempt, exit_code=2)


def report(error: Exception, choices: Choices) -> int:
    """Write `error` to stderr and return the exit code it means."""
    failure = explained(error)
    if choices.debug and not isinstance(error, click.ClickException):
        traceback.print_exception(error, file=sys.stderr)
    if choices.as_json:
        click.echo(json.dumps(as_json(failure)), err=True)
    else:
        click.echo("\n".join(as_lines(failure)), err=True, color=choices.screen.color_err)
    return failure.exit_code


def as_lines(failure: Failure) -> list[str]:
    lines = [click.style(f"error[{failure.slug}]:", fg="red", bold=True) + f" {failure.message}"]
    remedies = [("do", failure.do), ("try", failure.attempt)]
    for label, text in [*failure.facts, *remedies]:
        if text:
            lines.append(f"  {label.ljust(8)} {text}")
    return lines


def as_json(failure: Failure) -> dict[str, object]:
    return {
        "schema": 1,
        "error": {
            "code": failure.slug,
            "message": failure.message,
            "facts": dict(failure.facts),
            "do": failure.do,
            "try": failure.attempt,
        },
    }


def explained(error: Exception) -> Failure:
    match error:
        case Failure():
            return error
        case click.UsageError():
            return _wrong_usage(error)
        case click.ClickException():
            return Failure("usage", error.format_message(), exit_code=error.exit_code)
        case ModelNotFound():
            nearest = (("nearest", ", ".join(error.nearest)),) if error.nearest else ()
            attempt = "portico ls" if nearest else f"portico pull {error.model}"
            return Failure(
                error.code, f"there is no model {error.model!r} here", facts=nearest, attempt=attempt
            )
        case EngineStartFailed():
            return _start_failed(error)
        case PorticoError():
            return Failure(error.code, error.message, exit_code=2 if error.code == "config" else 1)
        case OSError() if error.filename:
            return Failure("file", f"{error.filename}: {error.strerror}")
        case _:
            return _our_own_bug(error)


def _start_failed(error: EngineStartFailed) -> Failure:
    """Why, on a line of its own; what the engine said last, and where the rest is."""
    ended = f" (exit code {error.exit_code})" if error.exit_code is not None else ""
    said = (("said", error.log_tail.rpartition(" | ")[2]),) if error.log_tail else ()
    where = f"portico logs {error.model}" if error.exit_code is not None else None
    message = f"{error.model} did not start{ended}: {error.reason}"
    return Failure(error.code, message, facts=said, attempt=where)


def _wrong_usage(error: click.UsageError) -> Failure:
    nearest = getattr(error, "nearest", None)
    if nearest is not None:
        return usage(error.message, attempt=f"portico {nearest}")
    path = error.ctx.command_path if error.ctx else "portico"
    message = error.format_message().rstrip(".")
    return usage(message[:1].lower() + message[1:], attempt=f"{path} --help")


def _our_own_bug(error: Exception) -> Failure:
    with tempfile.NamedTemporaryFile(
        "w", prefix="portico-crash-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        traceback.print_exception(error, file=file)
    return Failure(
        "internal",
        f"{type(error).__name__}: {error}",
        facts=(("traceback", file.name), ("this is", "a mistake in Portico, not in what you typed")),
    )

"""The command line: `portico` and `python -m portico`.

One file a group of commands; `commands.py` lists them. A command is imported when it is called, so that
`portico --help` costs what click costs and no more. Nothing below this folder prints.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from portico.cli.choices import Choices
from portico.cli.commands import ReaderLeft, portico


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 Ctrl-C."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    choices = Choices(environ=os.environ, as_json=_asks_for_json(arguments))
    _let_any_text_through()
    if "_PORTICO_COMPLETE" in os.environ:
        from portico.cli import completion  # noqa: F401  (adds PowerShell to the shells that click knows)
    try:
        code = portico.main(args=arguments, prog_name="portico", obj=choices, standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (ReaderLeft, BrokenPipeError):
        # The reader left (`| head`), which is no error. Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except click.Abort:  # what click makes of Ctrl-C
        return 130
    except Exception as error:  # the last one on the way out: the user gets one line, never a traceback
        from portico.cli import failure

        return failure.report(error, choices)


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Known before the arguments are parsed: even a wrong argument is then reported as JSON."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options


def _let_any_text_through() -> None:
    """A model may write any character, and a console in an old code page cannot show them all: such a one
    becomes `?`. Without this it would end the program in the middle of an answer."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)  # a test's stream may have none
        if reconfigure is not None:
            reconfigure(errors="replace")

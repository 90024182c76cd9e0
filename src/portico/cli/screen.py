"""The screen: what a terminal can show is decided once, and everything written goes through here.

stdout carries the answer and nothing else; progress, hints, statistics and warnings go to stderr.
Colour and motion are two decisions: a build log may want colour, but never a line that redraws itself.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, TextIO

import click

from portico.cli.units import shortened

if TYPE_CHECKING:
    from portico.cli.choices import Choices

SIGNS = {
    "done": ("✓", "+", "ok", "green"),
    "failed": ("✗", "x", "FAIL", "red"),
    "running": ("⠋", "|", "run", "cyan"),
    "warning": ("!", "!", "warn", "yellow"),
    "skipped": ("-", "-", "skip", "bright_black"),
}
"""Kind -> sign, the same in ASCII, the same in a plain log, colour."""


class Screen(NamedTuple):
    color_out: bool  # colour on stdout
    color_err: bool  # colour on stderr
    live: bool  # stderr may redraw a line
    plain: bool  # progress as whole lines; neither live nor plain: none
    ascii: bool  # the streams cannot take signs beyond ASCII
    quiet: bool
    width: int | None  # of stdout's terminal; None: no limit
    interactive: bool  # somebody sits there: stdin and stderr are terminals
    out_is_terminal: bool
    err_is_terminal: bool

    def answer(self, text: str, *, end: str = "\n") -> None:
        """To stdout, at once: the reply, the table, the JSON."""
        click.echo(text + end, nl=False, color=self.color_out)

    def say(self, text: str = "", *, end: str = "\n") -> None:
        """To stderr: progress, hints, statistics."""
        if not self.quiet:
            click.echo(text + end, err=True, nl=False, color=self.color_err)

    def warn(self, text: str) -> None:
        click.echo(f"{self.sign('warning')} {text}", err=True, color=self.color_err)

    def sign(self, kind: str) -> str:
        sign, plain_sign, word, color = SIGNS[kind]
        if not self.err_is_terminal:
            return word.ljust(4)
        return click.style(plain_sign if self.ascii else sign, fg=color)

    def shown(self, text: str) -> str:
        """What a model or a server wrote, made safe for a terminal; in a pipe every byte is the reader's."""
        return printable(text) if self.out_is_terminal else text


def dim(text: str) -> str:
    return click.style(text, dim=True)


def bold(text: str) -> str:
    return click.style(text, bold=True)


def printable(text: str) -> str:
    """`text` without control characters: an escape sequence in an answer could retitle the window, move the
    cursor over earlier lines or write to the clipboard."""
    if text.isprintable():
        return text
    return "".join(sign for sign in text if sign in "\n\t" or not _controls(ord(sign)))


def _controls(code: int) -> bool:
    return code < 32 or 127 <= code < 160


def decide(choices: Choices) -> Screen:
    """Every decision about the screen, from options, environment and streams."""
    environ, out, err = choices.environ, _is_terminal(sys.stdout), _is_terminal(sys.stderr)
    dumb = environ.get("TERM") == "dumb"
    live = err and not dumb and not environ.get("CI") and not choices.quiet and not choices.as_json
    if choices.progress != "auto":
        live = choices.progress == "live"
    plain = not live and not choices.quiet and choices.progress != "none"
    return Screen(
        color_out=_color(choices.color, environ, out),
        color_err=_color(choices.color, environ, err),
        live=live,
        plain=plain,
        ascii=bool(environ.get("PORTICO_ASCII")) or not _takes_signs(sys.stderr),
        quiet=choices.quiet,
        width=_width(environ, out),
        interactive=_is_terminal(sys.stdin) and err,
        out_is_terminal=out,
        err_is_terminal=err,
    )


def _color(choice: str, environ: Mapping[str, str], terminal: bool) -> bool:
    if choice != "auto":
        return choice == "always"
    if environ.get("NO_COLOR"):
        return False
    if environ.get("FORCE_COLOR"):
        return True
    return terminal and environ.get("TERM") != "dumb"


def _is_terminal(stream: TextIO | None) -> bool:
    return stream is not None and not stream.closed and stream.isatty()


def _takes_signs(stream: TextIO) -> bool:
    try:
        "✓✗⠋".encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True


def _width(environ: Mapping[str, str], terminal: bool) -> int | None:
    if environ.get("COLUMNS", "").isdigit():
        return int(environ["COLUMNS"])
    return shutil.get_terminal_size().columns if terminal else None


def table(
    titles: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    width: int | None = None,
) -> list[str]:
    """Lines of a table, aligned, without rules. Columns named in `right` are aligned right; a column in which
    no row has anything is left out. Where `width` is too small the first column, the names, is cut."""
    columns = []
    for place, title in enumerate(titles):
        cells = [printable(row[place]) for row in rows]
        if any(cells):
            columns.append((title, cells, max(len(title), *map(len, cells))))
    if width is not None and columns:
        title, cells, widest = columns[0]
        room = max(12, width - sum(each + 2 for _, _, each in columns[1:]))
        cells = [shortened(cell, room) for cell in cells]
        columns[0] = (title, cells, min(widest, room))
    lines = []
    for number in range(-1, len(rows)):
        line = []
        for title, cells, widest in columns:
            cell = title if number < 0 else cells[number]
            line.append(cell.rjust(widest) if title in right else cell.ljust(widest))
        lines.append("  ".join(line).rstrip())
    return lines

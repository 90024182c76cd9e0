"""Reading what somebody types: lines with history where the platform has readline, and long messages between
triple quotes."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from portico.cli.screen import Screen

QUOTES = '"""'
KEPT_LINES = 2000


class Prompt:
    """Owns readline's state and the history file. `history=None` keeps none."""

    def __init__(self, screen: Screen, *, history: Path | None = None, words: Sequence[str] = ()) -> None:
        self._screen, self._history = screen, history
        # Windows has no readline; its console edits lines by itself.
        self._readline = _readline() if screen.out_is_terminal else None
        if self._readline is not None:
            self._readline.set_completer(_completer(words))
            self._readline.set_completer_delims("")
            libedit = "libedit" in (self._readline.__doc__ or "")
            self._readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
            self._read_history()

    def read(self) -> str:
        """A line, or several where triple quotes are opened and not closed; without the quotes.

        Raises EOFError at Ctrl-D and KeyboardInterrupt at Ctrl-C.
        """
        text = self._line(">>> ")
        while text.count(QUOTES) % 2:
            text += "\n" + self._line("... ")
        self._write_history()
        return text.replace(QUOTES, "").strip()

    @property
    def half_typed(self) -> bool:
        """At Ctrl-C: whether something stood on the line."""
        return self._readline is not None and bool(self._readline.get_line_buffer().strip())

    def _line(self, sign: str) -> str:
        if self._screen.out_is_terminal:
            return input(sign)
        self._screen.say(sign, end="")  # stdout is a file: it gets answers, not prompts
        return input()

    def _read_history(self) -> None:
        if self._history is None or self._readline is None or not self._history.is_file():
            return
        try:
            self._readline.read_history_file(str(self._history))
        except OSError:
            self._history = None  # damaged or not ours: left alone, and nothing is kept this time

    def _write_history(self) -> None:
        if self._history is None or self._readline is None:
            return
        try:
            self._history.parent.mkdir(parents=True, exist_ok=True)
            self._history.touch(mode=0o600)
            self._readline.set_history_length(KEPT_LINES)
            self._readline.write_history_file(str(self._history))
        except OSError:
            self._history = None  # a read-only home is no reason to refuse to talk


def _readline() -> Any:
    try:
        return importlib.import_module("readline")
    except ImportError:
        return None


def _completer(words: Sequence[str]) -> Callable[[str, int], str | None]:
    def complete(text: str, number: int) -> str | None:
        found = [word for word in words if word.startswith(text)] if text.startswith("/") else []
        return found[number] if number < len(found) else None

    return complete

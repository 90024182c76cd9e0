"""What moves on the screen: a sign of life while somebody waits. Drawn by rich, which is loaded only when
something is drawn, and told what this program has decided about the terminal instead of guessing again."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from portico.cli import units
from portico.cli.screen import Screen, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.status import Status

QUIET_SECONDS = 0.3
"""What is over sooner is not announced: a line that flickers says nothing."""


def console(screen: Screen) -> Console:
    """stderr, as `screen` decided it. FORCE_COLOR would otherwise make rich draw animations into a log."""
    from rich.console import Console

    return Console(
        stderr=True,
        force_terminal=screen.live,
        force_interactive=screen.live,
        no_color=not screen.color_err,
        color_system="standard" if screen.color_err else None,
        highlight=False,
        markup=False,
        emoji=False,
    )


class Waiting:
    """Shows a spinner, `what` and the seconds passed, from 0.3 s on until `over()` or the end of the block. `what`
    may change meanwhile. On a screen that cannot redraw it shows nothing."""

    def __init__(self, screen: Screen, what: str) -> None:
        self._screen, self.what = screen, what
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._status: Status | None = None

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over()

    def begin(self) -> None:
        if self._screen.live:
            threading.Thread(target=self._show, daemon=True).start()

    def over(self) -> None:
        """Takes the spinner away; what is written next stands on a clean line."""
        if self._ended.is_set():
            return
        self._ended.set()
        with self._lock:
            if self._status is not None:
                self._status.stop()
                self._status = None

    def _show(self) -> None:
        began = time.monotonic()
        if self._ended.wait(QUIET_SECONDS):
            return
        spinner = "line" if self._screen.ascii else "dots"
        drawn = console(self._screen)
        with self._lock:
            if self._ended.is_set():
                return
            self._status = drawn.status(self.what, spinner=spinner, spinner_style="cyan")
            self._status.start()
        while not self._ended.wait(0.5):
            with self._lock:
                if self._status is not None:
                    self._status.update(f"{self.what}  {units.duration(time.monotonic() - began)}")


class Line:
    """One line at the bottom that is drawn again when it changes, ten times a second at most."""

    def __init__(self, screen: Screen) -> None:
        self._console = console(screen)
        self._live: Live | None = None

    def show(self, text: str) -> None:
        from rich.live import Live
        from rich.text import Text

        line = Text(printable(text), no_wrap=True, overflow="crop")
        if self._live is None:
            self._live = Live(line, console=self._console, transient=True, refresh_per_second=10)
            self._live.start()
        else:
            self._live.update(line)

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

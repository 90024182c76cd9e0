"""Questions that are asked at once, each with a time limit that holds whatever the question waits for.

A name server, a driver, a network disk: what hangs in the kernel or in C code heeds no time limit of ours. So each
question has a thread, and nobody waits for that thread beyond the limit, not even the end of the program.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Late(NamedTuple):
    """There was no answer within so many seconds."""

    seconds: float


class Broken(NamedTuple):
    """The question itself failed."""

    error: Exception


class Asked(Generic[T]):
    """A question under way since this was made. `within`: seconds from then on."""

    def __init__(self, question: Callable[[], T], *, within: float) -> None:
        self._question, self._within = question, within
        self._until = time.monotonic() + within
        self._over = threading.Event()
        self._answer: T | Broken
        threading.Thread(target=self._ask, name="portico doctor", daemon=True).start()

    def answer(self) -> T | Late | Broken:
        """Waits for it, until its time is over."""
        if not self._over.wait(max(0.0, self._until - time.monotonic())):
            return Late(self._within)
        return self._answer

    def _ask(self) -> None:
        try:
            self._answer = self._question()
        except Exception as error:  # a check that fails on some machine must not take the others along
            self._answer = Broken(error)
        self._over.set()

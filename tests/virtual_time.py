"""An event loop whose clock jumps: sleeping costs nothing, and waiting for nothing is an error."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Deadlock(RuntimeError):
    """Everybody waits and no timer is set: somebody would wait for ever."""


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now

    def settle(self) -> None:
        """Everything that can happen without time passing happens."""
        self.run_until_complete(_turns(30))

    def pass_time(self, seconds: float) -> None:
        self.run_until_complete(asyncio.sleep(seconds))


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> Any:
        if timeout is None:
            raise Deadlock
        # A little further than asked: a sum of floats may end just short of a timer.
        self._loop.now += timeout + 1e-9 if timeout > 0 else 0.0
        return super().select(0)


async def _turns(number: int) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs `work` in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)

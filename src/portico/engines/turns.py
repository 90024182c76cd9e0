"""Turns at an engine: so many requests at once, so many waiting, further ones turned away."""

from __future__ import annotations

import asyncio
import time
from contextvars import ContextVar

from portico.errors import Busy, WaitedTooLong
from portico.web import Account

asking: ContextVar[Account | None] = ContextVar("asking", default=None)
"""Whose account a wait for a turn belongs to."""


class Turns:
    """First come, first served; a caller who is cancelled while it waits is dropped. Belongs to one event loop.

    `patience`: seconds a caller waits at most; 0: as long as it takes.
    """

    def __init__(self, at_once: int, *, max_waiting: int, patience: float = 0.0) -> None:
        self.at_once, self.patience = at_once, patience
        self._semaphore = asyncio.Semaphore(at_once)
        self._max_waiting = max_waiting
        self.waiting = 0

    async def acquire(self) -> None:
        """Raises Busy if too many wait already, WaitedTooLong."""
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return
        if self.waiting >= self._max_waiting:
            raise Busy
        self.waiting += 1
        began = time.perf_counter_ns()
        try:
            async with asyncio.timeout(self.patience or None):
                await self._semaphore.acquire()
        except TimeoutError:
            raise WaitedTooLong(seconds=self.patience) from None
        finally:
            self.waiting -= 1
            if (account := asking.get()) is not None:
                account.queue_ns += time.perf_counter_ns() - began

    def release(self) -> None:
        self._semaphore.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

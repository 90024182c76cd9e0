"""Turns at an engine: so many requests at once, so many waiting, further ones turned away."""

from __future__ import annotations

import asyncio

from portico.errors import Busy


class Turns:
    """First come, first served; a caller who is cancelled while it waits is dropped. Belongs to one event loop."""

    def __init__(self, at_once: int, *, max_waiting: int) -> None:
        self.at_once = at_once
        self._semaphore = asyncio.Semaphore(at_once)
        self._max_waiting = max_waiting
        self.waiting = 0

    async def acquire(self) -> None:
        """Raises Busy if too many wait already."""
        if not self._semaphore.locked():
            await self._semaphore.acquire()
            return
        if self.waiting >= self._max_waiting:
            raise Busy
        self.waiting += 1
        try:
            await self._semaphore.acquire()
        finally:
            self.waiting -= 1

    def release(self) -> None:
        self._semaphore.release()

    async def __aenter__(self) -> None:
        await self.acquire()

    async def __aexit__(self, *_: object) -> None:
        self.release()

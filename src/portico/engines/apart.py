"""What may hang, asked in a thread that keeps nobody: neither the event loop nor the end of the program."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


async def apart(work: Callable[[], T], *, within: float | None) -> T:
    """What `work` gives, in a thread of its own: one of an executor would have to end before the program can, and a
    driver or a folder that hangs never lets it. Raises TimeoutError after `within` seconds; None: no limit."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[T] = loop.create_future()

    def tell(result: T | None, error: BaseException | None) -> None:
        if found.done():
            return
        if error is not None:
            found.set_exception(error)
        else:
            found.set_result(result)  # type: ignore[arg-type]

    def run() -> None:
        try:
            result, failure = work(), None
        except Exception as error:
            result, failure = None, error
        with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(tell, result, failure)

    threading.Thread(target=run, name="asked apart", daemon=True).start()
    async with asyncio.timeout(within):
        return await found

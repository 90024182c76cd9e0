"""From SIGTERM and Ctrl-C to an orderly stop."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Server(Protocol[T_co]):
    """What can be started and stopped: a Listener, a whole Portico."""

    async def start(self) -> T_co: ...

    async def stop(self, grace: float | None = None) -> None:
        """Running requests get `grace` seconds (None: as many as its settings say)."""
        ...

    def cut(self) -> None:
        """A `stop` under way waits for nobody any more."""
        ...


async def until_signal(
    server: Server[T],
    *,
    on_started: Callable[[T], object] = lambda started: None,
    on_stopping: Callable[[], object] = lambda: None,
) -> int:
    """Runs `server` until SIGTERM or SIGINT, then stops it in order; a second signal cuts what still runs.

    `on_started` is given what `start` gives, `on_stopping` is called at the first signal. Gives back that
    signal's number. A signal during the start ends it. In a thread that is not the main one no signal is
    seen; cancelling the task cuts at once.
    """
    received: asyncio.Queue[int] = asyncio.Queue()
    with signals(received.put_nowait):
        starting, told = asyncio.ensure_future(server.start()), asyncio.ensure_future(received.get())
        try:
            await asyncio.wait((starting, told), return_when=asyncio.FIRST_COMPLETED)
            if not starting.done():
                return told.result()
            on_started(starting.result())
            number = await told
            on_stopping()
            stopping = asyncio.ensure_future(server.stop())
            again = asyncio.ensure_future(received.get())
            await asyncio.wait((stopping, again), return_when=asyncio.FIRST_COMPLETED)
            again.cancel()
            if not stopping.done():
                server.cut()
            await asyncio.shield(stopping)
            return number
        finally:
            told.cancel()
            await _end(server, starting)


async def _end(server: Server[Any], starting: asyncio.Future[Any]) -> None:
    """Ends it from wherever it is. Of one that did not come up, `start` has left nothing."""
    starting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait((starting,))
    if not starting.cancelled() and starting.exception() is None:
        server.cut()
        await server.stop(0)


@contextlib.contextmanager
def signals(hear: Callable[[int], object]) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only the main thread set signal handlers
        return
    loop = asyncio.get_running_loop()
    numbers = [signal.SIGINT, signal.SIGTERM]
    if sys.platform == "win32":
        numbers.append(signal.SIGBREAK)

    def handle(number: int, frame: Any) -> None:
        loop.call_soon_threadsafe(hear, number)

    # signal.signal, not loop.add_signal_handler: the second does not exist on Windows and cannot put back
    # what was there before.
    before = {number: signal.signal(number, handle) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""The pulls under way. A pull works in a thread of its own; whoever asks for the same name meanwhile watches it."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, Callable

from portico.library.progress import Progress
from portico.library.transfer import Stop, Stopped

Work = Callable[[str, Callable[[Progress], None], Stop], None]


class Pulls:
    """Owns the pulls of one event loop; only its methods touch them. `work` does one: it blocks, reports, ends
    early with Stopped, and raises what the watchers get."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._running: dict[str, _Pull] = {}

    async def watch(self, name: str) -> AsyncGenerator[Progress, None]:
        """Starts the pull of `name`, or joins it. When the last watcher leaves, it is stopped; what has arrived
        is kept. A slow watcher misses counts in between, never the last one of a file and never the end."""
        pull = self._running.get(name)
        if pull is None:
            pull = self._running[name] = _Pull(name, self._work, ended=self._forget)
        watcher = pull.join()
        try:
            while True:
                await watcher.news.wait()
                watcher.news.clear()
                while watcher.pending:
                    yield watcher.pending.pop(next(iter(watcher.pending)))
                if pull.over:
                    break
        finally:
            pull.leave(watcher)
        if pull.error is not None:
            raise pull.error

    def _forget(self, pull: _Pull) -> None:
        if self._running.get(pull.name) is pull:
            del self._running[pull.name]


class _Watcher:
    def __init__(self) -> None:
        self.news = asyncio.Event()
        self.pending: dict[str, Progress] = {}
        """The newest of each kind that was not taken yet, in the order in which the kinds appeared."""

    def tell(self, progress: Progress) -> None:
        self.pending[progress.digest or progress.status] = progress
        self.news.set()


class _Pull:
    """One pull: its thread, its watchers, and what it has said so far."""

    def __init__(self, name: str, work: Work, *, ended: Callable[[_Pull], None]) -> None:
        self.name = name
        self.over = False
        self.error: BaseException | None = None
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._stop = Stop()
        self._watchers: list[_Watcher] = []
        self._said: dict[str, Progress] = {}
        # A daemon, so that a read that waits for a dead network cannot keep the process alive.
        thread = threading.Thread(target=self._run, args=(work,), name=f"pull {name}", daemon=True)
        thread.start()

    def join(self) -> _Watcher:
        watcher = _Watcher()
        for progress in self._said.values():
            watcher.tell(progress)
        self._watchers.append(watcher)
        return watcher

    def leave(self, watcher: _Watcher) -> None:
        self._watchers.remove(watcher)
        if not self._watchers and not self.over:
            self._stop.set()
            self._ended(self)

    def _run(self, work: Work) -> None:
        error: BaseException | None = None
        try:
            work(self.name, lambda progress: self._post(self._tell, progress), self._stop)
        except Stopped:
            pass
        except Exception as failure:  # whatever it is, it belongs to those who watch, not to this thread
            error = failure
        self._post(self._end, error)

    def _post(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(call, *arguments)

    def _tell(self, progress: Progress) -> None:
        self._said[progress.digest or progress.status] = progress
        for watcher in self._watchers:
            watcher.tell(progress)

    def _end(self, error: BaseException | None) -> None:
        self.over, self.error = True, error
        self._ended(self)
        for watcher in self._watchers:
            watcher.news.set()

"""Watches a running vLLM: looks at its processes and its work once a second, and ends it when it is dead.

Looking is here, concluding is in health.py. The end of any of its processes is told by the system at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable
from typing import Protocol

from portico.engines.apart import apart
from portico.engines.vllm.health import Counted, Health, Limits, Look, counted
from portico.errors import EngineError
from portico.messages import Value
from portico.web import Upstream

LOOK_SECONDS = 1.0
_ANSWER_SECONDS = 5.0
"""For /metrics, which a busy engine answers late."""


class Tree(Protocol):
    """The processes of an engine."""

    def look(self) -> Processes: ...


class Processes(Value, frozen=True, kw_only=True):
    """The processes of an engine at one moment. CPU seconds are those of all that ever were."""

    cpu: float
    stopped: int | None = None
    members: tuple[int, ...] = ()
    resident: int = 0
    """Bytes of memory they hold, what they share counted once."""


class ProcessTree:
    """Everything below one process."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._cpu: dict[int, float] = {}

    def look(self) -> Processes:
        """Reads a file of /proc for every process of this machine: not in an event loop."""
        import psutil

        stopped, members, resident = None, [], 0
        try:
            tree = psutil.Process(self._pid).children(recursive=True)
        except psutil.Error:
            tree = []
        for process in tree:
            try:
                with process.oneshot():
                    times = process.cpu_times()
                    self._cpu[process.pid] = times.user + times.system
                    status = process.status()
                    memory = process.memory_info()
            except psutil.Error:
                continue
            members.append(process.pid)
            resident += memory.rss - getattr(memory, "shared", 0)
            if status in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP):
                stopped = process.pid
        return Processes(
            cpu=sum(self._cpu.values()), stopped=stopped, members=tuple(members), resident=resident
        )


class Watch:
    """Owns the watching of one engine, from `begin` to `stop`.

    `probe` asks the engine for a token and returns when it has come. `dead` is called, once, with what is wrong.
    `computes` says whether one of its GPUs does, None if nobody knows; it is asked in a thread, and only while nothing
    else is seen to go on.
    """

    def __init__(
        self,
        tree: Tree,
        upstream: Upstream,
        *,
        probe: Callable[[], asyncio.Task[None]],
        dead: Callable[[str], None],
        computes: Callable[[], bool | None] = lambda: False,
        limits: Limits,
        every: float = LOOK_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tree, self._upstream, self._limits = tree, upstream, limits
        self._probe, self._dead, self._every, self._clock = probe, dead, every, clock
        self._computes = computes
        self._moved = -1.0
        self._asked: asyncio.Task[None] | None = None
        self._paused = False
        self._task: asyncio.Task[None] | None = None
        self._exits: dict[int, int] = {}
        self.counted = Counted()
        self.resident = 0
        """Bytes of memory that its processes hold."""
        self.members: tuple[int, ...] = ()

    async def begin(self) -> None:
        """From its return on the end of a process is noticed."""
        processes = await asyncio.to_thread(self._tree.look)
        self.resident, self.members = processes.resident, processes.members
        self._follow(processes.members)
        self._task = asyncio.get_running_loop().create_task(self._run(), name="watch an engine")

    def stop(self) -> None:
        for task in (self._task, self._asked):
            if task is not None:
                task.cancel()
        self._task = self._asked = None
        self._forget_exits()

    def pause(self) -> None:
        """It sleeps: it makes no tokens and is asked for none. The end of a process is still noticed."""
        self._paused = True
        if self._asked is not None:
            self._asked.cancel()
            self._asked = None

    def resume(self) -> None:
        self._paused = False

    async def _run(self) -> None:
        health = Health(self._limits, self._clock())
        while True:
            if self._paused:
                await asyncio.sleep(self._every)
                health = Health(self._limits, self._clock())
                continue
            look = await self._look()
            if self._paused:
                continue
            verdict = health.verdict(look)
            if verdict == "probe":
                if self._asked is None:
                    self._asked = self._probe()
            elif verdict != "well":
                return self._end(verdict)
            await asyncio.sleep(self._every)

    async def _look(self) -> Look:
        processes, self.counted_now = await asyncio.gather(asyncio.to_thread(self._tree.look), self._ask())
        self.resident, self.members = processes.resident, processes.members
        if self._asked is not None and self._asked.done():
            self._asked = None
        now = self.counted_now
        stands_still = now is None or now.moved == self._moved
        if now is not None:  # after one that was missed the same step still goes on
            self._moved = now.moved
        return Look(
            at=self._clock(),
            cpu=processes.cpu,
            gpu=await self._ask_the_gpus() if stands_still else False,
            stopped=processes.stopped,
            running=None if now is None else now.running,
            moved=0.0 if now is None else now.moved,
            asked=self._asked is not None,
        )

    async def _ask_the_gpus(self) -> bool | None:
        try:
            return await apart(self._computes, within=_ANSWER_SECONDS)
        except TimeoutError:
            return None

    async def _ask(self) -> Counted | None:
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await self._upstream.fetch("GET", "/metrics")
        except (EngineError, TimeoutError):
            return None
        self.counted = counted(answer.body)
        return self.counted

    # ---- the end of a process

    def _follow(self, members: tuple[int, ...]) -> None:
        """Hears at once when one of the processes ends that were there when the engine was ready. Where the system
        cannot tell, the stall that follows is noticed."""
        open_pidfd = getattr(os, "pidfd_open", None)
        if open_pidfd is None:
            return
        loop = asyncio.get_running_loop()
        for pid in members:
            with contextlib.suppress(OSError):
                self._exits[pid] = handle = open_pidfd(pid)
                loop.add_reader(handle, self._ended, pid)

    def _ended(self, pid: int) -> None:
        self._end(f"its process {pid} has ended")

    def _forget_exits(self) -> None:
        loop = asyncio.get_running_loop()
        for handle in self._exits.values():
            loop.remove_reader(handle)
            os.close(handle)
        self._exits.clear()

    def _end(self, reason: str) -> None:
        self.stop()
        self._dead(reason)

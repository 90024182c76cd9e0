"""Whether an engine that answers /health still works: by its progress. Pure: what was seen in, a verdict out.

vLLM's /health, /v1/models and /metrics go on answering 200 when the process that computes is stopped or hangs, and a
timeout of theirs means that it is busy. So what counts is whether tokens move while there is work, and whether the
processes use the CPU meanwhile, or their GPUs compute: a long prefill does, a dead process does not. On a GPU the CPU
alone says nothing: vLLM sleeps until a step is done.
"""

from __future__ import annotations

import re
from typing import Literal

from portico.messages import Value

Verdict = Literal["well", "probe"] | str


class Limits(Value, frozen=True, kw_only=True):
    """Seconds."""

    stopped: float = 4.0
    """One of its processes may be stopped (SIGSTOP, a debugger)."""
    silent: float = 10.0
    """Work makes no progress, no process uses the CPU, and none of its GPUs computes: nobody works on it."""
    unseen: float = 120.0
    """The same where a GPU does not tell whether it computes: longer than one step of a large model may take."""
    spinning: float = 300.0
    """Work makes no progress though the CPU is used or a GPU computes: one step of a large model on a loaded machine may take long,
    and what hangs on a GPU often spins."""
    idle: float = 20.0
    """Nothing was asked, so nothing is known: it is asked for one token."""


class Look(Value, frozen=True, kw_only=True):
    """What was seen of an engine at one moment."""

    at: float
    """Seconds on a clock that never goes back."""
    cpu: float
    """CPU seconds all its processes have used so far."""
    gpu: bool | None = False
    """One of its GPUs computes; False: none does, or it has none; None: they do not tell."""
    stopped: int | None = None
    """Number of a process that is stopped."""
    running: int | None = None
    """Requests it computes, as it says; None: it did not answer."""
    moved: float = 0.0
    """Tokens and steps it has counted so far."""
    asked: bool = False
    """A probe has been sent and not been answered."""


LEAST_CPU = 0.02
"""Of one core: an interpreter that waits uses less, one that works more."""


class Health:
    """Fed with looks in the order of their time; answers each with `well`, `probe` (ask it for a token), or why it is
    to be ended."""

    def __init__(self, limits: Limits, began: float) -> None:
        self._limits = limits
        self._progress = began
        self._stopped_since: float | None = None
        self._last: Look | None = None
        self._moved = -1.0
        self._cpu_at_progress = 0.0
        self._busy_at = began

    def verdict(self, look: Look) -> Verdict:
        """1. A process is stopped, and stays so: end it.
        2. It was seen to go on, or there is nothing to do: well; if that has been so for long, probe it.
        3. There is work and nothing moves: well for `spinning` while the CPU is used or a GPU computes, else for `silent`,
           or for `unseen` where nobody knows of the GPU.
        """
        limits, last, self._last = self._limits, self._last, look
        if look.stopped is None:
            self._stopped_since = None
        elif self._stopped_since is None:
            self._stopped_since = look.at
        elif look.at - self._stopped_since >= limits.stopped:  # (1)
            return f"its process {look.stopped} has been stopped for {look.at - self._stopped_since:.0f} s"
        if last is None or look.gpu or look.cpu - last.cpu > LEAST_CPU * (look.at - last.at):
            self._busy_at = look.at
        moved = look.running is not None and look.moved != self._moved
        if moved:
            self._moved, self._progress = look.moved, look.at
        working = look.running is None or look.running > 0 or look.asked
        if not working:  # (2)
            quiet = look.at - self._progress
            return "probe" if quiet >= limits.idle else "well"
        if last is not None and not (last.running is None or last.running > 0 or last.asked):
            self._progress = look.at  # the work has only just come
            self._busy_at = look.at
        silent, unmoved = look.at - max(self._busy_at, self._progress), look.at - self._progress
        if silent >= (limits.unseen if look.gpu is None else limits.silent):  # (3)
            return f"it has made no progress and used no CPU for {silent:.0f} s"
        if unmoved >= limits.spinning:
            return f"it has made no progress for {unmoved:.0f} s"
        return "well"


_SERIES = re.compile(
    rb"^vllm:(num_requests_running|num_requests_waiting|generation_tokens_total|prompt_tokens_total|"
    rb"iteration_tokens_total_count)(?:\{[^}]*\})? ([0-9.eE+-]+)$",
    re.MULTILINE,
)


class Counted(Value, frozen=True, kw_only=True):
    """What an engine's /metrics say of its work."""

    running: int = 0
    waiting: int = 0
    moved: float = 0.0


def counted(metrics: bytes) -> Counted:
    """Prometheus' text, summed over engines (data parallel ones have a label each)."""
    sums: dict[bytes, float] = {}
    for name, value in _SERIES.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
    return Counted(
        running=int(sums.pop(b"num_requests_running", 0)),
        waiting=int(sums.pop(b"num_requests_waiting", 0)),
        moved=sum(sums.values()),
    )

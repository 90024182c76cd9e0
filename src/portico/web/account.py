"""What one request costs: written while it is answered, counted once at its end."""

from __future__ import annotations

import time

from portico.errors import PorticoError
from portico.messages import Usage


class Account:
    """What one request costs. Times are `time.perf_counter_ns()`; 0 means: not yet."""

    __slots__ = (
        "asked",
        "attempts",
        "chunks",
        "dialect",
        "error",
        "fallback",
        "finish",
        "first",
        "last",
        "load_ns",
        "model",
        "queue_ns",
        "replica",
        "route",
        "started",
        "usage",
        "waited_ns",
    )

    def __init__(self) -> None:
        self.started = time.perf_counter_ns()
        self.first = 0
        self.last = 0
        self.load_ns = 0
        self.queue_ns = 0
        """Waited for turns at engines that were there; of parts that wait side by side, the sum."""
        self.asked = 0
        """When the replica was there and its engine was asked."""
        self.waited_ns = 0
        """Of the time until then, what was spent waiting for a model and for turns."""
        self.attempts = 0
        self.replica = ""
        self.fallback = ""
        """The model that stood in for the one that was asked for."""
        self.chunks = 0
        self.model = ""
        self.route = ""
        self.dialect = "plain"
        self.finish = ""
        self.usage: Usage | None = None
        self.error: PorticoError | None = None
        """What broke an answer whose head, which said 200, was out already."""

    def failed(self, error: PorticoError) -> None:
        self.finish, self.error = "error", error

    def arrived(self, chunks: int = 1) -> None:
        """Chunks of the answer have come from the engine."""
        self.last = time.perf_counter_ns()
        if not self.first:
            self.first = self.last
        self.chunks += chunks

"""What one request costs: written while it is answered, counted once at its end."""

from __future__ import annotations

import time

from portico.messages import Usage


class Account:
    """What one request costs. Times are `time.perf_counter_ns()`; 0 means: not yet."""

    __slots__ = (
        "asked",
        "attempts",
        "chunks",
        "dialect",
        "fallback",
        "finish",
        "first",
        "last",
        "load_ns",
        "model",
        "replica",
        "route",
        "started",
        "usage",
    )

    def __init__(self) -> None:
        self.started = time.perf_counter_ns()
        self.first = 0
        self.last = 0
        self.load_ns = 0
        self.asked = 0
        """When the replica was there and its engine was asked."""
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

    def arrived(self, chunks: int = 1) -> None:
        """Chunks of the answer have come from the engine."""
        self.last = time.perf_counter_ns()
        if not self.first:
            self.first = self.last
        self.chunks += chunks

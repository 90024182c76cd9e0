"""What one request costs: written while it is answered, counted once at its end."""

from __future__ import annotations

import time

from portico.messages import Usage


class Account:
    """What one request costs. Times are `time.perf_counter_ns()`; 0 means: not yet."""

    __slots__ = (
        "chunks",
        "dialect",
        "finish",
        "first",
        "last",
        "load_ns",
        "model",
        "route",
        "started",
        "usage",
    )

    def __init__(self) -> None:
        self.started = time.perf_counter_ns()
        self.first = 0
        self.last = 0
        self.load_ns = 0
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

"""How far a download is: adds up its files, and says rate and time left. Pure; the clock comes from outside."""

from __future__ import annotations

from collections import deque

from portico.cli import units
from portico.cli.replies import Pulling

WINDOW_SECONDS = 20.0
"""The rate is that of the last twenty seconds: short enough to follow the network, long enough not to jump."""
FIRST_ESTIMATE_SECONDS = 3.0


class Transfer:
    """Owned by one pull. What is shown never runs backwards: a server that finds a further file, or starts a
    piece again, makes the figures wait instead of shrink."""

    def __init__(self, now: float) -> None:
        self._began = now
        self._totals: dict[str, int] = {}
        self._done: dict[str, int] = {}
        self._before: int | None = None
        self._marks: deque[tuple[float, int]] = deque()
        self._shown = 0
        self.phase = ""
        self.counting = False
        """Whether the last word was about bytes."""

    def heard(self, line: Pulling, now: float) -> None:
        self.phase, self.counting = line.status, bool(line.total)
        if not line.total:
            return
        file = line.digest or line.status  # small files have no digest
        self._totals[file] = line.total
        self._done[file] = min(line.total, max(line.completed or 0, self._done.get(file, 0)))
        if self._before is None:
            self._before = self.done  # an earlier, interrupted pull has left this much here
        self._marks.append((now, self.done))
        while self._marks[0][0] < now - WINDOW_SECONDS and len(self._marks) > 2:
            self._marks.popleft()

    @property
    def total(self) -> int:
        return sum(self._totals.values())

    @property
    def done(self) -> int:
        return sum(self._done.values())

    @property
    def fetched(self) -> int:
        """Bytes that came over the wire this time."""
        return self.done - (self._before or 0)

    @property
    def percent(self) -> int:
        self._shown = max(self._shown, units.percent(self.done, self.total))
        return self._shown

    @property
    def rate(self) -> float | None:
        """Bytes a second; None before there is anything to say."""
        if len(self._marks) < 2:
            return None
        (began, at_first), (ended, at_last) = self._marks[0], self._marks[-1]
        return (at_last - at_first) / (ended - began) if ended > began and at_last > at_first else None

    def left(self, now: float) -> float | None:
        """Seconds to the end, by the rate; None in the first seconds, when any number would be a guess."""
        if now - self._began < FIRST_ESTIMATE_SECONDS or self.rate is None:
            return None
        return (self.total - self.done) / self.rate

    def line(self, now: float) -> str:
        """42%   2.2 GB of 5.2 GB   48 MB/s   1m02s left"""
        parts = [f"{self.percent:3d}%", f"{units.file_size(self.done)} of {units.file_size(self.total)}"]
        if self.rate is not None:
            parts.append(f"{units.file_size(self.rate)}/s")
        left = self.left(now)
        if left is not None and self.done < self.total:
            parts.append(f"{units.whole(left)} left")
        return "   ".join(parts)

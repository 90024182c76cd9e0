"""Which model is loaded, served, held back or stopped next: decided here, carried out by the supervisor.

Pure: values in, a plan out. Orders are numbers given out one after the other to everything that waits, so that
the smaller came first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from portico.engines import State
from portico.messages import Value

LOST_AFTER = 4
"""Failures in a row, about four seconds and three starts after the first: not a moment's trouble any more."""


class Standing(Value, frozen=True, kw_only=True):
    """How one model stands. Times are the event loop's, in seconds."""

    name: str
    state: State
    in_flight: int = 0
    waiting: int | None = None
    """Order of the caller who has waited longest; None: nobody waits."""
    leaving: int | None = None
    """Order of the wish to unload it, or to run it with other settings: who came before it is still served."""
    expires_at: float = math.inf
    """When it is unloaded if nobody uses it; infinity: never."""
    retry_at: float = 0.0
    """Before this it is not started again, because it failed too often."""
    revive_at: float = math.inf
    """It ran and has failed: when it is started again though nobody waits for it, until `expires_at`.
    Infinity: not."""
    failures: int = 0
    """How often it failed in a row."""
    occupies: bool = True
    """It takes memory of this machine: `max_loaded` counts it."""


class Plan(Value, frozen=True, kw_only=True):
    """What to do now, all of it at once. `wake_at`: when to decide again though nothing has happened."""

    serve: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    hold: tuple[str, ...] = ()
    """Busy, and to be stopped: whoever comes now waits, so that those who are served can end."""
    forget: tuple[str, ...] = ()
    """Failed, and would by now have been unloaded: loaded again only when somebody asks, as any idle model."""
    wake_at: float = math.inf


def decide(standings: Sequence[Standing], *, max_loaded: int, now: float) -> Plan:
    """Models that are waited for, the longest wait first:

    1. Ready, and not leaving (or the caller came before that wish): serve all who wait.
    2. On its way up or down: wait.
    3. Failed too often, too recently: wait until `retry_at`.
    4. There is room: start it. `max_loaded` 0 is room without end.
    5. A place is being vacated and nobody before has claimed it: wait for it.
    6. No room: stop the idle model that would expire first; where all are busy hold the one that would.
       Nobody who came earlier is held back for it: he has been served in (1).

    Then, of the models nobody waits for:

    7. Failed, and would still be loaded if it had not: start it at `revive_at`, if there is room then. It
       never drives another one out. Once it would have been unloaded, forget it.
    8. Stop those that are idle and expired or leaving; hold the busy ones that are leaving.
    """
    plan = _Draft(standings, max_loaded)
    waited_for = [standing for standing in standings if standing.waiting is not None]
    for standing in sorted(waited_for, key=lambda standing: standing.waiting or 0):
        if standing.state == "ready":
            if standing.name not in plan.going and not _leaves_first(standing):  # (1)
                plan.serve[standing.name] = None
        elif standing.state in ("starting", "stopping"):  # (2)
            continue
        elif standing.retry_at > now:  # (3)
            plan.wake_at = min(plan.wake_at, standing.retry_at)
        else:
            plan.place(standing)  # (4) to (6)
    for standing in standings:
        if standing.waiting is None and standing.state == "failed" and standing.revive_at < math.inf:  # (7)
            plan.revive(standing, now)
        if standing.state != "ready":  # (8)
            continue
        if standing.leaving is not None:
            plan.dismiss(standing)
        elif standing.in_flight or standing.name in plan.serve or standing.name in plan.going:
            continue
        elif standing.expires_at <= now:
            plan.dismiss(standing)
        else:
            plan.wake_at = min(plan.wake_at, standing.expires_at)
    return plan.finished()


def is_coming_back(standing: Standing, now: float) -> bool:
    """It has failed and is started again without being asked for."""
    return standing.state == "failed" and standing.revive_at < math.inf and standing.expires_at > now


def is_lost(standing: Standing, now: float) -> bool:
    """It has failed and does not come back by itself, or several starts in a row have not brought it back.
    While one of these is under way it is still lost: whoever is sent here would wait for nothing."""
    if standing.state == "failed" and not is_coming_back(standing, now):
        return True
    return standing.state in ("failed", "starting") and standing.failures >= LOST_AFTER


def _leaves_first(standing: Standing) -> bool:
    return standing.leaving is not None and standing.leaving <= (standing.waiting or 0)


class _Draft:
    """A plan while it is being made."""

    def __init__(self, standings: Sequence[Standing], max_loaded: int) -> None:
        loaded = [one for one in standings if one.occupies and one.state in ("starting", "ready", "stopping")]
        self.room = max_loaded - len(loaded) if max_loaded else math.inf
        self.vacated = sum(one.state == "stopping" for one in loaded)
        self.ready = [one for one in loaded if one.state == "ready"]
        self.serve: dict[str, None] = {}
        self.start: list[str] = []
        self.forgotten: list[str] = []
        self.going: dict[str, Standing] = {}
        self.wake_at = math.inf

    def place(self, standing: Standing) -> None:
        if not standing.occupies:
            self.start.append(standing.name)
        elif self.room > 0:  # (4)
            self.room -= 1
            self.start.append(standing.name)
        elif self.vacated > 0:  # (5)
            self.vacated -= 1
        else:  # (6)
            rest = [one for one in self.ready if one.name not in self.going]
            if rest:
                self.dismiss(min(rest, key=self._cost))

    def revive(self, standing: Standing, now: float) -> None:
        if standing.expires_at <= now:
            self.forgotten.append(standing.name)
            return
        self.wake_at = min(self.wake_at, standing.expires_at)
        if standing.revive_at > now:
            self.wake_at = min(self.wake_at, standing.revive_at)
        elif not standing.occupies or self.room > 0:
            self.place(standing)

    def dismiss(self, standing: Standing) -> None:
        self.going.setdefault(standing.name, standing)

    def _cost(self, standing: Standing) -> tuple[bool, float, str]:
        busy = standing.in_flight > 0 or standing.name in self.serve
        return busy, standing.expires_at, standing.name

    def finished(self) -> Plan:
        idle = [one.name for one in self.going.values() if not one.in_flight and one.name not in self.serve]
        return Plan(
            serve=tuple(self.serve),
            start=tuple(self.start),
            forget=tuple(self.forgotten),
            stop=tuple(idle),
            hold=tuple(name for name in self.going if name not in idle),
            wake_at=self.wake_at,
        )

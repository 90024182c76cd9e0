"""Which model is loaded, served, put to sleep, held back or stopped next: decided here, carried out by the supervisor.

Pure: values in, a plan out. Orders are numbers given out one after the other to everything that waits, so that
the smaller came first.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from portico.engines import HOST, Account
from portico.engines.room import Room
from portico.engines.standing import Standing, are_copies
from portico.messages import Value

__all__ = ["LOST_AFTER", "Plan", "Standing", "decide", "is_coming_back", "is_lost"]

LOST_AFTER = 4
"""Failures in a row, about four seconds and three starts after the first: not a moment's trouble any more."""

_TAKES_MEMORY = ("starting", "waking", "ready", "dozing", "stopping")
_LEAVES = ("dozing", "stopping")


class Plan(Value, frozen=True, kw_only=True):
    """What to do now, all of it at once. `wake_at`: when to decide again though nothing has happened."""

    serve: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    gpus: dict[str, tuple[Account, ...]] = {}
    """Those for each model that is started on some, in so far as any are known."""
    wake: tuple[str, ...] = ()
    sleep: tuple[tuple[str, int], ...] = ()
    """Idle, with how deep each is to sleep."""
    stop: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    """Busy for too long though others wait: stopped, and those who are served are told."""
    hold: tuple[str, ...] = ()
    """Busy, and to give way: whoever comes now waits, so that those who are served can end."""
    refuse: tuple[str, ...] = ()
    """Waited for, and there is no room beside other copies of the same model: these answer sooner."""
    forget: tuple[str, ...] = ()
    """Failed, and would by now have been unloaded: loaded again only when somebody asks, as any idle model."""
    wake_at: float = math.inf


def decide(
    standings: Sequence[Standing],
    *,
    max_loaded: int,
    now: float,
    free: Mapping[Account, int] | None = None,
) -> Plan:
    """Models that are waited for, the longest wait first:

    1. Ready, and not leaving (or the caller came before that wish): serve all who wait.
    2. On its way up or down: wait.
    3. Failed too often, too recently: wait until `retry_at`.
    4. There is room, on the GPUs with the most free memory or in the host's: start it, or wake it if it sleeps.
       `max_loaded` 0, and memory that nobody knows, are room without end. A model that is to start without others has
       none where one of these is loaded.
    5. A place is being vacated, or another start there takes memory nobody can count yet: wait for it.
    6. No room: it is made where the least has to go. Of the models there that may give way, the idle one that would expire first goes to sleep or is stopped,
       then the next, until there would be room; where all are busy the one that would expire first is held.
       Nobody who came earlier is held back for it: he has been served in (1). One that is held for too long is cut.
       Nobody who came later takes what is free meanwhile. Copies of one model give no way to each other: it would
       be loaded as often as before, and nobody served meanwhile. A copy that has no room beside those is refused.

    Then, of the models nobody waits for:

    7. Failed, and would still be loaded if it had not: start it at `revive_at`, if there is room then. It
       never drives another one out. Once it would have been unloaded, forget it.
    8. Stop those that are idle and expired or leaving; hold the busy ones that are leaving. The others that are
       idle go down their ladder: to sleep, to sleep deeper. Deeper leads over waking, with all the memory that this
       takes: where that is not free for a moment, they stay as they are.
    """
    plan = _Draft(standings, max_loaded, now, free)
    waited_for = [standing for standing in standings if standing.waiting is not None]
    for standing in sorted(waited_for, key=lambda standing: standing.waiting or 0):
        if standing.state == "ready":
            if standing.name not in plan.going and not _leaves_first(standing):  # (1)
                plan.serve[standing.name] = None
        elif standing.state == "sleeping" and _leaves_first(standing):
            plan.dismiss(standing)
        elif standing.state in ("starting", "waking", "dozing", "stopping"):  # (2)
            continue
        elif standing.retry_at > now:  # (3)
            plan.wait_until(standing.retry_at)
        else:
            plan.place(standing)  # (4) to (6)
    for standing in standings:
        if standing.waiting is None and standing.state == "failed" and standing.revive_at < math.inf:  # (7)
            plan.revive(standing)
        if standing.state == "ready" or (standing.state == "sleeping" and standing.waiting is None):  # (8)
            plan.grow_old(standing)
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

    def __init__(
        self, standings: Sequence[Standing], max_loaded: int, now: float, free: Mapping[Account, int] | None
    ) -> None:
        self.now = now
        loaded = [one for one in standings if one.occupies and one.state in _TAKES_MEMORY]
        self.loaded = tuple(loaded)
        self.room = Room(loaded, free or {})
        self.places = max_loaded - len(loaded) if max_loaded else math.inf
        self.vacated = sum(one.state in _LEAVES for one in loaded)
        self.ready = [one for one in loaded if one.state == "ready"]
        self.serve: dict[str, None] = {}
        self.start: list[Standing] = []
        self.asleep: dict[str, int] = {}
        self.gone: list[str] = []
        self.refused: list[str] = []
        self.forgotten: list[str] = []
        self.going: dict[str, Standing] = {}
        """Ready, and to give way or to be unloaded."""
        self.wake_at = math.inf

    def wait_until(self, at: float) -> None:
        self.wake_at = min(self.wake_at, at)

    # ---- room

    def place(self, standing: Standing) -> None:
        if not standing.occupies:
            self.start.append(standing)
            return
        if (where := self._found(standing)) is not None:  # (4)
            self._take(standing, where)
            return
        where = self._cheapest(standing)
        if not self._wait_for_room(where):  # (5)
            if self._is_kept_out(standing):  # (6)
                self.refused.append(standing.name)
                return
            self._make_room(standing, where)
        self.room.promised.update(where)

    def _found(self, standing: Standing) -> tuple[Account, ...] | None:
        return self.room.find(standing) if self.places > 0 else None

    def _take(self, standing: Standing, where: tuple[Account, ...]) -> None:
        self.start.append(standing)
        self._reserve(standing, where)

    def _reserve(self, standing: Standing, where: tuple[Account, ...]) -> None:
        self.places -= 1
        self.room.take(standing, where)

    def _cheapest(self, standing: Standing) -> tuple[Account, ...]:
        """Where room is to be made for it, or will be without that. Where all that is ours would be too little, it is
        where most would be free: what others have there may be gone by then."""
        hopeful = self.room.hopeful(standing)
        if len(hopeful) < self.room.count(standing):
            return self.room.likeliest(standing)
        hopeful.sort(key=lambda account: self._effort(standing, account))
        return tuple(hopeful[: self.room.count(standing)])

    def _effort(self, standing: Standing, account: Account) -> tuple[Any, ...]:
        """Least first: who waits there already, whether it is enough that idle ones give way, or busy ones, or not
        before what is being started has been; and the last of those that have to."""
        missing = self.room.missing(standing, account)
        for one in self.room.others(account):
            if one.state in _LEAVES or one.name in self.going:
                missing -= self.room.needs(one, account) or math.inf
        victims: list[Standing] = []
        there = [one for one in self._may_give_way(standing) if account in self.room.accounts(one)]
        for one in sorted(there, key=lambda one: (one.name not in standing.without, self._cost(one))):
            if missing > 0 or one.name in standing.without:
                victims.append(one)
                missing -= self.room.needs(one, account) or math.inf
        worst = max(map(self._cost, victims), default=(False, False, 0.0, ""))
        return account in self.room.promised, missing > 0, bool(victims), worst, self.room.order(account)

    def _wait_for_room(self, where: tuple[Account, ...]) -> bool:
        """Somebody leaves: what he leaves is not counted yet. So many wait for it as there are places."""
        if self.places <= 0:
            if self.vacated <= 0:
                return False
            self.vacated -= 1
            return True
        on_its_way = [one for one in self.loaded if one.state in ("starting", "waking", *_LEAVES)]
        return any(not set(where).isdisjoint(self.room.accounts(one)) for one in on_its_way)

    def _is_kept_out(self, standing: Standing) -> bool:
        """Other copies of its model stay, and all that may give way to it is too little."""
        copies = [one for one in self.loaded if are_copies(one, standing)]
        if not copies or any(one.leaving is not None or one.name in self.going for one in copies):
            return False
        rest = self._may_give_way(standing)
        enough = [
            account
            for account in self.room.eligible(standing)
            if self.room.missing(standing, account) <= self.room.given(rest, account)
        ]
        return len(rest) < 1 - self.places or len(enough) < self.room.count(standing)

    def _may_give_way(self, standing: Standing) -> list[Standing]:
        return [one for one in self.ready if one.name not in self.going and not are_copies(one, standing)]

    def _make_room(self, standing: Standing, where: tuple[Account, ...]) -> None:
        missing = {account: self.room.missing(standing, account) for account in where}
        places = 1 - self.places
        while True:
            rest = self._may_give_way(standing)
            rivals = [one for one in rest if one.name in standing.without and self._is_in(one, where)]
            if places <= 0:  # memory is short, or it is to start without some
                rest = [one for one in rest if self._is_in(one, [a for a in where if missing[a] > 0])]
            if not rest and not rivals:
                return
            victim = min(rivals or rest, key=self._cost)
            if victim.stays_until > self.now and not self._is_busy(victim):
                return self.wait_until(victim.stays_until)
            for account in where:
                if self._is_in(victim, (account,)):
                    missing[account] -= self.room.needs(victim, account)
            places -= 1
            self.dismiss(victim, sleeps=True, cuts=True)
            if self._is_busy(victim):
                return  # the next one is chosen when this one is gone

    def _is_in(self, one: Standing, where: Sequence[Account]) -> bool:
        return not set(where).isdisjoint(self.room.accounts(one))

    def revive(self, standing: Standing) -> None:
        if standing.expires_at <= self.now:
            self.forgotten.append(standing.name)
            return
        self.wait_until(standing.expires_at)
        if standing.revive_at > self.now:
            self.wait_until(standing.revive_at)
        elif not standing.occupies:
            self.start.append(standing)
        elif (where := self._found(standing)) is not None:
            self._take(standing, where)

    # ---- the other way

    def grow_old(self, standing: Standing) -> None:
        if standing.leaving is not None:
            self.dismiss(standing, cuts=standing.waiting is not None)
        elif self._is_busy(standing) or standing.name in self.going:
            return
        elif standing.expires_at <= self.now:
            self.dismiss(standing)
        else:
            self.wait_until(standing.expires_at)
            if standing.level < standing.deepest:
                if standing.nap_at > self.now:
                    self.wait_until(standing.nap_at)
                elif standing.level == 0 or self._may_wake_for_a_moment(standing):
                    self.asleep[standing.name] = standing.level + 1

    def _may_wake_for_a_moment(self, standing: Standing) -> bool:
        """Another model would run out of memory too, so here what nobody knows is not free."""
        where = self._found(standing)
        if where is None or any(self.room.others(a) and not self.room.is_known(a) for a in where):
            return False
        self._reserve(standing, where)
        return True

    def dismiss(self, standing: Standing, *, sleeps: bool = False, cuts: bool = False) -> None:
        """`sleeps`: it only has to give its memory back. `cuts`: somebody waits for it to end."""
        if standing.name in self.going:
            return
        self.going[standing.name] = standing
        if self._is_busy(standing):
            if cuts and standing.cut_at <= self.now:
                self.gone.append(standing.name)
            elif cuts:
                self.wait_until(standing.cut_at)
        elif sleeps and standing.deepest:
            self.asleep[standing.name] = self._depth(standing)

    def _depth(self, standing: Standing) -> int:
        """The first level keeps the weights in the host's memory, where there is room for them."""
        weights = sum(self.room.needs(standing, account) for account in self.room.accounts(standing))
        return 1 if self.room.left(HOST) >= weights else standing.deepest

    def _is_busy(self, standing: Standing) -> bool:
        return standing.in_flight > 0 or standing.name in self.serve

    def _cost(self, standing: Standing) -> tuple[bool, bool, float, str]:
        young = standing.stays_until > self.now
        return self._is_busy(standing), young, standing.expires_at, standing.name

    def finished(self) -> Plan:
        idle = [one.name for one in self.going.values() if not self._is_busy(one)]
        return Plan(
            serve=tuple(self.serve),
            start=tuple(one.name for one in self.start if one.state != "sleeping"),
            gpus={
                one.name: self.room.accounts(one)
                for one in self.start
                if one.state != "sleeping" and one.device == "gpu" and self.room.knows_gpus
            },
            wake=tuple(one.name for one in self.start if one.state == "sleeping"),
            sleep=tuple(self.asleep.items()),
            stop=tuple(name for name in idle if name not in self.asleep),
            cut=tuple(self.gone),
            hold=tuple(name for name in self.going if name not in idle and name not in self.gone),
            refuse=tuple(self.refused),
            forget=tuple(self.forgotten),
            wake_at=self.wake_at,
        )

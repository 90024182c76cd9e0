"""Where a model has room. The memory of the host and of each GPU is an account of its own. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from portico.engines import HOST, Account
from portico.engines.standing import Standing, are_copies

SOMEWHERE: Account = "gpu"
"""The GPUs of which nobody knows anything, as one."""


class Room:
    """What is free while a plan is made, and who has the rest. What nobody knows is without end.

    A model of which nobody knows on which GPUs it is counts on all of them.
    """

    def __init__(self, loaded: Sequence[Standing], free: Mapping[Account, int]) -> None:
        self._free: dict[Account, float] = dict(free)
        self._taking = list(loaded)
        """All that take memory, now or after this plan."""
        self._given: dict[str, tuple[Account, ...]] = {}
        """Where those are that this plan starts."""
        known = tuple(sorted(account for account in self._free if account != HOST))
        self.knows_gpus = bool(known)
        self._gpus = known or (SOMEWHERE,)
        self.promised: set[Account] = set()
        """What is free there belongs to somebody who waits for more of it."""
        for one in loaded:
            if one.state in ("starting", "waking") or (one.state == "dozing" and one.level > 0):
                self._subtract(one)  # what it has not taken yet, it will: it is not free for another one

    def accounts(self, one: Standing) -> tuple[Account, ...]:
        """Whose memory it takes, or will."""
        if one.device == "host":
            return (HOST,)
        if one.name in self._given:
            return self._given[one.name]
        return tuple(gpu for gpu in self._gpus if gpu in one.gpus) or self._gpus

    def eligible(self, standing: Standing) -> tuple[Account, ...]:
        """Of which it may take: what sleeps wakes where it is."""
        sleeps = standing.state == "sleeping"
        return self._gpus if standing.device == "gpu" and not sleeps else self.accounts(standing)

    def count(self, standing: Standing) -> int:
        """Accounts that it needs. Of GPUs there may be too few, which its engine says best."""
        if standing.device == "host":
            return 1
        if standing.state == "sleeping":
            return len(self.accounts(standing))
        return min(standing.count, len(self._gpus))

    def needs(self, one: Standing, account: Account) -> int:
        return one.by_gpu.get(account, one.needs)

    def left(self, account: Account) -> float:
        return self._free.get(account, math.inf)

    def is_known(self, account: Account) -> bool:
        return account in self._free

    def missing(self, standing: Standing, account: Account) -> float:
        return self.needs(standing, account) - self.left(account)

    def given(self, leave: Iterable[Standing], account: Account) -> float:
        """What would be free in addition, if these left; one of which nobody knows it leaves enough."""
        there = (one for one in leave if account in self.accounts(one))
        return sum(self.needs(one, account) or math.inf for one in there)

    def others(self, account: Account) -> list[Standing]:
        return [one for one in self._taking if account in self.accounts(one)]

    def order(self, account: Account) -> tuple[float, Account]:
        """The most free memory first."""
        return -self.left(account), account

    def find(self, standing: Standing) -> tuple[Account, ...] | None:
        """Where it is started now; None: nowhere yet. A model that is alone on its GPUs, and of which no copy is
        loaded, is started whatever is known, where no more room can be made: its engine says best what is missing."""
        count = self.count(standing)
        fitting = [
            account
            for account in self.eligible(standing)
            if self.missing(standing, account) <= 0 and self._lets_in(standing, account)
        ]
        if len(fitting) >= count:
            return tuple(sorted(sorted(fitting, key=self.order)[:count]))
        if len(self.hopeful(standing)) >= count or any(are_copies(one, standing) for one in self._taking):
            return None
        likeliest = self.likeliest(standing)
        alone = not any(self.others(account) or account in self.promised for account in likeliest)
        return likeliest if alone else None

    def _lets_in(self, standing: Standing, account: Account) -> bool:
        beside = any(one.name in standing.without for one in self.others(account))
        return not beside and account not in self.promised

    def hopeful(self, standing: Standing) -> list[Account]:
        """Where it would have room, if all that is ours left; copies of it do not."""
        return [
            account
            for account in self.eligible(standing)
            if self.missing(standing, account) <= self._most_given(standing, account)
        ]

    def likeliest(self, standing: Standing) -> tuple[Account, ...]:
        """Where the most would be free then."""
        most = sorted(
            self.eligible(standing),
            key=lambda account: (
                self.missing(standing, account) - self._most_given(standing, account),
                account,
            ),
        )
        return tuple(sorted(most[: self.count(standing)]))

    def _most_given(self, standing: Standing, account: Account) -> float:
        return self.given((one for one in self._taking if not are_copies(one, standing)), account)

    def take(self, standing: Standing, where: tuple[Account, ...]) -> None:
        self._given[standing.name] = where
        self._taking.append(standing)
        self._subtract(standing)

    def _subtract(self, one: Standing) -> None:
        for account in self.accounts(one):
            if account in self._free:
                self._free[account] -= self.needs(one, account)

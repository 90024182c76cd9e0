"""What a run may take: tokens or money, set aside before each call and settled by its true usage."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextvars import ContextVar
from decimal import Decimal
from typing import Literal, NamedTuple

from portico.client.prices import Price
from portico.errors import (
    ClientError,
    ConfigError,
    CutOff,
    Malformed,
    OutOfMemory,
    OverBudget,
    ServerFailed,
    TimedOut,
)
from portico.messages import Usage

_MILLION = Decimal(1_000_000)
_lock = threading.Lock()
"""Over all budgets: a call that is under several takes from all of them or from none."""
_inside: ContextVar[tuple[Budget, ...]] = ContextVar("budgets", default=())


class Need(NamedTuple):
    """What a call may take. `answer`: max_tokens, None: what there is; `room`: the most that the context leaves it, None: nobody
    knows. `answers`: how many. `exact`: the server has counted the prompt."""

    prompt: int
    answer: int | None
    room: int | None = None
    answers: int = 1
    exact: bool = True
    price: Price | None = None


class Budget:
    """`Budget(tokens=10_000)` or `Budget(cost=0.50)` (US dollars), or both. Owns what was taken of it; clients, threads and tasks
    may share it. For all calls of a client: Client(budget=budget); for those in a block, of whatever client: `with budget:`.

    Before a call, its prompt (as the server counts it) and max_tokens are set aside; without max_tokens, the call is given what is
    left, at most. A call that does not fit while others are in flight waits for them; one that cannot fit raises OverBudget and is
    not sent. What an attempt took that broke off is not known, and counts in full.
    """

    def __init__(self, *, tokens: int | None = None, cost: Decimal | float | str | None = None) -> None:
        if tokens is None and cost is None:
            raise ConfigError("A budget is of tokens= or cost= (US dollars), or of both.")
        if (tokens is not None and tokens < 0) or (cost is not None and Decimal(str(cost)) < 0):
            raise ConfigError("A budget is not below 0.")
        self.tokens = tokens
        self.cost = None if cost is None else Decimal(str(cost))
        self.used_tokens, self.used_cost = 0, Decimal(0)
        self.held_tokens, self.held_cost = 0, Decimal(0)
        """Of calls in flight."""
        self.estimated = False
        """A server could not count the prompt of a call, which was guessed from its length; then true usage may be more."""
        self._whole = 0

    @property
    def left_tokens(self) -> int | None:
        return None if self.tokens is None else self.tokens - self.used_tokens - self.held_tokens

    @property
    def left_cost(self) -> Decimal | None:
        return None if self.cost is None else self.cost - self.used_cost - self.held_cost

    def __enter__(self) -> Budget:
        _inside.set((*_inside.get(), self))
        return self

    def __exit__(self, *_: object) -> None:
        # The innermost of its blocks in this context; several threads may be in blocks of it at once.
        around = list(_inside.get())
        del around[len(around) - 1 - around[::-1].index(self)]
        _inside.set(tuple(around))

    def __str__(self) -> str:
        told = []
        if self.tokens is not None:
            told.append(f"{self.used_tokens} of {self.tokens} tokens")
        if self.cost is not None:
            told.append(f"${self.used_cost:f} of ${self.cost:f}")
        return ", ".join(told) + (" (estimated)" if self.estimated else "")

    # ---- what of it is decided

    def affordable(self, need: Need, *, waiting: bool = False) -> int | None:
        """The most tokens that each answer may have; None: no limit; below 0: not even the prompt fits. `waiting`: if all calls in
        flight took nothing."""
        found: list[int] = []
        if (left := self.left_tokens) is not None:
            free = left + (self.held_tokens if waiting else 0)
            found.append((free - need.prompt) // need.answers)
        if (dollars := self.left_cost) is not None and need.price is not None:
            spare = dollars + (self.held_cost if waiting else 0) - need.price.input * need.prompt / _MILLION
            each = need.price.output * need.answers / _MILLION
            if spare < 0:
                found.append(-1)
            elif each > 0:
                found.append(int(spare / each))
        return min(found) if found else None

    def over(self, need: Need, answer: int) -> OverBudget:
        tokens = need.prompt + need.answers * answer
        if self.left_tokens is not None and tokens > self.left_tokens:
            return OverBudget(needed=tokens, left=self.left_tokens, of=self.tokens, held=self.held_tokens)
        assert self.left_cost is not None and need.price is not None
        dollars = need.price.of(Usage(input_tokens=need.prompt, output_tokens=need.answers * answer))
        return OverBudget(
            needed=dollars, left=self.left_cost, of=self.cost, held=self.held_cost, unit="dollars"
        )


class Hold:
    """What is set aside for one call, in all its budgets. Ended once, by `settle` or `failed`."""

    def __init__(self, budgets: Sequence[Budget], need: Need, answer: int, *, whole: bool) -> None:
        self._budgets, self._need, self.answer, self._whole = tuple(budgets), need, answer, whole
        self._tokens = need.prompt + need.answers * answer
        most = Usage(input_tokens=need.prompt, output_tokens=need.answers * answer)
        self._cost = need.price.of(most) if need.price is not None else Decimal(0)
        self._open = True
        for each in self._budgets:
            each.held_tokens += self._tokens
            each.held_cost += self._cost
            each.estimated |= not need.exact
            each._whole += whole

    def settle(self, usage: Usage | None) -> None:
        """With what the server says it took; without that, everything counts."""
        known = usage is not None and usage.input_tokens + usage.output_tokens > 0
        with _lock:
            if not self._open:
                return
            if known:
                assert usage is not None
                price = self._need.price
                self._end(
                    usage.input_tokens + usage.output_tokens,
                    price.of(usage) if price is not None else Decimal(0),
                )
            else:
                self._end(self._tokens, self._cost)

    def unsent(self) -> None:
        """Nothing of it was sent."""
        with _lock:
            if self._open:
                self._end(0, Decimal(0))

    def failed(self, error: BaseException) -> None:
        with _lock:
            if self._open:
                lost = may_have_worked(error)
                self._end(self._tokens if lost else 0, self._cost if lost else Decimal(0))

    def again(self, error: ClientError) -> None:
        """Before the call is sent once more: what the last attempt may have taken is gone. Raises OverBudget."""
        if not may_have_worked(error):
            return
        with _lock:
            for each in self._budgets:
                allowed = each.affordable(self._need)
                if allowed is not None and allowed < self.answer:
                    raise each.over(self._need, self.answer) from error
            for each in self._budgets:
                each.used_tokens += self._tokens
                each.used_cost += self._cost

    def _end(self, tokens: int, cost: Decimal) -> None:
        self._open = False
        for each in self._budgets:
            each.held_tokens -= self._tokens
            each.held_cost -= self._cost
            each._whole -= self._whole
            each.used_tokens += tokens
            each.used_cost += cost


def in_force(own: Budget | None) -> tuple[Budget, ...]:
    """The client's, and those of the blocks around."""
    found = (*((own,) if own is not None else ()), *_inside.get())
    return tuple(dict.fromkeys(found))


def hold(budgets: Sequence[Budget], need: Need, *, whole: bool) -> Hold | Literal["wait"]:
    """Sets aside what the call may take, in all budgets or in none. Raises OverBudget for what can not fit.

    1. With max_tokens: that, if it fits. 2. Without: the rest of the context, or what is left if that is less. 3. It does not fit, and
    would if calls in flight took nothing: wait, but not for a stream, which ends when its reader wishes. 4. Else it can not.
    """
    with _lock:
        wanted = need.answer if need.answer is not None else need.room
        allowed = [each.affordable(need) for each in budgets]
        least = min((each for each in allowed if each is not None), default=None)
        if need.answer is None and least is not None:  # (2)
            wanted = least if wanted is None else min(wanted, least)
        answer = wanted or 0
        lowest = 0 if need.answer == 0 else 1
        if least is None or (answer >= lowest and least >= answer):  # (1)
            return Hold(budgets, need, answer, whole=whole)
        answer = max(lowest, need.answer if need.answer is not None else 0)
        for each, now in zip(budgets, allowed, strict=True):
            if now is None or now >= answer:
                continue
            later = each.affordable(need, waiting=True)
            if each._whole == 0 or later is None or later < answer:  # (4)
                raise each.over(need, answer)
        return "wait"  # (3)


def may_have_worked(error: BaseException) -> bool:
    """Whether a call that ended so may have made tokens: it reached the server, and was not turned away."""
    if isinstance(error, TimedOut):
        return error.which != "connect"
    if isinstance(error, ServerFailed):
        return error.status != 503
    if isinstance(error, ClientError):
        return isinstance(error, CutOff | Malformed | OutOfMemory)
    return True

"""What a client is told once: timeouts, retries, who it is. Each has a row in docs/client.md."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

from portico.client.budget import Budget
from portico.client.fallback import Fallback
from portico.client.prices import Price
from portico.errors import (
    ClientError,
    ConfigError,
    CutOff,
    NotRunning,
    RateLimited,
    Refused,
    ServerFailed,
    TimedOut,
)
from portico.messages import Value


class Timeouts(Value, frozen=True, kw_only=True):
    """Seconds; 0 is no limit."""

    connect: float = 10.0
    """Until there is a connection, TLS included."""
    first_token: float = 600.0
    """From the request to the first byte of its answer."""
    between_tokens: float = 300.0
    """Between two of its bytes."""
    total: float = 0.0
    """The whole call, retries included."""


class Retry(Value, frozen=True, kw_only=True):
    """What is asked again, and when. Never after the first byte of a streamed answer."""

    attempts: int = 3
    """How often a request is sent at most; 1: no retries."""
    first: float = 0.5
    """Seconds before the second attempt; each further one waits twice as long."""
    most: float = 30.0
    """Seconds waited at most. A server that asks for more gets its error told at once."""
    statuses: frozenset[int] = frozenset({408, 409, 425, 429, *(set(range(500, 600)) - {501, 505, 507, 511})})
    """Of replies. Not those by which a server says that it cannot (501, 505), has no room (507) or wants a login (511)."""

    def __post_init__(self) -> None:
        if self.attempts < 1:
            raise ConfigError(f"Retry(attempts={self.attempts}) would send nothing: 1 is no retries.")

    def again(
        self, error: ClientError, attempt: int, *, tried_there: bool, drawn: float | None = None
    ) -> float | None:
        """Seconds to wait after `attempt` attempts, the last of which ended in `error`; None: it is told.

        1. Enough attempts. 2. The server says when to come again: then, if the status is one of `statuses`. 3. It has retried by itself: retries are not
        multiplied. 4. There was no connection, it broke before its reply was there, or the reply's status is one of
        `statuses`: with jitter, so that many clients do not come back together. What cannot pass is told at once: a certificate that is
        refused, memory that is too small, a limit of time that is used up.

        `tried_there`: a Portico server has asked its engines more than once already. `drawn`: between 0 and 1.
        """
        if attempt >= self.attempts:  # (1)
            return None
        replied = isinstance(error, RateLimited | ServerFailed | Refused) and error.status in self.statuses
        if replied and (wait := error_retry_after(error)) is not None:  # (2)
            return wait if wait <= self.most else None
        if tried_there:  # (3)
            return None
        broken = isinstance(error, NotRunning | CutOff) or (
            isinstance(error, TimedOut) and error.which == "connect"
        )
        if not broken and not replied:
            return None
        step = min(self.most, self.first * 2.0 ** (attempt - 1))
        return step * (0.5 + 0.5 * (random.random() if drawn is None else drawn))  # (4)


def error_retry_after(error: ClientError) -> float | None:
    return error.retry_after if isinstance(error, RateLimited | ServerFailed | Refused) else None


TIMEOUTS, RETRY, NO_RETRY = Timeouts(), Retry(), Retry(attempts=1)


class Settings(Value, frozen=True, kw_only=True):
    """A client's, once its server is known."""

    model: str = ""
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    headers: Mapping[str, str] = {}
    fallback: Fallback | None = None
    budget: Budget | None = None
    prices: Mapping[str, Price] = {}
    """By model; what the caller knows better."""
    home: Callable[[], Path] | None = None
    """Portico's own folder, where what servers support is kept; None: nowhere."""

"""What a measurement says: samples of requests in, figures out. Pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from portico.cli import units

SAMPLES_FOR_P99 = 100
"""With fewer, the 99th percentile is only the slowest request: one accident would be called a figure."""


class Sample(msgspec.Struct, kw_only=True, frozen=True):
    """One request. Times are seconds since it was sent."""

    first: float = 0.0
    last: float = 0.0
    took: float = 0.0
    input_tokens: int = 0
    output_tokens: int = 0
    error: str | None = None

    @property
    def per_token(self) -> float | None:
        """Seconds from one token to the next, after the first; None where there is no next one."""
        return (self.last - self.first) / (self.output_tokens - 1) if self.output_tokens > 1 else None


class Spread(NamedTuple):
    """None: too few samples to say."""

    p50: float | None
    p99: float | None


class Row(msgspec.Struct, kw_only=True, frozen=True):
    """A number of requests at once, and how they fared."""

    at_once: int
    ok: int
    failed: int
    seconds: float
    errors: dict[str, int]
    first: Spread
    """Seconds to the first token."""
    per_token: Spread
    """Seconds from token to token."""
    rate: Spread
    """Tokens a second of one request; p99 is what 99 of 100 requests reached."""
    input_tokens: int
    output_tokens: int

    @property
    def requests_per_second(self) -> float:
        return self.ok / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Of all requests together."""
        return self.output_tokens / self.seconds if self.seconds else 0.0

    def cells(self) -> tuple[str, ...]:
        return (
            f"{self.at_once:,}",
            f"{self.ok:,}",
            units.rate(self.requests_per_second),
            *map(_seconds, self.first),
            *map(_seconds, self.per_token),
            *map(units.rate, self.rate),
            units.rate(self.tokens_per_second),
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "at_once": self.at_once,
            "ok": self.ok,
            "failed": self.failed,
            "errors": self.errors,
            "took_ms": _ms(self.seconds),
            "first_token_p50_ms": _ms(self.first.p50),
            "first_token_p99_ms": _ms(self.first.p99),
            "per_token_p50_ms": _ms(self.per_token.p50),
            "per_token_p99_ms": _ms(self.per_token.p99),
            "tokens_per_s_p50": _rounded(self.rate.p50),
            "tokens_per_s_p99": _rounded(self.rate.p99),
            "all_tokens_per_s": _rounded(self.tokens_per_second),
            "requests_per_s": _rounded(self.requests_per_second),
            "tokens_in": self.input_tokens,
            "tokens_out": self.output_tokens,
        }


TITLES = (
    "AT ONCE", "OK", "REQ/S", "FIRST p50", "p99", "PER TOKEN p50", "p99", "TOK/S p50", "p99", "ALL TOK/S",
)  # fmt: skip


def summed(at_once: int, samples: Sequence[Sample], seconds: float) -> Row:
    good = [sample for sample in samples if sample.error is None]
    gaps = [gap for sample in good if (gap := sample.per_token) is not None and gap > 0]
    per_token = _spread(gaps)
    return Row(
        at_once=at_once,
        ok=len(good),
        failed=len(samples) - len(good),
        seconds=seconds,
        errors=dict(Counter(sample.error for sample in samples if sample.error is not None)),
        first=_spread([sample.first for sample in good]),
        per_token=per_token,
        rate=Spread(*(1 / gap if gap else None for gap in per_token)),
        input_tokens=sum(sample.input_tokens for sample in good),
        output_tokens=sum(sample.output_tokens for sample in good),
    )


def _spread(values: Sequence[float]) -> Spread:
    return Spread(
        p50=percentile(values, 50) if values else None,
        p99=percentile(values, 99) if len(values) >= SAMPLES_FOR_P99 else None,
    )


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that `percent` of a hundred do not exceed: always one that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def _seconds(value: float | None) -> str:
    return units.NOTHING if value is None else units.duration(value)


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)

"""What a call costs: nothing on one's own machines, by a small dated file at OpenAI, and otherwise nobody knows until told."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from datetime import date
from decimal import Decimal
from importlib.resources import files

import msgspec

from portico.client.servers import Server
from portico.messages import Usage, Value

_MILLION = Decimal(1_000_000)
_OPENAI = "https://api.openai.com"
_DATED = re.compile(r"-\d{4}-\d{2}-\d{2}$")


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """US dollars for a million tokens; `cached`: of the prompt, found again by the server, None: like any other."""

    input: Decimal
    output: Decimal
    cached: Decimal | None = None

    def __post_init__(self) -> None:
        for name in ("input", "output", "cached"):
            given = getattr(self, name)
            if given is not None and not isinstance(given, Decimal):
                msgspec.structs.force_setattr(self, name, Decimal(str(given)))

    def of(self, usage: Usage) -> Decimal:
        """Dollars."""
        cached = min(usage.cached_tokens or 0, usage.input_tokens)
        rate = self.input if self.cached is None else self.cached
        prompt = (usage.input_tokens - cached) * self.input + cached * rate
        return (prompt + usage.output_tokens * self.output) / _MILLION


FREE = Price(input=Decimal(0), output=Decimal(0))


class Tariff(Value, frozen=True, kw_only=True):
    """The price of a model of a server, None where nobody knows it; and `why`."""

    price: Price | None
    why: str


class Cost(Value, frozen=True, kw_only=True):
    """`usd`: US dollars, None where no price is known; `why`: by which price."""

    usd: Decimal | None = None
    why: str = "not asked"

    def __str__(self) -> str:
        return f"{'unknown' if self.usd is None else f'${self.usd:f}'} ({self.why})"


class _Listed(msgspec.Struct):
    read: date
    models: dict[str, Price]
    currency: str
    sources: list[str]


@functools.cache
def openai_prices() -> _Listed:
    """The file, with its date and its sources."""
    text = files("portico.client").joinpath("prices.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["openai"], _Listed)


def tariff(server: Server, model: str, given: Mapping[str, Price]) -> Tariff:
    """1. What the caller says it costs. 2. A server on this machine or a private network: nothing. 3. OpenAI: by the file, also
    for a dated snapshot of a model. 4. Nobody knows."""
    if (price := given.get(model)) is not None:  # (1)
        return Tariff(price=price, why=f"the price that was given for {model}")
    if server.near:  # (2)
        return Tariff(price=FREE, why="local: its tokens cost nothing")
    if server.url == _OPENAI:  # (3)
        listed = openai_prices()
        price = listed.models.get(model) or listed.models.get(_DATED.sub("", model))
        if price is not None:
            return Tariff(price=price, why=f"the price of {model} at OpenAI as of {listed.read}")
    return Tariff(  # (4)
        price=None, why=f"no price is known for {model} at {server.url}: prices={{{model!r}: Price(...)}}"
    )


def cost(found: Tariff, usage: Usage) -> Cost:
    if found.price not in (None, FREE) and not usage.input_tokens + usage.output_tokens:
        return Cost(why=f"the server did not tell what it took; {found.why}")
    return Cost(usd=found.price.of(usage) if found.price is not None else None, why=found.why)


def total(costs: list[Cost]) -> Cost:
    """Of several calls: unknown if one of them is."""
    known = [each.usd for each in costs if each.usd is not None]
    why = "; ".join(dict.fromkeys(each.why for each in costs)) or "nothing was asked"
    return Cost(usd=sum(known, Decimal(0)) if len(known) == len(costs) else None, why=why)

"""What both clients decide in the same way, from what they are told: their servers, settings, and what they tell."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from portico.client.budget import Budget
from portico.client.fallback import Fallbacks, Place, read_fallback, server_of
from portico.client.prices import Price
from portico.client.servers import Server, candidates
from portico.client.settings import NO_RETRY, Retry, Settings, Timeouts
from portico.client.watch import Watch, secrets_of
from portico.errors import NotRunning
from portico.messages import Tool, ToolChoice

QUICK = Settings(timeouts=Timeouts(connect=1.0, first_token=5.0), retry=NO_RETRY)
"""With which loopback is asked whether somebody is there."""


class Arranged(NamedTuple):
    """`candidates` are those of which the first that answers is the client's; `others` stand in for it."""

    settings: Settings
    candidates: tuple[Server, ...]
    others: list[tuple[Place, Server]]
    watch: Watch


def arranged(
    environ: Mapping[str, str],
    url: str | None,
    *,
    model: str | None,
    api_key: str | None,
    fallback: Fallbacks,
    budget: Budget | None,
    prices: Mapping[str, Price],
    timeouts: Timeouts,
    retry: Retry,
    headers: Mapping[str, str],
    logger: logging.Logger | None,
    debug: bool,
    raw_debug: bool,
    debug_truncate_length: int,
    events: str | Path | None,
) -> Arranged:
    """Of the arguments of `Client`. Raises ConfigError for a URL that is none."""
    named = model or environ.get("VLLM_MODEL") or environ.get("VLLM_MODEL_NAME") or ""
    policy = read_fallback(fallback)
    settings = Settings(
        model=named,
        timeouts=timeouts,
        retry=retry,
        headers=dict(headers),
        fallback=policy,
        budget=budget,
        prices=dict(prices),
        home=lambda: home_of(environ),
    )
    places = policy.places if policy is not None else ()
    others = [(place, server_of(place, environ)) for place in places]
    servers = candidates(url, api_key, environ)
    keys = [server.key for server in (*servers, *(other for _, other in others))]
    watch = Watch(
        logger=logger,
        debug=debug,
        raw_debug=raw_debug,
        debug_truncate_length=debug_truncate_length,
        events=events,
        secrets=secrets_of(headers, *keys).union(*(secrets_of(place.headers) for place in places)),
        environ=environ,
    )
    return Arranged(settings, servers, others, watch)


def nobody_answers(servers: Sequence[Server]) -> NotRunning:
    looked = " and ".join(server.url for server in servers)
    return NotRunning(
        f"No server is named, and none answers at {looked}. Start one with `portico serve`, or name one: url=, "
        "PORTICO_HOST or VLLM_BASE_URL."
    )


def home_of(environ: Mapping[str, str]) -> Path:
    """Portico's own folder."""
    from portico.config import Config
    from portico.config_file import data_home

    return data_home(Config(), environ)


def about(
    system: str | None,
    tools: Sequence[Tool],
    tool_choice: ToolChoice | None,
    parallel_tool_calls: bool | None,
    think: bool | str | None,
    extra: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "system": system,
        "tools": tools,
        "tool_choice": tool_choice,
        "parallel_tool_calls": parallel_tool_calls,
        "think": think,
        "extra": extra,
    }

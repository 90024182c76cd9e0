"""Two ways to the same engine, alone and through Portico, that take turns; and what the turns say.

engine_bench.py and vllm_bench.py measure with it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import loads
from driver import say
from loads import Request, Window
from processes import ChildFailed, wait_for_quiet
from scenarios import QUESTION
from targets import Place

SHARE = 0.97  # of the engine's own tokens/s that must be left through the server


@dataclass(frozen=True, kw_only=True)
class Way:
    name: str
    port: int
    key: str
    model: str  # the name to ask for
    server: int | None  # the server between; None on the direct way


def ask(way: Way, place: Place, *, connections: int, requests: int, tokens: int) -> Window:
    request = Request(
        port=way.port,
        path="/v1/chat/completions",
        events="sse",
        key=way.key,
        body={
            "model": way.model,
            "messages": [{"role": "user", "content": QUESTION}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )
    options = {"connections": connections, "requests": requests, "limit": 300}
    found = loads.run(request, options, place, pid=None, server=way.server, longest=330)
    wanted = connections * requests * tokens
    if found["errors"] or found["tokens"] != wanted:
        raise ChildFailed(
            f"{way.name}: {found['tokens']} tokens instead of {wanted}, {found['errors']} errors"
            f" ({found['first_error'] or 'no message'})"
        )
    return found


Found = dict[int, dict[str, list[Window]]]  # connections -> way -> turns


def take_turns(
    direct: Way,
    portico: Way,
    place: Place,
    options: argparse.Namespace,
    found: Found,
    requests: Callable[[int], int],
) -> None:
    """Fills `found` for each of `options.connections`, `options.repeat` turns of each way; the one that begins takes
    turns too. `requests`: of each connection, by their number."""
    for connections in (int(number) for number in options.connections.split(",")):
        for way in (direct, portico):  # unmeasured: prompt caches and pages are warm for both
            ask(way, place, connections=connections, requests=1, tokens=options.tokens)
        kept = found.setdefault(connections, {})
        for turn in range(options.repeat):
            for way in (direct, portico) if turn % 2 == 0 else (portico, direct):
                wait_for_quiet(place.cores, options.wait_quiet)
                each = requests(connections)
                window = ask(way, place, connections=connections, requests=each, tokens=options.tokens)
                kept.setdefault(way.name, []).append(window)
                say(
                    f"  {connections:3} connections  {way.name:8} {window['tokens_per_s']:>9,.1f} tokens/s"
                    f"  other load {window['other_load']:.2f}{'*' if window['disturbed'] else ''}"
                )


@dataclass(frozen=True)
class Pair:
    """Medians of tokens/s and first token, of the turns in which nobody disturbed either way, or else of all."""

    alone: float
    through: float
    first_alone_ms: float
    first_through_ms: float
    disturbed: bool

    @property
    def share(self) -> float:
        return self.through / self.alone


def pairs(by_connections: Found) -> dict[int, Pair]:
    """By connections, where both ways were measured."""
    found = {}
    for connections, ways in by_connections.items():
        turns = list(zip(ways.get("direct", []), ways.get("portico", []), strict=False))
        quiet = [turn for turn in turns if not any(window["disturbed"] for window in turn)]
        if turns:
            rates = [
                [float(window["tokens_per_s"]) for window in way]
                for way in zip(*(quiet or turns), strict=True)
            ]
            firsts = [
                [float(window["first_p50_us"]) for window in way]
                for way in zip(*(quiet or turns), strict=True)
            ]
            found[connections] = Pair(
                *(median(way) for way in rates), *(median(way) / 1000 for way in firsts), disturbed=not quiet
            )
    return found


def table(results: dict[str, Found]) -> str:
    lines = [
        "| model | connections | engine alone tokens/s | through Portico | share | first token p50 ms, alone / through |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for model, by_connections in results.items():
        for connections, pair in pairs(by_connections).items():
            mark = "*" if pair.disturbed else ""
            lines.append(
                f"| {model} | {connections} | {pair.alone:,.1f}{mark} | {pair.through:,.1f}{mark} | {pair.share:.3f}"
                f" | {pair.first_alone_ms:,.1f} / {pair.first_through_ms:,.1f} |"
            )
    return "\n".join(lines)


def verdicts(by_connections: Found) -> list[tuple[str, bool, bool]]:
    """What is claimed, whether it holds, and whether others disturbed every turn it rests on."""
    found = pairs(by_connections)
    decided = []
    for connections, pair in found.items():
        text = f"{connections} connections: {pair.share:.3f} of the engine's own tokens/s, wanted {SHARE}"
        decided.append((text, pair.share >= SHARE, pair.disturbed))
    rates = [found[connections].through for connections in sorted(found)]
    if len(rates) > 1:
        text = f"tokens/s grow with connections: {', '.join(f'{rate:,.0f}' for rate in rates)}"
        grows = all(more > fewer for fewer, more in pairwise(rates))
        decided.append((text, grows, any(pair.disturbed for pair in found.values())))
    return decided


def printed(verdicts: list[tuple[str, bool, bool]]) -> str:
    return "\n".join(
        f"- {text}: {'reached' if reached else '**not reached**'}{', but disturbed*' if disturbed else ''}"
        for text, reached, disturbed in verdicts
    )

"""Medians, the table, and which targets are reached. Pure: numbers in, text out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from loads import Window

Results = dict[str, dict[str, list[Window]]]  # target -> scenario -> repeats
Number = float | None


@dataclass(frozen=True)
class Figure:
    """The median of the repeats nobody disturbed, or of all of them when there is none."""

    value: float
    disturbed: bool

    def show(self, digits: int = 0) -> str:
        return f"{self.value:,.{digits}f}" + ("*" if self.disturbed else "")


def figure(results: Results, target: str, scenario: str, name: str) -> Figure | None:
    windows = results.get(target, {}).get(scenario, [])
    quiet = [window for window in windows if not window.get("disturbed")]
    values = [float(window[name]) for window in quiet or windows if name in window]
    return Figure(median(values), not quiet) if values else None


def value(results: Results, target: str, scenario: str, name: str) -> Number:
    found = figure(results, target, scenario, name)
    return None if found is None else found.value


# ---- The table

ROWS = [("direct", "direct"), ("nginx", "nginx"), ("litellm", "LiteLLM"), ("portico", "Portico")]
TRANSLATED = "Portico, to Ollama's NDJSON"


def table(results: Results, failures: dict[str, str]) -> str:
    heads = [
        "target",
        *("requests/s c=1", "c=16", "c=128", "CPU us/request c=16"),
        *("us/chunk 200 streams", "x nginx", "us/chunk 1,000", "chunks/s of 50,000"),
        *("chunk one-way p50 / p99 us", "TTFT p50 / p99 us", "added p50 / p99 us"),
        *("RSS MB at rest", "1,000 open", "KB/stream", "other load"),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "--:|" * (len(heads) - 1)]
    for target, title in ROWS:
        if target in failures and target not in results:
            lines.append(f"| {title} | not measured: {failures[target]} |" + " |" * (len(heads) - 2))
        elif target in results:
            lines.append(_row(results, target, title, "steady"))
            if results[target].get("ollama200") or results[target].get("ollama1000"):
                lines.append(_row(results, target, TRANSLATED, "ollama"))
    return "\n".join(lines)


def _row(results: Results, target: str, title: str, streams: str) -> str:
    def cell(scenario: str, name: str, digits: int = 0, scale: float = 1.0) -> str:
        found = figure(results, target, scenario, name)
        return "-" if found is None else Figure(found.value * scale, found.disturbed).show(digits)

    def pair(scenario: str, name: str) -> str:
        shown = [cell(scenario, f"{name}_{share}_us") for share in ("p50", "p99")]
        return "-" if shown == ["-", "-"] else " / ".join(shown)

    def pair_added() -> str:
        shown = [_show(added(results, target, share)) for share in ("p50", "p99")]
        return "-" if shown == ["-", "-"] else " / ".join(shown)

    few, many = f"{streams}200", f"{streams}1000"
    proxied, plain = target != "direct", streams == "steady"
    cost = value(results, target, few, "us_per_chunk")
    of_nginx = ratio(cost, value(results, "nginx", "steady200", "us_per_chunk"))
    cells = [
        title,
        *(cell(name, "requests_per_s") if plain else "-" for name in ("json1", "json16", "json128")),
        cell("json16", "us_per_request", 1) if proxied and plain else "-",
        _with_slow(results, target, cell(few, "us_per_chunk", 1)) if proxied else "-",
        "-" if of_nginx is None or not proxied else f"{of_nginx:.2f}",
        cell(many, "us_per_chunk", 1) if proxied else "-",
        cell(many, "chunks_per_s"),
        pair(few, "chunk"),
        pair("paced200", "first") if plain else "-",
        pair_added() if proxied and plain else "-",
        cell("rest", "rss_kb", 1, 1 / 1024) if proxied and plain else "-",
        cell("open1000", "rss_kb", 1, 1 / 1024) if proxied and plain else "-",
        _show(per_stream(results, target), 1) if proxied and plain else "-",
        _loads(results, target, ollama=not plain),
    ]
    return "| " + " | ".join(cells) + " |"


def _with_slow(results: Results, target: str, shown: str) -> str:
    slow = figure(results, target, "steady20", "us_per_chunk")
    return shown if slow is None else f"{slow.show(1)} (20 streams)"


def _loads(results: Results, target: str, *, ollama: bool) -> str:
    loads = [
        float(window["other_load"])
        for scenario, windows in results[target].items()
        for window in windows
        if "other_load" in window and scenario.startswith("ollama") == ollama
    ]
    return f"{median(loads):.2f} (most {max(loads):.2f})" if loads else "-"


def _show(number: Number, digits: int = 0) -> str:
    return "-" if number is None else f"{number:,.{digits}f}"


# ---- Derived figures


def ratio(a: Number, b: Number) -> Number:
    """None also where noise made one of them negative."""
    return a / b if a is not None and b is not None and a >= 0 and b > 0 else None


def difference(a: Number, b: Number) -> Number:
    return a - b if a is not None and b is not None else None


def added(results: Results, target: str, share: str) -> Number:
    """Time to first token that the proxy adds: its quantile less the same quantile without a proxy."""
    name = f"first_{share}_us"
    return difference(value(results, target, "paced200", name), value(results, "direct", "paced200", name))


def per_stream(results: Results, target: str) -> Number:
    grown = difference(value(results, target, "open1000", "rss_kb"), value(results, target, "rest", "rss_kb"))
    return None if grown is None else grown / 1000


# ---- The targets


@dataclass(frozen=True)
class Target:
    text: str
    bound: float
    at_least: bool
    digits: int
    found: Callable[[Results], Number]
    rests_on: tuple[tuple[str, str], ...]  # (target, scenario) whose disturbance makes the verdict doubtful


def _rps(results: Results, target: str) -> Number:
    return value(results, target, "json16", "requests_per_s")


def _chunk(results: Results, target: str, scenario: str) -> Number:
    return value(results, target, scenario, "us_per_chunk")


def _rest_mb(results: Results) -> Number:
    kb = value(results, "portico", "rest", "rss_kb")
    return None if kb is None else kb / 1024


TARGETS = [
    Target(
        "requests/s at 16 connections, as a share of nginx's",
        *(0.30, True, 2),
        lambda r: ratio(_rps(r, "portico"), _rps(r, "nginx")),
        (("portico", "json16"), ("nginx", "json16")),
    ),
    Target(
        "requests/s at 16 connections, times LiteLLM's",
        *(100, True, 0),
        lambda r: ratio(_rps(r, "portico"), _rps(r, "litellm")),
        (("portico", "json16"), ("litellm", "json16")),
    ),
    Target(
        "CPU per relayed chunk, 200 streams, times nginx's",
        *(1.5, False, 2),
        lambda r: ratio(_chunk(r, "portico", "steady200"), _chunk(r, "nginx", "steady200")),
        (("portico", "steady200"), ("nginx", "steady200")),
    ),
    Target(
        "CPU per chunk translated to NDJSON, 200 streams, times nginx's relayed one",
        *(2.0, False, 2),
        lambda r: ratio(_chunk(r, "portico", "ollama200"), _chunk(r, "nginx", "steady200")),
        (("portico", "ollama200"), ("nginx", "steady200")),
    ),
    Target(
        "chunks/s of 1,000 relayed streams, 50,000 offered",
        *(35_000, True, 0),
        lambda r: value(r, "portico", "steady1000", "chunks_per_s"),
        (("portico", "steady1000"),),
    ),
    Target(
        "chunks/s of 1,000 translated streams, 50,000 offered",
        *(35_000, True, 0),
        lambda r: value(r, "portico", "ollama1000", "chunks_per_s"),
        (("portico", "ollama1000"),),
    ),
    Target(
        "time to first token added at p99, 200 paced streams, times what nginx adds",
        *(5, False, 1),
        lambda r: ratio(added(r, "portico", "p99"), added(r, "nginx", "p99")),
        (("portico", "paced200"), ("nginx", "paced200"), ("direct", "paced200")),
    ),
    Target("RSS at rest, MB", 60, False, 1, _rest_mb, ()),
    Target("RSS per open stream, KB", 60, False, 1, lambda r: per_stream(r, "portico"), ()),
]


def verdicts(results: Results) -> list[dict[str, str | float | bool | None]]:
    """One entry a target: reached is None where the run cannot decide it."""
    found = []
    for target in TARGETS:
        number = target.found(results)
        figures = [figure(results, *where, "other_load") for where in target.rests_on]
        reached = (
            None if number is None else number >= target.bound if target.at_least else number <= target.bound
        )
        found.append(
            {
                "target": target.text,
                "wanted": f"{'>=' if target.at_least else '<='} {target.bound:,g}",
                "found": number,
                "shown": _show(number, target.digits),
                "reached": reached,
                "disturbed": any(each is not None and each.disturbed for each in figures),
            }
        )
    return found


def verdict_table(found: list[dict[str, str | float | bool | None]]) -> str:
    words = {True: "reached", False: "**not reached**", None: "not decided"}
    lines = ["| goal | wanted | found | |", "|---|--:|--:|---|"]
    for each in found:
        word = words[each["reached"]]  # type: ignore[index]
        if each["disturbed"] and each["reached"] is not None:
            word += ", but disturbed*"
        lines.append(f"| {each['target']} | {each['wanted']} | {each['shown']} | {word} |")
    return "\n".join(lines)

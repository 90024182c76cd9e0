"""What is asked of a target, and one measured window of it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import loads
from loads import Request, Window
from processes import ChildFailed, rss_kb
from targets import MODEL, Place, Running

FOREVER = 1_000_000_000  # chunks: the stream outlives every window
OPEN_SECONDS = 30.0  # how long all streams of a scenario may take to have their first chunk
HANG_UP_SECONDS = 5.0  # how long the upstream may still be streaming after the clients have gone


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One kind of load. `hold` opens streams that never end and measures only relaying."""

    name: str
    connections: int
    stream: bool = True
    ollama: bool = False  # ask POST /api/chat, so that every chunk is translated
    chunks: int = 1
    pace_ms: float = 0
    hold: bool = False
    ramp: float = 0.0
    warmup: float = 1.0
    seconds: float = 4.0
    requests: int = 0  # on each connection, instead of a window of `seconds`


def steady(name: str, connections: int, **more: object) -> Scenario:
    base = Scenario(name=name, connections=connections, chunks=FOREVER, pace_ms=20, hold=True)
    return replace(base, ramp=connections / 250, **more)  # type: ignore[arg-type]


# In this order: memory is read while the server is still fresh.
SCENARIOS = [
    Scenario(
        name="open1000",
        connections=1000,
        chunks=FOREVER,
        pace_ms=1000,
        hold=True,
        ramp=4.0,
        warmup=2.0,
        seconds=2.0,
    ),
    Scenario(name="json1", connections=1, stream=False),
    Scenario(name="json16", connections=16, stream=False),
    Scenario(name="json128", connections=128, stream=False),
    # Closed loop: every connection asks anew each 64 x 20 ms, the ramp spreads them over that time.
    Scenario(name="paced200", connections=200, chunks=64, pace_ms=20, ramp=1.28, warmup=1.5, seconds=10.0),
    steady("steady200", 200),
    steady("steady1000", 1000),
    steady("ollama200", 200, ollama=True),
    steady("ollama1000", 1000, ollama=True),
]
ESSENTIAL = ["open1000", "json16", "paced200", "steady200", "steady1000", "ollama200", "ollama1000"]

# LiteLLM carries some 1,000 chunks/s: it would only hold up what it cannot do.
LITELLM_SCENARIOS = ["json1", "json16", "json128", "steady20"]
SLOW = steady("steady20", 20)  # 1,000 chunks/s, so that its cost per chunk can be given at all

SYSTEM = (
    "You are a careful assistant. Answer in one short paragraph, give the figures you rely on, and say so plainly "
    "when you are not sure."
)
QUESTION = (
    "We run three small servers behind one gateway and see a longer wait for the first token on Monday mornings. "
    "What should we look at first, and how would we tell a cold model from a full queue?"
)


def body(scenario: Scenario) -> dict[str, object]:
    """Without fields of the mock's own: how many chunks and how fast is set at the mock."""
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": QUESTION}]
    asked: dict[str, object] = {"model": MODEL, "messages": messages, "stream": scenario.stream}
    if scenario.stream and not scenario.ollama:
        asked["stream_options"] = {"include_usage": True}
    return asked


def scenarios_for(target: str, wanted: list[str]) -> list[Scenario]:
    if target == "litellm":
        return [
            each
            for each in [*SCENARIOS, SLOW]
            if each.name in LITELLM_SCENARIOS and each.name in [*wanted, SLOW.name]
        ]
    return [each for each in SCENARIOS if each.name in wanted and (target == "portico" or not each.ollama)]


def measure(scenario: Scenario, target: Running, place: Place) -> Window:
    """Run one scenario once."""
    target.mock.set(chunks=scenario.chunks, pace_ms=scenario.pace_ms)
    request = Request(
        port=target.port,
        path="/api/chat" if scenario.ollama else "/v1/chat/completions",
        events="json" if not scenario.stream else "ndjson" if scenario.ollama else "sse",
        key=place.key,
        body=body(scenario),
    )
    opening = scenario.ramp + scenario.warmup
    options: dict[str, object] = {
        "connections": scenario.connections,
        "ramp": scenario.ramp,
        "warmup": scenario.warmup,
    }
    if scenario.hold:
        options |= {"hold": None, "seconds": scenario.seconds, "limit": opening + OPEN_SECONDS}
    elif scenario.requests:
        options |= {"expect-events": scenario.chunks, "requests": scenario.requests, "limit": OPEN_SECONDS}
    else:
        options |= {"expect-events": scenario.chunks, "seconds": scenario.seconds}
        options |= {"limit": opening + scenario.seconds + 10}
    longest = opening + scenario.seconds + OPEN_SECONDS + 30
    found = loads.run(request, options, place, pid=target.pid, server=target.server, longest=longest)
    if scenario.hold:
        found["streams_left"] = streams_left(target)
    return found


def streams_left(target: Running) -> int:
    """Streams the upstream still feeds after every client has hung up: each is work for nobody."""
    give_up = time.monotonic() + HANG_UP_SECONDS
    while (left := target.mock.streams_open()) and time.monotonic() < give_up:
        time.sleep(0.1)
    return left


def problem(scenario: Scenario, found: Window) -> str | None:
    """Why a measured window does not show what its scenario is about; None when it does."""
    if found["errors"] or found["ended_early"]:
        return (
            f"{scenario.name}: {found['errors']} errors, {found['ended_early']} streams ended early"
            f" ({found['first_error'] or 'no message'})"
        )
    if not scenario.requests and not 0.9 < float(found["window_s"]) / scenario.seconds < 1.1:
        return f"{scenario.name}: a window of {found['window_s']:.1f} s instead of {scenario.seconds:.1f}"
    if scenario.hold and found["streams_open"] != scenario.connections:
        return f"{scenario.name}: {found['streams_open']} of {scenario.connections} streams were open"
    if found.get("streams_left"):
        left = f"{found['streams_left']} upstream streams still ran {HANG_UP_SECONDS:.0f} s after their clients had gone"
        return f"{scenario.name}: {left}"
    return None


def check(target: Running, place: Place, *, ollama: bool) -> None:
    """A whole reply and a stream of five chunks on each path, before anything is measured."""
    small = Scenario(name="check", connections=2, chunks=5, requests=2)
    kinds = [replace(small, stream=False, chunks=1), small]
    if ollama:
        kinds.append(replace(small, ollama=True))
    for kind in kinds:
        found = measure(kind, target, place)
        if found["errors"] or found["requests"] != small.connections * small.requests:
            path = "/api/chat" if kind.ollama else "/v1/chat/completions"
            raise ChildFailed(
                f"{path}{' as a stream' if kind.stream else ''} is not answered rightly:"
                f" {found['first_error'] or f'no reply in {OPEN_SECONDS:.0f} s'}"
            )


def at_rest(target: Running) -> int:
    """RSS in KB of the server after its first few replies, with nothing to do."""
    time.sleep(1.0)
    return rss_kb(target.server) if target.server else 0

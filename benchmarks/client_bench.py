"""What a client costs: CPU for a chat and for a streamed chunk, beside openai's AsyncOpenAI and httpx2 alone.

    python benchmarks/client_bench.py --repeat 5

All ask the same mock upstream, 32 at a time, in turns, each in a process of its own, and do the same with what comes: the text
of an answer, the text of each chunk, the usage. Counted is the client's own CPU time, user and kernel, after a warm-up; so the
figures hold on a machine that others use too, and the ratios, which are taken within each turn, hold better still.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from driver import add_arguments, machine, prepared, say
from processes import Child, ChildFailed
from targets import BUILD, ROOT, Mock, Place

CLIENTS = ("portico", "openai", "httpx2")
AT_ONCE = 32
WARM = 64
QUESTION = [
    {
        "role": "system",
        "content": "You are a helpful assistant. Answer in one short paragraph, without lists.",
    },
    {"role": "user", "content": "Why does a lazy dog let a quick brown fox jump over it? " * 4},
]
GOALS = {"chat": 0.5, "chunk": 1 / 3}
"""CPU time as a share of AsyncOpenAI's, at most."""

Chat = Callable[[], Awaitable[str]]
Stream = Callable[[int, float], AsyncIterator[str]]


# ---- the clients, as their documentation shows them


async def portico(url: str, run: Callable[[Chat, Stream], Awaitable[Any]]) -> Any:
    from portico import AsyncClient
    from portico.messages import TextDelta

    async with AsyncClient(url, model="mock-model", api_key="sk-benchmark") as client:

        async def chat() -> str:
            answer = await client.chat(QUESTION, temperature=0.2, max_tokens=24)
            assert answer.usage.output_tokens == 24
            return answer.text

        async def stream(chunks: int, pace: float) -> AsyncIterator[str]:
            given = {"temperature": 0.2, "max_tokens": chunks, "extra": {"pace_ms": pace}}
            async with client.stream(QUESTION, **given) as events:
                async for event in events:
                    if isinstance(event, TextDelta):
                        yield event.text
                assert events.result.usage.output_tokens == chunks

        return await run(chat, stream)


async def openai(url: str, run: Callable[[Chat, Stream], Awaitable[Any]]) -> Any:
    from openai import AsyncOpenAI

    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-benchmark") as client:

        async def chat() -> str:
            answer = await client.chat.completions.create(
                model="mock-model", messages=QUESTION, temperature=0.2, max_tokens=24
            )
            assert answer.usage is not None and answer.usage.completion_tokens == 24
            return answer.choices[0].message.content or ""

        async def stream(chunks: int, pace: float) -> AsyncIterator[str]:
            counted = 0
            arriving = await client.chat.completions.create(
                model="mock-model",
                messages=QUESTION,
                temperature=0.2,
                max_tokens=chunks,
                stream=True,
                stream_options={"include_usage": True},
                extra_body={"pace_ms": pace},
            )
            async for chunk in arriving:
                if chunk.usage is not None:
                    counted = chunk.usage.completion_tokens
                for choice in chunk.choices:
                    if choice.delta.content:
                        yield choice.delta.content
            assert counted == chunks

        return await run(chat, stream)


async def httpx2(url: str, run: Callable[[Chat, Stream], Awaitable[Any]]) -> Any:
    import httpx2 as library

    body = {"model": "mock-model", "messages": QUESTION, "temperature": 0.2}
    limits = library.Limits(max_connections=1000, max_keepalive_connections=1000)
    headers = {"authorization": "Bearer sk-benchmark"}
    async with library.AsyncClient(headers=headers, timeout=60, limits=limits) as client:

        async def chat() -> str:
            reply = await client.post(f"{url}/v1/chat/completions", json={**body, "max_tokens": 24})
            answer = reply.json()
            assert answer["usage"]["completion_tokens"] == 24
            return str(answer["choices"][0]["message"]["content"])

        async def stream(chunks: int, pace: float) -> AsyncIterator[str]:
            counted = 0
            asked = {
                **body,
                "max_tokens": chunks,
                "pace_ms": pace,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            async with client.stream("POST", f"{url}/v1/chat/completions", json=asked) as reply:
                async for line in reply.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line[6:])
                    counted = (chunk.get("usage") or {}).get("completion_tokens", counted)
                    for choice in chunk["choices"]:
                        if choice["delta"].get("content"):
                            yield choice["delta"]["content"]
            assert counted == chunks

        return await run(chat, stream)


# ---- one turn, in a process of its own


def turn(name: str, url: str, chats: int, chunks: int, pace: float) -> dict[str, float]:
    """CPU microseconds for a chat, or for a chunk of `AT_ONCE` streams of `chunks` each."""

    async def run(chat: Chat, stream: Stream) -> dict[str, float]:
        async def many(count: int) -> None:
            left = iter(range(count))

            async def one() -> None:
                for _ in left:
                    assert await chat()

            await asyncio.gather(*(one() for _ in range(AT_ONCE)))

        async def read(chunks: int, pace: float) -> None:
            got = 0
            async for text in stream(chunks, pace):
                got += bool(text)
            assert got == chunks, f"{got} of {chunks} chunks"

        await many(WARM)
        await asyncio.gather(*(read(4, 0) for _ in range(AT_ONCE)))
        began, at = time.process_time(), time.monotonic()
        if chunks:
            await asyncio.gather(*(read(chunks, pace) for _ in range(AT_ONCE)))
        else:
            await many(chats)
        count = AT_ONCE * chunks or chats
        return {
            "us": (time.process_time() - began) / count * 1e6,
            "per_s": count / (time.monotonic() - at),
        }

    clients = {"portico": portico, "openai": openai, "httpx2": httpx2}
    return asyncio.run(clients[name](url, run))


def scenarios(options: argparse.Namespace) -> dict[str, list[str]]:
    """Name -> what a turn is told."""
    return {
        "chat": ["--chats", str(options.chats)],
        "chunk": ["--chunks", str(options.chunks), "--pace", "20"],
        "chunk, as fast as it goes": ["--chunks", str(4 * options.chunks), "--pace", "0"],
    }


def measured(place: Place, options: argparse.Namespace) -> dict[str, list[dict[str, dict[str, float]]]]:
    """Scenario -> rounds -> client -> figures."""
    found: dict[str, list[dict[str, dict[str, float]]]] = {}
    log = place.folder("client")
    mock_command = [str(BUILD / "mock_upstream"), "--port", "0"]
    with Child(mock_command, cores=place.load_cores, log=log / "mock.log", capture=True) as child:
        url = f"http://127.0.0.1:{Mock(child).port}"
        for number in range(options.repeat):
            for scenario, told in scenarios(options).items():
                figures = {}
                for name in CLIENTS[number % 3 :] + CLIENTS[: number % 3]:
                    figures[name] = ask(place, log, name, url, told)
                found.setdefault(scenario, []).append(figures)
                shown = ", ".join(f"{name} {figures[name]['us']:.0f} us" for name in CLIENTS)
                say(f"round {number + 1}, {scenario}: {shown}")
    return found


def ask(place: Place, log: Path, name: str, url: str, told: list[str]) -> dict[str, float]:
    command = [place.portico_python, __file__, "--turn", name, "--url", url, *told]
    env = {"PYTHONPATH": str(ROOT / "src")}
    with Child(command, cores=place.proxy_cores, log=log / f"{name}.log", env=env, capture=True) as child:
        line = child.line()
        if not line:
            raise ChildFailed(f"{name} gave no figures: {child.last_words()}")
        figures: dict[str, float] = json.loads(line)
        return figures


def share(rounds: list[dict[str, dict[str, float]]], name: str) -> float:
    """CPU as a share of openai's, the median of the rounds."""
    return statistics.median(each[name]["us"] / each["openai"]["us"] for each in rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure what a client costs.")
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--chats", type=int, default=1000)
    parser.add_argument("--chunks", type=int, default=100, help="of each of the 32 streams")
    parser.add_argument("--output", type=Path, default=BUILD / "client.json", help="where the JSON goes")
    parser.add_argument("--turn", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    parser.add_argument("--pace", type=float, default=0, help=argparse.SUPPRESS)
    add_arguments(parser)
    options = parser.parse_args()
    if options.turn:
        chunks = options.chunks if "--chunks" in sys.argv else 0
        print(json.dumps(turn(options.turn, options.url, options.chats, chunks, options.pace)))
        return 0
    with prepared(options) as place:
        found = measured(place, options)
        measured_on = machine(place)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps({"machine": measured_on, "rounds": found}, indent=1) + "\n")
    say(f"{measured_on['cpu']}, Linux {measured_on['kernel']}; {options.repeat} rounds.")
    print("| | client | CPU us | share of openai's | goal | |\n|---|---|--:|--:|--:|---|")
    missed = False
    for scenario, rounds in found.items():
        for name in CLIENTS:
            us = statistics.median(each[name]["us"] for each in rounds)
            goal = GOALS.get(scenario) if name == "portico" else None
            reached = "" if goal is None else "reached" if share(rounds, name) <= goal else "missed"
            missed = missed or reached == "missed"
            wanted = "" if goal is None else f"<= {goal:.2f}"
            print(f"| {scenario} | {name} | {us:,.0f} | {share(rounds, name):.3f} | {wanted} | {reached} |")
    return 1 if options.check and missed else 0


if __name__ == "__main__":
    sys.exit(main())

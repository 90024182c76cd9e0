"""Requests for a measurement: many at once, and when their tokens arrive."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

from portico.cli.caller import Caller
from portico.cli.figures import Sample
from portico.errors import PorticoError, UpstreamFailed
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    Message,
    ReasoningDelta,
    Sampling,
    Text,
    TextDelta,
    Used,
)

WORDS = [
    "river",
    "stone",
    "lamp",
    "green",
    "seven",
    "door",
    "paper",
    "wind",
    "table",
    "north",
    "silver",
    "bread",
    "cloud",
    "garden",
    "letter",
    "mountain",
    "window",
    "sugar",
    "engine",
    "forest",
    "yellow",
    "button",
    "harbour",
    "winter",
    "music",
    "pencil",
    "orange",
    "bridge",
    "candle",
    "market",
]


class Ask(NamedTuple):
    """What every request asks for."""

    model: str
    max_tokens: int
    complete: bool  # a raw completion: a model without a chat template has nothing else
    full_length: bool  # go on after the model's end, so that every answer is equally long
    prompt: str | None = None  # None: words drawn anew for each request
    words: int = 1
    seed: int = 1

    def text(self, number: int) -> str:
        """The prompt of request `number`. No two begin alike: a server that keeps prefixes would otherwise be
        measured reading its cache."""
        if self.prompt is not None:
            return self.prompt
        chosen = random.Random(f"{self.seed} {number}").choices(WORDS, k=max(1, self.words))
        return f"{self.seed} {number} " + " ".join(chosen)

    def request(self, number: int) -> ChatRequest | CompletionRequest:
        extra = {"ignore_eos": True} if self.full_length else {}
        sampling = Sampling(max_tokens=self.max_tokens, temperature=0.0, extra=extra)
        text = self.text(number)
        if self.complete:
            return CompletionRequest(
                model=self.model, prompts=(text,), sampling=sampling, stream=True, include_usage=True
            )
        messages = (Message(role="user", parts=(Text(text=text),)),)
        return ChatRequest(
            model=self.model, messages=messages, sampling=sampling, stream=True, include_usage=True
        )


async def level(
    caller: Caller, ask: Ask, at_once: int, requests: int, done: Callable[[Sample], None]
) -> tuple[list[Sample], float]:
    """`requests` requests, never more than `at_once` at a time; all samples, and the seconds it took."""
    numbers = iter(range(requests))
    samples: list[Sample] = []

    async def work() -> None:
        for number in numbers:
            sample = await one(caller, ask, number + at_once * 1_000_000)
            samples.append(sample)
            done(sample)

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(min(at_once, requests)):
            group.create_task(work())
    return samples, time.perf_counter() - began


async def one(caller: Caller, ask: Ask, number: int) -> Sample:
    """One request. A failure is a sample too."""
    request = ask.request(number)
    first = last = 0.0
    pieces = input_tokens = output_tokens = 0
    began = time.perf_counter()
    try:
        async with aclosing(caller.stream(request)) as arriving:
            async for events in arriving:
                for event in events:
                    if isinstance(event, TextDelta | ReasoningDelta):
                        pieces += 1
                        last = time.perf_counter() - began
                        first = first or last
                    elif isinstance(event, Used):
                        input_tokens, output_tokens = event.usage.input_tokens, event.usage.output_tokens
        if not pieces:
            raise UpstreamFailed("the answer had no token", status=200)
    except PorticoError as error:
        return Sample(took=time.perf_counter() - began, error=error.message)
    return Sample(
        first=first,
        last=last,
        took=time.perf_counter() - began,
        input_tokens=input_tokens,
        output_tokens=output_tokens or pieces,
    )

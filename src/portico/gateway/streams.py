"""Streams of events on their way from an engine: one reply, several joined, one reshaped.

A stream gives batches, because what arrives in one packet is read, written and sent in one go. Whoever opens
a stream closes it; closing ends the engine's work at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from portico.engines import Replica
from portico.errors import EngineDied, EngineError, PorticoError, UpstreamClosed, UpstreamFailed
from portico.messages import (
    Event,
    Finished,
    TextDelta,
    ToolCallDelta,
    Usage,
    Used,
)
from portico.web import Reply

_AHEAD = 64
"""Batches of events that several streams may be ahead of their caller."""
_DEATH_NOTICE = 0.3
"""Seconds between a broken connection and the news that its engine died."""


class Events(Protocol):
    async def batch(self) -> Sequence[Event]:
        """The events that have arrived since, at least one; an empty batch is the end."""
        ...

    def close(self) -> None: ...


class Reader(Protocol):
    """Reads a dialect's chunks (the dialects' ChunkReader)."""

    done: bool
    failure: PorticoError | None

    def feed(self, data: bytes) -> Sequence[Event]: ...

    def end(self) -> Sequence[Event]: ...


class ReplyEvents:
    """The events of one streamed reply. It has a turn at the replica, which closing gives back."""

    def __init__(self, reply: Reply, reader: Reader, replica: Replica) -> None:
        self._reply, self._reader, self._replica = reply, reader, replica
        self._turns = replica.turns

    async def batch(self) -> Sequence[Event]:
        reader = self._reader
        while True:
            if reader.failure is not None:
                raise judged(self._replica, reader.failure)
            try:
                data = await self._reply.chunk()
            except UpstreamClosed as error:
                raise await obituary(self._replica, error) from error
            events = reader.feed(data) if data else reader.end()
            if events:
                return events
            if not data:
                if not reader.done:
                    raise await obituary(self._replica, UpstreamClosed(url=self._replica.upstream.url))
                return ()

    async def pour(self, sink: Callable[[Sequence[Event]], bool]) -> None:
        """Gives `sink` the events as they arrive, straight from the event loop, until it returns False or the
        reply has ended; `batch` goes on from there."""

        reader, feed = self._reader, self._reader.feed

        def read(data: bytes) -> bool:
            events = feed(data)
            return (not events or sink(events)) and reader.failure is None

        await self._reply.pour(read)

    def close(self) -> None:
        self._reply.close()
        turns, self._turns = self._turns, None
        if turns is not None:
            turns.release()


async def obituary(replica: Replica, error: EngineError) -> EngineError:
    """What really happened to a connection that broke or was refused: EngineDied if the engine is gone.

    The connection breaks a few milliseconds before the engine's death is known.
    """
    if replica.pid is None:
        return error
    deadline = asyncio.get_running_loop().time() + _DEATH_NOTICE
    while asyncio.get_running_loop().time() < deadline:
        tail = replica.died()
        if tail is not None:
            return EngineDied(model=replica.spec.name, log_tail=tail)
        await asyncio.sleep(0.01)
    return error


ENGINE_DEAD = "enginecore encountered an issue"
"""What vLLM answers everything with, also in a stream whose head is out, once the process that computes has failed and
while it still goes down."""


def judged(replica: Replica, error: PorticoError) -> PorticoError:
    """An error that the engine told; EngineDied if it says that it is dead. One elsewhere is somebody else's to start
    again: it is busy."""
    if not isinstance(error, UpstreamFailed) or error.status != 500 or ENGINE_DEAD not in str(error).lower():
        return error
    if replica.pid is None:
        return UpstreamFailed(str(error), status=503, code="engine_died")
    return EngineDied(model=replica.spec.name, log_tail=str(error))


class Joined:
    """Several streams as one, each as a choice with an index of its own and the usage of all summed.

    `per_prompt` streams answer the same prompt, whose tokens count once. A task drives each stream, `at_once`
    of them at a time: one request of many answers must not fill the queue that all others wait in. Closing ends
    them all.
    """

    def __init__(
        self, opens: Sequence[Callable[[], Awaitable[Events]]], *, per_prompt: int, at_once: int
    ) -> None:
        # A caller who reads slowly holds up the engine, as with one stream, and not the memory.
        self._queue: asyncio.Queue[Sequence[Event] | BaseException | None] = asyncio.Queue(_AHEAD)
        self._per_prompt, self._turn = per_prompt, asyncio.Semaphore(at_once)
        self._usages: dict[int, Usage] = {}
        self._left = len(opens)
        self._tasks = [asyncio.ensure_future(self._drive(index, open)) for index, open in enumerate(opens)]

    async def _drive(self, index: int, open: Callable[[], Awaitable[Events]]) -> None:
        try:
            async with self._turn:
                await self._pass_on(index, await open())
        except asyncio.CancelledError:
            raise
        except Exception as error:  # carried to the reader's task, which raises it
            await self._queue.put(error)
        else:
            await self._queue.put(None)

    async def _pass_on(self, index: int, stream: Events) -> None:
        try:
            while batch := await stream.batch():
                events = [
                    msgspec.structs.replace(event, index=index)
                    for event in batch
                    if not isinstance(event, Used)
                ]
                for event in batch:
                    if isinstance(event, Used):
                        self._usages[index] = event.usage
                if events:
                    await self._queue.put(events)
        finally:
            stream.close()

    async def batch(self) -> Sequence[Event]:
        while self._left:
            item = await self._queue.get()
            if isinstance(item, BaseException):
                self.close()
                raise item
            if item is not None:
                return item
            self._left -= 1
            if not self._left and self._usages:
                return [Used(usage=self._usage())]
        return ()

    def _usage(self) -> Usage:
        firsts = [usage for index, usage in self._usages.items() if index % self._per_prompt == 0]
        cached = [usage.cached_tokens for usage in firsts if usage.cached_tokens is not None]
        return Usage(
            input_tokens=sum(usage.input_tokens for usage in firsts),
            output_tokens=sum(usage.output_tokens for usage in self._usages.values()),
            cached_tokens=sum(cached) if cached else None,
        )

    def close(self) -> None:
        self._left = 0
        for task in self._tasks:
            task.cancel()


class ForcedCall:
    """A JSON answer given back as the tool call it stands for.

    The engine was made to write arguments for the tool `name`, or, where `name` is None, an object with a
    tool's name and arguments.
    """

    def __init__(self, stream: Events, name: str | None) -> None:
        self._stream, self._name = stream, name
        self._text: dict[int, list[str]] = {}

    async def batch(self) -> Sequence[Event]:
        while batch := await self._stream.batch():
            events: list[Event] = []
            for event in batch:
                if isinstance(event, TextDelta):
                    self._text.setdefault(event.index, []).append(event.text)
                elif isinstance(event, Finished):
                    events += self._finish(event)
                else:
                    events.append(event)
            if events:
                return events
        return ()

    def _finish(self, event: Finished) -> list[Event]:
        text = "".join(self._text.pop(event.index, ()))
        if event.finish_reason in ("length", "error"):  # cut off in the middle: what there is, as text
            return [TextDelta(text=text, index=event.index), event]
        name, arguments = self._name, text
        try:
            if name is None:
                call = msgspec.json.decode(text, type=_Named)
                name, arguments = call.name, bytes(call.arguments).decode()
            else:
                msgspec.json.decode(text)
        except msgspec.DecodeError:  # an engine that ignored the schema: what it wrote, as text
            return [TextDelta(text=text, index=event.index), event]
        identity = "call_" + secrets.token_hex(12)
        return [
            ToolCallDelta(call=0, id=identity, name=name, arguments=arguments, index=event.index),
            Finished(finish_reason="tool_calls", index=event.index),
        ]

    def close(self) -> None:
        self._stream.close()


class _Named(msgspec.Struct):
    name: str
    arguments: msgspec.Raw


class Echoed:
    """A completion that begins with its prompt."""

    def __init__(self, stream: Events, prompt: str) -> None:
        self._stream, self._prompt = stream, prompt
        self._begun = False

    async def batch(self) -> Sequence[Event]:
        if not self._begun:
            self._begun = True
            return [TextDelta(text=self._prompt)]
        return await self._stream.batch()

    def close(self) -> None:
        self._stream.close()


class Told:
    """Events known beforehand, such as those of a completion of no tokens."""

    def __init__(self, events: Sequence[Event]) -> None:
        self._events: Sequence[Event] = events

    async def batch(self) -> Sequence[Event]:
        events, self._events = self._events, ()
        return events

    def close(self) -> None:
        pass

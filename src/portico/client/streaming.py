"""A streamed answer: its events, and at the end the whole of it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Protocol

from portico.client.drive_async import AsyncStream
from portico.client.drive_sync import SyncStream
from portico.client.enforced import taken
from portico.client.exchange import Exchanged
from portico.client.growing import NOTHING, Growing, Parsed
from portico.client.outputs import Output, checked
from portico.client.prices import cost
from portico.client.results import Result, Timing, of_choices, texts
from portico.dialects.assemble import Assembler
from portico.errors import (
    ClientError,
    ContextLengthExceeded,
    CutOff,
    PorticoError,
    PromptTooLong,
    ServerFailed,
)
from portico.messages import Choice, Event, ReasoningDelta, TextDelta, ToolCallDelta


class Reader(Protocol):
    """A dialect's reader of chunks."""

    done: bool
    failure: PorticoError | None

    def feed(self, data: bytes) -> Sequence[Event]: ...

    def end(self) -> Sequence[Event]: ...


class Reading:
    """What both ways of reading share: bytes in, events out, and the whole kept."""

    def __init__(
        self,
        exchanged: Exchanged,
        reader: Reader,
        *,
        began: float,
        wanted: Output[Any] | None = None,
    ) -> None:
        self._exchanged, self._reader, self._began = exchanged, reader, began
        self._wanted = wanted
        self._growing = (
            Growing(wrapped=wanted.wrapped) if wanted is not None and wanted.format is not None else None
        )
        self._parsed: Any = None
        self._assembler = Assembler()
        self._first: float | None = None
        self._ended = False
        self._waiting: deque[Event | Parsed] = deque()
        """Read and not yet given: whoever stops in the middle of a packet may go on."""

    @property
    def result(self) -> Result[Any]:
        """The whole answer, or what has come of it."""
        whole = self._assembler.result()
        found = of_choices(
            whole.choices,
            whole.usage,
            parsed=self._parsed,
            first=whole.choices[0] if whole.choices else Choice(),
            model=self._exchanged.model,
            url=self._exchanged.url,
            request_id=self._exchanged.request_id,
            timing=Timing(first_token=self._first, total=time.monotonic() - self._began),
            attempts=self._exchanged.attempts,
            headers=self._exchanged.reply.headers,
            cost=cost(self._exchanged.tariff, whole.usage),
        )
        return texts(found, taken) if self._exchanged.as_json else found

    def _read(self, data: bytes) -> list[Event | Parsed]:
        """The events in `data`; of nothing, the last ones. Raises what the server told, and CutOff."""
        try:
            events = list(self._reader.feed(data) if data else self._reader.end())
        except PorticoError as error:
            raise self._told(error) from error
        for event in events:
            if self._first is None and isinstance(event, TextDelta | ReasoningDelta | ToolCallDelta):
                self._first = time.monotonic() - self._began
            self._assembler.add(event)
        if self._reader.failure is not None and not events:
            raise self._told(self._reader.failure)
        if not data:
            self._ended = True
            self._exchanged.settle(self._assembler.result().usage)
            if not self._reader.done:
                raise self._named(CutOff())
        return self._with_values(events)

    def _with_values(self, events: list[Event]) -> list[Event | Parsed]:
        """With what the answer is so far, where it has a type."""
        if self._wanted is None:
            return [*events]
        found: list[Event | Parsed] = []
        for event in events:
            found.append(event)
            if self._growing is not None and isinstance(event, TextDelta) and event.index == 0:
                value = self._growing.add(event.text)
                if value is not NOTHING:
                    found.append(Parsed(value=value))
        if self._ended:
            self._parsed = checked(self.result, self._wanted).parsed
            found.append(Parsed(value=self._parsed, whole=True))
        return found

    def _told(self, error: PorticoError) -> ClientError:
        """What the server said in the middle of its answer."""
        if isinstance(error, ContextLengthExceeded):
            return self._named(PromptTooLong(tokens=error.tokens, limit=error.limit))
        return self._named(ServerFailed(str(error), status=error.status))

    def _named(self, error: ClientError) -> ClientError:
        if isinstance(error, CutOff):
            error.text = self.result.text
        error.url, error.request_id = self._exchanged.url, self._exchanged.request_id
        error.tried, error.attempts = self._exchanged.attempts, len(self._exchanged.attempts)
        return error


class EventStream(Reading):
    """Events, as they come. Leaving the `with` block ends the answer, and the engine stops making it."""

    def __iter__(self) -> Iterator[Event | Parsed]:
        source = self._exchanged.reply
        assert isinstance(source, SyncStream)
        while self._waiting or not self._ended:
            if self._waiting:
                yield self._waiting.popleft()
                continue
            try:
                data = source.chunk()
            except ClientError as error:
                raise self._named(error)  # noqa: B904 - the same error, and where it happened
            self._waiting.extend(self._read(data))

    def text(self) -> Iterator[str]:
        """The pieces of the text alone."""
        return (event.text for event in self if isinstance(event, TextDelta))

    def objects(self) -> Iterator[Any]:
        """The answer as a value, as it grows; the last one is of the output type."""
        return (event.value for event in self if isinstance(event, Parsed))

    def close(self) -> None:
        self._exchanged.settle(None)  # of an answer that was left, nobody knows what it took
        source = self._exchanged.reply
        assert isinstance(source, SyncStream)
        source.close()


class AsyncEventStream(Reading):
    """The same in an event loop."""

    async def __aiter__(self) -> AsyncIterator[Event | Parsed]:
        source = self._exchanged.reply
        assert isinstance(source, AsyncStream)
        while self._waiting or not self._ended:
            if self._waiting:
                yield self._waiting.popleft()
                continue
            try:
                data = await source.chunk()
            except ClientError as error:
                raise self._named(error)  # noqa: B904
            self._waiting.extend(self._read(data))

    async def text(self) -> AsyncIterator[str]:
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    async def objects(self) -> AsyncIterator[Any]:
        async for event in self:
            if isinstance(event, Parsed):
                yield event.value

    async def close(self) -> None:
        self._exchanged.settle(None)
        source = self._exchanged.reply
        assert isinstance(source, AsyncStream)
        await source.close()

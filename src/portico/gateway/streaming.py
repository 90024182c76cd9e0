"""Events to a caller, in the caller's dialect, as a stream that always ends honestly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from portico.errors import PorticoError
from portico.gateway.streams import Events, ReplyEvents
from portico.messages import Event, Finished, Result, Used
from portico.web import Account, Request


class Writer(Protocol):
    """Writes one answer in a dialect (the dialects' ChatWriter, GenerateWriter, CompletionWriter)."""

    def write(self, event: Event) -> bytes: ...

    def error(self, error: PorticoError) -> bytes: ...


async def stream(
    request: Request,
    events: Events,
    writer: Writer,
    content_type: bytes,
    end: Callable[[], Awaitable[bytes]],
) -> None:
    """Writes all events and then what `end` gives. Whatever breaks after the first byte becomes an error
    in the stream, as the dialect has it; before the first byte it is raised, for an honest status."""
    account = request.account
    write, word = request.write_now, writer.write
    count = 0

    def arrived() -> None:  # not with every chunk: reading the clock is a part of what one costs
        if count > account.chunks:
            account.arrived(count - account.chunks)

    def written(batch: Sequence[Event]) -> bytes:
        nonlocal count
        count += len(batch)
        out = []
        for event in batch:
            if type(event) is Used:
                account.usage = event.usage
            elif type(event) is Finished:
                account.finish = event.finish_reason
            out.append(word(event))
        return out[0] if len(out) == 1 else b"".join(out)

    def passed(batch: Sequence[Event]) -> bool:
        chunk = written(batch)
        return not chunk or write(chunk)  # type: ignore[misc]

    try:
        batch = await events.batch()
        account.arrived(0)
        await request.begin(content_type)
        while batch:
            if chunk := written(batch):
                await request.write(chunk)
            if write is not None and isinstance(events, ReplyEvents):
                await events.pour(passed)
            batch = await events.batch()
        arrived()
        await request.end(await end())
    except PorticoError as error:
        if not request.started:
            raise
        account.failed(error)
        await request.end(writer.error(error))
    except asyncio.CancelledError:
        if request.gone or not request.started:
            raise
        account.failed(request.cut_by)
        events.close()
        await request.break_off(writer.error(request.cut_by))
    finally:
        arrived()
        events.close()


def settle(account: Account, result: Result) -> None:
    """Takes a whole answer into the account."""
    if not account.first:
        account.arrived()
    account.usage = result.usage
    account.finish = result.choices[0].finish_reason if result.choices else ""


class Stamps:
    """UTC times as RFC 3339 with nanoseconds; the part that changes once a second is kept."""

    __slots__ = ("_prefix", "_second")

    def __init__(self) -> None:
        self._second = ""
        self._prefix = ""

    def now(self) -> str:
        digits = str(time.time_ns())
        second = digits[:-9]
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(int(second)))
        return f"{self._prefix}{digits[-9:]}Z"

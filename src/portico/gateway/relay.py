"""OpenAI in, OpenAI out: the engine's bytes go to the caller as they are.

Read from them are only the usage, the end and how many chunks there were; a usage chunk that the caller did
not ask for is taken out again.
"""

from __future__ import annotations

import asyncio
import re

import msgspec

from portico.dialects import openai
from portico.dialects.framing import SSE_DONE, SSEReader, sse
from portico.engines import Replica
from portico.errors import EngineError, ShuttingDown, UpstreamClosed
from portico.gateway.inference import read_refusal
from portico.gateway.streams import obituary
from portico.messages import Usage
from portico.web import Reply, Request

SSE_TYPE = b"text/event-stream; charset=utf-8"
_USAGE = re.compile(rb'"usage"\s*:\s*\{')
_EVENT_END = b"\n\n"


class _Details(msgspec.Struct):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Tail(msgspec.Struct):
    """The parts of a reply or chunk that counting needs."""

    usage: _Usage | None = None
    choices: list[msgspec.Raw] = []


_tail = msgspec.json.Decoder(_Tail)


def read_usage(body: bytes) -> tuple[Usage | None, bool]:
    """(usage, whether there are choices beside it) of a reply or a chunk; nothing, if it cannot be read."""
    try:
        tail = _tail.decode(body)
    except msgspec.DecodeError:
        return None, True
    usage = tail.usage
    if usage is None:
        return None, bool(tail.choices)
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    return (
        Usage(
            input_tokens=usage.prompt_tokens,
            output_tokens=usage.completion_tokens or 0,
            cached_tokens=prompt.cached_tokens if prompt else None,
            reasoning_tokens=completion.reasoning_tokens if completion else None,
        ),
        bool(tail.choices),
    )


async def relay(
    request: Request, replica: Replica, path: str, body: bytes, *, stream: bool, usage: bool
) -> None:
    """Sends `body` to the engine and its reply to the caller. `usage`: the caller asked for a usage chunk.

    Raises the engine's error, read, as long as nothing has been answered.
    """
    try:
        reply = await replica.upstream.request("POST", path, body)
    except UpstreamClosed as error:
        raise await obituary(replica, error) from error
    try:
        if reply.status != 200:
            raise read_refusal(replica, reply.status, await reply.read())
        if stream:
            await _stream(request, replica, reply, keep_usage=usage)
        else:
            await _whole(request, replica, reply)
    finally:
        reply.close()


async def _whole(request: Request, replica: Replica, reply: Reply) -> None:
    try:
        body = await reply.read()
    except UpstreamClosed as error:
        raise await obituary(replica, error) from error
    request.account.arrived()
    request.account.usage, _ = read_usage(body)
    await request.answer(200, body)


async def _stream(request: Request, replica: Replica, reply: Reply, *, keep_usage: bool) -> None:
    account = request.account
    chunks = Chunks(keep_usage=keep_usage)
    began = False
    try:
        while data := await reply.chunk():
            out = chunks.feed(data)
            account.arrived(chunks.count)
            if not began:
                # Only now: an engine that breaks before its first byte still gives an honest status.
                await request.begin(SSE_TYPE)
                began = True
            if out:
                await request.write(out)
    except EngineError as error:
        if not began:
            raise
        if isinstance(error, UpstreamClosed):
            final: EngineError = await obituary(replica, error)
        else:
            final = error
        account.finish = "error"
        return await request.end(sse(openai.error_body(final)))
    except asyncio.CancelledError:
        if request.gone or not began:
            raise
        account.finish = "error"
        return await request.end(sse(openai.error_body(ShuttingDown())))
    account.usage = chunks.usage
    if not began:
        raise UpstreamClosed(url=replica.upstream.url)
    await request.end(chunks.rest() if chunks.done else chunks.rest() + SSE_DONE)


class Chunks:
    """Passes whole events on; finds the usage among them.

    Events that are cut by a packet's end wait for their rest: half an event is of no use to a caller, and an
    error event could not be put behind it.
    """

    __slots__ = ("_keep_usage", "_reader", "_tail", "count", "done", "usage")

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._tail = b""
        self._reader: SSEReader | None = None
        self.count = 0
        self.done = False
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on; `count` is then the number of events in them."""
        if self._reader is not None or b"\r" in data:
            return self._reframed(data)
        if self._tail:
            data = self._tail + data
            self._tail = b""
        if not data.endswith(_EVENT_END):
            cut = data.rfind(_EVENT_END)
            if cut < 0:
                self._tail, self.count = data, 0
                return b""
            self._tail, data = data[cut + 2 :], data[: cut + 2]
        self.count = data.count(_EVENT_END)
        if b"[DONE]" in data:
            self.done = True
        if b'"usage"' in data and _USAGE.search(data):
            return b"".join([self._counted(event) for event in data.split(_EVENT_END) if event])
        return data

    def rest(self) -> bytes:
        """What was never ended by a blank line."""
        tail, self._tail = self._tail, b""
        return tail + _EVENT_END if tail.strip() else b""

    def _counted(self, event: bytes) -> bytes:
        if event.startswith(b"data:") and _USAGE.search(event):
            usage, choices = read_usage(event[5:])
            if usage is not None:
                self.usage = usage
                if not choices and not self._keep_usage:
                    return b""
        return event + _EVENT_END

    def _reframed(self, data: bytes) -> bytes:
        """A server that ends lines with CR LF: each event is read and written anew."""
        if self._reader is None:
            self._reader = SSEReader()
            data, self._tail = self._tail + data, b""
        payloads = self._reader.feed(data)
        self.count = len(payloads)
        self.done = self.done or b"[DONE]" in payloads
        return b"".join([self._counted(b"data: " + payload) for payload in payloads])

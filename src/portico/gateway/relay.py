"""OpenAI in, OpenAI out: the engine's bytes go to the caller as they are.

Read from them are only the usage, the end and how many chunks there were; a usage chunk that the caller did
not ask for is taken out again.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from portico.dialects import openai
from portico.dialects.framing import SSE_DONE, SSEReader, is_one_event, sse
from portico.engines import Replica
from portico.errors import PorticoError, UpstreamClosed, UpstreamFailed, UpstreamUnreachable
from portico.gateway.inference import read_refusal
from portico.gateway.streams import judged, obituary
from portico.messages import Usage
from portico.web import Reply, Request

SSE_TYPE = b"text/event-stream; charset=utf-8"
_EVENT_END = b"\n\n"
_DONE = b"[DONE]"


class _Details(msgspec.Struct, gc=False):
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None


class _Call(msgspec.Struct, gc=False):
    index: int | None = None


class _Said(msgspec.Struct, gc=False):
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None


class _Choice(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    delta: _Said | None = None
    message: _Said | None = None


class Glance(msgspec.Struct, gc=False):
    """The parts of a reply or of a chunk that relaying looks at."""

    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    error: Any = None

    @property
    def finish_reason(self) -> str | None:
        return self.choices[-1].finish_reason if self.choices else None

    @property
    def lacks_a_name(self) -> bool:
        """Reasoning stands under one of its two names only, or a piece of a tool call has no index."""
        for choice in self.choices or ():
            said = choice.delta or choice.message
            if said is None:
                continue
            if said.reasoning != said.reasoning_content:
                return True
            calls = said.tool_calls
            if calls and choice.delta is not None and any(call.index is None for call in calls):
                return True
        return False

    def counted(self) -> Usage | None:
        usage = self.usage
        if usage is None:
            return None
        prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
        return Usage(
            input_tokens=usage.prompt_tokens or 0,
            output_tokens=usage.completion_tokens or 0,
            cached_tokens=prompt.cached_tokens if prompt else None,
            reasoning_tokens=completion.reasoning_tokens if completion else None,
        )


_glance: msgspec.json.Decoder[Glance | None] = msgspec.json.Decoder(Glance | None)


def glance(body: bytes) -> Glance | None:
    """What a reply or a chunk says; None for `null`, which llama.cpp sends. Raises UpstreamFailed for what
    cannot be read: it must not reach a caller as if it were an answer."""
    try:
        return _glance.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UpstreamFailed(f"The engine sent what cannot be read: {error}.", status=502) from None


def mended(body: bytes) -> bytes:
    """The same reply or chunk with its reasoning under both names that clients read (vLLM writes one,
    DeepSeek's convention is the other), and with the index that OpenAI's clients need in a call's pieces."""
    reply = msgspec.json.decode(body)
    for choice in reply["choices"]:
        said = choice.get("delta") or choice.get("message") or {}
        thought = said.get("reasoning") or said.get("reasoning_content")
        if thought is not None:
            said["reasoning"] = said["reasoning_content"] = thought
        for index, call in enumerate(said.get("tool_calls") or ()):
            if "delta" in choice:
                call["index"] = index if call.get("index") is None else call["index"]
    return msgspec.json.encode(reply)


async def relay(
    request: Request, replica: Replica, path: str, body: bytes, *, stream: bool, usage: bool
) -> None:
    """Sends `body` to the engine, when it is its turn, and its reply to the caller. `usage`: the caller asked for
    a usage chunk.

    Raises the engine's error, read, as long as nothing has been answered.
    """
    turns = replica.turns
    if turns is not None:
        await turns.acquire()
    reply: Reply | None = None
    try:
        try:
            reply = await replica.upstream.request("POST", path, body)
        except (UpstreamClosed, UpstreamUnreachable) as error:
            raise await obituary(replica, error) from error
        if reply.status != 200:
            raise read_refusal(replica, reply.status, await reply.read(), reply.header(b"retry-after"))
        if stream:
            await _stream(request, replica, reply, keep_usage=usage)
        else:
            await _whole(request, replica, reply)
    finally:
        if reply is not None:
            reply.close()
        if turns is not None:
            turns.release()


async def _whole(request: Request, replica: Replica, reply: Reply) -> None:
    try:
        body = await reply.read()
    except UpstreamClosed as error:
        raise await obituary(replica, error) from error
    seen = glance(body)
    if seen is None or seen.error is not None:
        raise openai.read_error(502, body)
    account = request.account
    account.arrived()
    account.usage = seen.counted()
    await request.answer(200, mended(body) if seen.lacks_a_name else body)


async def _stream(request: Request, replica: Replica, reply: Reply, *, keep_usage: bool) -> None:
    account = request.account
    chunks = Chunks(keep_usage=keep_usage)
    feed, write = chunks.feed, request.write_now
    began = False

    def passed(data: bytes) -> bool:
        out = feed(data)
        return (not out or write(out)) and chunks.failure is None  # type: ignore[misc]

    try:
        while True:
            if began and write is not None:
                await reply.pour(passed)
                if chunks.failure is not None:
                    raise chunks.failure
            data = await reply.chunk()
            out = feed(data) if data else chunks.end()
            if out:
                if not began:
                    # Only now: an engine that breaks before its first byte still gives an honest status.
                    account.arrived(chunks.count)
                    await request.begin(SSE_TYPE)
                    began = True
                await request.write(out)
            if chunks.failure is not None:
                raise chunks.failure
            if not data:
                break
        if not (chunks.done or chunks.finished):
            raise UpstreamClosed(url=replica.upstream.url)
    except PorticoError as error:
        gone = isinstance(error, UpstreamClosed)
        final = await obituary(replica, error) if gone else judged(replica, error)  # type: ignore[arg-type]
        if not began:
            raise final from error
        account.failed(final)
        return await request.end(sse(openai.error_body(final)))
    except asyncio.CancelledError:
        if request.gone or not began:
            raise
        account.failed(request.cut_by)
        reply.close()
        return await request.break_off(sse(openai.error_body(request.cut_by)))
    finally:
        if began:  # once, not with every chunk: reading the clock is a part of what passing one on costs
            account.arrived(chunks.count - account.chunks)
            account.usage = chunks.usage
    await request.end(b"" if chunks.done else SSE_DONE)


class Chunks:
    """Passes whole events on as they are; notes the usage and the end among them.

    Events that are cut by a packet's end wait for their rest: half an event is of no use to a caller, and an
    error event could not be put behind it. Comments are not passed on.
    """

    __slots__ = ("_frames", "_keep_usage", "count", "done", "failure", "finished", "usage")

    def __init__(self, *, keep_usage: bool) -> None:
        self._keep_usage = keep_usage
        self._frames = SSEReader()
        self.count = 0
        """Events seen so far."""
        self.done = False
        self.finished = False
        self.failure: PorticoError | None = None
        """What is wrong with the stream, once all before it has been passed on."""
        self.usage: Usage | None = None

    def feed(self, data: bytes) -> bytes:
        """The bytes to pass on."""
        # What engines send nearly always: one whole event in a packet, with nothing in it to change.
        if self._frames.empty and is_one_event(data):
            try:
                seen = _glance.decode(data[6:])
            except (msgspec.DecodeError, UnicodeDecodeError):
                seen = None
            if seen is not None and seen.usage is None and seen.error is None and not seen.lacks_a_name:
                self.count += 1
                choices = seen.choices
                if choices and choices[-1].finish_reason is not None:
                    self.finished = True
                return data
        return self._passed(self._frames.feed(data))

    def end(self) -> bytes:
        """The same for an event whose closing blank line never came."""
        return self._passed(self._frames.end())

    def _passed(self, payloads: list[bytes]) -> bytes:
        out = []
        for payload in payloads:
            if payload == _DONE:
                self.done = True
                out.append(SSE_DONE)
                continue
            try:
                payload = self._looked_at(payload)
            except PorticoError as error:
                self.failure = error
                break
            if payload:
                out += (b"data: ", payload, _EVENT_END)
        self.count += len(payloads)
        return b"".join(out)

    def _looked_at(self, payload: bytes) -> bytes:
        seen = glance(payload)
        if seen is None:
            return b""
        if seen.error is not None:
            raise openai.read_error(500, payload)
        if seen.finish_reason is not None:
            self.finished = True
        if seen.usage is not None:
            self.usage = seen.counted()
            if not seen.choices and not self._keep_usage:
                return b""
        return mended(payload) if seen.lacks_a_name else payload

"""What an engine sends back: chunks of a stream into events, whole replies into results."""

from __future__ import annotations

import json
from typing import Any, NoReturn, TypeVar

import msgspec
from msgspec import Struct

from portico.dialects.framing import SSEReader
from portico.dialects.openai import logprobs
from portico.dialects.openai.errors import told_error
from portico.errors import PorticoError, UpstreamFailed
from portico.messages import (
    Choice,
    Event,
    Finished,
    FinishReason,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    Used,
)

# ---- shapes: only what is used, so that the rest costs nothing -----------------------------------


class _PromptDetails(Struct, gc=False):
    cached_tokens: int | None = None


class _OutputDetails(Struct, gc=False):
    reasoning_tokens: int | None = None


class _Usage(Struct, gc=False):
    prompt_tokens: int | None = 0
    completion_tokens: int | None = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _OutputDetails | None = None


class _Function(Struct, gc=False):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class _Call(Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Said(Struct, gc=False):
    """A chunk's delta, or a whole reply's message."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    function_call: _Function | None = None
    refusal: str | None = None


class _ChatChoice(Struct, gc=False):
    index: int = 0
    delta: _Said | None = None
    message: _Said | None = None
    finish_reason: str | None = None
    logprobs: logprobs.Content | None = None


class _TextChoice(Struct, gc=False):
    index: int = 0
    text: str | None = None
    finish_reason: str | None = None
    logprobs: logprobs.Columns | None = None


class _ChatReply(Struct, gc=False):
    choices: list[_ChatChoice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


class _TextReply(Struct, gc=False):
    choices: list[_TextChoice] | None = None
    usage: _Usage | None = None
    error: msgspec.Raw | None = None


_chat = msgspec.json.Decoder(_ChatReply | None)
_text = msgspec.json.Decoder(_TextReply | None)

T = TypeVar("T")
C = TypeVar("C", _ChatChoice, _TextChoice)

_FINISH: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "abort": "error",
    "error": "error",
}


def _finish(reason: str) -> FinishReason:
    return _FINISH.get(reason, "stop")


def _used(usage: _Usage) -> Usage:
    prompt, output = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        input_tokens=usage.prompt_tokens or 0,
        output_tokens=usage.completion_tokens or 0,
        cached_tokens=prompt.cached_tokens if prompt else None,
        reasoning_tokens=output.reasoning_tokens if output else None,
    )


# ---- streams -----------------------------------------------------------------------------------


class ChunkReader:
    """Reads a streamed chat. `feed` gives the events that became whole, however the bytes are split; it
    raises UpstreamFailed for an error in the stream.

    done: the reply is whole. That is so once [DONE] came, and also once every choice that began has
    finished: some servers forget the [DONE].
    """

    def __init__(self) -> None:
        self.done = False
        self.failure: PorticoError | None = None
        self._frames = SSEReader()
        self._running: set[int] = set()  # choices that began and have not finished
        self._finished: set[int] = set()
        self._usage: Usage | None = None

    def feed(self, data: bytes) -> list[Event]:
        return self._events(self._frames.feed(data))

    def end(self) -> list[Event]:
        """What the last bytes hold, when their closing blank line never came."""
        return self._events(self._frames.end())

    def _events(self, payloads: list[bytes]) -> list[Event]:
        """What was said before an error is given first, also when both came in one packet; `failure` is then
        the error, which the next call raises."""
        if self.failure is not None:
            raise self.failure
        events: list[Event] = []
        for payload in payloads:
            try:
                if payload == b"[DONE]":
                    self.done = True
                elif payload:
                    self._read(payload, events)
            except PorticoError as error:
                if not events:
                    raise
                self.failure = error
                break
        return events

    def _read(self, payload: bytes, events: list[Event]) -> None:
        try:
            chunk = _chat.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            chunk = _decode(_chat, payload)  # says what is wrong with it
        if chunk is None:  # llama.cpp's `data: null`
            return
        if chunk.error is not None or chunk.choices is None:
            _refuse(payload)
        for choice in chunk.choices or ():
            index = choice.index
            delta = choice.delta
            if delta is not None:
                _say(choice, delta, index, events)
            self._state(index, choice.finish_reason, events)
        if chunk.usage is not None:
            self._count(chunk.usage, bool(chunk.choices), events)

    def _state(self, index: int, reason: str | None, events: list[Event]) -> None:
        if reason:
            self._finished.add(index)
            self._running.discard(index)
            self.done = not self._running
            events.append(Finished(finish_reason=_finish(reason), index=index))
        elif index not in self._running and index not in self._finished:
            self._running.add(index)
            self.done = False

    def _count(self, usage: _Usage, has_choices: bool, events: list[Event]) -> None:
        """The usage of a chunk of its own, or of the last chunk that has choices. The running counts that
        vLLM can send with every chunk are not the whole request's."""
        if has_choices and not self.done:
            return
        used = _used(usage)
        if used != self._usage:
            self._usage = used
            events.append(Used(usage=used))


class CompletionChunkReader(ChunkReader):
    """Reads a streamed text completion."""

    def _read(self, payload: bytes, events: list[Event]) -> None:
        chunk = _decode(_text, payload)
        if chunk is None:
            return
        if chunk.error is not None or chunk.choices is None:
            _refuse(payload)
        for choice in chunk.choices or ():
            if choice.text or choice.logprobs is not None:
                columns = choice.logprobs
                read = () if columns is None else logprobs.read_columns(columns)
                if choice.text or read:
                    events.append(TextDelta(text=choice.text or "", index=choice.index, logprobs=read))
            self._state(choice.index, choice.finish_reason, events)
        if chunk.usage is not None:
            self._count(chunk.usage, bool(chunk.choices), events)


def _say(choice: _ChatChoice, delta: _Said, index: int, events: list[Event]) -> None:
    """The events of one delta, in the order in which a model writes: reasoning, text, calls. Log
    probabilities go with the text, and with the reasoning where there is no text."""
    reasoning = delta.reasoning or delta.reasoning_content
    text = delta.content or delta.refusal
    if choice.logprobs is None or choice.logprobs.content is None:
        if reasoning:
            events.append(ReasoningDelta(text=reasoning, index=index))
        if text:
            events.append(TextDelta(text=text, index=index))
    else:
        read = logprobs.read(choice.logprobs.content)
        if reasoning:
            events.append(ReasoningDelta(text=reasoning, index=index, logprobs=() if text else read))
        end_of_turn = choice.finish_reason == "stop" and not text  # vLLM tells the end's own token too
        if text or (read and not reasoning and not end_of_turn):
            events.append(TextDelta(text=text or "", index=index, logprobs=read))
    if delta.tool_calls:
        for place, call in enumerate(delta.tool_calls):
            events.append(_piece(call, place, index))
    if delta.function_call is not None:
        events.append(_piece(_Call(function=delta.function_call), 0, index))


def _piece(call: _Call, place: int, index: int) -> ToolCallDelta:
    function = call.function or _Function()
    return ToolCallDelta(
        call=call.index if call.index is not None else place,
        id=call.id or "",
        name=function.name or "",
        arguments=_arguments(function.arguments),
        index=index,
    )


def _arguments(arguments: str | dict[str, Any] | None) -> str:
    if isinstance(arguments, dict):
        return msgspec.json.encode(arguments).decode()
    return arguments or ""


# ---- whole replies -------------------------------------------------------------------------------


def read_result(body: bytes) -> Result:
    """A whole chat. Raises UpstreamFailed for what is none."""
    reply = _whole(_chat, body)
    return Result(
        choices=tuple(_choice(choice) for choice in _ordered(reply.choices)),
        usage=_used(reply.usage) if reply.usage else Usage(),
    )


def read_completion_result(body: bytes) -> Result:
    """A whole text completion."""
    reply = _whole(_text, body)
    return Result(
        choices=tuple(
            Choice(
                index=choice.index,
                text=choice.text or "",
                finish_reason=_finish(choice.finish_reason or "stop"),
                logprobs=logprobs.read_columns(choice.logprobs) if choice.logprobs else (),
            )
            for choice in _ordered(reply.choices)
        ),
        usage=_used(reply.usage) if reply.usage else Usage(),
    )


def _choice(choice: _ChatChoice) -> Choice:
    said = choice.message or choice.delta or _Said()
    calls = list(said.tool_calls or ())
    if said.function_call is not None:
        calls.append(_Call(function=said.function_call))
    pieces = [_piece(call, place, choice.index) for place, call in enumerate(calls)]
    text = said.content or said.refusal or ""
    return Choice(
        index=choice.index,
        text=text,
        reasoning=said.reasoning or said.reasoning_content or "",
        tool_calls=tuple(ToolCall(id=it.id, name=it.name, arguments=it.arguments) for it in pieces),
        finish_reason=_finish(choice.finish_reason or "stop"),
        logprobs=logprobs.of_text(logprobs.read(choice.logprobs.content), text) if choice.logprobs else (),
    )


def _ordered(choices: list[C] | None) -> list[C]:
    return sorted(choices or (), key=lambda choice: choice.index)


# ---- what is not as it should be -----------------------------------------------------------------


def _decode(decoder: msgspec.json.Decoder[T], payload: bytes) -> T:
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        _raise(payload, error)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass
    except RecursionError:
        raise _no_json(payload) from None
    try:
        return decoder.decode(_mended(payload))
    except (ValueError, RecursionError):
        raise _no_json(payload) from None


def _mended(payload: bytes) -> bytes:
    """JSON whose texts were cut in the middle of a character: an engine that writes token by token may
    send half a surrogate pair or bytes that are no UTF-8. The halves become U+FFFD, as they would on a
    screen; the stream goes on. Raises ValueError for what is no JSON even so."""
    text = json.dumps(json.loads(payload.decode("utf-8", "replace")), ensure_ascii=False)
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()


def _whole(decoder: msgspec.json.Decoder[T | None], body: bytes) -> T:
    reply = _decode(decoder, body)
    if reply is None or (getattr(reply, "error", None) is not None):
        _raise(body)
    return reply


def _refuse(payload: bytes) -> None:
    """Raises the error that a chunk without choices may be; such a chunk may also say nothing at all."""
    told = told_error(payload)
    if told is not None:
        raise told


def _no_json(payload: bytes) -> UpstreamFailed:
    return UpstreamFailed(f"The engine sent what is not JSON: {_shown(payload)}", status=502)


def _raise(payload: bytes, error: Exception | None = None) -> NoReturn:
    """The engine's own error, if the payload is one; else, that its reply has a shape nobody knows."""
    told: PorticoError | None = told_error(payload)
    if told is not None:
        raise told
    reason = f": {error}" if error else ""
    raise UpstreamFailed(
        f"The engine sent a reply of unknown shape{reason}: {_shown(payload)}", status=502
    ) from None


def _shown(payload: bytes) -> str:
    return payload[:200].decode("utf-8", "replace")

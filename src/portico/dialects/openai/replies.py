"""Replies to callers who speak OpenAI: chunks of a stream, and whole bodies.

A chunk is put together from prepared bytes, because thousands are written a second: only the text itself is
encoded. Whole bodies are structs.
"""

from __future__ import annotations

import secrets
import time
from typing import Any

import msgspec
from msgspec import UNSET, Struct, UnsetType

from portico.dialects.calls import new_id
from portico.dialects.framing import SSE_DONE, sse
from portico.dialects.openai import logprobs
from portico.dialects.openai.errors import error_body
from portico.errors import PorticoError, UpstreamFailed
from portico.messages import (
    Choice,
    Event,
    Finished,
    FinishReason,
    Logprob,
    ReasoningDelta,
    Result,
    TextDelta,
    ToolCall,
    ToolCallDelta,
    Usage,
    Used,
)

_encode = msgspec.json.Encoder().encode

# "error" ends a stream with an error of its own; in a whole body it would have been a status.
_FINISH: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "error": "stop",
}

# ---- shapes --------------------------------------------------------------------------------------


class _CachedTokens(Struct):
    cached_tokens: int


class _ReasoningTokens(Struct):
    reasoning_tokens: int


class UsageBody(Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: _CachedTokens | UnsetType = UNSET
    completion_tokens_details: _ReasoningTokens | UnsetType = UNSET


class _Function(Struct):
    name: str | UnsetType = UNSET
    arguments: str = ""


class _Call(Struct):
    id: str
    function: _Function
    type: str = "function"


class _CallPiece(Struct):
    index: int
    function: _Function
    id: str | UnsetType = UNSET
    type: str | UnsetType = UNSET


class _Message(Struct):
    content: str | None
    role: str = "assistant"
    refusal: None = None
    reasoning: str | UnsetType = UNSET
    reasoning_content: str | UnsetType = UNSET
    tool_calls: list[_Call] | UnsetType = UNSET


class _ChatChoice(Struct):
    index: int
    message: _Message
    logprobs: logprobs.Content | None
    finish_reason: str


class _TextChoice(Struct):
    index: int
    text: str
    logprobs: logprobs.WrittenColumns | None
    finish_reason: str


class _Body(Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[_ChatChoice] | list[_TextChoice]
    usage: UsageBody


def usage_body(usage: Usage) -> UsageBody:
    return UsageBody(
        prompt_tokens=usage.input_tokens,
        completion_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
        prompt_tokens_details=UNSET
        if usage.cached_tokens is None
        else _CachedTokens(cached_tokens=usage.cached_tokens),
        completion_tokens_details=UNSET
        if usage.reasoning_tokens is None
        else _ReasoningTokens(reasoning_tokens=usage.reasoning_tokens),
    )


# ---- writers -------------------------------------------------------------------------------------


class _Writer:
    """Writes one reply: all its chunks have one id and one time.

    include_usage: the caller asked for a chunk with the usage. It is written by `end`, as the last one
    before [DONE], whenever the usage came. numbered: log probabilities name tokens by their numbers.
    id, created: given by tests; else made here.
    """

    prefix: str  # of ids
    kind: str  # `object` of a whole body
    chunk_kind: str  # `object` of a chunk

    def __init__(
        self,
        model: str,
        *,
        include_usage: bool = False,
        numbered: bool = False,
        id: str | None = None,
        created: int | None = None,
    ) -> None:
        self._model, self._numbered = model, numbered
        self._id = id or f"{self.prefix}-{secrets.token_hex(12)}"
        self._created = int(time.time()) if created is None else created
        self._head = b'data: {"id":%b,"object":"%b","created":%d,"model":%b,"choices":[' % (
            _encode(self._id),
            self.chunk_kind.encode(),
            self._created,
            _encode(model),
        )
        self._tail = b'],"usage":null}\n\n' if include_usage else b"]}\n\n"
        self._text_tail = self._text_end + self._tail
        self._text_heads: dict[int, bytes] = {}  # of the choices that have begun
        self._include_usage = include_usage
        self._usage: Usage | None = None
        self._failed = False

    _text_end: bytes  # what follows the text of a chunk without log probabilities

    def write(self, event: Event) -> bytes:
        """The chunks of one event, none for the usage. Chunks of a choice begin with one for its role."""
        if type(event) is TextDelta and not event.logprobs:
            head = self._text_heads.get(event.index)
            if head is not None:
                return head + _encode(event.text) + self._text_tail
        return self._write(event)

    def end(self) -> bytes:
        """What ends a stream. Nothing, if an error has ended it."""
        if self._failed:
            return b""
        if not self._include_usage or self._usage is None:
            return SSE_DONE
        usage = self._head + b'],"usage":' + _encode(usage_body(self._usage)) + b"}\n\n"
        return usage + SSE_DONE

    def error(self, error: PorticoError) -> bytes:
        """An error in the middle of a stream. The stream ends with it."""
        self._failed = True
        return sse(error_body(error))

    def _write(self, event: Event) -> bytes:
        raise NotImplementedError

    def _said(self, found: tuple[Logprob, ...]) -> tuple[Logprob, ...]:
        return logprobs.numbered(found) if self._numbered else found

    def _aborted(self) -> bytes:
        return self.error(UpstreamFailed("The engine aborted this answer.", status=500))

    def _body(self, choices: list[_ChatChoice] | list[_TextChoice], usage: Usage) -> bytes:
        return _encode(
            _Body(
                id=self._id,
                object=self.kind,
                created=self._created,
                model=self._model,
                choices=choices,
                usage=usage_body(usage),
            )
        )


class ChatWriter(_Writer):
    """Writes a chat: `chat.completion.chunk` events, or one `chat.completion`."""

    prefix, kind, chunk_kind = "chatcmpl", "chat.completion", "chat.completion.chunk"
    _text_end = b'},"logprobs":null,"finish_reason":null}'

    def __init__(self, model: str, **how: Any) -> None:
        super().__init__(model, **how)
        self._calls: set[tuple[int, int]] = set()

    def whole(self, result: Result) -> bytes:
        return self._body(
            [_chat_choice(choice, self._said(choice.logprobs)) for choice in result.choices], result.usage
        )

    def _write(self, event: Event) -> bytes:
        if isinstance(event, Used):
            self._usage = event.usage
            return b""
        role = b"" if event.index in self._text_heads else self._begin(event.index)
        match event:
            case TextDelta():
                delta = b'{"content":%b}' % _encode(event.text)
                return role + self._chunk(
                    event.index, delta, _encode(logprobs.write(self._said(event.logprobs)))
                )
            case ReasoningDelta():
                text = _encode(event.text)
                delta = b'{"reasoning":%b,"reasoning_content":%b}' % (text, text)
                return role + self._chunk(
                    event.index, delta, _encode(logprobs.write(self._said(event.logprobs)))
                )
            case ToolCallDelta():
                return role + self._chunk(event.index, b'{"tool_calls":[%b]}' % self._piece(event))
            case Finished(finish_reason="error"):
                return self._aborted()
            case Finished():
                reason = _FINISH[event.finish_reason].encode()
                return role + self._chunk(event.index, b"{}", finish=b'"%b"' % reason)

    def _begin(self, index: int) -> bytes:
        self._text_heads[index] = self._head + b'{"index":%d,"delta":{"content":' % index
        return self._chunk(index, b'{"role":"assistant","content":""}')

    def _chunk(self, index: int, delta: bytes, probs: bytes = b"null", finish: bytes = b"null") -> bytes:
        choice = b'{"index":%d,"delta":%b,"logprobs":%b,"finish_reason":%b}' % (index, delta, probs, finish)
        return self._head + choice + self._tail

    def _piece(self, event: ToolCallDelta) -> bytes:
        """The first piece of a call has its id, type and name; the others only arguments."""
        piece = _CallPiece(index=event.call, function=_Function(arguments=event.arguments))
        if event.name:
            piece.function.name = event.name
        if event.id:
            piece.id = event.id
        if (event.index, event.call) not in self._calls:
            self._calls.add((event.index, event.call))
            piece.id, piece.type = event.id or new_id(), "function"
        return _encode(piece)


class CompletionWriter(_Writer):
    """Writes a text completion: `text_completion` events, or one such body. Log probabilities take their
    old shape in columns."""

    prefix, kind, chunk_kind = "cmpl", "text_completion", "text_completion"
    _text_end = b',"logprobs":null,"finish_reason":null}'

    def __init__(self, model: str, **how: Any) -> None:
        super().__init__(model, **how)
        self._offsets: dict[int, int] = {}  # characters written of each choice

    def whole(self, result: Result) -> bytes:
        return self._body(
            [
                _TextChoice(
                    index=choice.index,
                    text=choice.text,
                    logprobs=logprobs.write_columns(self._said(choice.logprobs), 0),
                    finish_reason=_FINISH[choice.finish_reason],
                )
                for choice in result.choices
            ],
            result.usage,
        )

    def _write(self, event: Event) -> bytes:
        match event:
            case Used():
                self._usage = event.usage
            case TextDelta():
                return self._text(event)
            case Finished(finish_reason="error"):
                return self._aborted()
            case Finished():
                reason = b'"%b"' % _FINISH[event.finish_reason].encode()
                return self._chunk(event.index, b'""', b"null", reason)
            case ReasoningDelta() | ToolCallDelta():
                pass  # a text completion has neither
        return b""

    def _text(self, event: TextDelta) -> bytes:
        index = event.index
        if not event.logprobs:
            self._text_heads[index] = self._head + b'{"index":%d,"text":' % index
            return self._chunk(index, _encode(event.text), b"null", b"null")
        offset = self._offsets.get(index, 0)
        self._offsets[index] = offset + sum(len(it.token) for it in event.logprobs)
        columns = _encode(logprobs.write_columns(self._said(event.logprobs), offset))
        return self._chunk(index, _encode(event.text), columns, b"null")

    def _chunk(self, index: int, text: bytes, probs: bytes, finish: bytes) -> bytes:
        choice = b'{"index":%d,"text":%b,"logprobs":%b,"finish_reason":%b}' % (index, text, probs, finish)
        return self._head + choice + self._tail


# ---- whole ---------------------------------------------------------------------------------------


def _chat_choice(choice: Choice, said: tuple[Logprob, ...]) -> _ChatChoice:
    # null and not "" beside calls: some clients show an empty bubble for "".
    message = _Message(content=None if choice.tool_calls and not choice.text else choice.text)
    if choice.reasoning:
        message.reasoning = message.reasoning_content = choice.reasoning
    if choice.tool_calls:
        message.tool_calls = [_whole_call(call) for call in choice.tool_calls]
    return _ChatChoice(
        index=choice.index,
        message=message,
        logprobs=logprobs.write(said),
        finish_reason=_FINISH[choice.finish_reason],
    )


def _whole_call(call: ToolCall) -> _Call:
    return _Call(id=call.id or new_id(), function=_Function(name=call.name, arguments=call.arguments))

"""Replies to callers who speak Ollama: lines of a stream, and whole bodies.

A line is put together from prepared bytes, because thousands are written a second: only the text itself is
encoded. Last lines and whole bodies are structs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from portico.dialects.calls import new_id
from portico.dialects.ollama import wire
from portico.dialects.ollama.conversation import write_call
from portico.dialects.ollama.errors import error_body
from portico.errors import PorticoError, UpstreamFailed
from portico.messages import (
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
    Value,
)

_encode = msgspec.json.Encoder().encode

_DONE: dict[FinishReason, str] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "stop",  # Ollama has no word for it; clients look at the calls
    "error": "stop",
}


class Timing(Value, frozen=True, kw_only=True):
    """Nanoseconds. Written as at least 1: Ollama's clients take a missing or zero duration for a fault."""

    total: int = 0
    load: int = 0
    prompt: int = 0
    eval: int = 0


class _Writer:
    """Writes one reply. `created_at` is RFC 3339 in UTC, made by the caller, who can keep it for a while.

    model: as the caller asked for it, not as we call it.
    """

    _middle: bytes  # between the time and a text
    _text_end: bytes  # what follows a text
    _thought: bytes  # between the time and a thought
    _calls: bytes  # between the time and tool calls

    def __init__(self, model: str) -> None:
        self._model = model
        self._prefix = b'{"model":' + _encode(model) + b',"created_at":"'
        self._pieces: dict[int, ToolCall] = {}  # tool calls as far as they have come
        self._finish_reason: FinishReason = "stop"
        self._usage = Usage()
        self._failed = False

    def write(self, event: Event, created_at: str) -> bytes:
        """The lines of one event, perhaps none: tool calls are written whole, once the answer has ended,
        and the usage is in the last line. Only the first choice is written; Ollama has no other."""
        if type(event) is TextDelta and not event.logprobs and not event.index:
            return self._prefix + created_at.encode() + self._middle + _encode(event.text) + self._text_end
        return self._write(event, created_at)

    def final(
        self,
        timing: Timing,
        usage: Usage | None = None,
        *,
        created_at: str,
        context: Sequence[int] | None = None,
    ) -> bytes:
        """The last line. usage: by default the one that was among the events. Nothing, if an error has
        ended the stream."""
        if self._failed:
            return b""
        calls = self._flush(created_at)
        reply = self._reply("", created_at)
        self._finish(reply, self._finish_reason, timing, usage or self._usage, context)
        return calls + _encode(reply) + b"\n"

    def whole(
        self,
        result: Result,
        timing: Timing,
        *,
        created_at: str,
        context: Sequence[int] | None = None,
    ) -> bytes:
        """The body of a reply that is not streamed: its first choice."""
        choice = next(iter(result.choices), None)
        reply = self._reply(choice.text if choice else "", created_at)
        if choice is not None:
            calls = [write_call(_with_id(call), index) for index, call in enumerate(choice.tool_calls)]
            self._attach(reply, choice.reasoning or None, calls or None)
            reply.logprobs = _logprobs(choice.logprobs) if choice.logprobs else None
        self._finish(reply, choice.finish_reason if choice else "stop", timing, result.usage, context)
        return _encode(reply)

    def loaded(self, created_at: str, *, reason: Literal["load", "unload"] = "load") -> bytes:
        """The body that answers a request without a prompt. It is never streamed."""
        reply = self._reply("", created_at)
        reply.done, reply.done_reason = True, reason
        return _encode(reply)

    def error(self, error: PorticoError) -> bytes:
        """An error in the middle of a stream, as a line. The stream ends with it."""
        self._failed = True
        return error_body(error) + b"\n"

    # ---- inside

    def _reply(self, text: str, created_at: str) -> wire.Reply:
        raise NotImplementedError

    def _attach(self, reply: wire.Reply, thinking: str | None, calls: list[wire.ToolCall] | None) -> None:
        raise NotImplementedError

    def _write(self, event: Event, created_at: str) -> bytes:
        match event:
            case Used():
                self._usage = event.usage
                return b""
            case Finished(index=0, finish_reason="error"):
                return self.error(UpstreamFailed("The engine aborted this answer.", status=500))
            case Finished(index=0):
                self._finish_reason = event.finish_reason
                return self._flush(created_at)
            case TextDelta(index=0):
                return self._line(
                    created_at, self._middle + _encode(event.text), self._text_end, event.logprobs
                )
            case ReasoningDelta(index=0):
                return self._line(
                    created_at, self._thought + _encode(event.text), self._text_end, event.logprobs
                )
            case ToolCallDelta(index=0):
                before = self._pieces.get(event.call) or ToolCall(id="", name="", arguments="")
                self._pieces[event.call] = ToolCall(
                    id=before.id or event.id,
                    name=before.name or event.name,
                    arguments=before.arguments + event.arguments,
                )
        return b""

    def _line(self, created_at: str, said: bytes, end: bytes, logprobs: tuple[Logprob, ...]) -> bytes:
        line = self._prefix + created_at.encode() + said + end
        if not logprobs:
            return line
        return line[:-2] + b',"logprobs":' + _encode(_logprobs(logprobs)) + b"}\n"

    def _flush(self, created_at: str) -> bytes:
        """Every tool call in a line of its own, in order."""
        calls = [
            write_call(_with_id(call), index) for index, (_, call) in enumerate(sorted(self._pieces.items()))
        ]
        self._pieces.clear()
        return b"".join(
            self._line(created_at, self._calls + _encode([call]), self._text_end, ()) for call in calls
        )

    def _finish(
        self,
        reply: wire.Reply,
        reason: FinishReason,
        timing: Timing,
        usage: Usage,
        context: Sequence[int] | None,
    ) -> None:
        reply.done, reply.done_reason = True, _DONE[reason]
        reply.context = list(context) if context else None
        reply.total_duration = max(1, timing.total)
        reply.load_duration = max(1, timing.load)
        reply.prompt_eval_count = usage.input_tokens
        reply.prompt_eval_duration = max(1, timing.prompt)
        reply.eval_count = usage.output_tokens
        reply.eval_duration = max(1, timing.eval)


class ChatWriter(_Writer):
    """Writes a chat: each line has a `message`, the last an empty one."""

    _middle = b'","message":{"role":"assistant","content":'
    _thought = b'","message":{"role":"assistant","content":"","thinking":'
    _calls = b'","message":{"role":"assistant","content":"","tool_calls":'
    _text_end = b'},"done":false}\n'

    def _reply(self, text: str, created_at: str) -> wire.Reply:
        message = wire.Message(role="assistant", content=text)
        return wire.Reply(model=self._model, created_at=created_at, message=message)

    def _attach(self, reply: wire.Reply, thinking: str | None, calls: list[wire.ToolCall] | None) -> None:
        if reply.message is not None:
            reply.message.thinking, reply.message.tool_calls = thinking, calls


class GenerateWriter(_Writer):
    """Writes a generation: each line has a `response`, the last an empty one."""

    _middle = b'","response":'
    _thought = b'","response":"","thinking":'
    _calls = b'","response":"","tool_calls":'
    _text_end = b',"done":false}\n'

    def _reply(self, text: str, created_at: str) -> wire.Reply:
        return wire.Reply(model=self._model, created_at=created_at, response=text)

    def _attach(self, reply: wire.Reply, thinking: str | None, calls: list[wire.ToolCall] | None) -> None:
        reply.thinking, reply.tool_calls = thinking, calls


def _with_id(call: ToolCall) -> ToolCall:
    return call if call.id else ToolCall(id=new_id(), name=call.name, arguments=call.arguments)


def _logprobs(logprobs: Sequence[Logprob]) -> list[wire.Logprob]:
    return [
        wire.Logprob(
            token=it.token,
            logprob=it.logprob,
            bytes=_bytes(it),
            top_logprobs=[
                wire.Logprob(token=top.token, logprob=top.logprob, bytes=_bytes(top)) for top in it.top
            ]
            or msgspec.UNSET,
        )
        for it in logprobs
    ]


def _bytes(logprob: Logprob) -> list[int] | None:
    return None if logprob.bytes is None else list(logprob.bytes)

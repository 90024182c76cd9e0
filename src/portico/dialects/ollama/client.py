"""The other direction, for a client of a server that speaks Ollama: chats as requests, lines as events."""

from __future__ import annotations

import msgspec

from portico.dialects import body
from portico.dialects.framing import LineReader
from portico.dialects.ollama import conversation, wire
from portico.dialects.ollama.options import write_options
from portico.errors import UpstreamFailed
from portico.messages import (
    JSON,
    ChatRequest,
    Event,
    Finished,
    Format,
    Logprob,
    ReasoningDelta,
    TextDelta,
    Tool,
    ToolCallDelta,
    ToolChoice,
    Usage,
    Used,
)

_reply = msgspec.json.Decoder(wire.Reply)


def write_chat(request: ChatRequest) -> bytes:
    """The body for /api/chat. What Ollama has no word for (n, logit_bias, parallel_tool_calls, the
    template's own arguments) is left out."""
    return body.encode(
        wire.Chat(
            model=request.model,
            messages=conversation.write(request.messages),
            stream=request.stream,  # always said: Ollama streams when it is not
            tools=[_tool(tool) for tool in request.tools] or None,
            tool_choice=_choice(request.tool_choice),
            format=_format(request.format),
            options=write_options(request.sampling, request.context) or None,
            keep_alive=request.keep_alive,
            think=request.think,
            truncate=request.truncate,
            logprobs=request.logprobs or None,
            top_logprobs=request.top_logprobs if request.logprobs else None,
        )
    )


def _tool(tool: Tool) -> wire.Tool:
    return wire.Tool(
        function=wire.Signature(name=tool.name, description=tool.description, parameters=tool.parameters)
    )


def _choice(choice: ToolChoice | None) -> str | wire.Choice | None:
    if choice is None:
        return None
    if choice.mode == "named" and choice.name is not None:
        return wire.Choice(function=wire.Named(name=choice.name))
    return choice.mode


def _format(format: Format | None) -> JSON:
    if format is None:
        return None
    return "json" if format.kind == "json" else format.schema


class ChunkReader:
    """Reads the lines of a chat or a generation, streamed or not. `feed` gives the events that became
    whole; it raises UpstreamFailed for an error line. What came before that line in the same packet is given
    first: `failure` is then the error, which the next call raises. done: the last line came."""

    def __init__(self) -> None:
        self.done = False
        self.failure: UpstreamFailed | None = None
        self._lines = LineReader()
        self._calls = 0

    def feed(self, data: bytes) -> list[Event]:
        return self._events(self._lines.feed(data))

    def end(self) -> list[Event]:
        """What the last bytes hold, when their line break never came, as in a reply that is not streamed."""
        return self._events(self._lines.end())

    def _events(self, lines: list[bytes]) -> list[Event]:
        if self.failure is not None:
            raise self.failure
        events: list[Event] = []
        for line in lines:
            try:
                self._read(line, events)
            except UpstreamFailed as error:
                if not events:
                    raise
                self.failure = error
                break
        return events

    def _read(self, line: bytes, events: list[Event]) -> None:
        reply = _decode(line)
        if reply.error is not None:
            raise UpstreamFailed(reply.error, status=500)
        message = reply.message
        thinking = message.thinking if message else reply.thinking
        text = message.content if message and isinstance(message.content, str) else reply.response
        logprobs = tuple(_logprob(it) for it in reply.logprobs or ())
        if thinking:
            events.append(ReasoningDelta(text=thinking, logprobs=() if text else logprobs))
        if text or (logprobs and not thinking):
            events.append(TextDelta(text=text or "", logprobs=logprobs))
        for call in (message.tool_calls if message else reply.tool_calls) or ():
            events.append(self._call(call))
        if reply.done:
            self._finish(reply, events)

    def _call(self, call: wire.ToolCall) -> ToolCallDelta:
        arguments = call.function.arguments
        text = arguments if isinstance(arguments, str) else body.encode(arguments or {}).decode()
        self._calls += 1
        return ToolCallDelta(call=self._calls - 1, id=call.id or "", name=call.function.name, arguments=text)

    def _finish(self, reply: wire.Reply, events: list[Event]) -> None:
        """Ollama says "stop" for an answer that ends in calls, and counts only where it generated."""
        self.done = True
        if reply.done_reason == "length":
            events.append(Finished(finish_reason="length"))
        else:
            events.append(Finished(finish_reason="tool_calls" if self._calls else "stop"))
        if reply.prompt_eval_count or reply.eval_count:
            usage = Usage(input_tokens=reply.prompt_eval_count, output_tokens=reply.eval_count)
            events.append(Used(usage=usage))


def _decode(line: bytes) -> wire.Reply:
    try:
        return _reply.decode(line)
    except (ValueError, RecursionError):
        shown = line[:200].decode("utf-8", "replace")
        raise UpstreamFailed(f"The server sent a line that is not Ollama's: {shown}", status=502) from None


def _logprob(sent: wire.Logprob) -> Logprob:
    return Logprob(
        token=sent.token,
        logprob=float("nan") if sent.logprob is None else sent.logprob,
        bytes=None if sent.bytes is None else tuple(sent.bytes),
        top=tuple(_logprob(top) for top in sent.top_logprobs or ()),
    )

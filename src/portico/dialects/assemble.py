"""Events into a whole Result: what a streamed reply says when it is not streamed on."""

from __future__ import annotations

from dataclasses import dataclass, field

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


@dataclass(slots=True)
class _Call:
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


@dataclass(slots=True)
class _Parts:
    text: list[str] = field(default_factory=list)
    reasoning: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    logprobs: list[Logprob] = field(default_factory=list)
    finish_reason: FinishReason = "stop"


class Assembler:
    """Collects the events of one reply. `result` may be asked for at any time: it is what came so far."""

    def __init__(self) -> None:
        self._choices: dict[int, _Parts] = {}
        self._usage = Usage()

    def add(self, event: Event) -> None:
        if isinstance(event, Used):
            self._usage = event.usage
            return
        parts = self._choices.get(event.index)
        if parts is None:
            parts = self._choices[event.index] = _Parts()
        match event:
            case TextDelta():
                parts.text.append(event.text)
                parts.logprobs.extend(event.logprobs)
            case ReasoningDelta():
                parts.reasoning.append(event.text)
                parts.logprobs.extend(event.logprobs)
            case ToolCallDelta():
                call = parts.calls.setdefault(event.call, _Call())
                call.id, call.name = call.id or event.id, call.name or event.name
                call.arguments.append(event.arguments)
            case Finished():
                parts.finish_reason = event.finish_reason

    def result(self) -> Result:
        return Result(
            choices=tuple(_choice(index, parts) for index, parts in sorted(self._choices.items())),
            usage=self._usage,
        )


def _choice(index: int, parts: _Parts) -> Choice:
    return Choice(
        index=index,
        text="".join(parts.text),
        reasoning="".join(parts.reasoning),
        tool_calls=tuple(
            ToolCall(id=call.id, name=call.name, arguments="".join(call.arguments))
            for _, call in sorted(parts.calls.items())
        ),
        finish_reason=parts.finish_reason,
        logprobs=tuple(parts.logprobs),
    )

"""The tool loop: the model asks for calls, they are made and told to it, until it answers.

Two ways of asking. *native*: the server's own tools. *schema*: every turn is one JSON object, {"call": ..., "arguments":
...} or {"finish": ...}, to which the server's grammar holds the model. The second is for tools together with an output
type, which servers do not do at once (vLLM's grammar for the answer keeps the model from calling at all, vllm#16313), and
for models and servers without tools. What was done and why stands in the result.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, TypeVar

import msgspec

from portico import prompts, recording
from portico.client import options
from portico.client.asks import answered
from portico.client.flows import Flows
from portico.client.functions import Callee, functions, outcome
from portico.client.options import Messages
from portico.client.outputs import Output, output
from portico.client.prices import Cost, total
from portico.client.results import Result
from portico.client.wishes import Call, Flow, Together
from portico.errors import NotSupported, ReplayDiffers, WrongAnswer
from portico.messages import ChatRequest, Format, Message, Text, ToolCall, ToolResult, Usage
from portico.recording import Player

P = TypeVar("P")
Mode = Literal["auto", "native", "schema"]
Stopped = Literal["finished", "rounds", "tokens", "repeated"]
REPEATS = 3
"""The same call with the same arguments is not made this often: the loop goes round and round, and ends."""
KIND, ALLOWED = "tool", "allow"
"""Of the effects of a recording: what a call gave, and whether it was allowed. A replay calls nothing."""


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One call that the model asked for."""

    round: int
    call: ToolCall
    outcome: str
    """What the model was told."""
    failed: bool = False
    refused: bool = False
    """It was not made: `allow` refused it, or it was the same call for the third time."""


class Run(msgspec.Struct, Generic[P], frozen=True, kw_only=True):
    """`str(run)` is the answer's text."""

    text: str
    parsed: P | None = None
    stopped: Stopped = "finished"
    """Why it ended: the model finished, or a limit on rounds or tokens, or it repeated itself."""
    steps: tuple[Step, ...] = ()
    messages: tuple[Message, ...] = ()
    """The whole conversation, to go on with."""
    results: tuple[Result[Any], ...] = ()
    usage: Usage = Usage()
    """Of all rounds together."""
    mode: Mode = "native"
    why: str = ""
    """Why this way of asking."""

    @property
    def cost(self) -> Cost:
        """Of all rounds together."""
        return total([result.cost for result in self.results])

    def __str__(self) -> str:
        return self.text


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    rounds: int = 16
    """How often the model is asked at most."""
    tokens: int = 0
    """Prompt and answer tokens of all rounds together, after which no further one begins; 0: no limit."""


LIMITS = Limits()


class Loop:
    """One run. Owns what it collects."""

    def __init__(
        self,
        flows: Flows,
        tools: Sequence[Any],
        *,
        wanted: Any,
        mode: Mode,
        limits: Limits,
        allow: Callable[..., Any] | None,
        on_step: Callable[..., Any] | None,
    ) -> None:
        self._flows = flows
        self._tools = {each.name: each for each in functions(tools)}
        self._wanted: Output[Any] | None = output(wanted) if wanted is not None else None
        self._mode, self._limits = mode, limits
        self._allow, self._on_step = allow, on_step
        self._steps: list[Step] = []
        self._results: list[Result[Any]] = []
        self._calls: Counter[tuple[str, str]] = Counter()

    def run(
        self, messages: Messages, *, model: str | None, about: Mapping[str, Any], given: Mapping[str, Any]
    ) -> Flow[Run[Any]]:
        name = yield from self._flows.model(model)
        if self._wanted is not None and self._wanted.format is not None:
            yield from self._flows.enforces(self._wanted.format.schema, name)
        about = dict(about)
        system = about.pop("system", None)
        conversation = options.conversation(messages, system)
        mode, why = self._way()
        if mode == "native":
            try:
                return (yield from self._natively(name, conversation, about, given, why))
            except NotSupported as error:
                if self._mode == "native" or self._steps:
                    raise
                why = f"the server does not offer tools: {error}"
        return (yield from self._by_schema(name, conversation, about, given, why))

    def _way(self) -> tuple[Mode, str]:
        if self._mode != "auto":
            return self._mode, "it was asked for"
        if self._wanted is not None:
            return (
                "schema",
                "tools together with an output type: one schema over both, to which the server holds the model",
            )
        return "native", "the server's own tools"

    # ---- the server's own tools

    def _natively(
        self,
        name: str,
        conversation: tuple[Message, ...],
        about: Mapping[str, Any],
        given: Mapping[str, Any],
        why: str,
    ) -> Flow[Run[Any]]:
        tools = [each.tool for each in self._tools.values()]
        for number in range(1, self._limits.rounds + 1):
            request = options.chat(name, conversation, tools=tools, options=given, **about)
            result = yield from self._flows.chat(request)
            self._results.append(result)
            conversation = (*conversation, answered(result))
            if not result.tool_calls:
                if self._wanted is not None:
                    return (yield from self._typed_at_last(request, conversation, result, why))
                return self._ended(result.text, conversation, "finished", "native", why)
            steps = yield from self._made(number, result.tool_calls)
            told = tuple(ToolResult(id=step.call.id, name=step.call.name, text=_said(step)) for step in steps)
            conversation = (*conversation, *(Message(role="tool", parts=(each,)) for each in told))
            if stopped := self._over():
                return self._ended(result.text, conversation, stopped, "native", why)
        return self._ended("", conversation, "rounds", "native", why)

    def _typed_at_last(
        self, request: ChatRequest, conversation: tuple[Message, ...], result: Result[Any], why: str
    ) -> Flow[Run[Any]]:
        """The second of two phases: the same conversation, no tools, the answer under its schema."""
        assert self._wanted is not None
        sampling = request.sampling
        if self._wanted.structured is not None:
            extra = {**sampling.extra, "structured_outputs": dict(self._wanted.structured)}
            sampling = msgspec.structs.replace(sampling, extra=extra)
        last = msgspec.structs.replace(
            request,
            messages=conversation[:-1],
            tools=(),
            tool_choice=None,
            format=self._wanted.format,
            sampling=sampling,
        )
        final = yield from self._flows.chat(last)
        self._results.append(final)
        parsed = self._wanted.read(final.text)
        return self._ended(
            final.text, (*conversation[:-1], answered(final)), "finished", "native", why, parsed=parsed
        )

    # ---- call a tool or finish

    def _by_schema(
        self,
        name: str,
        conversation: tuple[Message, ...],
        about: Mapping[str, Any],
        given: Mapping[str, Any],
        why: str,
    ) -> Flow[Run[Any]]:
        schema_of_answer = _schema(self._wanted)
        definitions = [_definition(each) for each in self._tools.values()]
        caller = "".join(message.text for message in conversation if message.role == "system")
        rest = tuple(message for message in conversation if message.role != "system")
        system = prompts.call_system(definitions, caller, schema_of_answer)
        format = Format(kind="schema", name="turn", schema=prompts.call_schema(definitions, schema_of_answer))
        told = (Message(role="system", parts=(Text(text=system),)), *rest)
        for number in range(1, self._limits.rounds + 1):
            request = options.chat(name, told, format=format, options=given, **about)
            result = yield from self._flows.chat(request)
            self._results.append(result)
            told = (*told, answered(result))
            turn = _turn(result)
            if "finish" in turn:
                text, parsed = self._finished(turn["finish"])
                return self._ended(text, told, "finished", "schema", why, parsed=parsed)
            call = ToolCall(
                id=f"call_{number}",
                name=str(turn.get("call")),
                arguments=json.dumps(turn.get("arguments", {})),
            )
            (step,) = yield from self._made(number, (call,))
            said = prompts.call_outcome(call.name, step.outcome, failed=step.failed or step.refused)
            told = (*told, Message(role="user", parts=(Text(text=said),)))
            if stopped := self._over():
                return self._ended("", told, stopped, "schema", why)
        return self._ended("", told, "rounds", "schema", why)

    def _finished(self, answer: Any) -> tuple[str, Any]:
        if self._wanted is None:
            return str(answer), None
        is_text = self._wanted.format is None and isinstance(answer, str)
        text = answer if is_text else json.dumps(answer, ensure_ascii=False)
        return text, self._wanted.read(text)

    # ---- calls

    def _made(self, number: int, calls: Sequence[ToolCall]) -> Flow[list[Step]]:
        """Looked at one after the other, since `allow` may ask a person; made side by side; told in the model's order."""
        for call in calls:
            self._calls[_same(call)] += 1
        steps: list[Step | None] = []
        ready: list[Flow[Step]] = []
        for call in calls:
            looked = yield from self._looked_at(number, call)
            steps.append(looked if isinstance(looked, Step) else None)
            if not isinstance(looked, Step):
                ready.append(self._one(number, call, *looked))
        made = iter((yield Together(ready)) if ready else ())
        whole = [step if step is not None else next(made) for step in steps]
        self._steps += whole
        if self._on_step is not None:
            for step in whole:
                yield Call(self._on_step, {"step": step})
        return whole

    def _looked_at(self, number: int, call: ToolCall) -> Flow[Step | tuple[Callee, dict[str, Any]]]:
        """What is to be called with which arguments; a Step where it is not."""
        if self._calls[_same(call)] >= REPEATS:
            why = f"Refused: the same call with the same arguments, for the {_th(REPEATS)} time."
            return Step(round=number, call=call, outcome=why, refused=True)
        function = self._tools.get(call.name)
        if function is None:
            known = ", ".join(self._tools)
            told = f"There is no tool {call.name}. There are: {known}."
            return Step(round=number, call=call, outcome=told, failed=True)
        try:
            arguments = function.arguments(call.arguments)
        except ValueError as error:
            return Step(round=number, call=call, outcome=f"Wrong arguments: {error}", failed=True)
        if self._allow is not None:
            verdict = yield from self._verdict(self._allow, call, arguments)
            if verdict is not True and verdict is not None:
                why = verdict if isinstance(verdict, str) else "it was not allowed"
                return Step(round=number, call=call, outcome=f"Refused: {why}.", refused=True)
        return function, arguments

    def _verdict(
        self, allow: Callable[..., Any], call: ToolCall, arguments: Mapping[str, Any]
    ) -> Flow[bool | str | None]:
        """Recorded or replayed too: a person may have given it."""
        journal = recording.current()
        request = {"name": call.name, "arguments": call.arguments}
        if isinstance(journal, Player):
            kept: bool | str | None = journal.answer(ALLOWED, request)
            return kept
        number = journal.asked() if journal is not None else 0
        with recording.apart() if journal is not None else contextlib.nullcontext():
            given = yield Call(allow, {"name": call.name, "arguments": arguments})
        verdict = given if given is None or isinstance(given, bool | str) else bool(given)
        if journal is not None:
            journal.keep(number, ALLOWED, request, verdict)
        return verdict

    def _one(self, number: int, call: ToolCall, function: Callee, arguments: Mapping[str, Any]) -> Flow[Step]:
        told, failed = yield from self._called(function, call, arguments)
        return Step(round=number, call=call, outcome=told, failed=failed)

    def _called(
        self, function: Callee, call: ToolCall, arguments: Mapping[str, Any]
    ) -> Flow[tuple[str, bool]]:
        """What the model is told, and whether the tool failed; recorded or replayed, where that goes on."""
        journal = recording.current()
        request = {"name": call.name, "arguments": call.arguments}
        if isinstance(journal, Player):
            kept = journal.answer(KIND, request)
            return kept["outcome"], kept["failed"]
        number = journal.asked() if journal is not None else 0
        try:
            with recording.apart() if journal is not None else contextlib.nullcontext():
                value = yield Call(function.function, arguments)
            told, failed = outcome(value), False
        except ReplayDiffers:  # a tool that asks a model itself
            raise
        except Exception as error:  # whatever a tool of the user's raises is for the model to know
            told, failed = f"{type(error).__name__}: {error}", True
        if journal is not None:
            journal.keep(number, KIND, request, {"outcome": told, "failed": failed})
        return told, failed

    # ---- its end

    def _over(self) -> Stopped | None:
        if any(count >= REPEATS for count in self._calls.values()):
            return "repeated"
        used = self._used()
        if self._limits.tokens and used.input_tokens + used.output_tokens >= self._limits.tokens:
            return "tokens"
        return None

    def _used(self) -> Usage:
        usages = [result.usage for result in self._results]
        return Usage(
            input_tokens=sum(each.input_tokens for each in usages),
            output_tokens=sum(each.output_tokens for each in usages),
            cached_tokens=sum(each.cached_tokens or 0 for each in usages),
            reasoning_tokens=sum(each.reasoning_tokens or 0 for each in usages),
        )

    def _ended(
        self,
        text: str,
        conversation: tuple[Message, ...],
        stopped: Stopped,
        mode: Mode,
        why: str,
        parsed: Any = None,
    ) -> Run[Any]:
        return Run(
            text=text,
            parsed=parsed,
            stopped=stopped,
            steps=tuple(self._steps),
            messages=conversation,
            results=tuple(self._results),
            usage=self._used(),
            mode=mode,
            why=why,
        )


def _turn(result: Result[Any]) -> dict[str, Any]:
    try:
        found = json.loads(result.text)
    except ValueError as error:
        if result.finish_reason == "length":
            tokens = result.usage.output_tokens
            raise WrongAnswer(
                f"A turn was cut off after {tokens} tokens: raise max_tokens.", text=result.text
            ) from error
        raise WrongAnswer(
            f"The turn is no JSON ({error}): does the server keep to schemas?", text=result.text
        ) from error
    if not isinstance(found, dict) or not ("finish" in found or "call" in found):
        raise WrongAnswer("The turn is neither a call nor the end.", text=result.text)
    return found


def _same(call: ToolCall) -> tuple[str, str]:
    """What makes a call the same as another: its spaces and the order of its arguments do not."""
    try:
        return call.name, json.dumps(json.loads(call.arguments or "{}"), sort_keys=True)
    except ValueError:
        return call.name, call.arguments


def _th(number: int) -> str:
    return {2: "second", 3: "third"}.get(number, f"{number}th")


def _schema(wanted: Output[Any] | None) -> Any:
    """Of the answer, as far as a JSON schema can say it; it is checked once more in any case. None: any text."""
    if wanted is None:
        return None
    if wanted.format is not None:
        return wanted.format.schema
    told = wanted.structured or {}
    if "choice" in told:
        return {"type": "string", "enum": list(told["choice"])}
    if "regex" in told:
        return {"type": "string", "pattern": f"^({told['regex']})$"}
    return None


def _said(step: Step) -> str:
    return f"Error: {step.outcome}" if step.failed else step.outcome


def _definition(function: Callee) -> dict[str, Any]:
    tool = {"name": function.name, "description": function.description, "parameters": function.parameters}
    return {"type": "function", "function": {name: value for name, value in tool.items() if value}}

"""What a model that runs really supports, found out by asking it: a few tokens each, at temperature 0.

A server's settings decide more than the model does: whether a tool call comes back parsed, whether a schema is kept,
whether usage tells of cached tokens. Asked is only what is loaded; nothing is loaded by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from portico.cli import units
from portico.cli.checks import Check, State
from portico.cli.checks.asking import Answer, Asker, Heard, Silence
from portico.cli.checks.probes import CHOICES, MOST_TOKENS, Ollama, OpenAI
from portico.cli.checks.who import LLAMACPP, OLLAMA, PORTICO, VLLM, Model, Seen
from portico.dialects.framing import SSEReader

MOST_MODELS = 4
"""Models that are asked. Each gets eight or nine requests."""
Asks = Callable[[Asker], tuple[Heard, ...]]
Found = tuple[State, str, str]
"""State, what was found, what to do."""


class Ability(NamedTuple):
    """`ask` says what was heard, to one request or several; `decide` is pure, and given answers only."""

    group: str
    name: str
    ask: Asks
    decide: Callable[[tuple[Answer, ...]], Found]

    def conclude(self, heard: tuple[Heard, ...]) -> Check:
        answers = [each for each in heard if isinstance(each, Answer)]
        if len(answers) == len(heard):
            return Check(self.group, self.name, *self.decide(tuple(answers)))
        silence = next(each for each in heard if isinstance(each, Silence))
        if silence.why == "slow":
            found, do = (
                f"no answer within {silence.seconds:g} s",
                "give it more time: `portico doctor --within 30`",
            )
        else:
            found, do = "no answer: the connection was closed", "see its log: `portico logs`"
        return Check(self.group, self.name, "warn", found, do)


# ---- what is read of an answer


class _Cached(msgspec.Struct):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: int = 0
    prompt_tokens_details: _Cached | None = None


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: Any = None


class _Call(msgspec.Struct):
    function: _Function = msgspec.field(default_factory=_Function)


class _Said(msgspec.Struct):
    content: str | None = None
    tool_calls: list[_Call] | None = None
    thinking: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None

    @property
    def thought(self) -> str:
        return self.thinking or self.reasoning or self.reasoning_content or ""


class _Logprobs(msgspec.Struct):
    content: list[Any] | None = None


class _Choice(msgspec.Struct):
    message: _Said = msgspec.field(default_factory=_Said)
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None


class _Chat(msgspec.Struct):
    choices: list[_Choice]
    usage: _Usage | None = None


class _OllamaChat(msgspec.Struct):
    message: _Said
    done_reason: str | None = None
    logprobs: list[Any] | None = None

    def as_openai(self) -> _Chat:
        logprobs = _Logprobs(self.logprobs) if self.logprobs is not None else None
        return _Chat([_Choice(self.message, self.done_reason, logprobs)])


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Delta(msgspec.Struct):
    delta: _Said = msgspec.field(default_factory=_Said)
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Delta] = []
    error: Any = None


def _streamed(answer: Answer) -> _Chat | None:
    """The chunks put together; None where it is no stream of them."""
    whole = _Choice()
    whole.message.tool_calls = []
    reader = SSEReader()
    try:
        chunks = [
            msgspec.json.decode(data, type=_Chunk)
            for data in (*reader.feed(answer.body), *reader.end())
            if data != b"[DONE]"
        ]
    except (msgspec.DecodeError, msgspec.ValidationError, ValueError):
        return None
    for choice in (each for chunk in chunks for each in chunk.choices):
        said = choice.delta
        whole.message.content = (whole.message.content or "") + (said.content or "")
        whole.message.thinking = (whole.message.thinking or "") + said.thought
        whole.message.tool_calls += [call for call in said.tool_calls or [] if call.function.name]
        whole.finish_reason = choice.finish_reason or whole.finish_reason
    return _Chat([whole]) if chunks and not any(chunk.error for chunk in chunks) else None


def _chat(heard: Heard) -> _Chat | None:
    if not isinstance(heard, Answer):
        return None
    if heard.status == 200 and heard.body.lstrip()[:5] == b"data:":
        return _streamed(heard)
    found = heard.read(_Chat)
    if found is None and (ollama := heard.read(_OllamaChat)) is not None:
        found = ollama.as_openai()
    return found if found is not None and found.choices else None


# ---- what is asked


def abilities(seen: Seen, model: Model) -> list[Ability]:
    """The questions for this model, in the order of their lines. Pure."""
    if seen.kind == OLLAMA:
        ollama = Ollama(model)
        asked: list[tuple[str, Asks, Callable[[tuple[Answer, ...]], Found]]] = [
            ("chat", ollama.chat, _answers),
            ("tools", ollama.tools, _tools),
            ("schema", ollama.schema, _schema),
            ("logprobs", ollama.logprobs, _logprobs),
        ]
    else:
        openai = OpenAI(model, thinks_when_told=seen.kind in (PORTICO, VLLM, LLAMACPP))
        asked = [
            ("chat", openai.chat, _answers),
            ("tools", openai.tools, _tools),
            ("schema", openai.schema, _schema),
            ("logprobs", openai.logprobs, _logprobs),
            ("priority", openai.priority, _priority),
            ("cached", openai.twice, _cached),
            ("tokenize", openai.tokenize, _tokenize),
        ]
    return [Ability(group_of(model), *each) for each in asked]


# ---- what is concluded


def group_of(model: Model) -> str:
    return f"running: {model.name}"


def state(model: Model, *, asked: bool) -> Check:
    """How it is, and where. `asked`: its abilities follow, or were not wanted."""
    group = group_of(model)
    if model.state == "failed":
        why = " ".join(model.error.split())[:300]
        return Check(group, "state", "fail", f"its engine failed: {why}", f"portico logs {model.name}")
    about = [model.state]
    if model.size:
        share = units.percent(model.on_gpu, model.size)
        where = "on the CPU" if not model.on_gpu else "on the GPU" if share == 100 else f"{share}% on the GPU"
        about.append(f"{units.memory(model.size)} {where}")
    if model.context:
        about.append(f"context {model.context:,}")
    found = ", ".join(about)
    if model.state != "ready":  # a model that sleeps would be woken
        return Check(group, "state", "skip", f"{found}; not asked")
    more = "" if asked else f"; not asked, {MOST_MODELS} others are"
    return Check(group, "state", "ok", found + more, "" if asked else f"portico doctor {model.name}")


def _refused(heard: Answer) -> str:
    if heard.status == 200:
        return "accepted, and the answer is no chat completion"
    return f"refused ({heard.status}): {heard.said}"


def _answers(heard: tuple[Answer, ...]) -> Found:
    (answer,) = heard
    if answer.status == 200 and _chat(answer) is not None:
        return "ok", f"answers in {units.duration(answer.seconds)}", ""
    if answer.status == 200:
        return (
            "fail",
            "it answers, but not as OpenAI's API does: there are no choices",
            "see the server's log",
        )
    if "template" in answer.said.lower():
        do = "start it with `--chat-template FILE`, or use /v1/completions, which needs none"
        return "fail", "no chat template, so it cannot chat", do
    return "fail", _refused(answer), "see the server's log: `portico logs`"


def _tools(heard: tuple[Answer, ...]) -> Found:
    required, *auto = heard
    parsers = "start vLLM with `--enable-auto-tool-choice --tool-call-parser NAME`; Portico does by itself"
    refused = next((each for each in auto if each.status != 200), None)
    chat = _chat(required)
    if chat is None:
        return "warn", _refused(required), parsers if "tool-call-parser" in required.said else ""
    choice = chat.choices[0]
    called = [call.function.name for call in choice.message.tool_calls or []]
    if refused is not None:
        also = "a required call comes back parsed, but " if called == ["go"] else ""
        return "warn", f"{also}one that is left to the model is {_refused(refused)}", parsers
    if called and set(called) == {"go"}:
        return "ok", "a call comes back parsed", ""
    if _cut(choice):
        return "skip", f"not known: the first {MOST_TOKENS} tokens were not enough for a call", ""
    return "warn", "the call did not come back parsed, only text", parsers if auto else ""


def _schema(heard: tuple[Answer, ...]) -> Found:
    (answer,) = heard
    chat = _chat(answer)
    if chat is None:
        return "warn", _refused(answer), ""
    choice = chat.choices[0]
    try:
        value = msgspec.json.decode((choice.message.content or "").strip())
    except (msgspec.DecodeError, RecursionError):
        if _cut(choice):
            return "skip", f"not known: the JSON was not whole after {MOST_TOKENS} tokens", ""
        return "warn", "a JSON schema is accepted and not kept: the answer is no JSON", ""
    if value in CHOICES:
        return "ok", "a JSON schema is kept", ""
    return "warn", "a JSON schema is accepted and not kept: the answer is other JSON", ""


def _cut(choice: _Choice) -> bool:
    """Whether what is missing may only not have been said yet."""
    begun = (choice.message.content or "").lstrip()[:1]
    return choice.finish_reason == "length" and (
        begun in ("", "{", "[", "<", '"') or bool(choice.message.thought)
    )


def _logprobs(heard: tuple[Answer, ...]) -> Found:
    (answer,) = heard
    chat = _chat(answer)
    if chat is None:
        return "skip", _refused(answer), ""
    logprobs = chat.choices[0].logprobs
    if logprobs is not None and logprobs.content:
        return "ok", "log probabilities come with the answer", ""
    return "skip", "log probabilities are accepted and left out", ""


def _priority(heard: tuple[Answer, ...]) -> Found:
    """An accepted one may still mean nothing: vLLM takes it, and looks at it only if it was started so."""
    (answer,) = heard
    if answer.status == 200:
        return "ok", "accepted; whether it counts, the server's scheduling decides", ""
    return "skip", _refused(answer), "vllm serve MODEL --scheduling-policy priority"


def _cached(heard: tuple[Answer, ...]) -> Found:
    second = heard[-1]
    chat = _chat(second)
    if chat is None or chat.usage is None:
        told = _refused(second) if second.status != 200 else "the answer tells no usage"
        return "skip", told, ""
    details = chat.usage.prompt_tokens_details
    if details is None or details.cached_tokens is None:
        do = "start vLLM with `--enable-prompt-tokens-details`; Portico does by itself"
        return "skip", "usage does not tell how many tokens came from the cache", do
    count, whole = details.cached_tokens, chat.usage.prompt_tokens
    if not count:
        return "warn", "usage tells it, and no token of a repeated prompt came from the cache", ""
    return "ok", f"usage tells it: {count:,} of {whole:,} tokens of a repeated prompt", ""


def _tokenize(heard: tuple[Answer, ...]) -> Found:
    (answer,) = heard
    found = answer.read(_Tokens)
    if found is not None and found.tokens:
        return "ok", "/tokenize counts tokens before a prompt is sent", ""
    return "skip", "there is no /tokenize" if answer.status in (404, 405) else _refused(answer), ""

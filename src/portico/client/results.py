"""What comes back from a server, as a client's user sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

from portico.client import prices
from portico.client.prices import Cost
from portico.dialects import openai
from portico.messages import Choice, FinishReason, Logprob, ToolCall, Usage, Value

P = TypeVar("P")


class Timing(Value, frozen=True, kw_only=True):
    """Seconds, from the call on."""

    first_token: float | None = None
    total: float = 0.0


class Attempt(Value, frozen=True, kw_only=True):
    """One of the requests that a call took."""

    url: str
    """The server that was asked."""
    status: int
    """The reply's; that of the error where there was no reply."""
    seconds: float
    error: str = ""
    """Why it is not the answer."""
    model: str = ""
    """The model that was asked for, of that server."""


class Result(msgspec.Struct, Generic[P], frozen=True, kw_only=True):
    """A whole answer. `str(result)` is its text."""

    text: str
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    parsed: P | None = None
    """The answer as the output type that was asked for."""
    finish_reason: FinishReason = "stop"
    usage: Usage = Usage()
    logprobs: tuple[Logprob, ...] = ()
    """One for each token of the answer, where they were asked for."""
    token_ids: tuple[int, ...] = ()
    """Of the answer, where the server gives them (return_token_ids)."""
    prompt_token_ids: tuple[int, ...] = ()
    prompt_logprobs: tuple[Logprob | None, ...] = ()
    """One for each token of the prompt, where they were asked for; None: the first, of which nobody can say."""
    choices: tuple[Choice, ...] = ()
    """All answers, for n > 1; the first is what stands above."""
    model: str = ""
    """What the server calls the model that answered."""
    url: str = ""
    """The server that answered."""
    id: str = ""
    request_id: str = ""
    timing: Timing = Timing()
    attempts: tuple[Attempt, ...] = ()
    cost: Cost = Cost()
    """Dollars, and by which price; a token on one's own machines costs nothing."""
    headers: Mapping[str, str] = {}

    def __str__(self) -> str:
        return self.text


class _Said(msgspec.Struct):
    logprob: float
    decoded_token: str | None = None


_Prompt = list[dict[str, _Said] | None] | None
"""vLLM's: by token id, first the one that stands there, then the likeliest."""


class _Choice(msgspec.Struct):
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: _Prompt = None


class _Extra(msgspec.Struct):
    """What the dialect, which the gateway shares, has no use for."""

    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: _Prompt = None


def read(body: bytes, *, completion: bool, **about: Any) -> Result[Any]:
    """A reply of /v1/chat/completions or /v1/completions. Raises what the dialect raises for one that is none, and
    ValueError for JSON that is something else."""
    whole = openai.read_completion_result(body) if completion else openai.read_result(body)
    if not whole.choices:
        raise ValueError("it has no choices")
    extra = msgspec.json.decode(body, type=_Extra)
    first = whole.choices[0]
    ids = extra.choices[0] if extra.choices else _Choice()
    return of_choices(
        whole.choices,
        whole.usage,
        first=first,
        token_ids=tuple(ids.token_ids or ()),
        prompt_token_ids=tuple(extra.prompt_token_ids or ids.prompt_token_ids or ()),
        prompt_logprobs=tuple(map(_of_prompt, extra.prompt_logprobs or ids.prompt_logprobs or ())),
        id=extra.id,
        model=extra.model,
        **about,
    )


def _of_prompt(said: Mapping[str, _Said] | None) -> Logprob | None:
    if not said:
        return None
    found = [
        Logprob(token=each.decoded_token or "", logprob=each.logprob, id=int(token))
        for token, each in said.items()
    ]
    top = tuple(sorted(found, key=lambda each: -each.logprob))
    return msgspec.structs.replace(found[0], top=top)


def joined(begun: Result[Any], rest: Result[Any]) -> Result[Any]:
    """An answer that was made in two calls, with what both took."""
    replace = msgspec.structs.replace
    text = begun.text + rest.text
    return replace(
        rest,
        text=text,
        reasoning=begun.reasoning + rest.reasoning,
        usage=used_by_both(begun.usage, rest.usage),
        logprobs=begun.logprobs + rest.logprobs,
        token_ids=begun.token_ids + rest.token_ids,
        prompt_token_ids=begun.prompt_token_ids,
        prompt_logprobs=begun.prompt_logprobs,
        choices=tuple(replace(each, text=text) for each in rest.choices[:1]),
        timing=Timing(total=begun.timing.total + rest.timing.total),
        attempts=begun.attempts + rest.attempts,
        cost=prices.total([begun.cost, rest.cost]),
    )


def used_by_both(one: Usage, other: Usage) -> Usage:
    def known(name: str) -> int | None:
        found = [each for each in (getattr(one, name), getattr(other, name)) if each is not None]
        return sum(found) if found else None

    return Usage(
        input_tokens=one.input_tokens + other.input_tokens,
        output_tokens=one.output_tokens + other.output_tokens,
        cached_tokens=known("cached_tokens"),
        reasoning_tokens=known("reasoning_tokens"),
    )


def texts(result: Result[Any], change: Callable[[str], str]) -> Result[Any]:
    """The result with other texts."""
    replace = msgspec.structs.replace
    choices = tuple(replace(each, text=change(each.text)) for each in result.choices)
    return replace(result, text=change(result.text), choices=choices)


def of_choices(choices: tuple[Choice, ...], usage: Usage, *, first: Choice, **about: Any) -> Result[Any]:
    return Result(
        text=first.text,
        reasoning=first.reasoning,
        tool_calls=first.tool_calls,
        finish_reason=first.finish_reason,
        logprobs=first.logprobs,
        usage=usage,
        choices=choices,
        **about,
    )

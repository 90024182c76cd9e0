"""What comes back from a server, as a client's user sees it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import msgspec

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


class _Choice(msgspec.Struct):
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class _Extra(msgspec.Struct):
    """What the dialect, which the gateway shares, has no use for."""

    id: str = ""
    model: str = ""
    choices: list[_Choice] = []
    prompt_token_ids: list[int] | None = None


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
        id=extra.id,
        model=extra.model,
        **about,
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

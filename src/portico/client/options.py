"""The parameters of a call, by vLLM's own names, and the requests that are made of them."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from portico.dialects import openai
from portico.errors import InvalidRequest
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    Format,
    Message,
    Sampling,
    Text,
    Tool,
    ToolChoice,
)

Messages = str | Message | Sequence[Message | Mapping[str, Any]]
"""A prompt, or a conversation: messages of OpenAI's form or `portico.messages.Message`."""


class Options(TypedDict, total=False):
    """What an answer is made with. What is not given is the server's own default, except `max_tokens`: without it an
    answer has the rest of the context. (vLLM: docs.vllm.ai, SamplingParams and "Extra parameters" of its server.)"""

    max_tokens: int
    min_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    n: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    include_stop_str_in_output: bool
    ignore_eos: bool
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    repetition_detection: Mapping[str, Any]
    length_penalty: float
    logit_bias: Mapping[str, float]
    allowed_token_ids: Sequence[int]
    bad_words: Sequence[str]
    logprobs: bool | int
    """True: each token's own; a number: so many alternatives besides."""
    prompt_logprobs: int
    logprob_token_ids: Sequence[int]
    skip_special_tokens: bool
    spaces_between_special_tokens: bool
    truncate_prompt_tokens: int
    add_generation_prompt: bool
    continue_final_message: bool
    chat_template: str
    chat_template_kwargs: Mapping[str, Any]
    thinking_token_budget: int
    priority: int
    cache_salt: str
    return_token_ids: bool
    structured_outputs: Mapping[str, Any]
    kv_transfer_params: Mapping[str, Any]
    vllm_xargs: Mapping[str, Any]
    request_id: str
    mm_processor_kwargs: Mapping[str, Any]


_TYPED = (
    *(
        "max_tokens",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "seed",
        "presence_penalty",
        "frequency_penalty",
    ),
    "repetition_penalty",
)
_OURS = {*_TYPED, "n", "stop", "logit_bias", "logprobs", "chat_template_kwargs"}


def sampling(options: Mapping[str, Any], extra: Mapping[str, Any] | None = None) -> Sampling:
    """Raises InvalidRequest for a parameter nobody knows: what is newer than this version goes into `extra`."""
    known = Options.__annotations__
    for name in options:
        if name not in known:
            nearest = difflib.get_close_matches(name, known, 1)
            meant = (
                f"Did you mean {nearest[0]}?"
                if nearest
                else f"If the server has it: extra={{{name!r}: ...}}."
            )
            raise InvalidRequest(f"There is no parameter {name!r}. {meant}", param=name)
    options = {**options, "max_tokens": _limit(options.get("max_tokens"))}
    stop = options.get("stop") or ()
    bias = options.get("logit_bias")
    rest = {name: _plain(value) for name, value in options.items() if name not in _OURS and value is not None}
    return Sampling(
        **{name: options[name] for name in _TYPED if options.get(name) is not None},
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        logit_bias={str(token): float(value) for token, value in bias.items()} if bias else None,
        extra={**rest, **(extra or {})},
    )


def _limit(tokens: Any) -> Any:
    """-1 is llama.cpp's word for no limit. Raises InvalidRequest for what is less."""
    if isinstance(tokens, int) and tokens < -1:
        raise InvalidRequest(
            f"max_tokens={tokens}: it is at least 1; without it an answer has the rest of the context.",
            param="max_tokens",
        )
    return None if tokens == -1 else tokens


def _folded(
    options: Mapping[str, Any], extra: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], dict[str, Any]]:
    """What has a name here is a parameter in `extra` too: else it would be sent past a budget, and past what is checked."""
    rest = dict(extra or {})
    if "max_completion_tokens" in rest:
        rest.setdefault("max_tokens", rest.pop("max_completion_tokens"))
    named = {name: rest.pop(name) for name in [*rest] if name in Options.__annotations__}
    return ({**named, **options} if named else options), rest


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple | set | frozenset) else value


def chat(
    model: str,
    messages: Messages,
    *,
    system: str | None = None,
    tools: Sequence[Tool] = (),
    tool_choice: ToolChoice | None = None,
    parallel_tool_calls: bool | None = None,
    format: Format | None = None,
    think: bool | str | None = None,
    extra: Mapping[str, Any] | None = None,
    options: Mapping[str, Any],
) -> ChatRequest:
    options, extra = _folded(options, extra)
    logprobs = options.get("logprobs")
    alternatives = None if logprobs is None or isinstance(logprobs, bool) else int(logprobs)
    return ChatRequest(
        model=model,
        messages=conversation(messages, system),
        tools=tuple(tools),
        tool_choice=tool_choice,
        parallel_tool_calls=parallel_tool_calls,
        format=format,
        sampling=sampling(options, extra),
        n=int(options.get("n") or 1),
        logprobs=logprobs is not None and logprobs is not False,
        top_logprobs=alternatives,
        think=think,
        template_kwargs=dict(options.get("chat_template_kwargs") or {}),
    )


def completion(
    model: str,
    prompts: Sequence[str | Sequence[int]],
    *,
    echo: bool = False,
    suffix: str | None = None,
    format: Format | None = None,
    extra: Mapping[str, Any] | None = None,
    options: Mapping[str, Any],
) -> CompletionRequest:
    options, extra = _folded(options, extra)
    logprobs = options.get("logprobs")
    return CompletionRequest(
        model=model,
        prompts=tuple(each if isinstance(each, str) else tuple(each) for each in prompts),
        echo=echo,
        suffix=suffix,
        format=format,
        sampling=sampling(options, extra),
        n=int(options.get("n") or 1),
        logprobs=None if logprobs is None or logprobs is False else int(logprobs) - (logprobs is True),
    )


def conversation(messages: Messages, system: str | None = None) -> tuple[Message, ...]:
    """Raises InvalidRequest with the place of what cannot be read."""
    lead = (Message(role="system", parts=(Text(text=system),)),) if system is not None else ()
    if isinstance(messages, str):
        return (*lead, Message(role="user", parts=(Text(text=messages),)))
    if isinstance(messages, Message):
        return (*lead, messages)
    if isinstance(messages, Mapping):
        return (*lead, *_read([messages]))
    found: list[Message] = []
    plain: list[Mapping[str, Any]] = []
    for each in messages:
        if isinstance(each, Message):
            found += _read(plain)
            plain = []
            found.append(each)
        else:
            plain.append(each)
    return (*lead, *found, *_read(plain))


def _read(messages: list[Mapping[str, Any]]) -> tuple[Message, ...]:
    """By the dialect, so that what a server would refuse is refused here in the same words."""
    if not messages:
        return ()
    body = json.dumps({"model": "-", "messages": messages}).encode()
    return openai.read_chat(body).messages

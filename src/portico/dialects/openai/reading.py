"""OpenAI's requests into values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from portico.dialects import body as bodies
from portico.dialects import tool_choice
from portico.dialects.body import Number, decode, fields, top_logprobs, whole
from portico.dialects.extra import HOSTED, STRUCTURAL
from portico.dialects.openai import conversation, wire
from portico.errors import InvalidRequest
from portico.messages import (
    JSON,
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Format,
    Sampling,
    Tool,
    ToolChoice,
)

_chat = msgspec.json.Decoder(wire.Chat)
_completion = msgspec.json.Decoder(wire.Completion)
_embedding = msgspec.json.Decoder(wire.Embedding)

_MAX_CHOICES = 128
_EFFORTS = {"ultra": "max"}
_OFF = ("none", "off", "disabled")


def read_chat(body: bytes) -> ChatRequest:
    """A chat. Raises InvalidRequest with the field's path as `param`."""
    sent = fields(body)
    chat = decode(_chat, body)
    if not chat.messages:
        raise InvalidRequest("Invalid 'messages': at least one message is needed.", param="messages")
    tools = _tools(chat)
    tools, choice = _tool_choice(chat, tools)
    template, think = _thinking(chat)
    limit = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
    return ChatRequest(
        model=chat.model,
        messages=conversation.read(chat.messages),
        tools=tools,
        tool_choice=choice,
        parallel_tool_calls=chat.parallel_tool_calls,
        format=read_format(chat.response_format),
        sampling=_sampling(chat, sent, limit=_limit(limit, at_least=1)),
        stream=bool(chat.stream),
        n=_count(chat.n),
        logprobs=bool(chat.logprobs),
        top_logprobs=top_logprobs(chat.top_logprobs, asked=bool(chat.logprobs)),
        think=think,
        include_usage=_include_usage(chat),
        template_kwargs=template,
    )


def read_completion(body: bytes) -> CompletionRequest:
    """A raw completion. `logprobs` is a number here; true, as chats have it, counts as 0."""
    sent = fields(body)
    completion = decode(_completion, body)
    logprobs = completion.logprobs
    if isinstance(logprobs, bool):
        logprobs = 0 if logprobs else None
    if logprobs is not None and not 0 <= logprobs <= bodies.MAX_TOP_LOGPROBS:
        raise InvalidRequest(
            f"Invalid 'logprobs': must be between 0 and {bodies.MAX_TOP_LOGPROBS}.", param="logprobs"
        )
    return CompletionRequest(
        model=completion.model,
        prompts=_inputs(completion.prompt, "prompt"),
        suffix=completion.suffix or None,
        echo=bool(completion.echo),
        sampling=_sampling(completion, sent, limit=_limit(completion.max_tokens, at_least=0)),
        format=read_format(completion.response_format),
        stream=bool(completion.stream),
        n=_count(completion.n),
        logprobs=whole(logprobs, "logprobs"),
        include_usage=_include_usage(completion),
    )


def read_embedding(body: bytes) -> EmbeddingRequest:
    fields(body)
    embedding = decode(_embedding, body)
    encoding = embedding.encoding_format or "float"
    if encoding not in ("float", "base64"):
        raise InvalidRequest(
            f"Invalid 'encoding_format': {encoding!r} is neither 'float' nor 'base64'.",
            param="encoding_format",
        )
    return EmbeddingRequest(
        model=embedding.model,
        inputs=_inputs(embedding.input, "input"),
        dimensions=whole(embedding.dimensions, "dimensions", at_least=1),
        encoding="base64" if encoding == "base64" else "float",
    )


# ---- fields ------------------------------------------------------------------------------------


def _inputs(sent: str | list[str | int | list[int]], param: str) -> tuple[str | tuple[int, ...], ...]:
    """A text, texts, token ids, or lists of token ids."""
    if isinstance(sent, str):
        return (sent,)
    if not sent:
        raise InvalidRequest(f"Invalid {param!r}: must not be empty.", param=param)
    if all(isinstance(item, str) for item in sent):
        return tuple(item for item in sent if isinstance(item, str))
    if all(isinstance(item, int) for item in sent):
        return (_tokens([item for item in sent if isinstance(item, int)], param),)
    if all(isinstance(item, list) for item in sent):
        return tuple(_tokens(item, param) for item in sent if isinstance(item, list))
    raise InvalidRequest(f"Invalid {param!r}: texts and token ids are mixed.", param=param)


def _tokens(ids: list[int], param: str) -> tuple[int, ...]:
    if not ids or min(ids) < 0 or max(ids) > bodies.INT32:
        raise InvalidRequest(f"Invalid {param!r}: not a list of token ids.", param=param)
    return tuple(ids)


def _sampling(settings: wire.Settings, sent: Mapping[str, msgspec.Raw], *, limit: int | None) -> Sampling:
    stop = [settings.stop] if isinstance(settings.stop, str) else settings.stop or []
    repetition = settings.repetition_penalty
    top_k = whole(settings.top_k, "top_k")
    return Sampling(
        max_tokens=limit,
        temperature=settings.temperature,
        top_p=settings.top_p,
        top_k=top_k if top_k is None or top_k > 0 else -1,
        min_p=settings.min_p,
        seed=whole(settings.seed, "seed", at_least=-(2**63), at_most=2**63 - 1),
        stop=tuple(text for text in stop if text),  # an empty one would stop every answer at once
        presence_penalty=settings.presence_penalty,
        frequency_penalty=settings.frequency_penalty,
        repetition_penalty=repetition if repetition is not None else settings.repeat_penalty,
        logit_bias=settings.logit_bias or None,
        extra=_extra(sent, settings.__struct_fields__),
    )


def _extra(sent: Mapping[str, msgspec.Raw], known: Iterable[str]) -> dict[str, JSON]:
    """What no shape here names and no hosted API claims: names of samplers that an engine may know."""
    unknown = sent.keys() - HOSTED - STRUCTURAL
    unknown.difference_update(known)
    found = {name: bodies.value(sent[name], name) for name in sent if name in unknown} if unknown else {}
    return {name: value for name, value in found.items() if value is not None}


def _limit(number: Number | None, *, at_least: int) -> int | None:
    """max_tokens; -1 is what llama.cpp's clients send for no limit."""
    return None if number == -1 else whole(number, "max_tokens", at_least=at_least)


def _count(n: Number | None) -> int:
    count = whole(n, "n", at_least=1) or 1
    if count > _MAX_CHOICES:
        raise InvalidRequest(f"Invalid 'n': at most {_MAX_CHOICES} choices are given.", param="n")
    return count


def _include_usage(settings: wire.Settings) -> bool:
    return bool(settings.stream and settings.stream_options and settings.stream_options.include_usage)


def _thinking(chat: wire.Chat) -> tuple[dict[str, JSON], bool | str | None]:
    """(the template's other arguments, think). A switch in chat_template_kwargs is the caller's most exact
    word: it wins over an effort, unless both switch on, where the effort says more."""
    template = dict(chat.chat_template_kwargs or {})
    switch: bool | None = None
    for name in ("enable_thinking", "thinking"):
        if isinstance(template.get(name), bool):
            said = bool(template.pop(name))
            switch = said if switch is None else switch
    nested = chat.reasoning
    named = template.get("reasoning_effort")
    if isinstance(named, str):  # where llama.cpp's clients put it
        del template["reasoning_effort"]
    else:
        named = None
    effort = (chat.reasoning_effort or (nested.effort if nested else None) or named or "").lower()
    if nested is not None and nested.enabled is not None and switch is None and not effort:
        switch = nested.enabled
    if switch is False or not effort:
        return template, switch
    return template, False if effort in _OFF else _EFFORTS.get(effort, effort)


def read_format(sent: wire.ResponseFormat | None) -> Format | None:
    if sent is None or sent.type == "text":
        return None
    if sent.type == "json_object":
        return Format(kind="json") if sent.schema is None else Format(kind="schema", schema=sent.schema)
    if sent.type != "json_schema":
        raise InvalidRequest(
            f"Invalid 'response_format.type': {sent.type!r} is not one of text, json_object, json_schema.",
            param="response_format.type",
        )
    asked = sent.json_schema
    if asked is None:
        raise InvalidRequest(
            "Missing required field: 'response_format.json_schema'.", param="response_format.json_schema"
        )
    if asked.schema is None:
        return Format(kind="json")
    return Format(kind="schema", name=asked.name or "response", schema=asked.schema, strict=asked.strict)


# ---- tools -------------------------------------------------------------------------------------


def _tools(chat: wire.Chat) -> tuple[Tool, ...]:
    """Functions only; a hosted API's own tools (web search, custom) are left out, not refused."""
    signatures = []
    for index, tool in enumerate(chat.tools or ()):
        if tool.type == "function" and tool.function is None:
            place = f"tools[{index}].function"
            raise InvalidRequest(f"Missing required field: {place!r}.", param=place)
        if tool.function is not None:
            signatures.append(tool.function)
    return tuple(
        Tool(name=it.name, description=it.description, parameters=it.parameters, strict=it.strict)
        for it in signatures or chat.functions or ()
    )


def _tool_choice(chat: wire.Chat, tools: tuple[Tool, ...]) -> tuple[tuple[Tool, ...], ToolChoice | None]:
    """(the tools that may be called, the choice among them)."""
    choice = chat.tool_choice if chat.tool_choice is not None else chat.function_call
    if choice is None:
        return tools, None
    if isinstance(choice, str):
        return tools, tool_choice.by_word(choice, tools)
    if isinstance(choice, wire.Named):
        return tools, tool_choice.by_name(choice.name, tools)
    if choice.allowed_tools is not None:
        allowed = {tool.function.name for tool in choice.allowed_tools.tools if tool.function is not None}
        tools = tuple(tool for tool in tools if tool.name in allowed)
        return tools, tool_choice.by_word(choice.allowed_tools.mode, tools)
    name = choice.function.name if choice.function is not None else choice.name
    if name is not None:
        return tools, tool_choice.by_name(name, tools)
    if choice.type in ("none", "auto", "required", "any"):
        return tools, tool_choice.by_word(choice.type, tools)
    if choice.type == "function":
        raise InvalidRequest("Missing required field: 'tool_choice.function'.", param="tool_choice.function")
    return tools, None  # a hosted API's own tool, which was left out

"""Values into the requests that an engine is sent."""

from __future__ import annotations

from typing import Any, TypedDict

import msgspec

from portico.dialects import body
from portico.dialects.openai import conversation, reading, wire
from portico.dialects.plain import is_plain
from portico.dialects.spelling import ANY, Spelling
from portico.errors import InvalidRequest
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Format,
    Sampling,
    Tool,
    ToolChoice,
)

_COMPACT = {"whitespace_flexible": False, "key_separator": ": ", "item_separator": ", "}
_BLANKS = 1
"""White space in a row: `, ` and `: `, as OpenAI and the embedded engine write it. A bound that would let indented JSON
through keeps answers from being lost, but a small model fills it each time."""
_WITH_USAGE = wire.StreamOptions(include_usage=True)


class _Settings(TypedDict):
    """The fields that chats and completions share, by their names on the wire."""

    model: str
    stream: bool | None
    stream_options: wire.StreamOptions | None
    n: int | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    stop: str | list[str] | None
    presence_penalty: float | None
    frequency_penalty: float | None
    repetition_penalty: float | None
    repeat_penalty: float | None
    logit_bias: dict[str, float] | None


def write_chat(request: ChatRequest, *, model: str, spelling: Spelling = ANY) -> bytes:
    """The body for /v1/chat/completions of an engine that calls the model `model`. A streamed reply always
    ends with its usage. keep_alive, truncate and context are not the engine's affair and are left out."""
    thinking, effort = _thinking(request.think, spelling)
    chat = wire.Chat(
        **_settings(request, model, spelling),
        messages=conversation.write(request.messages, extensions=spelling.extensions),
        tools=[_tool(tool) for tool in request.tools] or None,
        tool_choice=_choice(request.tool_choice),
        parallel_tool_calls=request.parallel_tool_calls,
        response_format=_format(request.format, spelling, alone=not request.tools),
        logprobs=request.logprobs or None,
        top_logprobs=request.top_logprobs if request.logprobs else None,
        reasoning_effort=effort,
        chat_template_kwargs=({**request.template_kwargs, **thinking} or None)
        if spelling.extensions
        else None,
    )
    if spelling.most_tokens == "max_completion_tokens":
        chat.max_completion_tokens, chat.max_tokens = chat.max_tokens, None
    return body.encode(chat, _extra(request, spelling))


def write_completion(request: CompletionRequest, *, model: str, spelling: Spelling = ANY) -> bytes:
    """The body for /v1/completions."""
    completion = wire.Completion(
        **_settings(request, model, spelling),
        prompt=_inputs(request.prompts),
        suffix=request.suffix,
        echo=request.echo or None,
        logprobs=request.logprobs,
    )
    extra = _extra(request, spelling)
    if request.format is not None and spelling.schema_in_completions == "json_schema":
        extra = {**extra, "json_schema": _schema(request.format, spelling)}
    else:
        completion.response_format = _format(request.format, spelling, alone=True)
    return body.encode(completion, extra)


_UNSCALED = {"embd_normalize": -1}
"""llama.cpp's word for it; others do not know it and ignore it, or refuse it."""


def write_embedding(request: EmbeddingRequest, *, model: str, spelling: Spelling = ANY) -> bytes:
    """The body for /v1/embeddings."""
    return body.encode(
        wire.Embedding(
            model=model,
            input=_inputs(request.inputs),
            dimensions=request.dimensions,
            encoding_format=request.encoding,
        ),
        {} if request.scaled or not spelling.extensions else _UNSCALED,
    )


def _settings(request: ChatRequest | CompletionRequest, model: str, spelling: Spelling) -> _Settings:
    sampling: Sampling = request.sampling
    penalty = sampling.repetition_penalty
    return _Settings(
        model=model,
        stream=request.stream or None,
        stream_options=_WITH_USAGE if request.stream else None,
        n=request.n if request.n != 1 else None,
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k if spelling.extensions else None,
        min_p=sampling.min_p if spelling.extensions else None,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        repetition_penalty=penalty if "repetition_penalty" in spelling.repetition else None,
        repeat_penalty=penalty if "repeat_penalty" in spelling.repetition else None,
        logit_bias=sampling.logit_bias,
    )


def _extra(request: ChatRequest | CompletionRequest, spelling: Spelling) -> dict[str, Any]:
    """Samplers that only some engines have."""
    return request.sampling.extra if spelling.extensions or spelling.passes_extra else {}


def _inputs(inputs: tuple[str | tuple[int, ...], ...]) -> str | list[str | int | list[int]]:
    """A lone text as a text: some engines refuse a list of one."""
    if len(inputs) == 1:
        only = inputs[0]
        return only if isinstance(only, str) else list(only)
    return [item if isinstance(item, str) else list(item) for item in inputs]


def _thinking(think: bool | str | None, spelling: Spelling) -> tuple[dict[str, Any], str | None]:
    """(arguments for the chat template, reasoning_effort). Qwen's and GLM's templates call the switch
    enable_thinking, DeepSeek's and Granite's thinking; a template overlooks what it does not know."""
    if think is None:
        return {}, None
    switch: dict[str, Any] = {"enable_thinking": bool(think), "thinking": bool(think)}
    if not isinstance(think, str):
        return switch, None
    if spelling.effort_in_template:
        switch["reasoning_effort"] = think
    return switch, think


def _tool(tool: Tool) -> wire.Tool:
    return wire.Tool(
        function=wire.Signature(
            name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
        )
    )


def _choice(choice: ToolChoice | None) -> str | wire.Choice | None:
    if choice is None:
        return None
    if choice.mode == "named" and choice.name is not None:
        return wire.Choice(type="function", function=wire.Named(name=choice.name))
    return choice.mode


def _format(format: Format | None, spelling: Spelling, *, alone: bool) -> wire.ResponseFormat | None:
    """`alone`: there are no tools, of which the engine would make a structural tag of its own."""
    if format is None:
        return None
    if spelling.bounds_white_space and alone and is_plain(schema := _schema(format, spelling)):
        return _bounded(schema)
    if format.kind == "json" and not spelling.compact_schemas:
        return wire.ResponseFormat(type="json_object")
    schema = wire.JSONSchema(name=format.name, schema=_schema(format, spelling), strict=format.strict)
    return wire.ResponseFormat(type="json_schema", json_schema=schema)


def _bounded(schema: Any) -> wire.ResponseFormat:
    """For plain schemas only: of another one the engine may have to find another grammar, which it does not here."""
    bounded = {"type": "json_schema", "json_schema": schema, "max_whitespace_cnt": _BLANKS}
    return wire.ResponseFormat(type="structural_tag", format=bounded)


def bounds(seen: wire.Peek, spelling: Spelling) -> dict[str, Any]:
    """What changes in a body that is passed on, so that its answer is not lost in white space. A format that is wrong is
    left to the engine to refuse."""
    if not spelling.bounds_white_space or seen.tools or seen.response_format is msgspec.UNSET:
        return {}
    try:
        format = reading.read_format(
            msgspec.json.decode(seen.response_format, type=wire.ResponseFormat | None)
        )
    except (msgspec.DecodeError, InvalidRequest):
        return {}
    if format is None or not is_plain(schema := _schema(format, spelling)):
        return {}
    return {"response_format": _bounded(schema)}


def _schema(format: Format, spelling: Spelling) -> Any:
    schema = format.schema if format.kind == "schema" else {"type": "object"}
    if spelling.compact_schemas and isinstance(schema, dict) and "x-guidance" not in schema:
        return {**schema, "x-guidance": _COMPACT}
    return schema

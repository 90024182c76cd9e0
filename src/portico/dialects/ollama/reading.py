"""Ollama's requests into values."""

from __future__ import annotations

from typing import Any

import msgspec

from portico.dialects import tool_choice
from portico.dialects.body import decode, fields, top_logprobs, value, whole
from portico.dialects.ollama import conversation, wire
from portico.dialects.ollama.duration import read_duration
from portico.dialects.ollama.options import read_options
from portico.errors import InvalidRequest
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    EmbeddingRequest,
    Format,
    Image,
    Message,
    Part,
    Text,
    Tool,
    ToolChoice,
    Value,
)

_chat = msgspec.json.Decoder(wire.Chat)
_generate = msgspec.json.Decoder(wire.Generate)
_embed = msgspec.json.Decoder(wire.Embed)
_embeddings = msgspec.json.Decoder(wire.Embeddings)

_THINK_LEVELS = ("low", "medium", "high", "max")


class Generate(Value, frozen=True, kw_only=True):
    """A generation: a chat of one turn, or a raw completion where the caller asked for `raw` or gave a
    `suffix`."""

    request: ChatRequest | CompletionRequest
    empty: bool = False
    """No prompt: the model is loaded, or with keep_alive 0 unloaded, and nothing is generated."""
    context: tuple[int, ...] = ()
    """Token ids of the conversation so far, as an earlier reply gave them. Only beside a chat."""
    template: str = ""
    """The caller's own template, in Go's language, which no engine here runs."""


def read_chat(body: bytes) -> ChatRequest:
    """A chat. No messages at all: the model is loaded, or with keep_alive 0 unloaded. Raises
    InvalidRequest, its message in Ollama's words where Ollama has some."""
    fields(body)
    chat = decode(_chat, body)
    top = _top_logprobs(chat)
    tools = _tools(chat.tools)
    options = read_options(chat.options)
    return ChatRequest(
        model=_model(chat.model),
        messages=conversation.read(chat.messages or ()),
        tools=tools,
        tool_choice=_tool_choice(chat.tool_choice, tools),
        format=read_format(chat.format),
        sampling=options.sampling,
        stream=chat.stream is not False,
        logprobs=bool(chat.logprobs),
        top_logprobs=top,
        think=_think(chat.think),
        keep_alive=read_duration(chat.keep_alive),
        truncate=chat.truncate is not False,
        context=options.context,
    )


def read_generate(body: bytes) -> Generate:
    """A generation. Raises InvalidRequest."""
    fields(body)
    asked = decode(_generate, body)
    top = _top_logprobs(asked)
    model = _model(asked.model)
    if asked.raw and (asked.template or asked.system or asked.context):
        raise InvalidRequest("raw mode does not support template, system, or context", param="raw")
    shown = conversation.read_images(asked.images, "images")
    prompt, suffix = asked.prompt or "", asked.suffix or ""
    if asked.raw or suffix:
        if shown:
            raise InvalidRequest("raw mode and suffix do not support images here", param="images")
        request: ChatRequest | CompletionRequest = _completion(asked, model, top)
    else:
        request = _one_turn(asked, model, top, shown)
    return Generate(
        request=request,
        empty=not prompt and not suffix,
        context=_tokens(asked.context),
        template=asked.template or "",
    )


def read_embed(body: bytes) -> EmbeddingRequest:
    """/api/embed. No input, or an empty text, gives no inputs: the model is only loaded."""
    fields(body)
    embed = decode(_embed, body)
    sent = embed.input
    inputs = [sent] if isinstance(sent, str) and sent else sent or []
    if not isinstance(inputs, list) or not all(isinstance(item, str) for item in inputs):
        raise InvalidRequest("invalid input type", param="input")
    read_options(embed.options)
    return EmbeddingRequest(
        model=_model(embed.model),
        inputs=tuple(inputs),
        dimensions=_dimensions(embed.dimensions),
        truncate=embed.truncate is not False,
        keep_alive=read_duration(embed.keep_alive),
    )


def read_embeddings(body: bytes) -> EmbeddingRequest:
    """/api/embeddings, the older route of one prompt. No prompt gives no inputs."""
    fields(body)
    embed = decode(_embeddings, body)
    read_options(embed.options)
    return EmbeddingRequest(
        model=_model(embed.model),
        inputs=(embed.prompt,) if embed.prompt else (),
        scaled=False,
        keep_alive=read_duration(embed.keep_alive),
    )


# ---- generations ---------------------------------------------------------------------------------


def _completion(asked: wire.Generate, model: str, top: int | None) -> CompletionRequest:
    options = read_options(asked.options)
    return CompletionRequest(
        model=model,
        prompts=(asked.prompt or "",),
        suffix=asked.suffix or None,
        sampling=options.sampling,
        format=read_format(asked.format),
        stream=asked.stream is not False,
        logprobs=(top or 0) if asked.logprobs else None,
        keep_alive=read_duration(asked.keep_alive),
        context=options.context,
    )


def _one_turn(asked: wire.Generate, model: str, top: int | None, shown: tuple[Image, ...]) -> ChatRequest:
    options = read_options(asked.options)
    said: tuple[Part, ...] = (Text(text=asked.prompt),) if asked.prompt else ()
    system = (Message(role="system", parts=(Text(text=asked.system),)),) if asked.system else ()
    return ChatRequest(
        model=model,
        messages=(*system, Message(role="user", parts=(*shown, *said))),
        sampling=options.sampling,
        format=read_format(asked.format),
        stream=asked.stream is not False,
        logprobs=bool(asked.logprobs),
        top_logprobs=top,
        think=_think(asked.think),
        keep_alive=read_duration(asked.keep_alive),
        truncate=asked.truncate is not False,
        context=options.context,
    )


def _tokens(ids: list[int] | None) -> tuple[int, ...]:
    if ids and (min(ids) < 0 or max(ids) >= 2**31):
        raise InvalidRequest("Invalid 'context': not a list of token ids.", param="context")
    return tuple(ids or ())


# ---- fields --------------------------------------------------------------------------------------


def _model(name: str) -> str:
    if not name.strip():
        raise InvalidRequest("model is required", param="model")
    return name


def _dimensions(number: int | float | None) -> int | None:
    """0 is Go's unset."""
    return whole(number, "dimensions", at_least=0) or None


def _top_logprobs(asked: wire.Asked) -> int | None:
    """The range is looked at even where no log probabilities are asked for, which then have no number."""
    number = top_logprobs(asked.top_logprobs, asked=True)
    return number if asked.logprobs else None


def _think(sent: bool | str | None) -> bool | str | None:
    if not isinstance(sent, str):
        return sent
    level = sent.lower()
    if level in _THINK_LEVELS:
        return level
    if level in ("true", "false"):
        return level == "true"
    if not level:
        return None
    raise InvalidRequest(
        f'invalid think value: "{sent}" (must be "high", "medium", "low", "max", true, or false)',
        param="think",
    )


def read_format(sent: Any) -> Format | None:
    """null and "" are no format, "json" any object; a schema may be an object or its JSON text."""
    if sent is None or sent == "":
        return None
    if sent == "json":
        return Format(kind="json")
    if isinstance(sent, str):
        try:
            sent = value(sent.encode(), "format")
        except InvalidRequest:
            raise InvalidRequest(
                f'invalid format: "{sent}"; expected "json" or a valid JSON Schema object', param="format"
            ) from None
    if isinstance(sent, dict):
        return Format(kind="schema", schema=sent)
    raise InvalidRequest('invalid format: expected "json" or a valid JSON Schema object', param="format")


def _tools(sent: list[wire.Tool] | None) -> tuple[Tool, ...]:
    tools = []
    for index, tool in enumerate(sent or ()):
        if tool.function is None:
            place = f"tools[{index}].function"
            raise InvalidRequest(f"Missing required field: {place!r}.", param=place)
        signature = tool.function
        tools.append(
            Tool(name=signature.name, description=signature.description, parameters=signature.parameters)
        )
    return tuple(tools)


def _tool_choice(sent: str | wire.Choice | None, tools: tuple[Tool, ...]) -> ToolChoice | None:
    if sent is None or sent == "":
        return None
    if isinstance(sent, str):
        return tool_choice.by_word(sent, tools)
    return tool_choice.by_name(sent.function.name, tools)

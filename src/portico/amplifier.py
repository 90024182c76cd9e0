"""Models of Portico, vLLM or any server with OpenAI's API, as a provider of Amplifier (docs/amplifier.md).

Amplifier finds it by its entry points `provider-portico` and `provider-vllm`, or by this file's path: so it is one file, and
its imports are absolute. A request becomes an `Asked`, by decisions that do no I/O; `Provider` asks the server, with the parts
of portico's AsyncClient, and tells Amplifier's hooks what happens.
"""

from __future__ import annotations

import asyncio
import atexit
import difflib
import itertools
import json
import logging
import os
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, cast

import msgspec
from amplifier_core import llm_errors, message_models
from amplifier_core.content_models import TextContent, ThinkingContent, ToolCallContent
from amplifier_core.message_models import ChatRequest as AmplifierRequest
from amplifier_core.message_models import ChatResponse, Degradation, TextBlock, ThinkingBlock, ToolCallBlock
from amplifier_core.models import ConfigField, ModelInfo, ProviderInfo
from amplifier_core.utils import redact_secrets, truncate_values
from amplifier_core.utils.retry import classify_error_message

from portico import errors
from portico.client import options
from portico.client.exchange import pause
from portico.client.flows import CHAT, COMPLETIONS, Flows
from portico.client.results import Result
from portico.client.servers import Server, candidates
from portico.client.settings import NO_RETRY, Retry, Timeouts
from portico.client.wishes import Answer, Flow, Send
from portico.dialects import openai
from portico.messages import (
    ChatRequest,
    CompletionRequest,
    Format,
    Image,
    Logprob,
    Message,
    Part,
    Reasoning,
    ReasoningDelta,
    Text,
    TextDelta,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolChoice,
    ToolResult,
    Usage,
    Value,
)

if TYPE_CHECKING:
    from portico.client.async_client import AsyncClient

__amplifier_module_type__ = "provider"
log = logging.getLogger("portico.amplifier")
Endpoint = Literal["auto", "chat", "completions"]
Emit = Callable[[str, dict[str, Any]], Awaitable[Any]]

# ---- configuration -----------------------------------------------------------------------------


class Config(Value, frozen=True, kw_only=True):
    """A `config:` block. Its keys, their defaults and where they come from are a table in docs/amplifier.md."""

    base_url: str = ""
    api_key: str = ""
    default_model: str = ""
    endpoint: Endpoint = "auto"
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    logprobs: int | None = None
    """So many alternatives beside each token; 0: the token's own alone."""
    echo: bool = False
    reasoning_effort: str | None = None
    thinking_budget_tokens: int | None = None
    thinking_budget_buffer: int = 1024
    """Tokens that an answer has at least after its thoughts, where both have a limit."""
    use_streaming: bool = True
    timeout: float = 600.0
    """Seconds for a whole call, retries included; 0: no limit."""
    stream_idle_timeout: float = 300.0
    """Seconds until the first byte of a stream, and between two; 0: no limit."""
    max_retries: int = 5
    min_retry_delay: float = 1.0
    max_retry_delay: float = 60.0
    retry_jitter: bool = True
    context_window: int | None = None
    max_output_tokens: int | None = None
    priority: int = 100
    debug: bool = False
    raw_debug: bool = False
    debug_truncate_length: int = 180
    raw: bool = False


_WITHOUT_EFFECT = {"reasoning_summary", "truncation", "enable_state"}
"""Of OpenAI's Responses API, which this provider does not use: nothing is truncated, no state is kept."""
_VARIABLES = {
    "VLLM_MODEL_NAME": "default_model",
    "VLLM_MODEL": "default_model",
    "VLLM_STREAM_IDLE_TIMEOUT": "stream_idle_timeout",
    "VLLM_CONTEXT_WINDOW": "context_window",
    "VLLM_MAX_OUTPUT_TOKENS": "max_output_tokens",
}
_HOSTS = {
    "PORTICO_HOST": "PORTICO_API_KEY",
    "VLLM_BASE_URL": "VLLM_API_KEY",
    "VLLM_ENDPOINT": "VLLM_API_KEY",
}
"""Variables that name the server -> that of its key."""
NO_BASE_URL = (
    "No base_url found. Add it to the provider's config, such as base_url: http://localhost:8000, or set VLLM_BASE_URL or "
    "PORTICO_HOST. A server is started by `portico serve`."
)


def read_config(given: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """The block, and what variables say of the rest. A key that nobody knows is logged with the nearest one. Raises
    ConfigurationError for a value that is none."""
    said: dict[str, Any] = {
        name: environ[variable] for variable, name in _VARIABLES.items() if environ.get(variable)
    }
    said |= {name: value for name, value in given.items() if value is not None}
    if "use_completions" in said:
        wanted = "completions" if _flag("use_completions", said.pop("use_completions")) else "chat"
        said.setdefault("endpoint", wanted)
    if "reasoning" in said:
        said.setdefault("reasoning_effort", _effort(said.pop("reasoning")))
    read: dict[str, Any] = {}
    for name, value in said.items():
        if name in _READERS:
            read[name] = _READERS[name](name, value)
        elif name not in _WITHOUT_EFFECT:
            near = errors.near(difflib.get_close_matches(name, [*_READERS, "use_completions", "reasoning"]))
            log.warning("There is no setting %r%s", name, near)
    return Config(**read)


def _wrong(name: str, value: Any, wanted: str) -> llm_errors.LLMError:
    return llm_errors.ConfigurationError(f"The setting {name} is to be {wanted}, and is {value!r}.")


def _flag(name: str, value: Any) -> bool:
    """Amplifier's own setup stores texts."""
    words = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False}
    found = value if isinstance(value, bool) else (words | {"0": False}).get(str(value).lower())
    if found is None:
        raise _wrong(name, value, "true or false")
    return found


def _number(name: str, value: Any) -> float:
    try:
        if isinstance(value, bool) or (number := float(value)) < 0 or number != number:
            raise ValueError
    except (TypeError, ValueError):
        raise _wrong(name, value, "a number of at least 0") from None
    return number


def _whole(name: str, value: Any) -> int:
    if (number := _number(name, value)) % 1:
        raise _wrong(name, value, "a whole number")
    return int(number)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise _wrong(name, value, "a text")
    return value.strip()


def _texts(name: str, value: Any) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list | tuple) or not all(isinstance(each, str) for each in texts):
        raise _wrong(name, value, "a text or a list of texts")
    return tuple(texts)


def _alternatives(name: str, value: Any) -> int | None:
    """True: each token's own; a number: so many alternatives besides."""
    if isinstance(value, bool) or value is None:
        return 0 if value else None
    return _whole(name, value)


def _endpoint(name: str, value: Any) -> Endpoint:
    if value not in ("auto", "chat", "completions"):
        raise _wrong(name, value, "auto, chat or completions")
    return cast(Endpoint, value)


def _effort(value: Any) -> str | None:
    """`high`, or the Responses API's `{effort: high, summary: detailed}`."""
    found = value.get("effort") if isinstance(value, Mapping) else value
    return None if found is None else str(found)


_READERS: dict[str, Callable[[str, Any], Any]] = {
    **dict.fromkeys(("base_url", "api_key", "default_model", "reasoning_effort"), _text),
    **dict.fromkeys(("temperature", "top_p", "timeout", "stream_idle_timeout"), _number),
    **dict.fromkeys(("min_retry_delay", "max_retry_delay"), _number),
    **dict.fromkeys(("max_tokens", "thinking_budget_tokens", "thinking_budget_buffer"), _whole),
    **dict.fromkeys(("max_retries", "context_window", "max_output_tokens", "debug_truncate_length"), _whole),
    **dict.fromkeys(("echo", "use_streaming", "retry_jitter", "debug", "raw_debug", "raw"), _flag),
    "stop": _texts,
    "endpoint": _endpoint,
    "logprobs": _alternatives,
    "priority": lambda name, value: int(value) if isinstance(value, int) else _whole(name, value),
}


def server(config: Config, environ: Mapping[str, str]) -> Server:
    """The server that is meant: the configuration's, else that of PORTICO_HOST, VLLM_BASE_URL or VLLM_ENDPOINT. A key of the
    environment goes only to the server of its own variable, or to the configuration's where no variable names another.
    Raises ConfigurationError where none is named."""
    known = {name: environ[name] for pair in _HOSTS.items() for name in pair if environ.get(name)}
    try:
        found = candidates(config.base_url or None, config.api_key or None, known)[0]
    except errors.ConfigError as error:
        raise llm_errors.ConfigurationError(str(error)) from error
    if not found.origin:
        raise llm_errors.ConfigurationError(NO_BASE_URL)
    if found.origin == "url" and not config.api_key and not any(host in known for host in _HOSTS):
        key = known.get("VLLM_API_KEY") or known.get("PORTICO_API_KEY", "").split(",")[0]
        return candidates(config.base_url, key or "EMPTY", {})[0]
    return found


# ---- what is asked -----------------------------------------------------------------------------


class Lost(Value, frozen=True, kw_only=True):
    """What was asked for and not done."""

    requested: str
    actual: str
    reason: str


class Asked(Value, frozen=True, kw_only=True):
    """A request of Amplifier's, with the configuration where it says nothing."""

    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    think: bool | str | None = None
    options: dict[str, Any] = {}
    """By the names of vLLM's parameters."""
    echo: bool = False
    endpoint: Endpoint = "auto"
    shown: bool = True
    """Its blocks are told to the hooks as they come."""
    timeout: float = 600.0
    lost: tuple[Lost, ...] = ()
    mended: tuple[ToolCall, ...] = ()
    """Calls that had no result, and have one now that says so."""

    @property
    def completes(self) -> bool:
        """A raw completion: asked for, or the only way to an echo."""
        return self.endpoint == "completions" or (
            self.endpoint == "auto" and self.echo and not self.tools and not self.pictures
        )

    @property
    def pictures(self) -> bool:
        return any(isinstance(part, Image) for message in self.messages for part in message.parts)


_SAMPLERS = (
    *("top_k", "min_p", "seed", "min_tokens", "presence_penalty", "frequency_penalty", "repetition_penalty"),
    *(
        "logit_bias",
        "stop_token_ids",
        "bad_words",
        "ignore_eos",
        "chat_template_kwargs",
        "thinking_token_budget",
    ),
)
"""Of vLLM's parameters, those that a request may carry beside Amplifier's own fields."""
_OFF = ("none", "off", "disabled", "false")


def read_request(request: AmplifierRequest, given: Mapping[str, Any], config: Config) -> Asked:
    """What to ask. The call's own arguments win over the request's fields, those over its metadata, and all over the
    configuration. Raises InvalidRequestError."""
    about = request.metadata or {}
    said = {**(request.model_extra or {}), **{name: it for name, it in given.items() if it is not None}}
    lost: list[Lost] = []

    def first(*values: Any) -> Any:
        return next((value for value in values if value is not None), None)

    effort = first(_effort(said.get("reasoning_effort")), _effort(said.get("reasoning")))
    effort = first(effort, request.reasoning_effort, config.reasoning_effort)
    think: bool | str | None = True if effort is None and said.get("extended_thinking") is True else None
    if effort is not None:
        think = False if effort.lower() in _OFF else effort.lower()
    if think == "minimal":  # which open models do not know
        think = "low"
        lost.append(
            Lost(requested="reasoning_effort minimal", actual="low", reason="the lowest that models have")
        )

    wished = {name: said[name] for name in _SAMPLERS if name in said}
    for name in ("logit_bias", "chat_template_kwargs"):
        if not isinstance(wished.get(name, {}), Mapping):
            raise _wrong(name, wished[name], "an object")
    for name in ("temperature", "top_p"):
        value = first(said.get(name), getattr(request, name), getattr(config, name))
        wished[name] = None if value is None else _number(name, value)
    wished["stop"] = _texts("stop", first(said.get("stop"), request.stop, list(config.stop)))
    logprobs = first(said.get("logprobs"), about.get("logprobs"), config.logprobs)
    if (alternatives := _alternatives("logprobs", logprobs)) is not None:
        wished["logprobs"] = alternatives or True
    most = first(
        said.get("max_output_tokens"), said.get("max_tokens"), request.max_output_tokens, config.max_tokens
    )
    most = None if most is None else _whole("max_output_tokens", most)
    budget = first(said.get("thinking_budget_tokens"), config.thinking_budget_tokens)
    if budget is not None and think is not False:
        wished["thinking_token_budget"] = budget = _whole("thinking_budget_tokens", budget)
        floor = budget + config.thinking_budget_buffer
        most = None if most is None else max(most, floor)
    wished["max_tokens"] = most

    tools = tuple(
        Tool(name=tool.name, description=tool.description, parameters=tool.parameters)
        for tool in request.tools or ()
    )
    choice = read_choice(first(said.get("tool_choice"), request.tool_choice))
    if choice is not None and choice.mode == "none":
        tools, choice = (), None
    messages, mended = repaired(conversation(request.messages))
    return Asked(
        model=_text("model", first(said.get("model"), request.model, config.default_model)),
        messages=messages,
        tools=tools,
        tool_choice=choice if tools else None,
        parallel_tool_calls=said.get("parallel_tool_calls") if tools else None,
        format=read_format(first(said.get("response_format"), request.response_format)),
        think=think,
        options={name: value for name, value in wished.items() if value is not None and value != ()},
        echo=bool(first(said.get("echo"), about.get("echo"), config.echo)),
        endpoint=_endpoint("endpoint", first(said.get("endpoint"), about.get("endpoint"), config.endpoint)),
        shown=config.use_streaming and about.get("stream") is not False and said.get("stream") is not False,
        timeout=_number("timeout", first(said.get("timeout"), request.timeout, config.timeout)),
        lost=tuple(lost),
        mended=tuple(mended),
    )


def read_choice(choice: Any) -> ToolChoice | None:
    """auto, none, required or any, a tool's name, or OpenAI's and Anthropic's objects for them."""
    if choice is None:
        return None
    if isinstance(choice, Mapping):
        named = choice.get("name") or (choice.get("function") or {}).get("name")
        return ToolChoice(mode="named", name=named) if named else read_choice(choice.get("type"))
    if choice in ("auto", "none", "required"):
        return ToolChoice(mode=choice)
    return ToolChoice(mode="required") if choice == "any" else ToolChoice(mode="named", name=str(choice))


def read_format(asked: Any) -> Format | None:
    """Amplifier's response_format, or its type alone; the schema may stand in OpenAI's envelope with its name."""
    asked = {"type": asked} if isinstance(asked, str) else asked
    fields = asked.model_dump() if hasattr(asked, "model_dump") else asked or {}
    if not isinstance(fields, Mapping):
        raise _wrong("response_format", asked, "an object with its type")
    kind = fields.get("type", "text")
    if kind == "text":
        return None
    schema = fields.get("json_schema") or fields.get("schema")
    if kind in ("json", "json_object") or not isinstance(schema, Mapping):
        return Format(kind="json")
    inner, strict = schema.get("schema"), fields.get("strict")
    if isinstance(inner, Mapping):
        strict = schema.get("strict") if strict is None else strict
        return Format(kind="schema", name=schema.get("name") or "response", schema=dict(inner), strict=strict)
    return Format(kind="schema", schema=dict(schema), strict=strict)


# ---- messages ----------------------------------------------------------------------------------


def conversation(messages: Sequence[message_models.Message]) -> tuple[Message, ...]:
    """Amplifier's messages as ours. What the system and developer say before anybody else is one system message, as chat
    templates want it; what they say later stays in its place, as the user's in <system> tags: most templates refuse it
    elsewhere, and moved to the front it would empty the server's cache each time. Raises InvalidRequestError."""
    lead: list[str] = []
    found: list[Message] = []
    for message in messages:
        parts = tuple(_parts(message))
        texts = [part.text for part in parts if isinstance(part, Text)]
        if message.role in ("system", "developer"):
            if found:
                said = "\n".join(texts)
                found.append(Message(role="user", parts=(Text(text=f"<system>\n{said}\n</system>"),)))
            else:
                lead += texts
        elif message.role in ("tool", "function"):
            found.append(_answered(message, parts))
        else:
            role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
            results = [part for part in parts if isinstance(part, ToolResult)]
            found += [Message(role="tool", parts=(result,)) for result in results]
            rest = tuple(part for part in parts if not isinstance(part, ToolResult))
            if rest or not results:
                found.append(Message(role=role, parts=rest))
    front = (Message(role="system", parts=(Text(text="\n\n".join(lead)),)),) if lead else ()
    return (*front, *found)


def _answered(message: message_models.Message, parts: tuple[Part, ...]) -> Message:
    """A tool's message: with blocks of results, or with the result as its content."""
    results = tuple(part for part in parts if isinstance(part, ToolResult))
    if not results:
        text = "\n".join(part.text for part in parts if isinstance(part, Text))
        results = (ToolResult(id=message.tool_call_id or "", name=message.name or "", text=text),)
    return Message(role="tool", parts=(*results, *(part for part in parts if isinstance(part, Image))))


def _parts(message: message_models.Message) -> Iterator[Part]:
    if isinstance(message.content, str):
        if message.content:
            yield Text(text=message.content)
    else:
        for block in message.content:
            yield from _part(block)
    known = {block.id for block in message.content if isinstance(block, ToolCallBlock)}
    for call in (message.model_extra or {}).get("tool_calls") or ():  # where orchestrators keep them
        if not isinstance(call, Mapping):
            raise _wrong("tool_calls", call, "a list of objects")
        if call.get("id") not in known:
            function = call.get("function") or call
            name = function.get("name") or function.get("tool") or ""
            given = function.get("arguments", function.get("input"))
            yield ToolCall(
                id=call.get("id") or "", name=name, arguments=_written(given if given is not None else {})
            )


def _part(block: Any) -> Iterator[Part]:
    match block:
        case message_models.TextBlock():
            if block.text:
                yield Text(text=block.text)
        case message_models.ThinkingBlock():
            yield Reasoning(text=block.thinking)
        case message_models.ReasoningBlock():
            pieces = [*block.content, *block.summary]
            texts = [piece.get("text", "") if isinstance(piece, Mapping) else str(piece) for piece in pieces]
            yield Reasoning(text="\n".join(text for text in texts if text))
        case message_models.ToolCallBlock():
            yield ToolCall(id=block.id, name=block.name, arguments=_written(block.input))
        case message_models.ToolResultBlock():
            yield ToolResult(id=block.tool_call_id, text=_written(block.output))
        case message_models.ImageBlock():
            yield Image(url=_picture(block.source))


def _written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _picture(source: Mapping[str, Any]) -> str:
    """Anthropic's sources (base64, url), and OpenAI's."""
    if source.get("data"):
        return f"data:{source.get('media_type') or 'image/png'};base64,{source['data']}"
    url = source.get("url") or source.get("image_url")
    url = url.get("url") if isinstance(url, Mapping) else url
    if not isinstance(url, str):
        raise llm_errors.InvalidRequestError(
            f"An image's source is to have `data` with its `media_type`, or a `url`; it has {sorted(source)}."
        )
    return url


NO_RESULT = "Error: this call has no result; it was interrupted. Make it again if it is still needed."


def repaired(messages: Sequence[Message]) -> tuple[tuple[Message, ...], list[ToolCall]]:
    """The conversation with a result right after each call, in the calls' order, and the calls that had none. A result
    without a call becomes the user's text. What was given stays as it is, and nothing is remembered: the same hole is
    mended each time."""
    taken: set[int] = set()
    missing: list[ToolCall] = []
    found: list[Message] = []
    for place, message in enumerate(messages):
        if place in taken:
            continue
        calls = [part for part in message.parts if isinstance(part, ToolCall)]
        if message.role == "tool":
            found.append(_orphan(message))
            continue
        found.append(message)
        lacking = []
        for call in calls:
            at = _result_of(call, messages, place, taken)
            if at is None:
                lacking.append(call)
                result = ToolResult(id=call.id, name=call.name, text=NO_RESULT)
                found.append(Message(role="tool", parts=(result,)))
            else:
                taken.add(at)
                found.append(messages[at])
        following = next((each for at, each in enumerate(messages) if at > place and at not in taken), None)
        if lacking and following is not None and following.role == "user":
            # Some templates want an answer between a tool's result and the user.
            found.append(Message(role="assistant", parts=(Text(text="The call was interrupted."),)))
        missing += lacking
    return tuple(found), missing


def _result_of(call: ToolCall, messages: Sequence[Message], place: int, taken: set[int]) -> int | None:
    """Where the call's result is: before any later call with the same id, since some models number them anew each turn."""
    for at in range(place + 1, len(messages)):
        for part in messages[at].parts:
            if isinstance(part, ToolCall) and part.id == call.id:
                return None
            if isinstance(part, ToolResult) and part.id == call.id and at not in taken:
                return at
    return None


def _orphan(message: Message) -> Message:
    texts = [part.text for part in message.parts if isinstance(part, ToolResult)]
    said = "\n".join(texts)
    return Message(role="user", parts=(Text(text=f"Result of a tool call that is not shown:\n{said}"),))


_SPEAKERS = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
TURN = "\nUser:"
"""What a transcript's answer ends before, where nothing else is said: a base model would go on with the user's turn."""


def prompt(messages: Sequence[Message]) -> tuple[str, bool]:
    """(the prompt of a raw completion, whether it is a transcript). One message of the user's alone is the prompt, as it
    is. Else: what the system says, an empty line, and `User: ...`, `Assistant: ...`, `Tool: ...` each on lines of their own,
    a call as `[NAME ARGUMENTS]`, with `Assistant:` at the end; an assistant's message at the end is gone on with instead.
    Raises InvalidRequestError for an image."""
    if any(isinstance(part, Image) for message in messages for part in message.parts):
        raise llm_errors.InvalidRequestError("A raw completion has no images; ask with endpoint: chat.")
    if len(messages) == 1 and messages[0].role == "user":
        return messages[0].text, False
    lead = "".join(f"{message.text}\n\n" for message in messages if message.role == "system")
    lines = []
    for message in messages:
        if message.role != "system":
            said = [message.text] if message.text else []
            said += [part.text for part in message.parts if isinstance(part, ToolResult)]
            said += [
                f"[{part.name} {part.arguments}]" for part in message.parts if isinstance(part, ToolCall)
            ]
            lines.append(f"{_SPEAKERS[message.role]}: {' '.join(said)}")
    if not messages or messages[-1].role != "assistant":
        lines.append("Assistant:")
    return lead + "\n".join(lines), True


# ---- requests ----------------------------------------------------------------------------------


def chat_request(asked: Asked, model: str, *, stream: bool) -> ChatRequest:
    made = options.chat(
        model,
        asked.messages,
        tools=asked.tools,
        tool_choice=asked.tool_choice,
        parallel_tool_calls=asked.parallel_tool_calls,
        format=asked.format,
        think=asked.think,
        options=asked.options,
    )
    return msgspec.structs.replace(made, stream=stream)


def completion_request(asked: Asked, model: str, *, stream: bool) -> CompletionRequest:
    text, transcript = prompt(asked.messages)
    told = {name: value for name, value in asked.options.items() if name != "thinking_token_budget"}
    if transcript and "stop" not in told:
        told["stop"] = (TURN,)
    made = options.completion(model, [text], echo=asked.echo, format=asked.format, options=told)
    return msgspec.structs.replace(made, stream=stream)


def not_done(asked: Asked, *, completion: bool) -> tuple[Lost, ...]:
    """What the endpoint cannot do of what is asked."""
    lost = list(asked.lost)
    if completion and asked.tools:
        lost.append(
            Lost(requested="tools", actual="text", reason="a raw completion has no tools: endpoint: chat")
        )
    if completion and asked.think is not None:
        lost.append(
            Lost(requested="reasoning_effort", actual="none", reason="a raw completion has no reasoning")
        )
    if not completion and asked.echo:
        lost.append(
            Lost(requested="echo", actual="no echo", reason="a chat has no echo: endpoint: completions")
        )
    return tuple(lost)


def degradation(lost: Sequence[Lost]) -> Degradation | None:
    if not lost:
        return None
    fields = {name: "; ".join(getattr(each, name) for each in lost) for name in Lost.__struct_fields__}
    return Degradation(**fields)


# ---- answers -----------------------------------------------------------------------------------


class Told(Value, frozen=True, kw_only=True):
    """A whole answer, and the request that it answers."""

    asked: Asked
    model: str
    completion: bool
    result: Result[Any]


def response(told: Told, *, provider: str, spent: Usage | None = None) -> ChatResponse:
    """Amplifier's form of an answer. `spent`: what was used before, for the same call. Raises InvalidToolCallError for
    arguments that are no JSON object."""
    result, asked = told.result, told.asked
    calls = [_call(call, asked, told, provider) for call in result.tool_calls]
    text = (
        result.text.strip()
        if told.completion and prompt(asked.messages)[1] and not asked.echo
        else result.text
    )
    content: list[Any] = []
    if result.reasoning:
        content.append(ThinkingBlock(thinking=result.reasoning, visibility="internal"))
    if text or not (calls or content):
        content.append(TextBlock(text=text))
    content += [ToolCallBlock(id=call.id, name=call.name, input=call.arguments) for call in calls]
    shown: list[Any] = [ThinkingContent(text=result.reasoning)] if result.reasoning else []
    shown += [TextContent(text=text)] if text else []
    shown += [ToolCallContent(id=call.id, name=call.name, arguments=call.arguments) for call in calls]
    about: dict[str, Any] = {
        "provider": provider,
        "model": result.model or told.model,
        "endpoint": "completions" if told.completion else "chat",
        "url": result.url,
        "request_id": result.request_id,
        "seconds": round(result.timing.total, 3),
    }
    if result.logprobs:
        about["logprobs"] = [_logprob(each) for each in result.logprobs]
    return ChatResponse(
        content=content,
        tool_calls=calls or None,
        usage=_usage(result.usage, spent),
        degradation=degradation(not_done(asked, completion=told.completion)),
        finish_reason=result.finish_reason,
        metadata=about,
        text=text,
        content_blocks=shown,
    )


def _call(call: ToolCall, asked: Asked, told: Told, provider: str) -> message_models.ToolCall:
    try:
        arguments = json.loads(call.arguments) if call.arguments.strip() else {}
        if not isinstance(arguments, dict):
            raise ValueError("they are no object")
    except ValueError as error:
        cut = " The answer was cut off: raise max_tokens." if told.result.finish_reason == "length" else ""
        raise llm_errors.InvalidToolCallError(
            f"The model called {call.name!r} with arguments that are no JSON object ({error}).{cut}",
            tool_name=call.name,
            raw_arguments=call.arguments,
            provider=provider,
            model=told.model,
        ) from error
    tool = next((tool for tool in asked.tools if tool.name == call.name), None)
    schema = tool.parameters if tool is not None and isinstance(tool.parameters, dict) else {}
    return message_models.ToolCall(
        id=call.id or f"call_{uuid.uuid4().hex[:24]}", name=call.name, arguments=_unquoted(arguments, schema)
    )


def _unquoted(arguments: dict[str, Any], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Some models (Qwen3-Coder) write an object or a list once more as a text: where the schema wants one, it is read."""
    kinds = {"object": dict, "array": list}
    properties = schema.get("properties")
    wanted = properties if isinstance(properties, Mapping) else {}
    found = dict(arguments)
    for name, value in arguments.items():
        declared = wanted.get(name)
        kind = declared.get("type") if isinstance(declared, Mapping) else None
        if isinstance(value, str) and isinstance(kind, str) and kind in kinds:
            try:
                inner = json.loads(value)
            except ValueError:
                continue
            found[name] = inner if isinstance(inner, kinds[kind]) else value
    return found


def _logprob(each: Logprob) -> dict[str, Any]:
    """OpenAI's form; null where the engine gives none, as for the first token of an echo."""

    def told(one: Logprob) -> dict[str, Any]:
        bytes_ = None if one.bytes is None else list(one.bytes)
        return {
            "token": one.token,
            "logprob": one.logprob if one.logprob == one.logprob else None,
            "bytes": bytes_,
        }

    return {**told(each), "top_logprobs": [told(one) for one in each.top]}


def _usage(usage: Usage, spent: Usage | None) -> message_models.Usage | None:
    """None where the server tells nothing, which is not the same as nothing used."""
    if not usage.input_tokens and not usage.output_tokens:
        return None
    before = spent or Usage()
    taken = usage.input_tokens + before.input_tokens
    given = usage.output_tokens + before.output_tokens
    return message_models.Usage(
        input_tokens=taken,
        output_tokens=given,
        total_tokens=taken + given,
        reasoning_tokens=_sum(usage.reasoning_tokens, before.reasoning_tokens),
        cache_read_tokens=_sum(usage.cached_tokens, before.cached_tokens),
    )


def _sum(one: int | None, other: int | None) -> int | None:
    return None if one is None and other is None else (one or 0) + (other or 0)


class Blocks:
    """Owns the numbers of one answer's blocks, and tells them to the hooks as they come: in the events that Amplifier's
    providers share (llm:stream_block_start, _delta, _end, llm:stream_aborted). The arguments of a call have no deltas.
    `held`: until `release`, for an answer that may turn out not to be the last."""

    def __init__(self, emit: Emit, *, shown: bool, held: bool = False) -> None:
        self._emit, self._shown = emit, shown
        self._held: list[tuple[str, dict[str, Any]]] | None = [] if held else None
        self._id = str(uuid.uuid4())
        self._index, self._sequence = -1, 0
        self._open: tuple[str, int] | None = None
        self._told = False
        self.begun = False
        """Something of the answer has come: it is not asked for again."""

    async def add(self, event: object) -> None:
        self.begun = True
        match event:
            case ReasoningDelta(text=text) if text:
                await self._delta("thinking", text)
            case TextDelta(text=text) if text:
                await self._delta("text", text)
            case ToolCallDelta():
                await self._turn(("tool_use", event.call), event.name)

    async def end(self) -> None:
        if self._open is not None:
            await self._say("block_end", block_type=self._open[0])
            self._open = None

    async def aborted(self, error: BaseException) -> None:
        if self._told:
            said = {"type": type(error).__name__, "msg": str(error)}
            await self._emit("llm:stream_aborted", {"request_id": self._id, "error": said})

    async def release(self) -> None:
        held, self._held = self._held or [], None
        for event, payload in held:
            await self._emit(event, payload)

    async def _delta(self, kind: str, text: str) -> None:
        await self._turn((kind, 0))
        await self._say("block_delta", block_type=kind, sequence=self._sequence, text=text)
        self._sequence += 1

    async def _turn(self, block: tuple[str, int], name: str = "") -> None:
        if self._open == block:
            return
        await self.end()
        self._open, self._sequence = block, 0
        self._index += 1
        await self._say("block_start", block_type=block[0], **({"name": name} if name else {}))

    async def _say(self, what: str, **fields: Any) -> None:
        if not self._shown:
            return
        payload = {"request_id": self._id, "block_index": self._index, **fields}
        if self._held is not None:
            self._held.append((f"llm:stream_{what}", payload))
            return
        self._told = True
        await self._emit(f"llm:stream_{what}", payload)


# ---- errors ------------------------------------------------------------------------------------

_WARMING = (
    "waiting for service to respond",
    "service is starting",
    "starting up",
    "warming up",
    "initializing",
)
"""What gateways say with 404 or 425 while the server behind them starts."""


_SETTINGS = {
    "(url=)": "(base_url)",
    ": url=,": ": base_url,",
    "(timeouts=first_token)": "(stream_idle_timeout)",
    "(timeouts=between_tokens)": "(stream_idle_timeout)",
}
"""What errors say is to be set: the client's names, and the configuration's."""


class Seen:
    """What one call of Amplifier's has met, for errors and the log."""

    announced = False
    """The hooks know of the call."""
    reply: Answer | None = None
    """The attempt's reply, where its status is not 200."""
    opened = False
    """The attempt's stream had begun."""

    def again(self) -> None:
        self.reply, self.opened = None, False

    def text(self) -> str:
        return "" if self.reply is None else self.reply.body.decode("utf-8", "replace")


def watched(flow: Flow[Any], seen: Seen) -> Flow[Any]:
    """The same flow, whose replies are noted."""
    value: Any = None
    failed: Exception | None = None
    try:
        while True:
            try:
                wish = flow.send(value) if failed is None else flow.throw(failed)
            except StopIteration as ended:
                return ended.value
            value = failed = None
            try:
                value = yield wish
            except Exception as error:  # the flow decides what becomes of it
                failed = error
            if isinstance(wish, Send) and wish.path in (CHAT, COMPLETIONS) and isinstance(value, Answer):
                seen.reply = value if value.status != 200 else None
    finally:
        flow.close()


def meant(error: errors.ClientError, seen: Seen) -> errors.ClientError:
    """A server that is being started, behind a gateway, and a proxy's page instead of an answer: both pass."""
    if seen.reply is None:
        return error
    status, text = seen.reply.status, seen.text().lower()
    warming = status in (404, 425) and not text.startswith("{") and any(words in text for words in _WARMING)
    page = status == 403 and text.lstrip().startswith("<")
    if not warming and not page:
        return error
    found = errors.ServerFailed(
        f"The server is not ready ({text.strip()[:80]})."
        if warming
        else "A proxy before the server refuses (403).",
        status=503,
    )
    found.url, found.request_id, found.attempts = error.url, error.request_id, error.attempts
    return found


def translated(
    error: errors.PorticoError, seen: Seen, *, provider: str, model: str, longest: float
) -> llm_errors.LLMError:
    """Our error as Amplifier's. `longest`: seconds that it waits at most for a server that says when to come again."""
    status = seen.reply.status if seen.reply is not None else None
    about: dict[str, Any] = {"provider": provider, "model": model or None, "status_code": status}
    text = str(error)
    for ours, amplifiers in _SETTINGS.items():
        text = text.replace(ours, amplifiers)
    match error:
        case errors.NotRunning():
            return llm_errors.NetworkError(text, **about)
        case errors.NotTrusted():
            return llm_errors.NetworkError(text, **about, retryable=False)
        case errors.TimedOut():
            return llm_errors.LLMTimeoutError(text, **about)
        case errors.CutOff():
            return (llm_errors.StreamError if seen.opened else llm_errors.NetworkError)(text, **about)
        case errors.Malformed():
            return llm_errors.ProviderUnavailableError(text, **about)
        case errors.WrongKey():
            denied = status == 403
            return (llm_errors.AccessDeniedError if denied else llm_errors.AuthenticationError)(text, **about)
        case errors.NoSuchModel():
            return llm_errors.NotFoundError(text, **about)
        case errors.PromptTooLong():
            return llm_errors.ContextLengthError(text, **about)
        case errors.OutOfMemory():
            return llm_errors.ProviderUnavailableError(text, **about, retryable=False)
        case errors.NotSupported():
            kind = llm_errors.ConfigurationError if error.flag else llm_errors.InvalidRequestError
            return kind(text, **about)
        case errors.RateLimited():
            after = error.retry_after
            if "quota" in seen.text().lower():
                return llm_errors.QuotaExceededError(text, **about, retry_after=after)
            soon = after is None or after <= longest
            return llm_errors.RateLimitError(text, **about, retry_after=after, retryable=soon)
        case errors.ServerFailed() if error.status >= 500:
            return llm_errors.ProviderUnavailableError(text, **about, retry_after=error.retry_after)
        case errors.OverBudget():
            return llm_errors.QuotaExceededError(text, **about)
        case errors.ReplayDiffers():
            return llm_errors.InvalidRequestError(text, **about)
    return _refused(error, about)


def _refused(error: errors.PorticoError, about: dict[str, Any]) -> llm_errors.LLMError:
    text, status = str(error), error.status
    if error.code in ("content_filter", "content_policy_violation"):
        return llm_errors.ContentFilterError(text, **about)
    if status == 402:
        return llm_errors.QuotaExceededError(text, **about)
    if status == 408:
        return llm_errors.LLMTimeoutError(text, **about)
    if status in (409, 425):
        return llm_errors.ProviderUnavailableError(text, **about)
    kind = classify_error_message(error.args[0], status_code=status)
    return cast(
        llm_errors.LLMError,
        (kind if kind is not llm_errors.LLMError else llm_errors.InvalidRequestError)(text, **about),
    )


# ---- the provider ------------------------------------------------------------------------------

EVENTS = [
    *("llm:stream_block_start", "llm:stream_block_delta", "llm:stream_block_end", "llm:stream_aborted"),
    *("llm:request:debug", "llm:response:debug", "llm:request:raw", "llm:response:raw"),
]
"""Those that are not the kernel's."""
CONTEXT_WINDOW, OUTPUT_TOKENS = 128_000, 32_768
"""What is said of a model until its server has told."""
_SAID_NO = (errors.NotSupported, errors.Refused, errors.ServerFailed)
LOOK = 0.2
"""Seconds between two looks at whether the session is cancelled."""
COMPLETION_TOKENS = 1024
"""A raw completion's limit, where nobody says one and the server can neither count nor tell its context."""


class Provider:
    """Amplifier's provider. Owns its client and what it knows of the server: limits, and models without a template. It
    belongs to one session, and to the event loop in which it is first called."""

    def __init__(
        self, name: str, config: Mapping[str, Any], coordinator: Any, environ: Mapping[str, str]
    ) -> None:
        self.name = name
        self.config = dict(config)
        self.coordinator = coordinator
        self._settings = read_config(config, environ)
        self._environ = {key: environ[key] for pair in _HOSTS.items() for key in pair if key in environ}
        self.default_model, self.priority = self._settings.default_model, self._settings.priority
        self._retry = Retry(
            attempts=self._settings.max_retries + 1,
            first=self._settings.min_retry_delay,
            most=self._settings.max_retry_delay,
        )
        self._client: AsyncClient | None = None
        self._context: dict[str, int | None] = {}
        self._usual = ""  # the model that answers where none is named
        self._without_template: set[str] = set()

    # ---- what it is

    def get_info(self) -> ProviderInfo:
        """Without asking anybody."""
        try:
            near = server(self._settings, self._environ).near
        except llm_errors.LLMError:
            near = True
        window, output = self._limits(self.default_model or self._usual)
        return ProviderInfo(
            id=self.name,
            display_name={"vllm": "vLLM"}.get(self.name, "Portico"),
            credential_env_vars=["PORTICO_API_KEY" if self.name == "portico" else "VLLM_API_KEY"],
            capabilities=[
                "streaming",
                "tools",
                "thinking",
                "json_mode",
                "vision",
                *(["local"] if near else []),
            ],
            defaults={
                "model": self.default_model or "default",
                "max_tokens": self._settings.max_tokens,
                "temperature": self._settings.temperature,
                "timeout": self._settings.timeout,
                "context_window": window,
                "max_output_tokens": output,
            },
            config_fields=config_fields(self.name),
        )

    def get_model_info(self) -> ModelInfo:
        """Of the default model; its limits are the server's once it has been asked."""
        return self._model_info(self.default_model or self._usual or "default")

    async def list_models(self) -> list[ModelInfo]:
        """What the server lists; nothing, with a warning, where no server is named."""
        try:
            client = self._connected()
        except llm_errors.ConfigurationError as error:
            log.warning("%s", error)
            return []
        try:
            cards = await client.models()
        except errors.PorticoError as error:
            raise self._translated(error, Seen(), "") from error
        for card in cards:
            self._learn(card.id, card.context)
        return [self._model_info(card.id) for card in cards]

    def parse_tool_calls(self, response: ChatResponse) -> list[message_models.ToolCall]:
        return list(response.tool_calls or [])

    async def close(self) -> None:
        """Ends its connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _model_info(self, model: str) -> ModelInfo:
        window, output = self._limits(model)
        capabilities = ["streaming", "tools", "thinking", "json_mode"]
        return ModelInfo(
            id=model,
            display_name=model,
            context_window=window,
            max_output_tokens=output,
            capabilities=capabilities,
        )

    def _limits(self, model: str) -> tuple[int, int]:
        """(context, most tokens of an answer): the configuration's, within what the server has; an answer has at most half
        of the context."""
        known, wanted = self._context.get(model), self._settings.context_window
        window = min(wanted or known or CONTEXT_WINDOW, known or wanted or CONTEXT_WINDOW)
        return window, max(1, min(self._settings.max_output_tokens or OUTPUT_TOKENS, window // 2))

    def _learn(self, model: str, context: int | None) -> None:
        wanted, told = self._settings.context_window, self._context.get(model)
        if context is not None and wanted is not None and wanted > context != told:
            log.warning("context_window is %d, and the model %r has %d", wanted, model, context)
        self._context[model] = context

    # ---- answering

    async def complete(self, request: AmplifierRequest, **kwargs: Any) -> ChatResponse:
        """The model's answer. Raises amplifier_core's LLMError, and nothing else, for what can go wrong on the way."""
        began, model = time.monotonic(), self.default_model
        try:
            try:
                asked = read_request(request, kwargs, self._settings)
            except (
                llm_errors.ConfigurationError
            ) as error:  # a value that is wrong in a block, and here in a request
                raise llm_errors.InvalidRequestError(str(error)) from error
            model = asked.model
            await self._tell_repairs(asked)
            whole = await self._in_time(asked)
        except llm_errors.LLMError as error:
            error.provider, error.model = error.provider or self.name, error.model or model or None
            await self._tell_error(error, model, began)
            raise
        await self._tell_response(whole, began)
        return whole

    async def _in_time(self, asked: Asked) -> ChatResponse:
        """Within the call's own time, and until the session is cancelled at once: its token calls nobody by itself, so it is
        looked at."""
        limit, loop = asyncio.timeout(asked.timeout or None), asyncio.get_running_loop()
        next_look = loop.call_later(LOOK, lambda: look())

        def look() -> None:
            nonlocal next_look
            if self._cancelled():
                limit.reschedule(loop.time())
            else:
                next_look = loop.call_later(LOOK, look)

        try:
            async with limit:
                return await self._whole(asked)
        except TimeoutError as error:
            about: dict[str, Any] = {"provider": self.name, "model": asked.model or None}
            if self._cancelled():
                raise llm_errors.AbortError("The session was cancelled.", **about) from error
            if not limit.expired():
                raise
            late = f"The answer was not whole within {asked.timeout:g} s (timeout)."
            raise llm_errors.LLMTimeoutError(late, **about) from error
        finally:
            next_look.cancel()

    def _cancelled(self) -> bool:
        token = getattr(self.coordinator, "cancellation", None)
        return token is not None and bool(token.is_immediate)

    async def _whole(self, asked: Asked) -> ChatResponse:
        """Tools and a schema exclude each other: held to the schema, vLLM's models can call no tool (vllm-project/vllm#16313).
        So tools are offered first, without it; an answer that calls none is asked for again, without tools and held to it."""
        seen, blocks = Seen(), Blocks(self._emit, shown=asked.shown)
        if not asked.tools or asked.format is None or asked.completes:
            return response(await self._told(asked, blocks, seen), provider=self.name)
        held = Blocks(self._emit, shown=asked.shown, held=True)
        first = await self._told(msgspec.structs.replace(asked, format=None), held, seen)
        forced = asked.tool_choice is not None and asked.tool_choice.mode in ("required", "named")
        if first.result.tool_calls or forced:
            await held.release()
            return response(first, provider=self.name)
        bare = msgspec.structs.replace(asked, tools=(), tool_choice=None, parallel_tool_calls=None)
        last = await self._told(bare, blocks, seen)
        return response(last, provider=self.name, spent=first.result.usage)

    async def _told(self, asked: Asked, blocks: Blocks, seen: Seen) -> Told:
        """Asked until there is an answer, or an error that asking again does not mend."""
        for attempt in itertools.count(1):
            seen.again()
            try:
                return await self._once(asked, blocks, seen)
            except errors.PorticoError as error:
                found = meant(error, seen) if isinstance(error, errors.ClientError) else error
                if not blocks.begun and (other := self._otherwise(asked, found)) is not None:
                    asked = other
                    continue
                wait = None if blocks.begun else self._again(found, attempt, seen)
                told = self._translated(found, seen, asked.model)
                if wait is None:
                    await blocks.aborted(told)
                    raise told from error
                await self._tell_retry(told, attempt, wait)
            except BaseException as error:  # the caller's, or ours: the hooks must know that no more comes
                await blocks.aborted(error)
                raise
            await asyncio.sleep(pause(wait).seconds)
        raise AssertionError("unreachable")

    def _again(self, error: errors.PorticoError, attempt: int, seen: Seen) -> float | None:
        """Seconds to wait before the next attempt; None: there is none. A Portico server's own retries are not multiplied."""
        if not isinstance(error, errors.ClientError):
            return None
        tried = seen.reply.headers.get("x-portico-attempts", "") if seen.reply is not None else ""
        there = tried.isdigit() and int(tried) > 1
        drawn = None if self._settings.retry_jitter else 1.0
        return self._retry.again(error, attempt, tried_there=there, drawn=drawn)

    def _otherwise(self, asked: Asked, error: errors.PorticoError) -> Asked | None:
        """The same in another way, where the server cannot do it as it was asked. vLLM may say so after the head of a stream."""
        if error.status not in (400, 404, 405, 422, 501):
            return None
        text = str(error).lower()
        absent = error.status in (404, 405) and not isinstance(error, errors.NoSuchModel)
        if asked.endpoint == "auto" and not asked.completes and ("chat template" in text or absent):
            self._without_template.add(asked.model)
            return msgspec.structs.replace(asked, endpoint="completions")
        if asked.format is not None and isinstance(error, _SAID_NO):
            wanted = "json_schema" if asked.format.kind == "schema" else "json"
            lost = Lost(requested=f"response_format {wanted}", actual="text", reason=error.args[0])
            return msgspec.structs.replace(asked, format=None, lost=(*asked.lost, lost))
        return None

    async def _once(self, asked: Asked, blocks: Blocks, seen: Seen) -> Told:
        client = self._connected()
        name, limit = await client.carry_out(lambda flows: self._named(flows, asked.model))
        if asked.endpoint == "auto" and asked.model in self._without_template:
            asked = msgspec.structs.replace(asked, endpoint="completions")
        stream, completion = self._settings.use_streaming, asked.completes
        request: ChatRequest | CompletionRequest
        if completion:
            request = completion_request(asked, name, stream=stream)
            room = await client.carry_out(lambda flows: _room(flows, cast(CompletionRequest, request), limit))
            request = msgspec.structs.replace(request, sampling=room)
        else:
            request = chat_request(asked, name, stream=stream)
        await self._tell_request(asked, name, _body(request), seen)
        if stream:
            result = await self._streamed(client, request, blocks, seen)
        else:
            result = await client.carry_out(lambda flows: watched(_answer(flows, request), seen))
        await self._tell_answer(name, result)
        return Told(asked=asked, model=name, completion=completion, result=result)

    async def _streamed(
        self, client: AsyncClient, request: ChatRequest | CompletionRequest, blocks: Blocks, seen: Seen
    ) -> Result[Any]:
        from portico.client.streaming import AsyncEventStream

        chat, began = isinstance(request, ChatRequest), time.monotonic()
        path, reader = (CHAT, openai.ChunkReader()) if chat else (COMPLETIONS, openai.CompletionChunkReader())
        exchanged = await client.carry_out(lambda flows: watched(flows.opened(path, request), seen))
        seen.opened = True
        events = AsyncEventStream(exchanged, reader, began=began)
        try:
            async for event in events:
                await blocks.add(event)
        finally:
            await events.close()
        await blocks.end()
        return events.result

    def _named(self, flows: Flows, wanted: str) -> Flow[tuple[str, int | None]]:
        """(the model's name, its context). The server is asked once for what it lists; one that lists nothing still
        answers."""
        name = yield from flows.model(wanted or None)
        self._usual = self._usual if wanted else name
        if name not in self._context:
            self._context[name] = None
            try:
                self._learn(name, (yield from flows.context(name)))
            except errors.ClientError as error:
                log.debug("The limits of %r are not known: %s", name, error)
        return name, self._context[name]

    def _connected(self) -> AsyncClient:
        """Raises ConfigurationError where no server is named."""
        if self._client is None:
            from portico.client.async_client import AsyncClient

            where, idle = server(self._settings, self._environ), self._settings.stream_idle_timeout
            # A whole answer sends nothing until it is made: its limit is the call's own.
            first = idle if self._settings.use_streaming else 0.0
            limits = Timeouts(first_token=first, between_tokens=idle)
            self._client = AsyncClient(
                where.url, api_key=where.key or "EMPTY", model="default", timeouts=limits, retry=NO_RETRY
            )
        return self._client

    def _translated(self, error: errors.PorticoError, seen: Seen, model: str) -> llm_errors.LLMError:
        longest = self._settings.max_retry_delay
        return translated(error, seen, provider=self.name, model=model, longest=longest)

    # ---- what the hooks are told

    async def _emit(self, event: str, payload: dict[str, Any]) -> None:
        if self.coordinator is not None and hasattr(self.coordinator, "hooks"):
            await self.coordinator.hooks.emit(event, payload)

    async def _tell_repairs(self, asked: Asked) -> None:
        if asked.mended:
            repairs = [{"tool_call_id": call.id, "tool_name": call.name} for call in asked.mended]
            told = {"provider": self.name, "repair_count": len(repairs), "repairs": repairs}
            await self._emit("provider:tool_sequence_repaired", told)

    async def _tell_request(self, asked: Asked, model: str, body: bytes, seen: Seen) -> None:
        config = self._settings
        about = {"provider": self.name, "model": model}
        thinks = asked.think not in (None, False)
        summary: dict[str, Any] = {
            **about,
            "message_count": len(asked.messages),
            "has_instructions": bool(asked.messages) and asked.messages[0].role == "system",
            "reasoning_enabled": thinks,
            "thinking_enabled": thinks,
            "thinking_budget": asked.options.get("thinking_token_budget"),
        }
        sent = redact_secrets(msgspec.json.decode(body)) if config.raw or config.debug else {}
        if not seen.announced:
            seen.announced = True
            await self._emit("llm:request", {**summary, "raw": sent} if config.raw else summary)
        if config.debug:
            shown = truncate_values(sent, config.debug_truncate_length)
            await self._emit("llm:request:debug", {"lvl": "DEBUG", **about, "request": shown})
            if config.raw_debug:
                await self._emit("llm:request:raw", {"lvl": "DEBUG", **about, "params": sent})

    async def _tell_answer(self, model: str, result: Result[Any]) -> None:
        config = self._settings
        if config.debug:
            about = {"lvl": "DEBUG", "provider": self.name, "model": model}
            came = redact_secrets(_plain(result))
            shown = truncate_values(came, config.debug_truncate_length)
            await self._emit("llm:response:debug", {**about, "response": shown})
            if config.raw_debug:
                await self._emit("llm:response:raw", {**about, "response": came})

    async def _tell_response(self, whole: ChatResponse, began: float) -> None:
        told: dict[str, Any] = {
            "provider": self.name,
            "model": (whole.metadata or {}).get("model"),
            "usage": None
            if whole.usage is None
            else whole.usage.model_dump(exclude_none=True) | {"cost_usd": None},
            "status": "ok",
            "finish_reason": whole.finish_reason,
            "duration_ms": int((time.monotonic() - began) * 1000),
        }
        if logprobs := (whole.metadata or {}).get("logprobs"):
            told["logprobs"] = logprobs
        if self._settings.raw:
            told["raw"] = redact_secrets(whole.model_dump(mode="json", exclude={"content_blocks"}))
        await self._emit("llm:response", told)

    async def _tell_error(self, error: llm_errors.LLMError, model: str, began: float) -> None:
        told = {
            "provider": self.name,
            "model": model or None,
            "status": "error",
            "error": str(error),
            "error_type": type(error).__name__,
            "duration_ms": int((time.monotonic() - began) * 1000),
        }
        await self._emit("llm:response", told)

    async def _tell_retry(self, error: llm_errors.LLMError, attempt: int, wait: float) -> None:
        told = {
            "provider": self.name,
            "attempt": attempt,
            "max_retries": self._settings.max_retries,
            "delay": wait,
            "error_type": type(error).__name__,
            "error_message": str(error),
        }
        await self._emit("provider:retry", told)


def _room(flows: Flows, request: CompletionRequest, limit: int | None) -> Flow[Any]:
    """The request's sampling, with a limit: without one vLLM writes 16 tokens."""
    if request.sampling.max_tokens is not None:
        return request.sampling
    most = COMPLETION_TOKENS
    if limit is not None:
        try:
            taken = len(
                (yield from flows.tokens.tokenize(cast(str, request.prompts[0]), model=request.model))
            )
        except errors.NotSupported:
            taken = None
        if taken is not None:
            if taken >= limit:
                raise errors.PromptTooLong(tokens=taken, limit=limit)
            most = limit - taken
    return msgspec.structs.replace(request.sampling, max_tokens=most)


def _answer(flows: Flows, request: ChatRequest | CompletionRequest) -> Flow[Result[Any]]:
    return flows.chat(request) if isinstance(request, ChatRequest) else flows.complete(request)


def _body(request: ChatRequest | CompletionRequest) -> bytes:
    if isinstance(request, ChatRequest):
        return openai.write_chat(request, model=request.model)
    return openai.write_completion(request, model=request.model)


def _plain(result: Result[Any]) -> dict[str, Any]:
    found = msgspec.to_builtins(result)
    return cast(dict[str, Any], {name: value for name, value in found.items() if name != "headers"})


def config_fields(name: str) -> list[ConfigField]:
    """What Amplifier's setup asks for."""
    host, key = (
        ("PORTICO_HOST", "PORTICO_API_KEY") if name == "portico" else ("VLLM_BASE_URL", "VLLM_API_KEY")
    )
    return [
        ConfigField(
            id="base_url",
            display_name="Server's URL",
            prompt="URL of the server, with or without /v1",
            env_var=host,
            default="http://localhost:11434" if name == "portico" else "http://localhost:8000",
        ),
        ConfigField(
            id="api_key",
            display_name="API key",
            field_type="secret",
            prompt="API key, if the server wants one",
            env_var=key,
            required=False,
        ),
        ConfigField(
            id="endpoint",
            display_name="Endpoint",
            field_type="choice",
            prompt="How to ask: chat, raw completions, or what the model can",
            choices=["auto", "chat", "completions"],
            required=False,
            default="auto",
        ),
        ConfigField(
            id="stream_idle_timeout",
            display_name="Idle timeout",
            prompt="Seconds without a byte after which an answer is given up",
            env_var="VLLM_STREAM_IDLE_TIMEOUT",
            required=False,
            default="300",
        ),
        ConfigField(
            id="context_window",
            display_name="Context",
            prompt="Tokens of the model's context, if the server does not tell",
            env_var="VLLM_CONTEXT_WINDOW",
            required=False,
        ),
        ConfigField(
            id="max_output_tokens",
            display_name="Longest answer",
            prompt="Tokens that an answer has at most",
            env_var="VLLM_MAX_OUTPUT_TOKENS",
            required=False,
        ),
    ]


# ---- mounting ----------------------------------------------------------------------------------


async def mount(coordinator: Any, config: dict[str, Any] | None = None) -> Callable[[], Awaitable[None]]:
    """Mounts it as `portico`. Returns what ends it. Raises ConfigurationError for a setting that is wrong; a missing
    base_url is told at the first call."""
    return await _mount("portico", coordinator, config)


async def mount_vllm(coordinator: Any, config: dict[str, Any] | None = None) -> Callable[[], Awaitable[None]]:
    """The same as `vllm`, the name that goes with `module: provider-vllm`."""
    return await _mount("vllm", coordinator, config)


async def _mount(
    name: str, coordinator: Any, config: Mapping[str, Any] | None
) -> Callable[[], Awaitable[None]]:
    provider = Provider(name, config or {}, coordinator, os.environ)
    await coordinator.mount("providers", provider, name=name)
    atexit.unregister(_settle)
    atexit.register(_settle)
    coordinator.register_contributor("observability.events", f"provider-{name}", lambda: list(EVENTS))
    return provider.close


def _settle() -> None:
    """The kernel's threads may still be handing over their last result when a program ends, which then dies of a signal after
    all its work: 12 of 140 short programs did with amplifier-core 2.0.2 (PyO3/pyo3-async-runtimes#40)."""
    time.sleep(0.05)


__all__ = ["Provider", "mount", "mount_vllm"]

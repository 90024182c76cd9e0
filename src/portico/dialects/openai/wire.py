"""The shapes of OpenAI's request bodies, read and written with the same types.

Every field may be null, which means unset. Numbers that must be whole are `Number` here, because clients
with sliders send 512.0; `body.whole` looks at them.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from portico.dialects.body import Number

Share = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Positive = Annotated[float, Meta(gt=0)]


class StreamOptions(Struct, omit_defaults=True, gc=False):
    include_usage: bool | None = None


class Settings(Struct, omit_defaults=True, kw_only=True, gc=False):
    """What chats and completions have in common."""

    model: str
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Number | None = None
    max_tokens: Number | None = None
    temperature: Annotated[float, Meta(ge=0)] | None = None
    top_p: Share | None = None
    top_k: Number | None = None
    min_p: Share | None = None
    seed: Number | None = None
    stop: str | list[str] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Positive | None = None
    repeat_penalty: Positive | None = None  # llama.cpp's word for it
    logit_bias: dict[str, Annotated[float, Meta(ge=-100, le=100)]] | None = None


# ---- messages ----------------------------------------------------------------------------------


class ImageURL(Struct, omit_defaults=True, gc=False):
    url: str
    detail: str | None = None


class Piece(Struct, omit_defaults=True, gc=False):
    """One part of a message's content, of any type."""

    type: str = ""
    text: str | None = None
    image_url: str | ImageURL | None = None
    refusal: str | None = None
    thinking: str | None = None
    reasoning: str | None = None


class Function(Struct, omit_defaults=True, gc=False):
    name: str
    arguments: str | dict[str, Any] | None = None


class ToolCall(Struct, gc=False):
    function: Function
    id: str | None = None
    type: str | None = "function"


class Message(Struct, omit_defaults=True, gc=False):
    role: str
    content: str | list[str | Piece] | UnsetType | None = UNSET
    name: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None
    function_call: Function | None = None


# ---- tools and formats -------------------------------------------------------------------------


class Signature(Struct, omit_defaults=True, gc=False):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Struct, gc=False):
    """Only functions have a `function`; the other types are a hosted API's own."""

    type: str = "function"
    function: Signature | None = None


class Named(Struct, gc=False):
    name: str


class NamedTool(Struct, omit_defaults=True, gc=False):
    type: str = ""
    function: Named | None = None


class AllowedTools(Struct, gc=False):
    mode: str = "auto"
    tools: list[NamedTool] = []


class Choice(Struct, omit_defaults=True, gc=False):
    type: str = ""
    function: Named | None = None
    name: str | None = None  # as the responses API has it
    allowed_tools: AllowedTools | None = None


class JSONSchema(Struct, omit_defaults=True, gc=False):
    name: str | None = None
    schema: dict[str, Any] | bool | None = None
    strict: bool | None = None


class ResponseFormat(Struct, omit_defaults=True, gc=False):
    type: str
    json_schema: JSONSchema | None = None
    schema: dict[str, Any] | None = None  # llama.cpp's json_object with a schema
    format: dict[str, Any] | None = None  # vLLM's structural_tag


class Effort(Struct, gc=False):
    effort: str | None = None
    enabled: bool | None = None


# ---- requests ----------------------------------------------------------------------------------


class Chat(Settings, omit_defaults=True, kw_only=True, gc=False):
    messages: list[Message]
    max_completion_tokens: Number | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Choice | None = None
    functions: list[Signature] | None = None
    function_call: str | Named | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    logprobs: bool | None = None
    top_logprobs: Number | None = None
    reasoning_effort: str | None = None
    reasoning: Effort | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class Completion(Settings, omit_defaults=True, kw_only=True, gc=False):
    prompt: str | list[str | int | list[int]]
    suffix: str | None = None
    echo: bool | None = None
    logprobs: Number | bool | None = None
    response_format: ResponseFormat | None = None


class Embedding(Struct, omit_defaults=True, kw_only=True, gc=False):
    model: str
    input: str | list[str | int | list[int]]
    dimensions: Number | None = None
    encoding_format: str | None = None


class Rerank(Struct, omit_defaults=True, kw_only=True, gc=False):
    """As vLLM and others have it; what it holds is for the engine to refuse."""

    model: str
    query: Any
    documents: list[Any]
    top_n: Number | None = None


class Peek(Settings, kw_only=True, gc=False):
    """A chat or completion looked at from outside: enough to route it and to count it, with the types of
    the fields that both have checked. What its messages hold is for the engine to refuse."""

    max_completion_tokens: Number | None = None
    messages: list[Raw] | UnsetType = UNSET
    response_format: Raw | UnsetType = UNSET
    prompt: Raw | UnsetType = UNSET
    tools: list[Raw] | None = None
    logprobs: bool | Number | None = None
    top_logprobs: Number | None = None
    functions: Any = None
    function_call: Any = None
    reasoning: Any = None
    tool_choice: Any = None

    @property
    def include_usage(self) -> bool:
        """The caller wants a usage chunk at the end of a stream."""
        return bool(self.stream and self.stream_options and self.stream_options.include_usage)

    @property
    def limit(self) -> int | None:
        """Tokens the answer may have; None: no limit was given."""
        number = self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens
        return int(number) if number is not None and number >= 0 else None

"""Frozen values that belong to no dialect: what is asked of a model and what comes back.

A dialect reads bytes into these values and writes bytes from them; engines, gateway and client pass
them on. Equal content is equal; identity belongs to whoever stores them. Nothing here does I/O.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

JSON = Any
"""A value decoded from JSON: dict, list, str, int, float, bool or None."""

Role = Literal["system", "user", "assistant", "tool"]
FinishReason = Literal["stop", "length", "tool_calls", "error"]


class Value(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every value here derives from: immutable, compared by content. msgspec inherits neither `frozen`
    for type checkers nor `kw_only` at all, so each class below says them again."""


# ---- parts of a message ------------------------------------------------------------------------


class Text(Value, frozen=True, kw_only=True, tag="text"):
    text: str


class Reasoning(Value, frozen=True, kw_only=True, tag="reasoning"):
    """What the model thought before it answered; never part of the answer's text."""

    text: str


class Image(Value, frozen=True, kw_only=True, tag="image"):
    """An image as a URL: `data:image/png;base64,...` or, where the dialect allows it, http(s)."""

    url: str
    detail: str | None = None


class ToolCall(Value, frozen=True, kw_only=True, tag="tool_call"):
    """A call the model asked for. `arguments` is the JSON text as the model wrote it, valid or not:
    parsing it here would lose what a caller needs to see when a model writes broken JSON."""

    id: str
    name: str
    arguments: str


class ToolResult(Value, frozen=True, kw_only=True, tag="tool_result"):
    """What a tool answered. `name` may be empty where the dialect carries only the call's id, and `id`
    where it carries only the name."""

    id: str = ""
    name: str = ""
    text: str


Part = Text | Reasoning | Image | ToolCall | ToolResult


class Message(Value, frozen=True, kw_only=True):
    role: Role
    parts: tuple[Part, ...] = ()
    name: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined; reasoning and tool results are not among them."""
        return "".join(part.text for part in self.parts if isinstance(part, Text))


class Tool(Value, frozen=True, kw_only=True):
    """A function the model may call. `parameters` is its JSON schema, passed on untouched."""

    name: str
    description: str | None = None
    parameters: JSON = None
    strict: bool | None = None


class ToolChoice(Value, frozen=True, kw_only=True):
    """auto, none, required, or one tool by name (`mode="named"`)."""

    mode: Literal["auto", "none", "required", "named"] = "auto"
    name: str | None = None


class Format(Value, frozen=True, kw_only=True):
    """The shape of the answer: any JSON object, or a JSON schema (`schema` is the decoded schema)."""

    kind: Literal["json", "schema"]
    name: str = "response"
    schema: JSON = None
    strict: bool | None = None


# ---- requests ----------------------------------------------------------------------------------


class Sampling(Value, frozen=True, kw_only=True):
    """How tokens are chosen. None means: the model's own default, nothing is sent to the engine."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    extra: dict[str, JSON] = {}
    """Sampling names this version does not know by type (ignore_eos, min_tokens, ...): sent to the engine
    as they are. What the engine does not know, it ignores."""


class ChatRequest(Value, frozen=True, kw_only=True):
    model: str
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: Format | None = None
    sampling: Sampling = Sampling()
    stream: bool = False
    n: int = 1
    logprobs: bool = False
    top_logprobs: int | None = None
    think: bool | str | None = None
    """Reasoning switched on or off, or a level ("low", "medium", "high"); None: the model's default."""
    include_usage: bool = False
    """The caller wants a usage chunk at the end of a stream (OpenAI's stream_options)."""
    template_kwargs: dict[str, JSON] = {}
    keep_alive: float | None = None
    """Seconds the model stays loaded after this request; 0 unloads it, negative keeps it for ever."""
    truncate: bool = False
    """Drop the oldest messages until the prompt fits, instead of refusing (Ollama's default)."""
    context: int | None = None
    """Tokens that prompt and answer may take together (Ollama's num_ctx); None: the model's whole context."""


class CompletionRequest(Value, frozen=True, kw_only=True):
    """Raw completion: no chat template. Each prompt is a text or token ids; several give several choices."""

    model: str
    prompts: tuple[str | tuple[int, ...], ...]
    suffix: str | None = None
    echo: bool = False
    sampling: Sampling = Sampling()
    format: Format | None = None
    stream: bool = False
    n: int = 1
    logprobs: int | None = None
    """How many alternatives to give with each token; 0 gives the chosen token's alone; None gives none."""
    include_usage: bool = False
    keep_alive: float | None = None
    context: int | None = None
    """As in ChatRequest."""


class EmbeddingRequest(Value, frozen=True, kw_only=True):
    model: str
    inputs: tuple[str | tuple[int, ...], ...]
    dimensions: int | None = None
    encoding: Literal["float", "base64"] = "float"
    scaled: bool = True
    """Vectors of length 1, as OpenAI's are; false: as the model gives them, where the engine can."""
    truncate: bool = False
    """Cut an input that is too long, instead of refusing it (Ollama's default)."""
    keep_alive: float | None = None


# ---- what comes back ---------------------------------------------------------------------------


class Logprob(Value, frozen=True, kw_only=True):
    """One token with its log probability (natural logarithm; nan where the engine gives none, as for the
    first token of an echoed prompt). `bytes` are its UTF-8 bytes, which may be half a character; `id` is its number
    in the model's vocabulary, where the engine tells; `top` are the alternatives, the likeliest first."""

    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None
    id: int | None = None
    top: tuple[Logprob, ...] = ()


class Usage(Value, frozen=True, kw_only=True):
    """Tokens counted by the engine. None: this engine does not say."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None


class TextDelta(Value, frozen=True, kw_only=True):
    text: str
    index: int = 0
    logprobs: tuple[Logprob, ...] = ()


class ReasoningDelta(Value, frozen=True, kw_only=True):
    text: str
    index: int = 0
    logprobs: tuple[Logprob, ...] = ()


class ToolCallDelta(Value, frozen=True, kw_only=True):
    """A piece of a tool call. `call` numbers the calls of one choice from 0; the first piece of a call
    carries `id` and `name`, every piece may carry a further stretch of the arguments' JSON text."""

    call: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    index: int = 0


class Finished(Value, frozen=True, kw_only=True):
    """Choice `index` has ended."""

    finish_reason: FinishReason
    index: int = 0


class Used(Value, frozen=True, kw_only=True):
    """The usage of the whole request; the last event of a stream."""

    usage: Usage


Event = TextDelta | ReasoningDelta | ToolCallDelta | Finished | Used


class Choice(Value, frozen=True, kw_only=True):
    """One whole answer, assembled from its events."""

    index: int = 0
    text: str = ""
    reasoning: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    finish_reason: FinishReason = "stop"
    logprobs: tuple[Logprob, ...] = ()


class Result(Value, frozen=True, kw_only=True):
    """A whole reply: its choices in order, and the usage of all of them together."""

    choices: tuple[Choice, ...]
    usage: Usage = Usage()

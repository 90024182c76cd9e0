"""The shapes of Ollama's bodies. Unknown fields are ignored, null means unset."""

from __future__ import annotations

from typing import Any

from msgspec import UNSET, Struct, UnsetType

from portico.dialects.body import Number

# ---- messages, in requests and in replies --------------------------------------------------------


class Function(Struct, omit_defaults=True, gc=False):
    name: str
    arguments: dict[str, Any] | str | None = None
    index: int | None = None


class ToolCall(Struct, omit_defaults=True, gc=False):
    function: Function
    id: str | None = None


class Message(Struct, omit_defaults=True, gc=False):
    role: str
    content: str | UnsetType | None = UNSET
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None
    name: str | None = None


class Signature(Struct, omit_defaults=True, gc=False):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None


class Tool(Struct, gc=False):
    type: str | None = "function"
    function: Signature | None = None


class Named(Struct, gc=False):
    name: str


class Choice(Struct, gc=False):
    """tool_choice of one tool. Ollama has no tool_choice; here it is taken as OpenAI's."""

    function: Named
    type: str = "function"


# ---- requests ------------------------------------------------------------------------------------


class Asked(Struct, omit_defaults=True, kw_only=True, gc=False):
    """What chats and generations have in common."""

    model: str = ""
    stream: bool | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None
    think: bool | str | None = None
    truncate: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Number | None = None


class Chat(Asked, omit_defaults=True, kw_only=True, gc=False):
    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | Choice | None = None


class Generate(Asked, kw_only=True, gc=False):
    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class Embed(Struct, kw_only=True, gc=False):
    model: str = ""
    input: Any = None
    truncate: bool | None = None
    dimensions: Number | None = None
    keep_alive: Any = None
    options: dict[str, Any] | None = None


class Embeddings(Struct, kw_only=True, gc=False):
    model: str = ""
    prompt: str | None = None
    keep_alive: Any = None
    options: dict[str, Any] | None = None


# ---- replies -------------------------------------------------------------------------------------


class Logprob(Struct, gc=False):
    token: str
    logprob: float | None
    bytes: list[int] | None = None
    top_logprobs: list[Logprob] | UnsetType | None = UNSET


class Reply(Struct, omit_defaults=True, kw_only=True, gc=False):
    """A line of a stream or a whole reply, of a chat (`message`) or a generation (`response`). Counts that
    are 0 are left out, as Ollama does."""

    model: str = ""
    created_at: str = ""
    message: Message | None = None
    response: str | None = None
    thinking: str | None = None
    tool_calls: list[ToolCall] | None = None
    done: bool | None = None
    done_reason: str | None = None
    context: list[int] | None = None
    logprobs: list[Logprob] | None = None
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    error: str | None = None

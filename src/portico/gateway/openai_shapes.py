"""The bodies of OpenAI's replies as types, for the OpenAPI description; the dialect writes them."""

from __future__ import annotations

from typing import Any

import msgspec


class PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Usage(msgspec.Struct):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class CalledFunction(msgspec.Struct):
    name: str
    arguments: str


class ToolCall(msgspec.Struct):
    id: str
    type: str
    function: CalledFunction


class ReplyMessage(msgspec.Struct):
    role: str
    content: str | None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None


class ChatChoice(msgspec.Struct):
    index: int
    message: ReplyMessage
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class ChatReply(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(msgspec.Struct):
    index: int
    text: str
    finish_reason: str
    logprobs: dict[str, Any] | None = None


class CompletionReply(msgspec.Struct):
    id: str
    object: str
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class Vector(msgspec.Struct):
    object: str
    index: int
    embedding: list[float] | str


class Embeddings(msgspec.Struct):
    object: str
    model: str
    data: list[Vector]
    usage: dict[str, int]


class Ranked(msgspec.Struct):
    index: int
    relevance_score: float


class Reranked(msgspec.Struct):
    results: list[Ranked]


class ModelEntry(msgspec.Struct):
    id: str
    object: str
    created: int
    owned_by: str
    max_model_len: int | None = None


class ModelList(msgspec.Struct):
    object: str
    data: list[ModelEntry]


class Tokenize(msgspec.Struct):
    """vLLM's /tokenize: either `prompt` or `messages` (with `tools`)."""

    model: str = "default"
    prompt: str | None = None
    messages: list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    add_special_tokens: bool = True
    return_token_strs: bool | None = None


class Tokenized(msgspec.Struct):
    count: int
    max_model_len: int | None
    tokens: list[int]
    token_strs: tuple[str, ...] | None = None


class Detokenize(msgspec.Struct):
    tokens: list[int]
    model: str = "default"


class Detokenized(msgspec.Struct):
    prompt: str

"""What a call is: its arguments as a flow. Both clients build their calls here, so that their surfaces cannot drift."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from portico.client import options
from portico.client.exchange import Exchanged
from portico.client.flows import CHAT, Flows
from portico.client.options import Messages
from portico.client.outputs import Output, checked, output
from portico.client.prices import Cost
from portico.client.results import Attempt, Result, joined
from portico.client.rows import Row, given_row
from portico.client.streaming import Reader
from portico.client.tokens import Count
from portico.client.wishes import Flow
from portico.dialects import openai
from portico.errors import ClientError, InvalidRequest
from portico.messages import ChatRequest, EmbeddingRequest, Message, Reasoning, Text, Tool, ToolChoice

CONTINUED = 3
"""How often an answer that its limit cut off is gone on with, under the same schema."""


class Embeddings(msgspec.Struct, frozen=True):
    """`vectors[i]` is that of the i-th text; `url` and `model` are who made them."""

    vectors: list[list[float]]
    usage: Any = None
    model: str = ""
    url: str = ""
    attempts: tuple[Attempt, ...] = ()
    cost: Cost = Cost()


class Asks:
    def __init__(self, flows: Flows) -> None:
        self._flows = flows

    # ---- chats

    def chat(
        self,
        messages: Messages,
        *,
        model: str | None,
        output_type: Any,
        check: bool,
        about: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> Flow[Result[Any]]:
        wanted = output(output_type) if output_type is not None else None
        request = yield from self._request(messages, model, wanted, about, given)
        if check:
            yield from self._flows.tokens.fits(request)
        result = yield from self._flows.chat(request)
        if wanted is None:
            return result
        result = yield from self._whole(request, result)
        return checked(result, wanted)

    def rows(
        self,
        requests: Iterable[Any],
        *,
        model: str | None,
        wanted: Output[Any] | None,
        about: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> Flow[list[Row]]:
        """The rows of a batch. Raises InvalidRequest."""
        if isinstance(requests, str | Mapping):
            raise InvalidRequest("A batch is a list of requests, not a single one.", param="requests")
        # Not what the name stands for now: a later run asks the same.
        named = model or self._flows.settings.model or "default"
        rows: list[Row] = []
        seen: dict[str, int] = {}
        for number, each in enumerate(requests):
            if isinstance(each, Mapping) and "body" in each:
                rows.append(given_row(each, number, seen, model))
                continue
            request = yield from self._request(each, model, wanted, about, given)
            request, as_json = yield from self._flows.enforceable(request)
            body = msgspec.json.decode(openai.write_chat(request, model=request.model))
            told = {"custom_id": str(number), "url": CHAT, "body": {**body, "model": named}}
            row = given_row(told, number, seen, None)
            rows.append(msgspec.structs.replace(row, as_json=as_json))
        return rows

    def _request(
        self,
        messages: Messages,
        model: str | None,
        wanted: Output[Any] | None,
        about: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> Flow[ChatRequest]:
        name = yield from self._flows.model(model)
        if wanted is not None and wanted.format is not None:
            yield from self._flows.enforces(wanted.format.schema, name)
        told = dict(given)
        if wanted is not None and wanted.structured is not None:
            told["structured_outputs"] = {**wanted.structured, **(told.get("structured_outputs") or {})}
        return options.chat(
            name, messages, format=wanted.format if wanted is not None else None, options=told, **about
        )

    def _whole(self, request: ChatRequest, result: Result[Any]) -> Flow[Result[Any]]:
        """JSON that max_tokens or the context cut off is gone on with, under the same schema, where the server can
        continue a message of its own."""
        for _ in range(CONTINUED):
            if (
                result.finish_reason != "length"
                or request.format is None
                or request.sampling.max_tokens is not None
            ):
                return result
            said = Message(role="assistant", parts=(Text(text=result.text),))
            extra = {
                **request.sampling.extra,
                "continue_final_message": True,
                "add_generation_prompt": False,
            }
            more = msgspec.structs.replace(
                request,
                messages=(*request.messages, said),
                sampling=msgspec.structs.replace(request.sampling, extra=extra),
            )
            try:
                rest = yield from self._flows.chat(more)
            except ClientError:
                return result
            result = joined(result, rest)
        return result

    def chat_stream(
        self,
        messages: Messages,
        *,
        model: str | None,
        output_type: Any,
        about: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> Flow[tuple[Exchanged, Reader, float, Output[Any] | None]]:
        wanted = output(output_type) if output_type is not None else None
        request = yield from self._request(messages, model, wanted, about, given)
        began = time.monotonic()
        exchanged = yield from self._flows.opened(CHAT, request)
        return exchanged, openai.ChunkReader(), began, wanted

    # ---- raw completions

    def complete(
        self,
        prompt: str | Sequence[int] | Sequence[str],
        *,
        model: str | None,
        about: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> Flow[Result[Any]]:
        name = yield from self._flows.model(model)
        request = options.completion(name, _prompts(prompt), options=given, **about)
        return (yield from self._flows.complete(request))

    # ---- the rest

    def embed(
        self, texts: str | Sequence[str], *, model: str | None, dimensions: int | None
    ) -> Flow[Embeddings]:
        name = yield from self._flows.model(model)
        inputs = (texts,) if isinstance(texts, str) else tuple(texts)
        vectors, exchanged, usage = yield from self._flows.embed(
            EmbeddingRequest(model=name, inputs=inputs, dimensions=dimensions)
        )
        spent = exchanged.settle(usage)
        return Embeddings(vectors, usage, exchanged.model, exchanged.url, exchanged.attempts, spent)

    def count(
        self, messages: Messages, *, model: str | None, system: str | None, tools: Sequence[Tool]
    ) -> Flow[Count]:
        name = yield from self._flows.model(model)
        return (
            yield from self._flows.tokens.count(
                options.chat(name, messages, system=system, tools=tools, options={})
            )
        )


def _prompts(prompt: str | Sequence[int] | Sequence[str]) -> list[Any]:
    if isinstance(prompt, str):
        return [prompt]
    if all(isinstance(each, int) for each in prompt):
        return [list(prompt)]
    return list(prompt)


def answered(result: Result[Any]) -> Message:
    """A result as the message with which a conversation goes on."""
    thoughts = (Reasoning(text=result.reasoning),) if result.reasoning else ()
    said = (Text(text=result.text),) if result.text else ()
    return Message(role="assistant", parts=(*thoughts, *said, *result.tool_calls))


__all__ = ["Asks", "Embeddings", "Messages", "Tool", "ToolChoice", "answered"]

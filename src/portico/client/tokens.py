"""The tokens of a prompt: counted by the server where it can, else guessed; and whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from portico import recording
from portico.client.exchange import Exchanged
from portico.client.wishes import Flow, Together
from portico.dialects import openai
from portico.errors import ClientError, NoSuchModel, NotSupported, PromptTooLong
from portico.messages import ChatRequest

if TYPE_CHECKING:
    from portico.client.flows import Flows


class Count(msgspec.Struct, frozen=True):
    """Tokens of a prompt. `exact` is False where the server cannot count: then it is a guess from its length."""

    tokens: int
    exact: bool = True
    limit: int | None = None

    def __int__(self) -> int:
        return self.tokens


class _Counted(msgspec.Struct):
    count: int | None = None
    tokens: list[int] = []
    max_model_len: int | None = None


class _Text(msgspec.Struct):
    prompt: str | None = None
    content: str | None = None


class Tokens:
    """What one server counts. Owns which of its routes for it are not there, by model."""

    def __init__(self, flows: Flows) -> None:
        self._flows = flows
        self._absent: set[tuple[str, str]] = set()

    def tokenize(self, text: str, *, model: str | None = None, special: bool = True) -> Flow[list[int]]:
        """Token ids. Raises NotSupported where the server has no route for it."""
        name = yield from self._flows.own(model)
        body = {
            "model": name,
            "prompt": text,
            "content": text,
            "add_special_tokens": special,
            "add_special": special,
        }
        counted = yield from self._counted(body, name)
        return counted.tokens

    def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> Flow[str]:
        name = yield from self._flows.own(model)
        body = msgspec.json.encode({"model": name, "tokens": list(tokens)})
        exchanged = yield from self._optional("/detokenize", body, name, "detokenize")
        found = exchanged.read(lambda sent: msgspec.json.decode(sent, type=_Text), "a text")
        return found.prompt if found.prompt is not None else found.content or ""

    def rendered(self, request: ChatRequest) -> Flow[tuple[int, ...]]:
        """Token ids of the prompt that the server's chat template makes of the conversation."""
        body = msgspec.json.decode(openai.write_chat(request, model=request.model))
        counted = yield from self._counted(body, request.model)
        if not counted.tokens:  # llama.cpp's own server has this route and knows no messages
            raise self._lacks("tokenize messages")
        return tuple(counted.tokens)

    def count(self, request: ChatRequest) -> Flow[Count]:
        """Tokens of the prompt that the chat template of the server, or of the one that stands in for it, makes of the
        conversation."""
        replace = msgspec.structs.replace
        count, _ = yield from self._flows.somewhere(
            request.model, lambda place, model: place.tokens.count_here(replace(request, model=model))
        )
        return count

    def count_here(self, request: ChatRequest) -> Flow[Count]:
        """By this server alone."""
        body = msgspec.json.decode(openai.write_chat(request, model=request.model))
        try:
            counted = yield from self._counted(body, request.model)
        except NotSupported:
            return Count(
                tokens=_guess(request), exact=False, limit=(yield from self._flows.context(request.model))
            )
        number = counted.count if counted.count is not None else len(counted.tokens)
        if not number:  # llama.cpp's own server has this route and knows no messages
            return Count(tokens=_guess(request), exact=False)
        limit = counted.max_model_len or (yield from self._flows.context(request.model))
        return Count(tokens=number, limit=limit)

    def fits(self, request: ChatRequest) -> Flow[Count]:
        """Raises PromptTooLong, before anything is sent, for a prompt that cannot fit."""
        count = yield from self.count(request)
        wanted = request.sampling.max_tokens
        if count.exact and count.limit is not None and count.tokens + (wanted or 1) > count.limit:
            error = PromptTooLong(tokens=count.tokens, limit=count.limit, wanted=wanted)
            error.url = self._flows.server.url
            raise error
        return count

    def room(self, model: str, prompts: Sequence[str | tuple[int, ...]]) -> Flow[int | None]:
        """Tokens that the context leaves the answer to each of them; None: nobody knows. Raises PromptTooLong."""
        limit = yield from self._flows.context(model)
        if limit is None:
            return None
        try:
            counts: list[int] = yield Together([self._length(each, model) for each in prompts])
        except NotSupported:
            return None
        tokens = max(counts, default=0)
        if tokens >= limit:
            error = PromptTooLong(tokens=tokens, limit=limit)
            error.url = self._flows.server.url
            raise error
        return limit - tokens

    def _length(self, prompt: str | tuple[int, ...], model: str) -> Flow[int]:
        return len((yield from self.tokenize(prompt, model=model)) if isinstance(prompt, str) else prompt)

    def _counted(self, body: Mapping[str, Any], model: str) -> Flow[_Counted]:
        exchanged = yield from self._optional("/tokenize", msgspec.json.encode(body), model, "tokenize")
        return exchanged.read(lambda sent: msgspec.json.decode(sent, type=_Counted), "a list of tokens")

    def _optional(self, path: str, body: bytes, model: str, feature: str) -> Flow[Exchanged]:
        """A route that only some servers have, and behind Portico only some models."""
        if (path, model) in self._absent and recording.current() is None:
            raise self._lacks(feature)
        try:
            return (yield from self._flows.asked("POST", path, body, model=model))
        except NoSuchModel:  # of which nothing is known
            raise
        except ClientError as error:
            if error.status in (404, 405, 501) or isinstance(error, NotSupported):
                self._absent.add((path, model))
                raise self._lacks(feature) from error
            raise

    def _lacks(self, feature: str) -> NotSupported:
        error = NotSupported(f"The server has no route to {feature}.", feature=feature)
        error.url = self._flows.server.url
        return error


def _guess(request: ChatRequest) -> int:
    """A token is some four characters of English, or a byte or two of anything else: rather too many than too few."""
    texts = [part.text for message in request.messages for part in message.parts if hasattr(part, "text")]
    return sum(len(text.encode()) // 3 + 1 for text in texts) + 8 * len(request.messages) + 16


__all__ = ["Count", "Tokens"]

"""Asking a server about tokens and prompts: llama.cpp's routes, which vLLM shares by name.

/tokenize and /detokenize exist in both, with different fields: a body carries both spellings and each server
reads its own. Only llama.cpp has /apply-template; vLLM's /tokenize takes messages instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from portico.dialects import openai
from portico.engines import ModelSpec
from portico.errors import Unsupported, UpstreamFailed
from portico.messages import ChatRequest
from portico.web import Upstream

T = TypeVar("T")

_NO_SUCH_ROUTE = (404, 405, 422, 501)
"""422: TGI has a /tokenize that takes and gives something else."""


class _Piece(msgspec.Struct):
    id: int
    piece: str | list[int] = ""


class _Tokens(msgspec.Struct):
    tokens: list[int]


class _Pieces(msgspec.Struct):
    tokens: list[_Piece]


class _Text(msgspec.Struct):
    content: str | None = None
    prompt: str | None = None


class _Prompt(msgspec.Struct):
    prompt: str


class TokenRoutes:
    """The part of a Replica that asks its server about tokens."""

    spec: ModelSpec
    served_name: str
    upstream: Upstream

    async def tokenize(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Token ids of `text`; markers such as <|im_start|> in it count as the tokens they name."""
        body = {**self._text(text), "add_special": special, "add_special_tokens": special}
        return tuple((await self._ask("/tokenize", body, _Tokens, "tokenize")).tokens)

    async def pieces(self, text: str) -> tuple[str, ...]:
        """The text of each token. Half a character is U+FFFD."""
        found = await self._ask(
            "/tokenize", {**self._text(text), "with_pieces": True}, _Pieces, "token texts"
        )
        return tuple(
            piece.piece if isinstance(piece.piece, str) else bytes(piece.piece).decode("utf-8", "replace")
            for piece in found.tokens
        )

    async def detokenize(self, tokens: Sequence[int]) -> str:
        body = {"model": self.served_name, "tokens": list(tokens)}
        found = await self._ask("/detokenize", body, _Text, "detokenize")
        return found.content or found.prompt or ""

    async def render(self, request: ChatRequest) -> str:
        """The prompt that the chat template makes of messages and tools."""
        body = openai.write_chat(request, model=self.served_name)
        return (await self._ask("/apply-template", body, _Prompt, "apply the chat template")).prompt

    async def count(self, request: ChatRequest) -> int:
        """Tokens of that prompt, as the engine will count them."""
        return len(await self.tokenize(await self.render(request), special=True))

    def _text(self, text: str) -> dict[str, object]:
        return {"model": self.served_name, "content": text, "prompt": text, "parse_special": True}

    async def _ask(self, path: str, body: object, kind: type[T], feature: str) -> T:
        sent = body if isinstance(body, bytes) else msgspec.json.encode(body)
        answer = await self.upstream.fetch("POST", path, sent)
        if answer.status in _NO_SUCH_ROUTE:
            raise self._unsupported(feature)
        if answer.status in (401, 403):
            raise UpstreamFailed(f"The engine refused its key for {path}.", status=502)
        if answer.status != 200:
            raise openai.read_error(answer.status, answer.body)
        try:
            return msgspec.json.decode(answer.body, type=kind)
        except msgspec.DecodeError as error:
            message = f"The engine at {self.upstream.url} answered {path} with something unexpected: {error}."
            raise UpstreamFailed(message, status=502) from error

    def _unsupported(self, feature: str) -> Unsupported:
        message = f"The server that runs {self.spec.name!r} cannot {feature}: it has no route for that."
        return Unsupported(message, model=self.spec.name, feature=feature)

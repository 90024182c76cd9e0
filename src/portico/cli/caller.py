"""A caller in either language, for what has to be cheap or many: the gateway's own upstream client with the
dialects' client side. (`server.py` is for everything that one person asks for.)"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Literal, Protocol
from urllib.parse import urlsplit

import msgspec

from portico.cli.failure import Failure
from portico.cli.replies import ErrorBody
from portico.dialects import ollama, openai
from portico.errors import UpstreamClosed, UpstreamFailed
from portico.messages import ChatRequest, CompletionRequest, Event
from portico.web import Upstream

Api = Literal["openai", "ollama"]


class Reader(Protocol):
    done: bool

    def feed(self, data: bytes) -> list[Event]: ...

    def end(self) -> list[Event]: ...


class Caller:
    """Requests to one server in one language. Owns its connections; belongs to one event loop."""

    def __init__(self, url: str, api: Api, key: str | None = None) -> None:
        headers = [(b"authorization", f"Bearer {key}".encode())] if key else []
        self.api = api
        self._upstream = Upstream(url.rstrip("/").removesuffix("/v1"), headers=headers)

    def close(self) -> None:
        self._upstream.close()

    async def stream(self, request: ChatRequest | CompletionRequest) -> AsyncGenerator[list[Event], None]:
        """The events of a streamed answer, as many at a time as arrive. Raises UpstreamFailed and its like."""
        path, body, reader = self._written(request)
        reply = await self._upstream.request("POST", path, body)
        try:
            if reply.status != 200:
                raise _refused(reply.status, await reply.read())
            while data := await reply.chunk():
                if events := reader.feed(data):
                    yield events
            if events := reader.end():  # raises what went wrong in the last packet
                yield events
            if not reader.done:
                raise UpstreamClosed(url=self._upstream.url)
        finally:
            reply.close()

    async def models(self) -> tuple[str, ...]:
        """The models that the server lists in this language. Raises Failure where it does not speak it."""
        path = "/v1/models" if self.api == "openai" else "/api/tags"
        answer = await self._upstream.fetch("GET", path)
        if answer.status != 200:
            raise Failure("server", _refused(answer.status, answer.body).message)
        try:
            listing = msgspec.json.decode(answer.body, type=_Listing)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise Failure("server", f"{path} answered something else than a list of models") from error
        return tuple(row.id or row.name for row in listing.data or listing.models or ())

    def _written(self, request: ChatRequest | CompletionRequest) -> tuple[str, bytes, Reader]:
        if isinstance(request, CompletionRequest):
            body = openai.write_completion(request, model=request.model)
            return "/v1/completions", body, openai.CompletionChunkReader()
        if self.api == "ollama":
            return "/api/chat", ollama.write_chat(request), ollama.ChunkReader()
        return "/v1/chat/completions", openai.write_chat(request, model=request.model), openai.ChunkReader()


class _Model(msgspec.Struct, frozen=True):
    id: str = ""
    name: str = ""


class _Listing(msgspec.Struct, frozen=True):
    data: tuple[_Model, ...] | None = None
    models: tuple[_Model, ...] | None = None


def _refused(status: int, body: bytes) -> UpstreamFailed:
    try:
        said = msgspec.json.decode(body, type=ErrorBody).text
    except (msgspec.DecodeError, msgspec.ValidationError):
        said = ""
    return UpstreamFailed(said or f"status {status}", status=status)


async def detect(url: str, key: str | None) -> tuple[Api, tuple[str, ...]]:
    """The language to measure in and the models listed: OpenAI's where it is spoken, because every server
    that speaks it can be compared with every other; else Ollama's. Raises UpstreamUnreachable or Failure."""
    apis: tuple[Api, ...] = ("openai",) if urlsplit(url).path.endswith("/v1") else ("openai", "ollama")
    failures: list[Failure] = []
    for api in apis:
        caller = Caller(url, api, key)
        try:
            return api, await caller.models()
        except Failure as failure:
            failures.append(failure)
        finally:
            caller.close()
    raise failures[0]

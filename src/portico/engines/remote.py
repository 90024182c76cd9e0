"""Any server that speaks OpenAI's HTTP: bare vLLM, llama.cpp, Ollama, another Portico, OpenAI itself.

There is nothing to start or to stop. A replica is a pool of connections, and what /v1/models tells.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TypeVar
from urllib.parse import urlsplit

import msgspec

from portico.dialects import openai
from portico.engines import Abilities, Account, ModelSpec, Progressed, Reach, Sleepless, unheard
from portico.engines.tokens import TokenRoutes
from portico.engines.turns import Turns
from portico.errors import Unsupported, UpstreamFailed
from portico.messages import ChatRequest, Value
from portico.web import Upstream
from portico.web.dial import tls_context

T = TypeVar("T")

STRAIGHT = Reach()
PROBE_SECONDS = 10.0
ABSENT_SECONDS = 300.0
"""So long a route is not asked for again that a server does not have. Callers of Ollama's API send `num_ctx` with
every request, and counting its tokens would cost three requests in vain each time."""


class RemoteModel(Value, frozen=True, kw_only=True):
    """A model that a server offers, and the tokens of its context where the server tells."""

    id: str
    context: int | None = None


class _Meta(msgspec.Struct):
    n_ctx: int | None = None


class _Model(msgspec.Struct):
    id: str
    max_model_len: int | None = None
    meta: _Meta | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


class _Counted(msgspec.Struct):
    count: int | None = None
    tokens: list[int] = []


class RemoteReplica(TokenRoutes):
    """A model on another server. It cannot die here: that it is gone shows as UpstreamUnreachable."""

    pid: int | None = None
    gpus: frozenset[str] = frozenset()

    def __init__(self, spec: ModelSpec, upstream: Upstream, context: int | None) -> None:
        self.turns: Turns | None = None
        self.spec, self.upstream, self.context = spec, upstream, context
        self.served_name = spec.served_name or spec.name
        self.abilities = Abilities(spelling=spelling(spec))
        self._absent: dict[str, float] = {}

    async def render(self, request: ChatRequest) -> str:
        try:
            return await super().render(request)
        except Unsupported:
            counted = await self._tokenize_chat(request)
            return await self.detokenize(counted.tokens)

    async def count(self, request: ChatRequest) -> int:
        try:
            counted = await self._tokenize_chat(request)
            return counted.count if counted.count is not None else len(counted.tokens)
        except Unsupported:
            return await super().count(request)

    def died(self) -> str | None:
        return None

    def condemn(self, reason: str) -> None: ...

    def when_ended(self, tell: Callable[[], None]) -> None: ...

    async def _ask(self, path: str, body: object, kind: type[T], feature: str) -> T:
        now = time.monotonic()
        if self._absent.get(path, 0.0) > now:
            raise self._unsupported(feature)
        try:
            return await super()._ask(path, body, kind, feature)
        except Unsupported:
            self._absent[path] = now + ABSENT_SECONDS
            raise

    async def _tokenize_chat(self, request: ChatRequest) -> _Counted:
        """vLLM's own way. llama.cpp has this route too, but knows no messages and finds nothing to count."""
        body = openai.write_chat(request, model=self.served_name)
        counted = await self._ask("/tokenize", body, _Counted, "count tokens")
        if counted.count is None and not counted.tokens:
            raise self._unsupported("count tokens")
        return counted


class Remote(Sleepless):
    """Opens and closes connections to other servers. `connect` are the seconds until there is one; the other seconds
    and `max_waiting` are those of LlamaCpp."""

    occupies = False

    def __init__(
        self,
        *,
        connect: float = 10.0,
        first_byte: float = 600.0,
        between: float = 300.0,
        max_waiting: int = 512,
        patience: float = 0.0,
    ) -> None:
        self._connect, self._first_byte, self._between = connect, first_byte, between
        self._max_waiting, self._patience = max_waiting, patience

    async def start(
        self, spec: ModelSpec, progressed: Progressed = unheard, *, gpus: Sequence[Account] = ()
    ) -> RemoteReplica:
        """Raises UpstreamUnreachable if nothing answers there. A server that has no list of models, or none
        with this name, is given the benefit of the doubt: its own error says more than ours could."""
        upstream = connect(
            spec.source,
            spec.api_key,
            spec.reach,
            within=self._connect,
            first_byte=self._first_byte,
            between=self._between,
        )
        try:
            offered = await _listed(upstream)
        except UpstreamFailed:
            offered = ()
        except BaseException:
            upstream.close()
            raise
        name = spec.served_name or spec.name
        context = next((model.context for model in offered if model.id == name), None)
        if context is None and len(offered) == 1:
            context = offered[0].context
        replica = RemoteReplica(spec, upstream, spec.context or context or spec.facts.context)
        if spec.parallel:
            replica.turns = Turns(spec.parallel, max_waiting=self._max_waiting, patience=self._patience)
        return replica

    async def stop(self, replica: RemoteReplica) -> None:
        replica.upstream.close()


def spelling(spec: ModelSpec) -> openai.Spelling:
    """The words of the server that has this model."""
    host = urlsplit(spec.source).hostname or ""
    if host == "api.openai.com" or host.endswith(".api.openai.com"):
        return openai.OPENAI if spec.strict is not False else openai.ANY
    return openai.STRICT if spec.strict else openai.ANY


def connect(
    url: str,
    api_key: str | None,
    reach: Reach = STRAIGHT,
    *,
    within: float = 10.0,
    first_byte: float = 600.0,
    between: float = 300.0,
) -> Upstream:
    """Connections to the server at `url`, given with or without /v1. Raises ConfigError for a file or a proxy that
    cannot be used."""
    headers = [(b"authorization", b"Bearer " + api_key.encode())] if api_key else []
    root = url.rstrip("/").removesuffix("/v1")
    secure = url.startswith("https://")
    return Upstream(
        root,
        headers=headers,
        connect=within,
        first_byte=first_byte,
        between=between,
        tls=tls_context(reach.ca_file, reach.client_cert, reach.client_key) if secure else None,
        proxy=reach.proxy,
    )


async def models(
    url: str, api_key: str | None = None, reach: Reach = STRAIGHT, *, within: float = 10.0
) -> tuple[RemoteModel, ...]:
    """What the server at `url` offers. Raises UpstreamUnreachable, UpstreamFailed, UpstreamTimeout."""
    upstream = connect(url, api_key, reach, within=within, first_byte=PROBE_SECONDS, between=PROBE_SECONDS)
    try:
        return await _listed(upstream)
    finally:
        upstream.close()


async def _listed(upstream: Upstream) -> tuple[RemoteModel, ...]:
    reply = await upstream.request("GET", "/v1/models", first_byte=PROBE_SECONDS)
    try:
        body = await reply.read()
    finally:
        reply.close()
    if reply.status != 200:
        raise UpstreamFailed(f"GET {upstream.url}/v1/models answered {reply.status}.", status=reply.status)
    try:
        found = msgspec.json.decode(body, type=_Models)
    except msgspec.DecodeError as error:
        message = f"GET {upstream.url}/v1/models did not answer with a list of models: {error}."
        raise UpstreamFailed(message, status=502) from error
    return tuple(
        RemoteModel(id=model.id, context=model.max_model_len or (model.meta.n_ctx if model.meta else None))
        for model in found.data
    )

"""What both clients do, as flows: the decisions stand here once, and two drivers carry them out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import msgspec

from portico import recording
from portico.client import budget, enforced, options, overlooked, prices, results, schemas, spending
from portico.client.abilities import Ability, Feature, Probe
from portico.client.budget import Hold
from portico.client.exchange import Exchanged, exchange, told
from portico.client.fallback import Place
from portico.client.prices import Tariff
from portico.client.results import Attempt, Result, Timing
from portico.client.servers import Server
from portico.client.settings import Settings
from portico.client.supports import Supports
from portico.client.tokens import Tokens
from portico.client.wishes import Answer, Flow, Gate, Once, Send
from portico.dialects import openai
from portico.errors import ClientError, InvalidRequest, NoSuchModel, NotSupported, Refused, ServerFailed
from portico.messages import ChatRequest, CompletionRequest, EmbeddingRequest

T = TypeVar("T")
CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
_DEFAULT = ("", "default", "auto")
_ROUTES = {EMBEDDINGS: "embeddings", COMPLETIONS: "completions"}
_log = logging.getLogger("portico.client")
_LISTED = 10.0
"""Seconds that an error waits for the names of other models."""
_OPENAI = msgspec.structs.replace(openai.OPENAI, passes_extra=True)
"""What the caller names itself is sent: OpenAI refuses what it does not know, and says so."""


class ModelCard(msgspec.Struct, frozen=True):
    """A model that a server lists. `context` is None where the server does not tell."""

    id: str
    max_model_len: int | None = None
    owned_by: str = ""

    @property
    def context(self) -> int | None:
        return self.max_model_len


class _Models(msgspec.Struct):
    data: list[ModelCard] = []


_Request = ChatRequest | CompletionRequest | EmbeddingRequest


class Flows:
    """Owns what is known of the server: its models, and what it can do. Shared by the calls of one client.

    `others` are the same for the servers that stand in for it, in their order; what they are asked is decided here.
    """

    def __init__(self, server: Server, settings: Settings, others: Sequence[Flows] = ()) -> None:
        self.server, self.settings, self.others = server, settings, tuple(others)
        self._models: tuple[ModelCard, ...] | None = None
        self._listed_in: recording.Journal | None = None
        self._listing = Gate()
        self.tokens = Tokens(self)
        self.supports = Supports(server, settings.home)
        self._tariffs: dict[str, Tariff] = {}
        self.ends: dict[str, dict[int, bool]] = {}
        """By model: tokens of which it is known whether they end an answer."""
        self.own_beams: dict[str, bool] = {}
        """By model: whether its server has a beam search of its own."""

    # ---- the server

    def models(self) -> Flow[tuple[ModelCard, ...]]:
        """Calls that begin while one is under way are given what it gets."""
        found: tuple[ModelCard, ...] = yield Once(self._listing, self._listed)
        return found

    def _listed(self) -> Flow[tuple[ModelCard, ...]]:
        exchanged = yield from self.asked("GET", "/v1/models", b"", model="")
        listed = exchanged.read(lambda body: msgspec.json.decode(body, type=_Models), "a list of models")
        self._models, self._listed_in = tuple(listed.data), recording.current()
        return self._models

    def _known(self) -> Flow[tuple[ModelCard, ...]]:
        """The models, asked for once; and once in each recording, since its replay may know nothing."""
        journal = recording.current()
        if self._models is None or (journal is not None and journal is not self._listed_in):
            return (yield from self.models())
        return self._models

    def model(self, named: str | None) -> Flow[str]:
        """The model to ask: the one that is named, else the first that the server lists. Where others may stand in, the
        question is left to who is asked in the end: "default"."""
        wanted = named or self.settings.model
        if wanted not in _DEFAULT:
            return wanted
        if self.others:
            return "default"
        return (yield from self._model(wanted))

    def own(self, named: str | None) -> Flow[str]:
        """The model of this very server."""
        return (yield from self._model(named or self.settings.model))

    def _model(self, wanted: str) -> Flow[str]:
        if wanted not in _DEFAULT:
            return wanted
        known = yield from self._known()
        if not known:
            error = NoSuchModel(model=wanted or "default")
            error.url = self.server.url
            raise error
        return known[0].id

    def context(self, model: str) -> Flow[int | None]:
        """Tokens that the model's prompt and answer may have together; None: the server does not tell."""
        model = yield from self._model(model)
        known = yield from self._known()
        bare = model.removesuffix(":latest")
        return next((card.context for card in known if card.id.removesuffix(":latest") == bare), None)

    # ---- what it supports

    def ability(self, feature: Feature, model: str | None = None) -> Flow[Ability]:
        """As the server says. Raises ClientError where it does not answer."""
        return (yield from self.supports.ability(feature, (yield from self.own(model))))

    def enforces(self, schema: Any, model: str) -> Flow[None]:
        """Raises NotSupported for a schema that this server is known not to hold an answer to."""
        if not any(schemas.keywords(schema)):
            return
        try:
            model = yield from self.own(model)
        except ClientError:
            return
        yield from self.supports.enforces(schema, model)

    def probe(self, model: str | None) -> Flow[Probe]:
        """All of it. Raises ClientError where the server does not answer."""
        cards = yield from self.models()
        name = yield from self.own(model)
        software = yield from self.supports.software()
        found = yield from self.supports.all(name)
        return Probe(
            url=self.server.url,
            software=software,
            model=name,
            context=(yield from self.context(name)),
            models=tuple(card.id for card in cards),
            abilities=found,
        )

    # ---- answers

    def chat(self, request: ChatRequest) -> Flow[Result[Any]]:
        return (yield from self._answer(CHAT, request))

    def complete(self, request: CompletionRequest) -> Flow[Result[Any]]:
        """A raw completion. Without max_tokens the answer has the rest of the context, and not vLLM's 16 tokens."""
        return (yield from self._answer(COMPLETIONS, request))

    def opened(self, path: str, request: ChatRequest | CompletionRequest) -> Flow[Exchanged]:
        """A stream whose head has come; closing it is its caller's."""
        request = msgspec.structs.replace(request, stream=True)
        return (yield from self._posted(path, request, stream=True))

    def embed(self, request: EmbeddingRequest) -> Flow[tuple[list[list[float]], Exchanged, Any]]:
        exchanged = yield from self._posted(EMBEDDINGS, request)
        vectors, usage = exchanged.read(openai.read_embeddings, "a list of embeddings")
        exchanged.settle(usage)
        return vectors, exchanged, usage

    def raw(self, path: str, body: Mapping[str, Any]) -> Flow[Exchanged]:
        """The reply to a body that is sent as it is, but for its model where it names none."""
        began = time.monotonic()
        named = str(body.get("model") or "")

        def ask(place: Flows, model: str) -> Flow[Exchanged]:
            sent, held = {**body, "model": model}, None
            if budget.in_force(place.settings.budget):
                asked = spending.read(path, sent)
                asked, held = yield from spending.reserved(place, asked, stream=False, began=began)
                if not isinstance(asked, EmbeddingRequest) and asked.sampling.max_tokens is not None:
                    sent.pop("max_completion_tokens", None)
                    sent[place._spelling.most_tokens if path == CHAT else "max_tokens"] = (
                        asked.sampling.max_tokens
                    )
            written = msgspec.json.encode(sent)
            exchanged = yield from place._held(path, written, model, held, stream=False, began=began)
            spending.settled(exchanged)
            return exchanged

        wanted = self.settings.model if named in _DEFAULT else named
        exchanged, tried = yield from self.somewhere(wanted, ask)
        return exchanged.after(tried)

    def asked_here(self, path: str, body: bytes, model: str) -> Flow[Exchanged]:
        """A reply of this server and no other, for what cannot go on elsewhere."""
        began, held = time.monotonic(), None
        if budget.in_force(self.settings.budget):
            request = spending.read(path, body)
            _, held = yield from spending.reserved(self, request, stream=False, began=began)
        exchanged = yield from self._held(path, body, model, held, stream=False, began=began)
        spending.settled(exchanged)
        return exchanged

    def _held(
        self, path: str, body: bytes, model: str, held: Hold | None, *, stream: bool, began: float
    ) -> Flow[Exchanged]:
        """The reply, with what was set aside for it: whoever reads the reply settles it. Without one it is settled here."""
        try:
            exchanged = yield from self.asked(
                "POST",
                path,
                body,
                model=model,
                stream=stream,
                began=began,
                again=held.again if held is not None else None,
            )
        except BaseException as error:
            if held is not None:
                held.failed(error)
            raise
        exchanged.hold, exchanged.tariff = held, self.tariff(model)
        return exchanged

    def tariff(self, model: str) -> Tariff:
        """What a token of the model costs."""
        found = self._tariffs.get(model)
        if found is None:
            found = self._tariffs[model] = prices.tariff(self.server, model, self.settings.prices)
        return found

    def _posted(self, path: str, request: _Request, *, stream: bool = False) -> Flow[Exchanged]:
        """The reply of this server, or of the first of those that stand in for it that has one."""
        began = time.monotonic()

        def ask(place: Flows, model: str) -> Flow[Exchanged]:
            there = msgspec.structs.replace(request, model=model)
            as_json = False
            if not isinstance(there, EmbeddingRequest):
                there, as_json = yield from place.enforceable(there)
            there, held = yield from spending.reserved(place, there, stream=stream, began=began)
            if isinstance(there, CompletionRequest) and held is None:
                there = yield from place._limited(there)
            try:
                body = place._written(there)
            except (TypeError, ValueError, InvalidRequest) as error:
                if held is not None:
                    held.unsent()
                raise InvalidRequest(f"The request cannot be written as JSON: {error}.") from error
            exchanged = yield from place._held(path, body, model, held, stream=stream, began=began)
            exchanged.as_json = as_json
            return exchanged

        exchanged, tried = yield from self.somewhere(request.model, ask)
        return exchanged.after(tried)

    def _absent_route(self, path: str, error: ClientError) -> NotSupported | None:
        """A route that the server does not have, as the feature that it lacks."""
        feature = _ROUTES.get(path)
        if feature is None or error.status not in (404, 405, 501) or isinstance(error, NoSuchModel):
            return None
        lacks = NotSupported(
            f"The server does not offer {feature} with this model: {error.args[0]}", feature=feature
        )
        lacks.url, lacks.request_id = error.url, error.request_id
        lacks.attempts, lacks.tried = error.attempts, error.tried
        return lacks

    def somewhere(
        self, model: str, ask: Callable[[Flows, str], Flow[T]]
    ) -> Flow[tuple[T, tuple[Attempt, ...]]]:
        """What `ask` gives of this server with `model`, or of the first of the others, each with its own, as far as the policy
        goes on; and the attempts that came to nothing."""
        tried: tuple[Attempt, ...] = ()
        policy = self.settings.fallback
        places = (self, *self.others)
        for place, then in zip(places, (*self.others, None), strict=True):
            try:
                name = yield from place._model(model if place is self else place.settings.model)
                return (yield from ask(place, name)), tried
            except ClientError as error:
                tried = error.tried = (*tried, *error.tried)
                if policy is None or then is None or not policy.goes_on(error):
                    raise
                _log.warning("%s has no answer, %s is asked: %s", place.server.url, then.server.url, error)
        raise AssertionError("the last place returns or raises")

    def enforceable(self, request: ChatRequest | CompletionRequest) -> Flow[tuple[Any, bool]]:
        """In words that this server enforces; and whether its answer is then JSON. Raises NotSupported."""
        if asked := overlooked.asked_for(request):
            yield from self.supports.honours(asked, request.model)
        if request.sampling.extra.get("return_token_ids"):
            yield from self.supports.require("token_ids", request.model)
        kind = enforced.asked_for(request)
        if kind is None:
            return request, False
        found = yield from self.supports.require(kind, request.model)
        via = found.via if found is not None else ""
        try:
            return enforced.put(request, kind, via), via == "json_schema"
        except NotSupported as error:
            error.url = self.server.url
            raise

    def _written(self, request: _Request) -> bytes:
        if isinstance(request, ChatRequest):
            return openai.write_chat(request, model=request.model, spelling=self._spelling)
        if isinstance(request, CompletionRequest):
            return openai.write_completion(request, model=request.model, spelling=self._spelling)
        return openai.write_embedding(request, model=request.model)

    @property
    def _spelling(self) -> openai.Spelling:
        return _OPENAI if self._is_openai() else openai.ANY

    def _limited(self, request: CompletionRequest) -> Flow[CompletionRequest]:
        if request.sampling.max_tokens is not None or self._is_openai():
            return request
        room = yield from self.tokens.room(request.model, request.prompts)
        if room is None:
            return request
        return msgspec.structs.replace(
            request, sampling=msgspec.structs.replace(request.sampling, max_tokens=room)
        )

    def _answer(self, path: str, request: ChatRequest | CompletionRequest) -> Flow[Result[Any]]:
        began = time.monotonic()
        exchanged = yield from self._posted(path, request)
        reply = exchanged.reply
        completion = path == COMPLETIONS
        about = {
            "url": exchanged.url,
            "request_id": exchanged.request_id,
            "timing": Timing(total=time.monotonic() - began),
            "attempts": exchanged.attempts,
            "headers": reply.headers,
        }
        result = exchanged.read(lambda sent: results.read(sent, completion=completion, **about), "an answer")
        result = msgspec.structs.replace(result, cost=exchanged.settle(result.usage))
        return results.texts(result, enforced.taken) if exchanged.as_json else result

    def _is_openai(self) -> bool:
        return self.server.url == "https://api.openai.com"

    def asked(
        self,
        method: str,
        path: str,
        body: bytes,
        *,
        model: str,
        stream: bool = False,
        began: float | None = None,
        again: Callable[[ClientError], None] | None = None,
    ) -> Flow[Exchanged]:
        settings = self.settings
        send = Send(method, path, body, stream, server=self.server)
        call = exchange(
            send,
            url=self.server.url,
            model=model,
            retry=settings.retry,
            total=settings.timeouts.total,
            began=began,
            again=again,
        )
        try:
            return (yield from call)
        except (Refused, ServerFailed) as error:
            if (lacks := self._absent_route(path, error)) is not None:
                raise lacks from error
            raise
        except NoSuchModel as error:
            served = yield from self._served()
            if not served or model in served:  # then its own words are worth more than the list
                raise
            named = NoSuchModel(model=model, served=served)
            named.url, named.request_id, named.attempts = error.url, error.request_id, error.attempts
            named.tried = error.tried
            raise named from error

    def _served(self) -> Flow[list[str]]:
        """For an error's sake: a second one must not hide the first."""
        try:
            until = time.monotonic() + _LISTED
            reply = yield Send("GET", "/v1/models", server=self.server, deadline=until)
        except ClientError:
            return []
        if reply.status != 200:
            return []
        try:
            return [card.id for card in msgspec.json.decode(reply.body, type=_Models).data]
        except ValueError:
            return []


def standing_in(places: Sequence[tuple[Place, Server]], settings: Settings) -> list[Flows]:
    """Of the servers that stand in for a client's own, each with what is meant for it alone."""
    replace = msgspec.structs.replace
    return [
        Flows(server, replace(settings, model=place.model, headers=place.headers, fallback=None))
        for place, server in places
    ]


__all__ = ["CHAT", "COMPLETIONS", "Answer", "Flows", "ModelCard", "options", "told"]

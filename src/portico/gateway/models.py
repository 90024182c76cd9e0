"""Which names this server answers to, and what stands behind each."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain

import msgspec

from portico import names
from portico.engines import Facts, ModelSpec
from portico.engines.apart import apart
from portico.errors import DamagedFile, ModelNotFound, PorticoError
from portico.messages import ChatRequest, CompletionRequest, Message, Sampling, Text, Value

_log = logging.getLogger("portico.models")

_FRESH = 1.0
"""Seconds a listing holds."""
_STALE = 3.0
"""Older, in seconds, it is used only when a new one does not come soon."""
_SHORT, _LONG = 0.2, 10.0
"""Seconds a caller waits for a new listing: who could be served with the old one, and who could not."""
_FEW = 1024
"""Names remembered; a caller who asks for ever new ones must not fill the memory."""


class Preset(Value, frozen=True, kw_only=True):
    """What `create` adds to a model under a name of its own."""

    parent: str
    system: str = ""
    template: str = ""
    """Ollama's, for `show`; the model's own Jinja template is what runs."""
    sampling: Sampling = Sampling()
    parameters: dict[str, object] = {}
    """As they were given, for `show`."""
    messages: tuple[Message, ...] = ()
    context: int | None = None
    """num_ctx: tokens that prompt and answer may take together."""


class Served(Value, frozen=True, kw_only=True):
    """A model under one of its names."""

    name: str
    """Canonical: as listed, with its tag."""
    spec: ModelSpec
    facts: Facts = Facts()
    """Of this name: a preset may have its own license or age."""
    preset: Preset | None = None
    others: tuple[ModelSpec, ...] = ()
    """Further replicas of the same model, here or on other servers, each with a name of its own."""
    fallback: tuple[str, ...] = ()
    """Models that stand in for it, in this order, when none of its replicas answers."""
    adapter: str = ""
    """The LoRA adapter that this name means, as its engine calls it; empty: the model itself."""
    refusal: PorticoError | None = None
    """Why it cannot be run here, though it is listed; a damaged one is not."""

    @property
    def replicas(self) -> tuple[ModelSpec, ...]:
        return (self.spec, *self.others)

    @property
    def damage(self) -> DamagedFile | None:
        return self.refusal if isinstance(self.refusal, DamagedFile) else None

    def applied(self, request: ChatRequest) -> ChatRequest:
        """The request with the preset's system message, messages and parameters, where it has none."""
        preset = self.preset
        if preset is None:
            return request
        own = request.messages
        lead: tuple[Message, ...] = preset.messages
        if own and own[0].role == "system":
            lead, own = (own[0], *lead), own[1:]
        elif preset.system:
            lead = (Message(role="system", parts=(Text(text=preset.system),)), *lead)
        return msgspec.structs.replace(
            request,
            messages=(*lead, *own),
            sampling=filled(request.sampling, preset.sampling),
            context=preset.context if request.context is None else request.context,
        )

    def completed(self, request: CompletionRequest) -> CompletionRequest:
        """The same for a raw completion, which has no messages."""
        if self.preset is None:
            return request
        return msgspec.structs.replace(request, sampling=filled(request.sampling, self.preset.sampling))


def filled(sampling: Sampling, defaults: Sampling) -> Sampling:
    """`sampling`, with what it leaves unset taken from `defaults`."""
    changes = {
        field: getattr(defaults, field)
        for field in Sampling.__struct_fields__
        if field != "extra"
        and getattr(sampling, field) in (None, ())
        and getattr(defaults, field) not in (None, ())
    }
    extra = {**defaults.extra, **sampling.extra}
    return msgspec.structs.replace(sampling, extra=extra, **changes)


class Models:
    """Owns the names. `shelf` lists what the library holds now: it is called in a thread, in one at a time,
    because the library's folders may be on a network that hangs. What it said is kept, and asked for again when
    it is older than a second and somebody needs it: other programs put models into the same folders.

    `copies` and `fallback` are, by a model's name, its further replicas and the models that stand in for it.
    The models named at the start come first: the first of them is what `default` and `auto` mean. `named` are
    the names they were given then, each of the spec in its place: a preset has another name than what it runs
    as. Belongs to one event loop.
    """

    def __init__(
        self,
        configured: Sequence[ModelSpec],
        shelf: Callable[[], Sequence[Served]] = tuple,
        aliases: Mapping[str, str] = {},
        named: Sequence[str] = (),
        *,
        copies: Mapping[str, tuple[ModelSpec, ...]] = {},
        fallback: Mapping[str, tuple[str, ...]] = {},
    ) -> None:
        self.started = time.time()
        self.configured = tuple(configured)
        self._named = tuple(named or (names.canonical(spec.name) for spec in configured))
        self._shelf = shelf
        self._copies, self._fallback = copies, fallback
        self._aliases = dict(aliases)
        for spec, name in zip(self.configured, self._named, strict=True):
            self._aliases.update(dict.fromkeys(spec.aliases, name))
        self._known = self._with(())
        self._listed_at = -math.inf
        self._changes = 0
        self._listing: asyncio.Task[None] | None = None
        self._began = 0.0
        self._failure: Exception | None = None
        """Why the newest listing was not made."""
        self._resolved: dict[str, Served] = {}

    def refresh(self) -> None:
        """Something was pulled, made or removed: what was known before is told to nobody any more who waits for
        `current` or resolves a name."""
        self._changes += 1
        self._listed_at = -math.inf
        self._resolved.clear()
        self._begin()  # for /health, which waits for nothing

    def close(self) -> None:
        """Nobody waits for a listing any more."""
        if self._listing is not None:
            self._listing.cancel()

    async def current(self) -> None:
        """Returns when the listing is at most a second old; also after ten seconds, and when none can be made: the
        old one is then all there is to tell."""
        if time.monotonic() - self._listed_at > _FRESH:
            await self._list(patience=_LONG)

    def all(self) -> list[Served]:
        """Every model and preset of the last listing that is whole, those named at the start first."""
        return [served for served in self._known.values() if served.damage is None]

    def names(self) -> list[str]:
        """Their names as OpenAI's clients write them: without `:latest`."""
        return [bare(served.name) for served in self.all()]

    def damaged(self) -> dict[str, DamagedFile]:
        """What is here but cannot be used, by name."""
        return {served.name: served.damage for served in self._known.values() if served.damage is not None}

    async def resolve(self, asked: str) -> Served:
        """The model a caller means. Raises ModelNotFound with the nearest names, DamagedFile for one that is
        here but cannot be used.

        1. Known, from a listing of the last second: it costs a look at the clock.
        2. Known, from one a little older: the same, and behind the caller's back it is listed again.
        3. Known, from an old one: listed again first; not for long, because what is loaded can answer though
           its folder hangs.
        4. Not known, or something was changed here: from a new listing.
        """
        served = self._resolved.get(asked)
        age = time.monotonic() - self._listed_at
        if served is not None:
            if age <= _FRESH:  # (1)
                return served
            await self._list(patience=0.0 if age <= _STALE else _SHORT)  # (2), (3)
            served = self._resolved.get(asked)
        elif age > _FRESH:  # (4)
            await self._list(patience=_LONG)
            if self._failure is not None and names.canonical(asked) not in self._known:
                raise PorticoError(f"The models cannot be listed: {self._failure}.")
        if served is None:
            served = self._find(asked)
            if len(self._resolved) < _FEW:
                self._resolved[asked] = served
        return served

    def _find(self, asked: str) -> Served:
        try:
            served = self._known[names.resolve(asked, self._known, aliases=self._aliases)]
        except ModelNotFound as error:
            raise ModelNotFound(model=asked, nearest=tuple(bare(name) for name in error.nearest)) from None
        if served.damage is not None:
            raise served.damage.with_traceback(None)
        return served

    async def _list(self, *, patience: float) -> None:
        """Has it listed, and waits until that has been going on for `patience` seconds."""
        listing = self._begin()
        left = self._began + patience - time.monotonic()
        if left > 0:
            await asyncio.wait([listing], timeout=left)

    def _begin(self) -> asyncio.Task[None]:
        if self._listing is None:
            self._began = time.monotonic()
            self._listing = asyncio.get_running_loop().create_task(self._listed(), name="list models")
        return self._listing

    async def _listed(self) -> None:
        try:
            changes = -1
            while changes != self._changes:  # what was changed meanwhile may be missing in it
                changes = self._changes
                known = self._with(await apart(self._shelf, within=None))
            self._known, self._listed_at, self._failure = known, time.monotonic(), None
            self._resolved.clear()
        except Exception as error:  # a disk that fails: what is known already can still be served
            if str(error) != str(self._failure):
                _log.warning("The models cannot be listed: %s", error)
            self._failure = error
        finally:
            self._listing = None

    def _with(self, shelf: Sequence[Served]) -> dict[str, Served]:
        """By name: the models named at the start, and `shelf`."""
        known = {served.name: served for served in map(self._as_configured, self.configured)}
        for adapter in chain.from_iterable(map(self._adapters, self.configured)):
            known.setdefault(adapter.name, adapter)
        for served in shelf:
            own = known.get(names.canonical(served.spec.name))
            if own is not None and not own.adapter:
                # A preset of a model named at the start runs on that very engine.
                served = msgspec.structs.replace(
                    served, spec=own.spec, others=own.others, fallback=own.fallback, refusal=None
                )
            if served.name not in known or (own and own.name == served.name and not own.adapter):
                known[served.name] = served
        first = {name: known[name] for name in self._named if name in known}
        return first | known

    def _as_configured(self, spec: ModelSpec) -> Served:
        return Served(
            name=names.canonical(spec.name),
            spec=spec,
            facts=spec.facts,
            others=self._copies.get(spec.name, ()),
            fallback=self._fallback.get(spec.name, ()),
        )

    def _adapters(self, spec: ModelSpec) -> Iterator[Served]:
        """The LoRA adapters of a model, each a name of its own on the same engine."""
        model = self._as_configured(spec)
        for name, _ in spec.vllm.lora_modules:
            yield msgspec.structs.replace(model, name=names.canonical(name), adapter=name)


def bare(name: str) -> str:
    return name.removesuffix(":latest")

"""Which names this server answers to, and what stands behind each."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import msgspec

from portico import names
from portico.engines import Facts, ModelSpec
from portico.errors import DamagedFile, ModelNotFound, PorticoError
from portico.messages import ChatRequest, CompletionRequest, Message, Sampling, Text, Value

_FRESH = 1.0
"""Seconds a listing holds."""
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
    refusal: PorticoError | None = None
    """Why it cannot be run here, though it is listed; a damaged one is not."""

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
    """Owns the names. `shelf` lists what the library holds now; what it says is kept until `refresh`.

    The models named at the start come first: the first of them is what `default` and `auto` mean.
    """

    def __init__(
        self,
        configured: Sequence[ModelSpec],
        shelf: Callable[[], Sequence[Served]] = tuple,
        aliases: Mapping[str, str] = {},
    ) -> None:
        self.started = time.time()
        self.configured = tuple(configured)
        self._shelf = shelf
        self._aliases = dict(aliases)
        self._known: dict[str, Served] | None = None
        self._listed_at = 0.0
        self._names: dict[str, str] = {}
        self._resolved: dict[str, Served] = {}

    def refresh(self) -> None:
        """Something was pulled, made or removed."""
        self._known = None
        self._resolved.clear()

    def all(self) -> list[Served]:
        """Every model and preset that is whole, those named at the start first."""
        return [served for served in self._all().values() if served.damage is None]

    def names(self) -> list[str]:
        """Their names as OpenAI's clients write them: without `:latest`."""
        return [bare(served.name) for served in self.all()]

    def damaged(self) -> dict[str, DamagedFile]:
        """What is here but cannot be used, by name."""
        return {served.name: served.damage for served in self._all().values() if served.damage is not None}

    def resolve(self, asked: str) -> Served:
        """The model a caller means. Raises ModelNotFound with the nearest names, DamagedFile for one that is
        here but cannot be used."""
        served = self._resolved.get(asked)
        if served is None:
            served = self._find(asked)
            if len(self._resolved) < _FEW:
                self._resolved[asked] = served
        return served

    def _find(self, asked: str) -> Served:
        known = self._all()
        aliases = dict(self._aliases)
        for spec in self.configured:
            aliases.update(dict.fromkeys(spec.aliases, spec.name))
        try:
            served = known[names.resolve(asked, known, aliases=aliases)]
        except ModelNotFound as error:
            raise ModelNotFound(model=asked, nearest=tuple(bare(name) for name in error.nearest)) from None
        if served.damage is not None:
            raise served.damage.with_traceback(None)
        return served

    def _all(self) -> dict[str, Served]:
        now = time.monotonic()
        if self._known is None or now - self._listed_at > _FRESH:
            # Other programs put models into the same folders.
            known = {
                names.canonical(spec.name): Served(
                    name=names.canonical(spec.name), spec=spec, facts=spec.facts
                )
                for spec in self.configured
            }
            for served in self._shelf():
                if own := known.get(names.canonical(served.spec.name)):
                    # A preset of a model named at the start runs on that very engine.
                    served = msgspec.structs.replace(served, spec=own.spec, refusal=None)
                known.setdefault(served.name, served)
            if self._known is not None and self._known.keys() != known.keys():
                self._resolved.clear()
            self._known, self._listed_at = known, now
        return self._known


def bare(name: str) -> str:
    return name.removesuffix(":latest")

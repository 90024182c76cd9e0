"""Who listens at an address: a Portico, an Ollama, a vLLM, another server, or nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec

from portico.cli.checks.asking import Answer, Asker, Heard, Silence
from portico.cli.replies import Health, Loaded, Running, Versions
from portico.names import resolve

LOOK_SECONDS = 2.0
"""What a server has for all the questions about who it is."""
PORTICO, OLLAMA, VLLM, LLAMACPP, OPENAI = (
    "Portico",
    "Ollama",
    "vLLM",
    "llama.cpp",
    "a server with OpenAI's API",
)


class Model(NamedTuple):
    """A model that a server has in memory, or was to have."""

    name: str
    state: str = "ready"
    context: int | None = None
    size: int = 0
    on_gpu: int = 0
    error: str = ""


class Seen(NamedTuple):
    """`kind`: one of the names above; empty: nobody, or something that is no such server."""

    url: str
    kind: str = ""
    version: str = ""
    silence: Silence | None = None
    locked: bool = False
    """It wants a key, and none or a wrong one was sent."""
    status: int = 200
    """Of its list of models."""
    names: tuple[str, ...] | None = None
    """Models that it lists; None: it has no such list, or nobody without a key may see it."""
    models: tuple[Model, ...] = ()
    has: frozenset[str] = frozenset()
    """Of the names that were asked for, those that it knows."""

    @property
    def called(self) -> str:
        return f"{self.kind} {self.version}".strip()


class _Entry(msgspec.Struct):
    id: str
    owned_by: str | None = None
    parent: str | None = None
    max_model_len: int | None = None
    status: Any = None

    @property
    def loaded(self) -> bool:
        """llama.cpp can list models that it would load when asked; an adapter runs in the model below it."""
        value = self.status.get("value") if isinstance(self.status, dict) else None
        return value in (None, "loaded") and not self.parent


class _List(msgspec.Struct):
    data: tuple[_Entry, ...]


def root(url: str) -> str:
    """Where all routes of a server are: without /v1."""
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def look(url: str, key: str | None, *, names: Sequence[str] = (), seconds: float = LOOK_SECONDS) -> Seen:
    """Asks a few routes. `names`: of these it is asked whether it has them. Nothing is loaded by it."""
    base = root(url)
    with Asker(base, key, seconds=seconds) as asker:
        listed = asker.get("/v1/models")
        if isinstance(listed, Silence):
            return Seen(base, silence=listed)
        seen = _recognized(base, listed, asker)
        if seen.names is None:
            return seen
        return seen._replace(
            models=_in_memory(seen.kind, listed, asker),
            has=frozenset(name for name in names if _has(name, seen, asker)),
        )


def _recognized(base: str, listed: Answer, asker: Asker) -> Seen:
    entries = listed.read(_List)
    seen = Seen(
        base,
        status=listed.status,
        locked=listed.status in (401, 403),
        names=tuple(entry.id for entry in entries.data) if entries else None,
    )
    if listed.server.lower() == "portico":
        return seen._replace(kind=PORTICO, version=_version(asker.get("/version")))
    if ollama := _version(asker.get("/api/version")):
        return seen._replace(kind=OLLAMA, version=ollama)
    owners = {entry.owned_by for entry in entries.data} if entries else set()
    if "llamacpp" in owners:
        return seen._replace(kind=LLAMACPP)
    own = _version(asker.get("/version"))
    if "vllm" in owners or (seen.locked and own):
        return seen._replace(kind=VLLM, version=own)
    return seen._replace(kind=OPENAI) if entries else seen


def _version(heard: Heard) -> str:
    said = heard.read(Versions) if isinstance(heard, Answer) else None
    return said.version[:40] if said is not None else ""


def _in_memory(kind: str, listed: Answer, asker: Asker) -> tuple[Model, ...]:
    """Those that answer without being loaded first. Nobody knows that of a server of another kind."""
    if kind in (PORTICO, OLLAMA):
        health = _read(asker.get("/health"), Health) or Health() if kind == PORTICO else Health()
        running = _read(asker.get("/api/ps"), Running) or Running()
        return loaded(running.models or (), health)
    entries = listed.read(_List)
    if kind in (VLLM, LLAMACPP) and entries is not None:
        return tuple(Model(entry.id, context=entry.max_model_len) for entry in entries.data if entry.loaded)
    return ()


def _read(heard: Heard, kind: type[Any]) -> Any:
    # A Portico with an engine that failed answers 503, and says which.
    return heard._replace(status=200).read(kind) if isinstance(heard, Answer) else None


def loaded(running: Sequence[Loaded], health: Health) -> tuple[Model, ...]:
    """What /api/ps lists, with what Portico's /health adds: states, and engines that failed. Pure."""
    found = []
    for row in running:
        engine = health.of(row.name)
        found.append(
            Model(
                row.name,
                engine.state if engine else "ready",
                row.context_length,
                row.size,
                row.size_vram,
            )
        )
    failed = [
        Model(engine.model, engine.state, error=engine.error or "")
        for engine in health.engines
        if engine.state == "failed"
    ]
    return (*found, *failed)


def _has(name: str, seen: Seen, asker: Asker) -> bool:
    if name in (seen.names or ()):
        return True
    if seen.kind == PORTICO:  # aliases too, and `default`
        heard = asker.get(f"/v1/models/{quote(name)}")
        return isinstance(heard, Answer) and heard.status == 200
    return seen.kind == OLLAMA and _resolves(name, seen.names or ())


def _resolves(name: str, names: Sequence[str]) -> bool:
    from portico.errors import ModelNotFound
    from portico.names import ANY

    try:
        return name not in ANY and bool(resolve(name, names))
    except ModelNotFound:
        return False

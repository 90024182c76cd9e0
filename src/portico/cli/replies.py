"""What a server answers on Ollama's API, as far as the command line reads it. Read at the edge, trusted after."""

from __future__ import annotations

from typing import Any

import msgspec


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Unknown fields are ignored: servers differ and grow."""


def same_model(one: str, other: str) -> bool:
    """Whether two names mean one model: case and `:latest` make no difference."""
    return one.lower().removesuffix(":latest") == other.lower().removesuffix(":latest")


class Details(Reply, frozen=True):
    format: str | None = None
    family: str | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None
    context_length: int | None = None


class Listed(Reply, frozen=True):
    """One row of /api/tags."""

    name: str
    size: int = 0
    digest: str = ""
    modified_at: str = ""
    details: Details = Details()
    capabilities: tuple[str, ...] | None = None


class Damaged(Reply, frozen=True):
    """A model that is there but cannot be used."""

    name: str
    reason: str = ""


class Unfinished(Reply, frozen=True):
    """A pull that was interrupted or is under way, in bytes."""

    name: str
    completed: int = 0
    total: int = 0


class Tags(Reply, frozen=True):
    """/api/tags; the last two are only in that of Portico's own server."""

    models: tuple[Listed, ...] | None = None
    damaged: tuple[Damaged, ...] = ()
    unfinished: tuple[Unfinished, ...] = ()


class Loaded(Reply, frozen=True):
    """One row of /api/ps."""

    name: str
    size: int = 0
    size_vram: int = 0
    digest: str = ""
    details: Details = Details()
    expires_at: str = ""
    context_length: int | None = None


class Running(Reply, frozen=True):
    models: tuple[Loaded, ...] | None = None


class EngineHealth(Reply, frozen=True):
    """What /health says of one engine; only Portico's own server has it."""

    model: str
    state: str
    in_flight: int = 0
    waiting: int = 0
    error: str | None = None


class Health(Reply, frozen=True):
    engines: tuple[EngineHealth, ...] = ()

    def of(self, model: str) -> EngineHealth | None:
        for engine in self.engines:
            if same_model(engine.model, model):
                return engine
        return None


class Versions(Reply, frozen=True):
    """/version of Portico's own server, and /api/version of any."""

    version: str = ""


class Shown(Reply, frozen=True):
    """/api/show."""

    details: Details = Details()
    capabilities: tuple[str, ...] | None = None
    model_info: dict[str, Any] | None = None
    parameters: str = ""
    template: str = ""
    system: str = ""
    license: str = ""
    modelfile: str = ""
    modified_at: str = ""

    @property
    def trained_context(self) -> int | None:
        return self._number(".context_length")

    @property
    def weights(self) -> int | None:
        return self._number("general.parameter_count")

    def _number(self, ending: str) -> int | None:
        for key, value in (self.model_info or {}).items():
            if key.endswith(ending) and isinstance(value, int):
                return value
        return None


class Pulling(Reply, frozen=True):
    """One line of /api/pull."""

    status: str = ""
    digest: str = ""
    total: int | None = None
    completed: int | None = None
    error: str | None = None


class Said(Reply, frozen=True):
    content: str = ""
    thinking: str = ""


class Chunk(Reply, frozen=True):
    """One line of /api/chat or /api/generate."""

    message: Said | None = None
    response: str = ""
    thinking: str = ""
    done: bool = False
    done_reason: str | None = None
    prompt_eval_count: int | None = None
    eval_count: int | None = None
    error: str | None = None

    @property
    def text(self) -> str:
        return self.message.content if self.message else self.response

    @property
    def thought(self) -> str:
        return self.message.thinking if self.message else self.thinking


class Message(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A message of a chat as Ollama's API takes it. `images` are base64."""

    role: str
    content: str
    images: tuple[str, ...] = ()


class ErrorBody(Reply, frozen=True):
    """Ollama puts a text under `error`, OpenAI an object."""

    error: str | dict[str, Any] = ""

    @property
    def text(self) -> str:
        return self.error if isinstance(self.error, str) else str(self.error.get("message", ""))

    @property
    def code(self) -> str | None:
        code = None if isinstance(self.error, str) else self.error.get("code")
        return code if isinstance(code, str) else None

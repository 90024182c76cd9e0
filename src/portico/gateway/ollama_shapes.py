"""The bodies of Ollama's management routes, and how a model's facts fill them.

Clients insist on more than Ollama's documents say: a missing `model` hides a model in Open WebUI, a null
`family` ends Ollama's own command line, a digest must be 64 hex digits. Unknown facts are therefore "" or 0.
"""

from __future__ import annotations

import hashlib
import time
from datetime import UTC, datetime
from typing import Any

import msgspec

from portico.engines import Facts, ModelSpec
from portico.library.show import parameter_size

FOREVER = "2318-01-01T00:00:00Z"
"""When a model that never unloads does so: Ollama gives a year that clients can parse."""


class Details(msgspec.Struct):
    parent_model: str = ""
    format: str = ""
    family: str = ""
    families: list[str] = []
    parameter_size: str = ""
    quantization_level: str = ""
    context_length: int = 0
    embedding_length: int = 0


class Listed(msgspec.Struct):
    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str]


class Damaged(msgspec.Struct):
    name: str
    reason: str


class Unfinished(msgspec.Struct):
    """A pull that was interrupted or is under way, in bytes."""

    name: str
    completed: int
    total: int


class Tags(msgspec.Struct, omit_defaults=True):
    """`damaged` and `unfinished` are ours: Ollama's clients read `models` alone."""

    models: list[Listed]
    damaged: list[Damaged] = []
    unfinished: list[Unfinished] = []


class Running(msgspec.Struct):
    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int


class Processes(msgspec.Struct):
    models: list[Running]


class ShownMessage(msgspec.Struct):
    role: str
    content: str


class Shown(msgspec.Struct, omit_defaults=True):
    modelfile: str
    parameters: str
    template: str
    details: Details
    model_info: dict[str, Any]
    capabilities: list[str]
    modified_at: str
    license: str = ""
    system: str = ""
    messages: list[ShownMessage] = []


class VersionBody(msgspec.Struct):
    version: str


class ModelName(msgspec.Struct):
    """`name` is what old clients and LiteLLM send."""

    model: str = ""
    name: str = ""
    verbose: bool | None = None
    system: str | None = None
    template: str | None = None
    options: dict[str, Any] | None = None


class Pull(msgspec.Struct):
    model: str = ""
    name: str = ""
    insecure: bool | None = None
    stream: bool | None = None


class Copy(msgspec.Struct):
    source: str = ""
    destination: str = ""


class Create(msgspec.Struct):
    model: str = ""
    name: str = ""
    from_: str | None = msgspec.field(name="from", default=None)
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    template: str | None = None
    system: str | None = None
    license: str | list[str] | None = None
    parameters: dict[str, Any] | None = None
    messages: list[dict[str, Any]] | None = None
    quantize: str | None = None
    stream: bool | None = None
    modelfile: str | None = None


class Status(msgspec.Struct, omit_defaults=True):
    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class CloudStatus(msgspec.Struct):
    cloud: dict[str, Any]


def details(facts: Facts, parent: str = "") -> Details:
    family = facts.family or facts.architecture or ""
    return Details(
        parent_model=parent,
        format=facts.format or "",
        family=family,
        families=[family] if family else [],
        parameter_size=parameter_size(facts.parameters),
        quantization_level=facts.quantization or "",
        context_length=facts.context or 0,
        embedding_length=facts.embedding or 0,
    )


def listed(name: str, facts: Facts, spec: ModelSpec, parent: str = "") -> Listed:
    return Listed(
        name=name,
        model=name,
        modified_at=rfc3339(facts.modified or _ZERO),
        size=facts.size or 0,
        digest=facts.digest or stand_in(spec),
        details=details(facts, parent),
        capabilities=list(facts.capabilities),
    )


_ZERO = time.time()
"""When this server first saw the models whose age nobody knows."""


def stand_in(spec: ModelSpec) -> str:
    """64 hex digits for a model on another server, whose file nobody here has seen: only a name for it."""
    return hashlib.sha256(f"{spec.source}#{spec.served_name or spec.name}".encode()).hexdigest()


def rfc3339(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def go_template(given: str, capabilities: tuple[str, ...]) -> str:
    """The one that Ollama or a create has given the model, else what stands in for one: the model has a Jinja
    template. Clients only search it for words: Continue for .Tools and .Suffix, LiteLLM for "tools"."""
    if given:
        return given
    template = "{{ .System }} {{ .Prompt }}"
    if "tools" in capabilities:
        template += " {{ if .Tools }}{{ .Tools }}{{ end }}"
    if "insert" in capabilities:
        template += " {{ .Suffix }}"
    return template


def parameter_lines(parameters: dict[str, Any]) -> str:
    """`name value` lines, as Ollama's Modelfile has them; a list gives a line for each item."""
    lines = []
    for name, value in parameters.items():
        for item in value if isinstance(value, list | tuple) else [value]:
            lines.append(f"{name:<30} {msgspec.json.encode(item).decode()}")
    return "\n".join(lines)


def modelfile(name: str, source: str, template: str, system: str, parameters: dict[str, Any]) -> str:
    """What would make the model again; `template` is one that was given, or empty."""
    lines = [f"# {name}", f"FROM {source}"]
    if template:
        lines.append(f'TEMPLATE """{template}"""')
    if system:
        lines.append(f'SYSTEM """{system}"""')
    lines += [f"PARAMETER {line}" for line in parameter_lines(parameters).splitlines()]
    return "\n".join(lines) + "\n"


# ---- replies of the routes that run a model; the dialect writes them, these describe them ----------------


class ReplyMessage(msgspec.Struct):
    role: str
    content: str
    thinking: str | None = None
    tool_calls: list[dict[str, Any]] | None = None


class Reply(msgspec.Struct):
    """A whole answer, or the last line of a streamed one. Durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    message: ReplyMessage | None = None
    response: str | None = None
    thinking: str | None = None
    done_reason: str | None = None
    context: list[int] | None = None
    logprobs: list[dict[str, Any]] | None = None
    total_duration: int | None = None
    load_duration: int | None = None
    prompt_eval_count: int | None = None
    prompt_eval_duration: int | None = None
    eval_count: int | None = None
    eval_duration: int | None = None


class EmbedReply(msgspec.Struct):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int | None = None


class EmbeddingBody(msgspec.Struct):
    embedding: list[float]

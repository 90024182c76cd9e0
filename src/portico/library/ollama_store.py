"""Reads Ollama's own model folder, so that what was pulled with Ollama is not pulled again. Never writes there.

manifests/HOST/NAMESPACE/MODEL/TAG   JSON: layers with a media type and a digest
blobs/sha256-HEX                     the layers
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from portico.errors import InvalidRequest
from portico.messages import JSON, Message, Role, Text, Value
from portico.names import parse

MAX_MANIFEST = 1024 * 1024
MAX_LAYER = 4 * 1024 * 1024  # of a layer that is text

_DIGEST = re.compile(r"sha256[:-]([0-9a-fA-F]{64})")
_IMAGE = "application/vnd.ollama.image."


class OllamaModel(Value, frozen=True, kw_only=True):
    """A model of Ollama's with GGUF weights."""

    name: str
    digest: str
    """Of the manifest, as `ollama list` shows it."""
    path: str
    size: int
    """Bytes of all layers."""
    modified: float
    weights: str
    """sha256 of the GGUF file, as Ollama says it."""
    projector: str = ""
    system: str = ""
    template: str = ""
    parameters: dict[str, JSON] = {}
    messages: tuple[Message, ...] = ()
    license: str = ""


class _Layer(msgspec.Struct):
    mediaType: str = ""
    digest: str = ""
    size: int = 0


class _Manifest(msgspec.Struct):
    layers: list[_Layer] = []
    config: _Layer = msgspec.field(default_factory=_Layer)


class _SaidMessage(msgspec.Struct):
    role: Role = "user"
    content: str = ""


class OllamaStore:
    """Ollama's folder at `folder`, which need not exist. Manifests are read again only when they change."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._read: dict[Path, tuple[int, OllamaModel | None]] = {}

    def models(self) -> tuple[OllamaModel, ...]:
        """Every model whose weights are a GGUF file that is there. What cannot be read is passed over: it is
        Ollama's affair."""
        found = [(path, self._model(path)) for path in self._paths()]
        self._read = {path: self._read[path] for path, _ in found if path in self._read}
        return tuple(model for _, model in found if model and os.path.isfile(model.path))

    def _paths(self) -> Iterator[Path]:
        root = self._folder / "manifests"
        try:
            yield from sorted(path for path in root.glob("*/*/*/*") if path.is_file())
        except OSError:
            return

    def _model(self, path: Path) -> OllamaModel | None:
        try:
            changed = path.stat()
            known = self._read.get(path)
            if known is None or known[0] != changed.st_mtime_ns:
                known = self._read[path] = (changed.st_mtime_ns, self._load(path, changed.st_mtime))
            return known[1]
        except (OSError, msgspec.DecodeError, UnicodeDecodeError, InvalidRequest):
            return None

    def _load(self, path: Path, modified: float) -> OllamaModel | None:
        host, namespace, model, tag = path.relative_to(self._folder / "manifests").parts
        name = parse(f"{host}/{namespace}/{model}:{tag}")
        content = _content(path, MAX_MANIFEST)
        manifest = msgspec.json.decode(content, type=_Manifest)
        layers = [(layer.mediaType.removeprefix(_IMAGE), layer) for layer in manifest.layers]
        weights = next((layer for kind, layer in layers if kind == "model"), None)
        if weights is None or (blob := self._blob(weights)) is None:
            return None
        texts = {
            kind: self._text(layer) for kind, layer in layers if kind in ("system", "template", "prompt")
        }
        projector = next((self._blob(layer) for kind, layer in layers if kind == "projector"), None)
        return OllamaModel(
            name=str(name),
            digest=hashlib.sha256(content).hexdigest(),
            path=str(blob),
            size=sum(layer.size for layer in manifest.layers) + manifest.config.size,
            modified=modified,
            weights=blob.name.removeprefix("sha256-"),
            projector=str(projector) if projector else "",
            system=texts.get("system", ""),
            template=texts.get("template") or texts.get("prompt", ""),
            parameters=next((self._parameters(layer) for kind, layer in layers if kind == "params"), {}),
            messages=next((self._messages(layer) for kind, layer in layers if kind == "messages"), ()),
            license="\n".join(self._text(layer) for kind, layer in layers if kind == "license"),
        )

    def _blob(self, layer: _Layer) -> Path | None:
        found = _DIGEST.fullmatch(layer.digest)
        return self._folder / "blobs" / f"sha256-{found[1].lower()}" if found else None

    def _text(self, layer: _Layer) -> str:
        blob = self._blob(layer)
        return _content(blob, MAX_LAYER).decode("utf-8", "replace") if blob else ""

    def _parameters(self, layer: _Layer) -> dict[str, JSON]:
        found: dict[str, JSON] = msgspec.json.decode(self._text(layer) or "{}", type=dict[str, JSON])
        return found

    def _messages(self, layer: _Layer) -> tuple[Message, ...]:
        said = msgspec.json.decode(self._text(layer) or "[]", type=list[_SaidMessage])
        return tuple(Message(role=one.role, parts=(Text(text=one.content),)) for one in said)


def _content(path: Path, limit: int) -> bytes:
    with open(path, "rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(f"{path} is larger than {limit} bytes")
    return content

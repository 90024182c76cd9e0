"""Short names that people type, and the hub repositories they stand for (catalogue.toml)."""

from __future__ import annotations

import functools
import re
from pathlib import Path

import msgspec

from portico.errors import ModelNotFound
from portico.messages import Value
from portico.names import TAG, Name, nearest

# What Ollama's tags put behind the size: 8b-instruct-q8_0, 7b-chat, 1b-it-fp16.
_VARIANT = re.compile(
    r"(?P<tag>.+?)(?:-(?:instruct|chat|it|text))?(?:-(?P<quantization>i?q\d\w*|b?f\d+|fp\d+))?", re.I
)


class Source(Value, frozen=True, kw_only=True):
    """Where a model comes from: a repository, and which of its GGUF files (None: the usual choice)."""

    repository: str
    quantization: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    models: dict[str, dict[str, str]]
    gguf: dict[str, str]


class Catalogue:
    """The catalogue, read once. Immutable."""

    def __init__(self, content: bytes) -> None:
        file = msgspec.toml.decode(content, type=_File)
        self._models = {name.casefold(): tags for name, tags in file.models.items()}
        self._gguf = {repository.casefold(): gguf for repository, gguf in file.gguf.items()}

    @property
    def names(self) -> tuple[str, ...]:
        """Every name with every tag that has an entry of its own."""
        return tuple(f"{model}:{tag}" for model, tags in self._models.items() for tag in tags)

    def find(self, name: Name) -> Source:
        """What `name` stands for: a hub repository as it is, a short name by its entry. Raises ModelNotFound
        with the nearest names."""
        if name.repository:
            return Source(
                repository=name.repository, quantization=None if name.tag.casefold() == TAG else name.tag
            )
        tags = self._models.get(name.model.casefold(), {}) if str(name) == f"{name.model}:{name.tag}" else {}
        source = self._entry(tags, name.tag)
        if source is None:
            raise ModelNotFound(model=str(name), nearest=nearest(str(name), self.names))
        return source

    def gguf_of(self, repository: str) -> str | None:
        """A repository with the same weights as GGUF, if one is known."""
        return self._gguf.get(repository.casefold())

    def _entry(self, tags: dict[str, str], tag: str) -> Source | None:
        found, quantization = tags.get(tag.casefold()), None
        if found is None:
            variant = _VARIANT.fullmatch(tag)
            if variant is None:
                return None
            found, quantization = tags.get(variant["tag"].casefold()), variant["quantization"]
            if found is None:
                return None
        if "/" not in found:
            found = tags[found]
        repository, _, said = found.partition(":")
        return Source(repository=repository, quantization=quantization or said or None)


@functools.cache
def bundled() -> Catalogue:
    """The catalogue that comes with the package."""
    return Catalogue(Path(__file__).with_name("catalogue.toml").read_bytes())

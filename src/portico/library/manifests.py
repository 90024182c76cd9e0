"""What each name of ours stands for: where its weights come from, and what was made of them.

A pulled model, a copy and what /api/create makes are one thing: a source of weights, and perhaps a system message,
parameters, first messages and a licence on top. One JSON file each, written whole or not at all. A copy or a
creation holds its source itself and not the name it was made from, so deleting that name leaves it intact.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from urllib.parse import quote

import msgspec

from portico.disk import sync_folder
from portico.library import atomic
from portico.library.hubcache import CachedFile, Snapshot
from portico.messages import JSON, Message, Value


class FromHub(Value, frozen=True, kw_only=True, tag="hub"):
    """Files of one commit of a repository, in the hub's cache. `main` is the GGUF file to load, empty for a
    folder of safetensors; `projector` a GGUF file beside it."""

    snapshot: Snapshot
    files: tuple[CachedFile, ...]
    main: str = ""
    projector: str = ""


class FromUpload(Value, frozen=True, kw_only=True, tag="upload"):
    """An uploaded GGUF file. Digests are bare hex."""

    digest: str
    projector: str = ""


class FromName(Value, frozen=True, kw_only=True, tag="name"):
    """A model that is not ours to keep: the bundled one, or one of Ollama's."""

    name: str


Source = FromHub | FromUpload | FromName


class Manifest(Value, frozen=True, kw_only=True):
    name: str
    source: Source
    created: float
    """Seconds since the epoch."""
    parent: str = ""
    """The name it was made from."""
    system: str = ""
    template: str = ""
    """Kept to be shown; engines use the model's own."""
    parameters: dict[str, JSON] = {}
    """Under Ollama's names: temperature, num_ctx, stop, ..."""
    messages: tuple[Message, ...] = ()
    license: str = ""

    @property
    def made(self) -> bool:
        """Whether anything was put on top of the weights."""
        return bool(self.system or self.template or self.parameters or self.messages)


class Manifests:
    """Owns the folder: one file a name. Names are canonical; whoever asks has made them so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._read: dict[Path, tuple[int, Manifest]] = {}

    def all(self) -> tuple[Manifest, ...]:
        """In order of their names. A file that is no manifest is passed over: somebody else put it there."""
        try:
            paths = self._paths()
        except OSError:
            return ()
        return tuple(manifest for path in paths if (manifest := self._load(path)) is not None)

    def strays(self) -> tuple[Path, ...]:
        """The files that look like manifests and cannot be read as such. Raises OSError for a folder that
        cannot be."""
        return tuple(path for path in self._paths() if self._load(path) is None)

    def get(self, name: str) -> Manifest | None:
        return self._load(self._path(name))

    def put(self, manifest: Manifest) -> None:
        """Raises OSError; what was there before is then still there."""
        atomic.write(self._path(manifest.name), msgspec.json.format(msgspec.json.encode(manifest)))

    def remove(self, name: str) -> None:
        path = self._path(name)
        self._read.pop(path, None)
        path.unlink(missing_ok=True)
        sync_folder(self.folder)

    def _paths(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if path.suffix == ".json")
        except FileNotFoundError:
            return []

    def _path(self, name: str) -> Path:
        # Lower case, because names that differ in case only are one name, on every file system.
        return self.folder / (quote(name.casefold(), safe="") + ".json")

    def _load(self, path: Path) -> Manifest | None:
        with contextlib.suppress(OSError, msgspec.DecodeError):
            changed = path.stat().st_mtime_ns
            known = self._read.get(path)
            if known is None or known[0] != changed:
                known = self._read[path] = (changed, msgspec.json.decode(path.read_bytes(), type=Manifest))
            return known[1]
        self._read.pop(path, None)
        return None

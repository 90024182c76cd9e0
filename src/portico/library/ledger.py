"""What is known about files, so that nobody reads or hashes them twice: facts and sha256 by path, size and time.

Kept in one JSON file. It can be deleted at any time: it holds nothing that cannot be found out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from pathlib import Path

import msgspec

from portico.engines import Facts
from portico.errors import DamagedFile
from portico.library import atomic, facts

VERSION = 2  # one more whenever facts are read differently: older entries are then forgotten
_CHUNK = 1024 * 1024


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    stamp: str
    facts: Facts | None = None
    damage: str | None = None
    sha256: str | None = None


class _Page(msgspec.Struct):
    version: int = VERSION
    files: dict[str, _Entry] = {}


class Ledger:
    """Owns the file `path`. Used from several threads; the lock is held for look-ups, never while reading."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._files: dict[str, _Entry] | None = None
        self._dirty = False

    def facts(self, path: Path) -> Facts:
        """Facts of a GGUF file or a safetensors folder, without a digest. Raises DamagedFile."""
        stamp, entry = self._known(path)
        if entry is None or (entry.facts is None and entry.damage is None):
            entry = self._keep(path, self._read(path, stamp))
        if entry.facts is None:
            raise DamagedFile(path=str(path), reason=entry.damage or "it cannot be read")
        return entry.facts

    def sha256(self, path: Path) -> str | None:
        """The file's hash if it is known; None if it would have to be read."""
        _, entry = self._known(path)
        return entry.sha256 if entry else None

    def hash(self, path: Path) -> str:
        """The file's hash; reads the whole file the first time: 1 GB takes about a second. Raises OSError."""
        stamp, entry = self._known(path)
        if entry and entry.sha256:
            return entry.sha256
        digest = sha256(path)
        self._keep(path, _Entry(stamp=stamp, sha256=digest))
        self.flush()
        return digest

    def _read(self, path: Path, stamp: str) -> _Entry:
        try:
            return _Entry(stamp=stamp, facts=facts.read(path))
        except DamagedFile as error:
            return _Entry(stamp=stamp, damage=error.reason)

    def _known(self, path: Path) -> tuple[str, _Entry | None]:
        stamp = _stamp(path)
        with self._lock:
            entry = self._load().get(str(path))
        return stamp, entry if entry and entry.stamp == stamp else None

    def _keep(self, path: Path, entry: _Entry) -> _Entry:
        with self._lock:
            files = self._load()
            old = files.get(str(path))
            if old and old.stamp == entry.stamp:
                entry = _Entry(
                    stamp=entry.stamp,
                    facts=entry.facts or old.facts,
                    damage=entry.damage or old.damage,
                    sha256=entry.sha256 or old.sha256,
                )
            files[str(path)] = entry
            self._dirty = True
        return entry

    def flush(self) -> None:
        """Writes what was found out since the last time. A full or read-only disk is no error: everything
        works, it is only found out again by the next process."""
        with self._lock:
            if not self._dirty:
                return
            files = {name: entry for name, entry in self._load().items() if os.path.exists(name)}
            self._files, self._dirty = files, False
            with contextlib.suppress(OSError):
                atomic.write(self._path, msgspec.json.encode(_Page(files=files)))

    def _load(self) -> dict[str, _Entry]:
        if self._files is None:
            try:
                page = msgspec.json.decode(self._path.read_bytes(), type=_Page)
                self._files = page.files if page.version == VERSION else {}
            except (OSError, msgspec.DecodeError):
                self._files = {}
        return self._files


def sha256(path: Path) -> str:
    """64 hex digits. Raises OSError."""
    found = hashlib.sha256()
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(_CHUNK):
            found.update(chunk)
    return found.hexdigest()


def _stamp(path: Path) -> str:
    """Changes when the file changes, or may be read from now on; of a sharded model or a folder: with any of
    its files."""
    try:
        if path.is_dir():
            files = sorted(entry.path for entry in os.scandir(path) if entry.is_file())
        else:
            files = [str(file) for file in facts.shards(path)]
        found = [(name, os.stat(name)) for name in files]
    except OSError as error:
        raise DamagedFile(path=str(path), reason=error.strerror or str(error)) from error
    parts = [f"{name}-{one.st_size}-{one.st_mtime_ns}-{one.st_mode:o}" for name, one in found]
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:32]

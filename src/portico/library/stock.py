"""What is ours: manifests, notes of unfinished pulls, uploads; and deleting the files that none of them needs.

What an engine that runs still uses stays until it has ended; a note says that it is to go then.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from portico.library import holds, hubcache
from portico.library.blobs import Blobs
from portico.library.disk import disk_error
from portico.library.hubcache import CachedFile, Snapshot
from portico.library.manifests import FromHub, FromUpload, Manifest, Manifests, Source
from portico.messages import Value

LEAVING = " left at "
"""Between a name and a commit, in the name of a note; no name of a model has blanks."""


class Unfinished(Value, frozen=True, kw_only=True):
    """A pull that was interrupted, in bytes."""

    name: str
    completed: int
    total: int


class Stock:
    """Owns `manifests`, `unfinished`, `leaving` and `blobs`: nothing else writes them. Every method may be called from any
    thread and takes a moment. `changed` is told when a model came or went."""

    def __init__(
        self,
        manifests: Manifests,
        unfinished: Manifests,
        leaving: Manifests,
        blobs: Blobs,
        *,
        changed: Callable[[], None],
    ) -> None:
        self._manifests, self._unfinished, self._leaving, self._blobs = manifests, unfinished, leaving, blobs
        self._changed = changed
        self._lock = threading.RLock()

    def get(self, name: str) -> Manifest | None:
        return self._manifests.get(name)

    def names(self) -> tuple[str, ...]:
        """Of models, and of pulls that were interrupted."""
        return tuple(manifest.name for manifest in (*self._manifests.all(), *self._unfinished.all()))

    def ours(self) -> frozenset[str]:
        """Hashes of all files in the hub's cache that were fetched by us."""
        sources = (*self._hub_sources(), *_from_hub(self._leaving.all()))
        return frozenset(file.hash for source in sources for file in source.files if file.fetched)

    def keep(self, manifest: Manifest) -> None:
        """From now on its name stands for it; what says the same already keeps its age. Raises NoSpace,
        PullFailed for a disk that cannot be written."""
        with self._lock:
            old = self._manifests.get(manifest.name)
            if old is None or msgspec.structs.replace(manifest, created=old.created) != old:
                _write(self._manifests, manifest)
            self._unfinished.remove(manifest.name)
            if old is not None:
                self._let_go(old)
            self._sweep()
        self._changed()

    def drop(self, name: str) -> None:
        """Forgets the name, and an interrupted pull of it."""
        with self._lock:
            found = [
                kept for kept in (self._manifests.get(name), self._unfinished.get(name)) if kept is not None
            ]
            self._manifests.remove(name)
            self._unfinished.remove(name)
            for manifest in found:
                self._let_go(manifest)
            self._sweep()
        self._changed()

    # ---- pulls under way ---------------------------------------------------------------------------

    def begin(self, manifest: Manifest) -> None:
        """Notes that its files are being fetched: after a kill they can be found, and continued or deleted."""
        with self._lock:
            _write(self._unfinished, manifest)

    def leave(self, manifest: Manifest) -> None:
        """The fetching has ended, not well: the note stays if anything has arrived that was not here before."""
        with self._lock:
            kept = {file.hash for one in self._manifests.all() for file in _files(one.source)}
            new = [file for file in _files(manifest.source) if file.fetched and file.hash not in kept]
            if not any(_arrived(manifest.source, new)):
                self._unfinished.remove(manifest.name)

    def abandon(self, manifest: Manifest) -> None:
        """What was fetched is of no use."""
        with self._lock:
            self._unfinished.remove(manifest.name)
            self._let_go(manifest)

    def unfinished(self) -> tuple[Unfinished, ...]:
        return tuple(
            Unfinished(
                name=manifest.name,
                completed=sum(_arrived(manifest.source, _files(manifest.source))),
                total=sum(file.size for file in _files(manifest.source)),
            )
            for manifest in self._unfinished.all()
        )

    def prune(self) -> int:
        """Throws away uploads of which nothing was made within a day: by then nobody is between uploading and
        creating any more, another server on this folder included. Nothing as long as a manifest cannot be read,
        such as one of a later version: it may be of any of them. Sweeps too. Returns the bytes. Raises OSError."""
        with self._lock:
            swept = self._sweep()
            if self._manifests.strays():
                return swept
            used = {digest for manifest in self._manifests.all() for digest in _uploads(manifest.source)}
            stale = sum(self._blobs.remove(digest) for digest in self._blobs.stale() if digest not in used)
            return swept + stale

    def sweep(self) -> int:
        """Deletes what was left because somebody used it, and nobody does any more. Returns the bytes."""
        with self._lock:
            return self._sweep()

    # ---- what nobody needs -------------------------------------------------------------------------

    def _sweep(self) -> int:
        return sum(self._let_go(manifest) for manifest in self._leaving.all())

    def _let_go(self, dropped: Manifest) -> int:
        """Deletes the files of what was dropped, or notes that they are to go, while somebody uses them."""
        source = dropped.source
        if not isinstance(source, FromHub):
            return self._collect(source)
        name = dropped.name if LEAVING in dropped.name else dropped.name + LEAVING + source.snapshot.commit
        with holds.alone(source.snapshot.folder) as nobody:
            if nobody:
                freed = self._collect(source)
                if self._leaving.get(name) is not None:
                    self._leaving.remove(name)
                return freed
        with contextlib.suppress(
            OSError
        ):  # a full disk: they stay, and other tools of the cache can delete them
            self._leaving.put(msgspec.structs.replace(dropped, name=name))
        return 0

    def _collect(self, dropped: Source) -> int:
        """Deletes the files of a source, unless another one needs them. Returns the bytes."""
        freed = 0
        used = {digest for manifest in self._manifests.all() for digest in _uploads(manifest.source)}
        for digest in _uploads(dropped):
            freed += self._blobs.remove(digest) if digest not in used else 0
        if isinstance(dropped, FromHub):
            needed = {_blob(one.snapshot, file) for one in self._hub_sources() for file in one.files}
            named = {_name(one.snapshot, file) for one in self._hub_sources() for file in one.files}
            for file in dropped.files:
                if file.fetched and _name(dropped.snapshot, file) not in named:
                    unused = _blob(dropped.snapshot, file) not in needed
                    freed += hubcache.remove(dropped.snapshot, file, blob=unused)
        return freed

    def _hub_sources(self) -> list[FromHub]:
        return _from_hub((*self._manifests.all(), *self._unfinished.all()))


def _from_hub(manifests: Iterable[Manifest]) -> list[FromHub]:
    return [manifest.source for manifest in manifests if isinstance(manifest.source, FromHub)]


def _files(source: Source) -> tuple[CachedFile, ...]:
    return source.files if isinstance(source, FromHub) else ()


def _arrived(source: Source, files: Iterable[CachedFile]) -> Iterator[int]:
    """Bytes of each of the files that are in the cache."""
    if isinstance(source, FromHub):
        snapshot = source.snapshot
        for file in files:
            places = (snapshot.blob(file.hash), snapshot.part(file.hash), snapshot.file(file.path))
            yield next((size for place in places if (size := _size(place))), 0)


def _size(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def _uploads(source: Source) -> tuple[str, ...]:
    return tuple(filter(None, (source.digest, source.projector))) if isinstance(source, FromUpload) else ()


def _blob(snapshot: Snapshot, file: CachedFile) -> tuple[Path, str]:
    return snapshot.storage, file.hash


def _name(snapshot: Snapshot, file: CachedFile) -> tuple[Path, str]:
    return snapshot.folder, file.path


def _write(manifests: Manifests, manifest: Manifest) -> None:
    try:
        manifests.put(manifest)
    except OSError as error:
        raise disk_error(error, manifests.folder / manifest.name, needed=4096) from error

"""The hub's cache folder, in the layout that huggingface_hub documents and every tool of that world reads:

    models--OWNER--NAME/blobs/HASH                        the bytes
    models--OWNER--NAME/snapshots/COMMIT/PATH             a link to them
    models--OWNER--NAME/refs/main                         the newest commit fetched

Pulled models live here and not in a folder of ours, because vLLM, transformers and llama.cpp look here too:
whoever has a model already does not fetch it twice, and HF_HOME means what it means everywhere else. A manifest
in our own folder says which of the files belong to which model and which of them we fetched: only those are
ever deleted.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path, PurePosixPath

from portico.errors import PullFailed
from portico.library import atomic
from portico.messages import Value

_HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
INCOMPLETE = ".incomplete"


class CachedFile(Value, frozen=True, kw_only=True):
    """A file of a repository in the cache. `hash` is its sha256 or, of a small file, git's hash of it."""

    path: str
    size: int
    hash: str
    fetched: bool = True
    """We put it there; False: it was there before, and is not ours to delete."""


class Snapshot(Value, frozen=True, kw_only=True):
    """One commit of a repository in the cache at `cache`."""

    cache: str
    repository: str
    commit: str

    @property
    def storage(self) -> Path:
        return Path(self.cache) / ("models--" + self.repository.replace("/", "--"))

    @property
    def folder(self) -> Path:
        return self.storage / "snapshots" / self.commit

    def file(self, path: str) -> Path:
        """Where `path` of the repository is found."""
        return self.folder.joinpath(*path.split("/"))

    def blob(self, hash: str) -> Path:
        return self.storage / "blobs" / hash

    def part(self, hash: str) -> Path:
        """What has arrived of a blob so far; huggingface_hub before 2.0 gave it the same name."""
        return self.storage / "blobs" / (hash + INCOMPLETE)

    def lock(self, hash: str) -> Path:
        """The file huggingface_hub locks while it fetches the same blob."""
        return Path(self.cache) / ".locks" / self.storage.name / f"{hash}.lock"


def check(snapshot: Snapshot, files: tuple[CachedFile, ...]) -> None:
    """Refuses what would lead out of the cache. The names come from a server, and HF_ENDPOINT may be anybody's."""
    if not _REPOSITORY.fullmatch(snapshot.repository) or ".." in snapshot.repository:
        raise PullFailed(f"the hub names a repository {snapshot.repository[:200]!r}")
    if not _COMMIT.fullmatch(snapshot.commit):
        raise PullFailed(f"the hub names a commit {snapshot.commit[:200]!r} of {snapshot.repository}")
    for file in files:
        parts = file.path.split("/")
        odd = any(part in ("", ".", "..") or part.endswith((" ", ".")) for part in parts)
        if odd or re.search(r'[\x00-\x1f\\:*?"<>|]', file.path) or PurePosixPath(file.path).is_absolute():
            raise PullFailed(f"{snapshot.repository} has a file with the name {file.path[:200]!r}")
        if not _HASH.fullmatch(file.hash) or file.size < 0:
            raise PullFailed(f"the hub gives no hash of {file.path} in {snapshot.repository}")


def link(snapshot: Snapshot, file: CachedFile) -> None:
    """Makes the blob appear under its name."""
    pointer, blob = snapshot.file(file.path), snapshot.blob(file.hash)
    if pointer.exists():
        return
    pointer.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        pointer.unlink()  # a link whose blob was deleted
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        # Windows without developer mode: huggingface_hub then keeps the file itself under its name.
        os.replace(blob, pointer)


def set_reference(snapshot: Snapshot) -> None:
    """Other tools find the newest commit by it."""
    atomic.write(snapshot.storage / "refs" / "main", snapshot.commit.encode())


def has(snapshot: Snapshot, file: CachedFile) -> bool:
    """Whether the file is there, as a blob or (without links) under its name. Its hash is its name: size is enough."""
    for path in (snapshot.blob(file.hash), snapshot.file(file.path)):
        with contextlib.suppress(OSError):
            if path.stat().st_size == file.size:
                return True
    return False


def remove(snapshot: Snapshot, file: CachedFile, *, blob: bool) -> int:
    """Removes a file's name and, with `blob`, its bytes unless something else in the cache leads to them; also
    folders left empty. Returns the bytes that were freed."""
    pointer, target = snapshot.file(file.path), snapshot.blob(file.hash)
    # Without links the name itself holds the bytes.
    freed = 0 if pointer.is_symlink() else _unlink(pointer)
    pointer.unlink(missing_ok=True)
    _prune(pointer.parent, until=snapshot.storage)
    if blob:
        freed += _unlink(snapshot.part(file.hash))
        if not _linked(snapshot.storage / "snapshots", target):
            freed += _unlink(target)
        with contextlib.suppress(OSError):
            snapshot.lock(file.hash).unlink(missing_ok=True)
            snapshot.lock(file.hash).parent.rmdir()
    if not (snapshot.storage / "snapshots").exists():
        (snapshot.storage / "refs" / "main").unlink(missing_ok=True)
        _prune(snapshot.storage / "refs", until=snapshot.storage)
    _prune(target.parent, until=snapshot.storage)
    return freed


def _unlink(path: Path) -> int:
    with contextlib.suppress(OSError):
        size = path.stat().st_size
        path.unlink()
        return size
    return 0


def _linked(snapshots: Path, blob: Path) -> bool:
    wanted = os.path.realpath(blob)
    for folder, _, names in os.walk(snapshots):
        if any(os.path.realpath(os.path.join(folder, name)) == wanted for name in names):
            return True
    return False


def _prune(folder: Path, *, until: Path) -> None:
    """Removes `folder` and the folders above it as long as they are empty, up to and with `until`."""
    with contextlib.suppress(OSError):
        while folder.is_relative_to(until):
            folder.rmdir()
            folder = folder.parent

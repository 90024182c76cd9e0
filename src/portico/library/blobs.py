"""Uploaded files, kept under their sha256. What does not have the hash it was announced with is not kept."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import AsyncIterable
from pathlib import Path
from typing import BinaryIO

from portico.errors import InvalidRequest
from portico.library.disk import SPARE, disk_error, free_bytes

_DIGEST = re.compile(r"(?:sha256[:-])?([0-9a-fA-F]{64})")
PART = ".part"
STALE = 24 * 3600.0  # seconds after which an upload that nobody finished, or made anything of, is removed
_BUFFER = 4 * 1024 * 1024


def read_digest(text: str) -> str:
    """Bare hex of `sha256:<64 hex>`, in Ollama's two spellings. Raises InvalidRequest."""
    found = _DIGEST.fullmatch(text)
    if not found:
        raise InvalidRequest(
            f"invalid digest {text[:100]!r}: expected sha256: and 64 hex digits", param="digest"
        )
    return found[1].lower()


class Blobs:
    """Owns the folder of uploads. Digests are bare hex."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, digest: str) -> Path:
        return self._folder / f"sha256-{digest}"

    def has(self, digest: str) -> bool:
        """Whoever asks is about to make something of it: from now it is a day before it counts as forgotten."""
        try:
            os.utime(self.path(digest))
        except FileNotFoundError:
            return False
        return True

    async def put(self, digest: str, content: AsyncIterable[bytes]) -> bool:
        """Keeps `content` under `digest`; False if it was there already (then nothing is read). Memory is
        bounded by the pieces' size, the disk by what it has free. Raises InvalidRequest for another hash,
        NoSpace, and whatever `content` raises."""
        import asyncio

        if self.has(digest):
            return False
        self._folder.mkdir(parents=True, exist_ok=True)
        self._remove_stale()
        part = self._folder / f"upload-{os.urandom(8).hex()}{PART}"
        found = hashlib.sha256()
        try:
            with open(part, "xb", buffering=0) as file:  # noqa: ASYNC230 opening is quick; writing is not
                gathered = bytearray()
                async for piece in content:
                    gathered += piece
                    if len(gathered) >= _BUFFER:
                        await asyncio.to_thread(_append, file, part, found, bytes(gathered))
                        gathered.clear()
                await asyncio.to_thread(_append, file, part, found, bytes(gathered), last=True)
            self._keep(part, digest, found.hexdigest())
        finally:
            part.unlink(missing_ok=True)
        return True

    def remove(self, digest: str) -> int:
        """Returns the bytes that were freed."""
        try:
            size = self.path(digest).stat().st_size
            self.path(digest).unlink()
        except FileNotFoundError:
            return 0
        return size

    def stale(self) -> tuple[str, ...]:
        """What was uploaded more than a day ago."""
        return tuple(found[1] for entry in self._old() if (found := _DIGEST.fullmatch(entry.name)))

    def _keep(self, part: Path, digest: str, found: str) -> None:
        if found != digest:
            raise InvalidRequest(
                f'digest mismatch, expected "sha256:{digest}", got "sha256:{found}"', param="digest"
            )
        os.replace(part, self.path(digest))

    def _remove_stale(self) -> None:
        """A server that was killed leaves its uploads half done; nobody can continue them."""
        for entry in self._old():
            if entry.name.endswith(PART):
                Path(entry.path).unlink(missing_ok=True)

    def _old(self) -> list[os.DirEntry[str]]:
        found: list[os.DirEntry[str]] = []
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._folder):
                with contextlib.suppress(FileNotFoundError):  # another upload has just got its name
                    if time.time() - entry.stat().st_mtime > STALE:
                        found.append(entry)
        return found


def _append(file: BinaryIO, part: Path, found: hashlib._Hash, piece: bytes, *, last: bool = False) -> None:
    """Adds `piece` to the file and its hash, as long as the disk keeps some room for others."""
    try:
        if free_bytes(part.parent) < SPARE + len(piece):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
        if last:
            os.fsync(file.fileno())
    except OSError as error:
        raise disk_error(error, part, needed=SPARE + len(piece)) from error
    found.update(piece)

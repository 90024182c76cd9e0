"""Room on a disk, and what it means when writing fails."""

from __future__ import annotations

import errno
from pathlib import Path

from portico.errors import NoSpace, PullFailed

SPARE = 64 * 1024 * 1024  # bytes of a disk that are left free: a full disk breaks more than what filled it


def disk_error(error: OSError, path: Path, *, needed: int) -> NoSpace | PullFailed:
    """What a failed write of `path` means; `needed` bytes were still to be written."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return NoSpace(path=str(path.parent), needed=needed, free=free_bytes(path.parent))
    return PullFailed(f"{path} cannot be written: {error.strerror or error}")


def free_bytes(folder: Path) -> int:
    """Bytes free where `folder` is or will be."""
    import shutil

    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free

"""Files of the hub's cache that somebody uses: who deletes leaves them until that has ended.

The mark is a shared lock of the system on the snapshot's folder. It counts between processes, and ends with the process
that has it, however that ends. Where there are no such locks (Windows, some network disks) nothing is known to be used.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path


def hold(path: Path) -> Callable[[], None] | None:
    """Marks the snapshot in which `path` is as used, until what it returns is called. None: it is gone, or is being
    deleted. What is in no hub's cache nobody of us deletes."""
    folder = _snapshot(path)
    if folder is None:
        return _nothing
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError:
        return _nothing
    if not _lock(descriptor, alone=False) or not path.exists():
        os.close(descriptor)
        return None
    return _Once(descriptor)


@contextlib.contextmanager
def alone(folder: Path) -> Iterator[bool]:
    """Whether nobody uses the snapshot; then nobody begins to until the block ends."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        yield True
        return
    try:
        yield _lock(descriptor, alone=True)
    finally:
        os.close(descriptor)


def _snapshot(path: Path) -> Path | None:
    return next((one for one in (path, *path.parents) if one.parent.name == "snapshots"), None)


def _lock(descriptor: int, *, alone: bool) -> bool:
    """False: somebody else has it, in a way that excludes ours."""
    if sys.platform == "win32":
        return True
    import fcntl

    try:
        fcntl.flock(descriptor, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


class _Once:
    """Lets go; again does nothing."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def __call__(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def _nothing() -> None: ...

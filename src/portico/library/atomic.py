"""Files that are either the old one or the new one, whatever happens in between, a kill or a power cut included."""

from __future__ import annotations

import os
from pathlib import Path

from portico.disk import sync_folder

PART = ".part"
"""The end of the names of files that are being written; whoever lists a folder passes over them."""


def write(path: Path, content: bytes) -> None:
    """Puts `content` at `path`. Raises OSError; the old file is then still there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART}")
    try:
        with open(part, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)

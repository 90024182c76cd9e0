"""A folder whose files are replaced together, when all of them are good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory


@contextmanager
def replacing(folder: Path) -> Iterator[Path]:
    """An empty folder to write into. At the end its files take the places of those of the same names in `folder`;
    if anything is raised before, `folder` stays as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    # Beside it, so that a file is moved and not copied.
    with TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.resolve().parent) as made:
        yield Path(made)
        for path in sorted(Path(made).iterdir()):
            path.replace(folder / path.name)

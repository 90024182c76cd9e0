"""What servers said that they support, kept on disk: one small file for all of them, in Portico's own folder.

Only what a server has is kept. What it lacks is asked again, since whoever reads the error starts it with another flag, and its
version stays the same.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from portico import __version__
from portico.client.abilities import Ability, Software

MOST_SECONDS = 24 * 3600.0
MOST_SERVERS = 200


class Page(msgspec.Struct):
    """Of one model of one server of one version. `at`: seconds since 1970."""

    at: float
    abilities: dict[str, Ability] = {}


class Remembered:
    """Owns the file. A file that cannot be read or written costs a few questions, and is no error."""

    def __init__(self, folder: Callable[[], Path], *, now: Callable[[], float] = time.time) -> None:
        self._folder, self._now = folder, now

    @property
    def path(self) -> Path:
        return self._folder() / "client" / "abilities.json"

    def read(self, url: str, software: Software, model: str) -> dict[str, Ability]:
        """Empty where nothing is known that is younger than MOST_SECONDS."""
        page = self._pages().get(_key(url, software, model))
        return dict(page.abilities) if page is not None else {}

    def write(self, url: str, software: Software, model: str, ability: Ability) -> None:
        pages = self._pages()
        page = pages.setdefault(_key(url, software, model), Page(at=self._now()))
        page.abilities[ability.feature] = ability
        newest = sorted(pages.items(), key=lambda item: item[1].at, reverse=True)[:MOST_SERVERS]
        path = self.path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Renamed when it is whole: another program that reads it at this moment sees one or the other.
            with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
                try:
                    file.write(msgspec.json.encode(dict(newest)))
                    file.flush()
                    os.replace(file.name, path)
                except OSError:
                    os.unlink(file.name)
                    raise
        except OSError:
            return

    def _pages(self) -> dict[str, Page]:
        try:
            found = msgspec.json.decode(self.path.read_bytes(), type=dict[str, Page])
        except (OSError, msgspec.MsgspecError):
            return {}
        oldest = self._now() - MOST_SECONDS
        return {key: page for key, page in found.items() if oldest < page.at <= self._now()}


def _key(url: str, software: Software, model: str) -> str:
    # Our own version too: another one may ask for the same in other words.
    return "\n".join((url, software.name, software.version, model, __version__))

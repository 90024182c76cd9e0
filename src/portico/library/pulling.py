"""One pull, from a name to a model that is here. Blocks; `pulls` runs it in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from portico.errors import DamagedFile
from portico.library import catalogue, facts
from portico.library.choice import choose
from portico.library.hub import Hub, Remote, Report, Unreachable
from portico.library.manifests import FromHub, Manifest
from portico.library.model import ModelFile
from portico.library.progress import MANIFEST, SUCCESS, WRITING
from portico.library.stock import Stock
from portico.library.transfer import Stop
from portico.names import Name, parse


class Pulling:
    """How models are pulled. `list_models` gives what is here by name, `clock` seconds since the epoch."""

    def __init__(
        self,
        stock: Stock,
        hub: Hub,
        *,
        list_models: Callable[[], Mapping[str, ModelFile]],
        clock: Callable[[], float],
    ) -> None:
        self._stock, self._hub, self._list_models, self._clock = stock, hub, list_models, clock

    def pull(self, asked: str, report: Report, stop: Stop) -> None:
        """(1) A model that the hub has nothing to do with is here already. (2) If the hub cannot be reached
        or is too busy (429, 5xx), one that is here stays as it is. (3) Otherwise its files are made to be those
        the hub has now."""
        report(MANIFEST)
        name = parse(asked)
        old = self._stock.get(str(name))
        if self._is_elsewhere(name, old):  # (1)
            report(SUCCESS)
            return
        source = catalogue.bundled().find(name)
        try:
            remote = self._hub.look(source.repository)
        except Unreachable:
            if old is None or old.name not in self._list_models():
                raise
            report(SUCCESS)  # (2)
            return
        manifest = self._planned(_shown(name, remote, old), remote, source.quantization)  # (3)
        self._fetch(manifest, report, stop)
        report(WRITING)
        self._stock.keep(manifest)
        report(SUCCESS)

    def _is_elsewhere(self, name: Name, old: Manifest | None) -> bool:
        if old is not None:
            return not isinstance(old.source, FromHub)
        # One that is only named at the start, under the hub's name, is there and not here.
        return any(
            known.casefold() == name.key and model.path != name.repository
            for known, model in self._list_models().items()
        )

    def _planned(self, name: str, remote: Remote, quantization: str | None) -> Manifest:
        choice = choose(remote.files, repository=remote.repository, quantization=quantization)
        snapshot, files = self._hub.plan(remote, choice)
        ours = self._stock.ours()
        files = tuple(
            msgspec.structs.replace(file, fetched=True) if file.hash in ours else file for file in files
        )
        source = FromHub(snapshot=snapshot, files=files, main=choice.main, projector=choice.projector)
        return Manifest(name=name, source=source, created=self._clock(), license=remote.license)

    def _fetch(self, manifest: Manifest, report: Report, stop: Stop) -> None:
        source = manifest.source
        assert isinstance(source, FromHub)
        self._stock.begin(manifest)
        try:
            self._hub.fetch(source.snapshot, source.files, report, stop)
            facts.read(source.snapshot.file(source.main) if source.main else source.snapshot.folder)
        except DamagedFile:
            # It is as it is on the hub, and still no model: fetching it again would not help.
            self._stock.abandon(manifest)
            raise
        except BaseException:
            self._stock.leave(manifest)
            raise


def _shown(name: Name, remote: Remote, old: Manifest | None) -> str:
    """What a pulled model is listed as: as before, else a short name in lower case or the hub's own spelling."""
    if old is not None:
        return old.name
    return f"{remote.repository}:{name.tag}" if name.repository else str(name).lower()

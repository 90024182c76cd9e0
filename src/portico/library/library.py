"""Every model that is here, and what brings models in and takes them away."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

from portico.errors import DamagedFile, InvalidRequest, ModelNotFound, PorticoError, Unsupported
from portico.library import catalogue, creation, holds
from portico.library.blobs import Blobs, read_digest
from portico.library.creation import Additions
from portico.library.hubsettings import HubSettings
from portico.library.ledger import Ledger
from portico.library.manifests import Manifests
from portico.library.model import ModelFile
from portico.library.ollama_store import OllamaStore
from portico.library.progress import SUCCESS, WRITING, Progress
from portico.library.shelf import Listing, Shelf
from portico.library.stock import Stock, Unfinished
from portico.messages import JSON, Message
from portico.names import canonical, nearest, parse, resolve, same

if TYPE_CHECKING:  # loaded at the first pull
    from portico.library.hub import Hub
    from portico.library.offers import Offer
    from portico.library.pulls import Pulls

FRESH = 1.0  # seconds a listing is used again: other programs put models into the same folders


class Library:
    """Owns `home`/models (manifests, uploads, what is known about files) and, in the hub's cache, what it fetched.

    A listing reads the headers of files it does not know yet: a few ms each, the first time. All methods but
    `pull` and `put_blob` may be called from any thread; these two belong to one event loop.
    """

    def __init__(
        self,
        home: Path,
        *,
        hub: HubSettings | Hub,
        ollama: Sequence[Path] = (),
        bundled: Path | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """`home`: the data folder. `ollama`: Ollama's model folders that are to be read (ollama_env.model_folders).
        `bundled`: the folder of the model that comes with the package (model.bundled_folder). `clock`: seconds
        since the epoch, for the times of new models."""
        folder = home / "models"
        manifests = Manifests(folder / "manifests")
        self._ledger = Ledger(folder / "files.json")
        self._blobs = Blobs(folder / "blobs")
        self._shelf = Shelf(manifests, self._blobs, self._ledger, tuple(map(OllamaStore, ollama)), bundled)
        unfinished, leaving = Manifests(folder / "unfinished"), Manifests(folder / "leaving")
        self._stock = Stock(manifests, unfinished, leaving, self._blobs, changed=self.refresh)
        self._hub = hub
        self._clock = clock
        self._lock = threading.RLock()
        self._listed: tuple[float, Listing] | None = None
        self._changes = 0
        self._pulls: Pulls | None = None

    # ---- what is here ------------------------------------------------------------------------------

    def models(self) -> tuple[ModelFile, ...]:
        """Every model that can be used: ours, then the bundled one, then Ollama's; of the same name the first."""
        return tuple(self._listing().models.values())

    def problems(self) -> Mapping[str, DamagedFile]:
        """What is here but cannot be used, by name."""
        return self._listing().damaged

    def find(
        self, asked: str, *, aliases: Mapping[str, str] | None = None, default: str | None = None
    ) -> ModelFile:
        """The model that `asked` names, in any of a name's forms (names.resolve). Raises ModelNotFound with the
        nearest names, DamagedFile for one that is here but cannot be used."""
        listing = self._listing()
        if asked in listing.models:
            return listing.models[asked]
        try:
            name = resolve(asked, {**listing.models, **listing.damaged}, aliases=aliases, default=default)
        except ModelNotFound as error:
            near = (*error.nearest, *nearest(asked, catalogue.bundled().names))
            others = [one for one in dict.fromkeys(near) if one != canonical(asked)]
            raise ModelNotFound(model=asked, nearest=others[:3]) from None
        if name in listing.damaged:
            damage = listing.damaged[name]
            raise DamagedFile(path=damage.path, reason=damage.reason)
        return listing.models[name]

    def at(self, path: Path, *, name: str = "") -> ModelFile:
        """The model in a GGUF file or a safetensors folder of the user's own, called `name`. Not for callers
        from outside: it would tell them which files there are. Raises DamagedFile."""
        with self._lock:
            return self._shelf.at(path, str(parse(name)) if name else path.name)

    def lend(self, models: Iterable[ModelFile]) -> None:
        """Models that are served but not kept here, such as those of another server: `copy` and `create` can be
        made of them. What is made of one that is not lent at a later start is a problem then, not lost."""
        self._shelf.lent = {model.name: model for model in models}
        self.refresh()

    def refresh(self) -> None:
        """The next listing looks at the disk again."""
        self._changes += 1
        self._listed = None

    def offered(self, name: str) -> Offer:
        """What the hub has under that name, without fetching it. Blocks. Raises InvalidRequest, ModelNotFound (a
        short name nobody knows), Gated, PullFailed."""
        from portico.library.offers import offer

        return offer(self._connected(), catalogue.bundled().find(parse(name)))

    # ---- what changes it ---------------------------------------------------------------------------

    async def pull(self, name: str) -> AsyncGenerator[Progress, None]:
        """Fetches a model and says how it goes; the last word is `success`. What is here already is
        successful also where the hub cannot be asked. Several pulls of one name are one; it stops when the last
        caller leaves, and goes on from there the next time. Close the iterator to leave (contextlib.aclosing).

        Raises InvalidRequest (no name), ModelNotFound (a short name nobody knows), Gated, NoSpace, PullFailed,
        DamagedFile."""
        parse(name)
        if self._pulls is None:
            self._pulls = self._start_pulls()
        async with aclosing(self._pulls.watch(canonical(name))) as progresses:
            async for progress in progresses:
                yield progress

    def delete(self, name: str) -> None:
        """Removes one of our models, and its files unless another one needs them or they were in the cache
        before us; also what an interrupted pull has left. Raises ModelNotFound, Unsupported for a model that
        is not ours."""
        # Not by `resolve`: nobody who says `auto` means that any model may go.
        ours = next((one for one in self._stock.names() if same(one, name)), None)
        if ours is None:
            raise self._not_ours(name)
        self._stock.drop(ours)

    def hold(self, path: str) -> Callable[[], None] | None:
        """Keeps the files at `path` (ModelFile.path) from being deleted, by a newer pull too, until what it returns is
        called: an engine uses them. None: they are gone, or are just being deleted."""
        let_go = holds.hold(Path(path))
        if let_go is None:
            return None

        def ended() -> None:
            let_go()
            self._stock.sweep()

        return ended

    def copy(self, source: str, destination: str) -> None:
        """A second name for a model; it stays when the first is deleted. Raises ModelNotFound, InvalidRequest."""
        model = self.find(source)
        if not same(model.name, destination):
            self._stock.keep(
                creation.copy(model, self._stock.get(model.name), destination, now=self._clock())
            )

    def create(
        self,
        name: str,
        *,
        from_: str = "",
        files: Mapping[str, str] | None = None,
        system: str | None = None,
        template: str | None = None,
        parameters: Mapping[str, JSON] | None = None,
        messages: Sequence[Message] | None = None,
        license: str | None = None,
    ) -> tuple[Progress, ...]:
        """Makes `name` out of another model, or of uploaded GGUF files (`files`: file name -> digest), with
        what is given on top; what is None stays as it was there, parameters are merged. Returns what is to be
        said about it. Raises InvalidRequest, ModelNotFound, DamagedFile."""
        said = Additions(
            system=system,
            template=template,
            parameters=dict(parameters or {}),
            messages=tuple(messages) if messages is not None else None,
            license=license,
        )
        if files:
            manifest = creation.from_files(name, files, said, self._blobs, now=self._clock())
        elif from_:
            model = self.find(from_)
            manifest = creation.from_model(name, model, self._stock.get(model.name), said, now=self._clock())
        else:
            raise InvalidRequest(
                "neither from nor files was given: there is nothing to make a model of", param="from"
            )
        self._stock.keep(manifest)
        layers = [part for part in ("system", "template") if getattr(manifest, part)]
        return (
            Progress(status="reading model metadata"),
            *(Progress(status=f"creating {layer} layer") for layer in layers),
            WRITING,
            SUCCESS,
        )

    def has_blob(self, digest: str) -> bool:
        """`digest`: sha256: and 64 hex digits. Raises InvalidRequest."""
        return self._blobs.has(read_digest(digest))

    async def put_blob(self, digest: str, content: AsyncIterable[bytes]) -> bool:
        """Keeps an upload under its digest; False if it was here already. Raises InvalidRequest for content
        with another hash, NoSpace."""
        return await self._blobs.put(read_digest(digest), content)

    def unfinished(self) -> tuple[Unfinished, ...]:
        """Pulls that were interrupted: `pull` goes on with them, `delete` throws away what they left."""
        return self._stock.unfinished()

    def prune(self) -> int:
        """Throws away uploads of which nothing was made within a day, and what a server that was killed used last and
        nobody needs. Returns the bytes. Raises OSError."""
        return self._stock.prune()

    def _not_ours(self, asked: str) -> PorticoError:
        try:
            model = self.find(asked)
        except ModelNotFound as error:
            return error
        except DamagedFile:
            whose = f"it is not ours; if it is Ollama's, use: ollama rm {asked}"
            return Unsupported(f"{asked} cannot be deleted: {whose}.", model=asked, feature="delete")
        owners = {
            "bundled": "it comes with the package",
            "ollama": f"it is Ollama's; use: ollama rm {model.name}",
        }
        whose = owners.get(model.origin, "it is not ours")
        return Unsupported(f"{model.name} cannot be deleted: {whose}.", model=model.name, feature="delete")

    def _connected(self) -> Hub:
        from portico.library.hub import Hub

        return self._hub if isinstance(self._hub, Hub) else Hub(self._hub)

    def _start_pulls(self) -> Pulls:
        from portico.library.pulling import Pulling
        from portico.library.pulls import Pulls

        pulling = Pulling(
            self._stock, self._connected(), list_models=lambda: self._listing().models, clock=self._clock
        )
        return Pulls(pulling.pull)

    def _listing(self) -> Listing:
        listed = self._listed
        if listed is not None and time.monotonic() - listed[0] < FRESH:
            return listed[1]
        with self._lock:
            changes = self._changes
            listing = self._shelf.listing()
            if changes == self._changes:  # else something came or went meanwhile: look again the next time
                self._listed = (time.monotonic(), listing)
            return listing

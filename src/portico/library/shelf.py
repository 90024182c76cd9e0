"""Reads what is here: our manifests, the bundled model and Ollama's folder become ModelFiles."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import msgspec

from portico.engines import Facts
from portico.errors import DamagedFile
from portico.library import catalogue
from portico.library.blobs import Blobs
from portico.library.capabilities import with_vision
from portico.library.ledger import Ledger
from portico.library.manifests import FromHub, FromName, FromUpload, Manifest, Manifests
from portico.library.model import ModelFile
from portico.library.ollama_store import OllamaModel, OllamaStore
from portico.messages import Value
from portico.names import canonical

HASHED_AT_ONCE = 32 * 1024 * 1024  # bytes of a file that a listing may hash: 20 ms, once


class Listing(Value, frozen=True, kw_only=True):
    models: dict[str, ModelFile]
    """By name, in the order of a listing."""
    damaged: dict[str, DamagedFile]
    """By name: what cannot be used, and why."""


class Shelf:
    """Owns nothing: what it is given belongs to the Library."""

    def __init__(
        self,
        manifests: Manifests,
        blobs: Blobs,
        ledger: Ledger,
        ollama: Sequence[OllamaStore],
        bundled: Path | None,
    ) -> None:
        self._manifests, self._blobs, self._ledger = manifests, blobs, ledger
        self._ollama, self._bundled = ollama, bundled
        self.lent: dict[str, ModelFile] = {}

    def listing(self) -> Listing:
        """Ours, then the bundled one, then Ollama's; of the same name the first."""
        others = self._others()
        makers: list[tuple[str, Callable[[], ModelFile]]] = []
        makers += [(one.name, partial(self._ours, one, others)) for one in self._manifests.all()]
        makers += others.items()
        models: dict[str, ModelFile] = {}
        damaged: dict[str, DamagedFile] = {}
        taken: set[str] = set()
        for name, make in makers:
            if name.casefold() in taken:
                continue
            taken.add(name.casefold())
            try:
                models[name] = make()
            except DamagedFile as error:
                damaged[name] = error
            except OSError as error:  # one file that cannot be read must not hide all the others
                damaged[name] = DamagedFile(path=error.filename or name, reason=error.strerror or str(error))
        self._ledger.flush()
        return Listing(models=share(models), damaged=damaged)

    def at(self, path: Path, name: str) -> ModelFile:
        facts = self._ledger.facts(path)
        self._ledger.flush()
        facts = msgspec.structs.replace(facts, digest=self._digest(path, facts))
        return ModelFile(name=name, origin="path", path=str(path), runs=name, facts=facts, weights=facts)

    def _others(self) -> dict[str, Callable[[], ModelFile]]:
        """The models that are not ours to change."""
        found: dict[str, Callable[[], ModelFile]] = {
            name: partial(_itself, model) for name, model in self.lent.items()
        }
        if self._bundled is not None and canonical(self._bundled.name) not in found:
            found[canonical(self._bundled.name)] = self._bundled_model
        for store in self._ollama:
            for model in store.models():
                found.setdefault(model.name, partial(self._ollamas, model))
        return found

    def _bundled_model(self) -> ModelFile:
        assert self._bundled is not None
        file = self._bundled / f"{self._bundled.name}.gguf"
        model = self.at(file if file.is_file() else self._bundled, canonical(self._bundled.name))
        return msgspec.structs.replace(model, origin="bundled")

    def _ollamas(self, model: OllamaModel) -> ModelFile:
        facts = self._ledger.facts(Path(model.path))
        if facts.capabilities == ():
            raise DamagedFile(path=model.path, reason="it is a projector for images and no model")
        return ModelFile(
            name=model.name,
            origin="ollama",
            path=model.path,
            runs=model.name,
            projector=model.projector,
            facts=msgspec.structs.replace(
                facts,
                size=model.size or facts.size,
                digest=model.digest,
                modified=model.modified,
                license=model.license or facts.license,
                capabilities=with_vision(facts.capabilities) if model.projector else facts.capabilities,
            ),
            system=model.system,
            template=model.template,
            parameters=model.parameters,
            messages=model.messages,
        )

    def _ours(self, manifest: Manifest, others: dict[str, Callable[[], ModelFile]]) -> ModelFile:
        match manifest.source:
            case FromHub() as source:
                model = self._pulled(source, manifest)
            case FromUpload() as source:
                model = self._uploaded(source)
            case FromName(name=name):
                if name not in others:
                    raise DamagedFile(path=manifest.name, reason=f"it was made from {name}, which is gone")
                model = others[name]()
        facts = model.facts
        return msgspec.structs.replace(
            model,
            name=manifest.name,
            runs=manifest.name,
            removable=True,
            facts=msgspec.structs.replace(
                facts,
                modified=manifest.created,
                license=manifest.license or facts.license,
                digest=_made_digest(facts.digest or "", manifest) if manifest.made else facts.digest,
            ),
            parent=manifest.parent,
            system=manifest.system,
            template=manifest.template,
            parameters=manifest.parameters,
            messages=manifest.messages,
        )

    def _pulled(self, source: FromHub, manifest: Manifest) -> ModelFile:
        snapshot = source.snapshot
        gone = next((file for file in source.files if not snapshot.file(file.path).is_file()), None)
        if gone is not None:
            raise DamagedFile(
                path=str(snapshot.file(gone.path)),
                reason=f"it is not there any more; pull {manifest.name} again",
            )
        path = snapshot.file(source.main) if source.main else snapshot.folder
        facts = self._ledger.facts(path)
        return ModelFile(
            name=manifest.name,
            origin="hub",
            path=str(path),
            runs=manifest.name,
            projector=str(snapshot.file(source.projector)) if source.projector else "",
            repository=snapshot.repository,
            gguf="" if source.main else catalogue.bundled().gguf_of(snapshot.repository) or "",
            facts=msgspec.structs.replace(
                facts,
                size=sum(file.size for file in source.files),
                digest=_files_digest(source),
                capabilities=with_vision(facts.capabilities) if source.projector else facts.capabilities,
            ),
        )

    def _uploaded(self, source: FromUpload) -> ModelFile:
        path = self._blobs.path(source.digest)
        facts = self._ledger.facts(path)
        projector = self._blobs.path(source.projector) if source.projector else None
        return ModelFile(
            name="",
            origin="upload",
            path=str(path),
            runs="",
            projector=str(projector) if projector else "",
            facts=msgspec.structs.replace(
                facts,
                digest=source.digest,
                capabilities=with_vision(facts.capabilities) if projector else facts.capabilities,
            ),
        )

    def _digest(self, path: Path, facts: Facts) -> str:
        """The sha256 of the file where it is known or quickly found; else, and for a folder, something as
        constant: 64 hex digits that change when the file does."""
        if path.is_file():
            known = self._ledger.sha256(path)
            if known or (facts.size or 0) <= HASHED_AT_ONCE:
                return known or self._ledger.hash(path)
        found = os.stat(path)
        return hashlib.sha256(f"{path}\n{facts.size}\n{found.st_mtime_ns}".encode()).hexdigest()


def share(models: dict[str, ModelFile]) -> dict[str, ModelFile]:
    """The same models, those with the same weights running as one of them: the plainest, of these the oldest,
    so that a copy does not push out the model that is loaded."""
    groups: dict[tuple[str, str], list[ModelFile]] = {}
    for model in models.values():
        groups.setdefault((model.path, model.projector), []).append(model)
    chosen = {weights: min(group, key=_rank) for weights, group in groups.items()}
    shared = {}
    for name, model in models.items():
        runs = chosen[model.path, model.projector]
        shared[name] = msgspec.structs.replace(model, runs=runs.name, weights=runs.facts)
    return shared


def _rank(model: ModelFile) -> tuple[int, float]:
    said: Iterable[object] = (model.parent, model.system, model.template, model.parameters, model.messages)
    return sum(1 for one in said if one), model.facts.modified or 0.0


def _files_digest(source: FromHub) -> str:
    """Of a single file its own sha256; of several one over all of them."""
    if len(source.files) == 1 and len(source.files[0].hash) == 64:
        return source.files[0].hash
    lines = sorted(f"{file.hash}  {file.path}" for file in source.files)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _made_digest(weights: str, manifest: Manifest) -> str:
    added = msgspec.structs.replace(manifest, name="", created=0.0, parent="", source=FromName(name=weights))
    return hashlib.sha256(msgspec.json.encode(added)).hexdigest()


def _itself(model: ModelFile) -> ModelFile:
    return model

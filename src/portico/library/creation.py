"""Manifests of models that are made of others: copies, and what /api/create describes. They decide; nothing here
writes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from portico.errors import InvalidRequest
from portico.library import facts, gguf
from portico.library.blobs import Blobs, read_digest
from portico.library.manifests import FromName, FromUpload, Manifest, Source
from portico.library.model import ModelFile
from portico.messages import JSON, Message, Value
from portico.names import parse

T = TypeVar("T")


class Additions(Value, frozen=True, kw_only=True):
    """What is put on top of the weights. None: as it was below."""

    system: str | None = None
    template: str | None = None
    parameters: dict[str, JSON] = {}
    """Merged with those below."""
    messages: tuple[Message, ...] | None = None
    license: str | None = None


def copy(model: ModelFile, ours: Manifest | None, destination: str, *, now: float) -> Manifest:
    """`model` under another name. `ours` is its manifest, if it has one."""
    return Manifest(
        name=str(parse(destination)),
        source=_weights(model, ours),
        created=now,
        parent=model.parent,
        system=model.system,
        template=model.template,
        parameters=model.parameters,
        messages=model.messages,
        license=ours.license if ours else "",
    )


def from_model(
    name: str, model: ModelFile, ours: Manifest | None, said: Additions, *, now: float
) -> Manifest:
    """`model` with additions of its own. `ours` is its manifest, if it has one."""
    shown = str(parse(name))
    return Manifest(
        name=shown,
        source=_weights(model, ours),
        created=now,
        parent=model.parent if model.name.casefold() == shown.casefold() else model.name,
        system=_either(said.system, model.system),
        template=_either(said.template, model.template),
        parameters={**model.parameters, **said.parameters},
        messages=_either(said.messages, model.messages),
        license=_either(said.license, ours.license if ours else ""),
    )


def from_files(name: str, files: Mapping[str, str], said: Additions, blobs: Blobs, *, now: float) -> Manifest:
    """Uploaded GGUF files (`files`: file name -> digest) as a model. Raises InvalidRequest, DamagedFile."""
    return Manifest(
        name=str(parse(name)),
        source=_uploaded(files, blobs),
        created=now,
        system=said.system or "",
        template=said.template or "",
        parameters=said.parameters,
        messages=said.messages or (),
        license=said.license or "",
    )


def _weights(model: ModelFile, ours: Manifest | None) -> Source:
    return ours.source if ours else FromName(name=model.name)


def _uploaded(files: Mapping[str, str], blobs: Blobs) -> FromUpload:
    found: dict[bool, str] = {}
    for file, text in files.items():
        digest = read_digest(text)
        if not blobs.has(digest):
            raise InvalidRequest(f"{file}: sha256:{digest} was not uploaded", param="files")
        if not file.lower().endswith(".gguf"):
            raise InvalidRequest(f"{file}: only GGUF files can be made a model of", param="files")
        projects = gguf.read(blobs.path(digest)).architecture == "clip"
        if projects in found:
            raise InvalidRequest(f"{file}: a model is one GGUF file and at most one projector", param="files")
        found[projects] = digest
    if False not in found:
        raise InvalidRequest("there is no model among the files", param="files")
    facts.read(blobs.path(found[False]))
    return FromUpload(digest=found[False], projector=found.get(True, ""))


def _either(said: T | None, before: T) -> T:
    return before if said is None else said

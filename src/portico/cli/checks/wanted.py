"""The model that is asked about: from the library if it is here, else from the hub's listing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec

from portico import config_file
from portico.cli import units
from portico.cli.checks import Check
from portico.cli.checks.fit import GROUP, Fit, Room, on_llamacpp, on_vllm, verdict
from portico.config import Config, ModelEntry
from portico.configured import configure
from portico.engines import Device, ModelSpec, hardware
from portico.engines.available import Available, Machine, available
from portico.engines.gpus import gpus
from portico.errors import ModelNotFound, PorticoError
from portico.inprocess import library
from portico.library import Library
from portico.library.disk import SPARE, free_bytes
from portico.library.hub import Unreachable
from portico.library.hubsettings import HubSettings
from portico.web.upstream import shown


class Place(NamedTuple):
    """Where a model's files are or come from. `download`: bytes that a pull would fetch."""

    found: str
    spec: ModelSpec
    download: int = 0
    repository: str = ""


def look(name: str, environ: Mapping[str, str]) -> list[Check]:
    """Everything about one model."""
    config = config_file.load(None, environ, {})
    home = config_file.data_home(config, environ)
    machine = Machine.here()
    engines = available(home, machine)
    models = library(config, environ, home)
    try:
        place = _place(name, config, models, engines, environ)
    except ModelNotFound as error:
        near = f"; nearest: {', '.join(error.nearest)}" if error.nearest else ""
        do = f"portico doctor {error.nearest[0]}" if error.nearest else "portico ls"
        return [Check(GROUP, name, "fail", f"model {name!r} not found, here or in the catalogue{near}", do)]
    except Unreachable as error:
        found = f"not here, and the hub cannot be asked: {error.message}"
        return [Check(GROUP, name, "warn", found, f"portico pull {name}, once it can be reached")]
    except PorticoError as error:
        do = "" if "`" in error.message or "portico " in error.message else "portico ls"
        return [Check(GROUP, name, "fail", error.message, do)]
    room = Room(hardware.free_memory(), machine.gpus or gpus())
    cache = Path(HubSettings.read(environ).cache)
    return model(name, place, engines, room, disk=free_bytes(cache) if place.download else 0)


def _place(
    name: str,
    config: Config,
    models: Library,
    engines: list[Available],
    environ: Mapping[str, str],
) -> Place:
    name = config.aliases.get(name, name)
    entry = next((each for each in config.models if each.name == name), ModelEntry(name=name))
    spec: ModelSpec | None = None
    unknown: ModelNotFound | None = None
    there = any(one.installed for one in engines if one.name.startswith("vllm"))
    try:
        spec = configure(entry, config, models, vllm_is_there=there)
        if spec.facts.size or spec.engine == "remote":
            return Place(_described(spec), spec)
    except ModelNotFound as error:
        unknown = error  # here; the hub may have it
    asked = entry.source or name
    try:
        offer = models.offered(asked)
    except ModelNotFound as error:
        raise unknown or error from error
    engine = "llamacpp" if offer.facts.format == "gguf" else "vllm"
    if spec is None:
        spec = ModelSpec(
            name=name, engine=engine, source=offer.repository, context=entry.context or config.context
        )
    spec = msgspec.structs.replace(spec, facts=offer.facts)
    about = ", ".join(each for each in (offer.facts.format, offer.license) if each)
    found = f"not here; on the hub {offer.repository} ({about}), {units.file_size(offer.download)} to fetch"
    return Place(found, spec, offer.download, offer.repository)


def _described(spec: ModelSpec) -> str:
    if spec.engine == "remote":
        return f"on another server: {shown(spec.source)}"
    facts = spec.facts
    about = ", ".join(each for each in (facts.family, facts.quantization, facts.format) if each)
    return f"here: {about}, {units.file_size(facts.size)}"


def model(name: str, place: Place, engines: list[Available], room: Room, *, disk: int) -> list[Check]:
    """What is concluded about it. `disk`: bytes free where a pull would put it. Pure."""
    if place.spec.engine == "remote":
        return [Check(GROUP, name, "ok", f"{place.found}: it takes nothing of this machine")]
    lines = [Check(GROUP, name, "ok" if not place.download else "skip", place.found, _pull(name, place))]
    if place.download and place.download + SPARE > disk:
        short = f"{units.file_size(disk)} free, {units.file_size(place.download)} are needed"
        lines.append(Check(GROUP, "disk", "fail", short, "free some space, or `export HF_HUB_CACHE=FOLDER`"))
    engine = _engine(place.spec, engines)
    lines.append(_runs(place.spec, engine, engines))
    fit = _fit(place.spec, engine, room)
    smaller = (
        "take a smaller quantization or a smaller model, or unload others: `portico ps`, `portico stop MODEL`"
    )
    return [
        *lines,
        *verdict(name, fit, room, set_context=f"portico serve {name} --context {{}}", smaller=smaller),
    ]


def _pull(name: str, place: Place) -> str:
    return f"portico pull {name}" if place.download else ""


def _engine(spec: ModelSpec, engines: list[Available]) -> Available | None:
    """The one that runs it, or would once it is installed."""
    mine = [one for one in engines if one.usable and one.name.startswith(spec.engine)]
    return next((one for one in mine if one.installed), mine[0] if mine else None)


def _runs(spec: ModelSpec, engine: Available | None, engines: list[Available]) -> Check:
    if engine is None:
        why = "; ".join(f"{one.name}: {one.reason}" for one in engines if one.name.startswith(spec.engine))
        return Check(GROUP, "engine", "fail", f"no engine here runs it ({why})", "portico engines")
    if engine.installed:
        return Check(GROUP, "engine", "ok", f"{engine.name} {engine.version} runs it")
    return Check(GROUP, "engine", "fail", f"{engine.name} would run it and is not installed", engine.reason)


def _fit(spec: ModelSpec, engine: Available | None, room: Room) -> Fit:
    if spec.engine == "llamacpp":
        return on_llamacpp(spec, room)
    device: Device = "host" if engine is not None and engine.name == "vllm-cpu" else "gpu"
    return on_vllm(spec, room, device)

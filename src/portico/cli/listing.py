"""`portico ls` and `portico ps`: the models that are here, and those that are loaded."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from portico.cli import options, units
from portico.cli.models_at import opened
from portico.cli.replies import EngineHealth, Health, Listed, Loaded, Unfinished
from portico.cli.screen import Screen, dim, table
from portico.cli.server import Server

if TYPE_CHECKING:
    from portico.cli.address import Address

CAN = {"completion": "chat", "thinking": "think", "embedding": "embed"}  # shorter words for a narrow column


@click.command()
@click.argument("beginning", required=False, metavar="[NAME]")
@options.as_json
@options.address
@options.screen
@options.environ
def ls(
    beginning: str | None, as_json: bool, address: Address, screen: Screen, environ: options.Environ
) -> None:
    """List the models that are here, or those whose name begins with NAME.

    Asks the server; where none runs, looks into the data folder.
    """
    with opened(address, environ) as shelf:
        here = shelf.listing()
    wanted = (beginning or "").lower()
    models = [one for one in here.models or () if one.name.lower().startswith(wanted)]
    damaged = [one for one in here.damaged if one.name.lower().startswith(wanted)]
    unfinished = [one for one in here.unfinished if one.name.lower().startswith(wanted)]
    if as_json:
        answer = {
            "schema": 1,
            "models": [_listed_json(one) for one in models],
            "damaged": [{"name": one.name, "reason": one.reason} for one in damaged],
            "unfinished": [_unfinished_json(one) for one in unfinished],
        }
        screen.answer(json.dumps(answer))
        return
    rows = [_listed_row(one, datetime.now(UTC)) for one in models]
    rows += [(one.name, "damaged", *[""] * 6) for one in damaged]
    rows += [(one.name, _arrived(one), *[""] * 6) for one in unfinished]
    if not rows:
        screen.say(dim("no models here; `portico pull NAME` fetches one"))
        return
    titles = ("MODEL", "STATE", "SIZE", "QUANT", "WEIGHTS", "CONTEXT", "CAN", "CHANGED")
    for line in table(titles, rows, right=("SIZE", "WEIGHTS", "CONTEXT"), width=screen.width):
        screen.answer(line)
    total = units.file_size(sum(one.size for one in models))
    screen.say(dim(f"{len(models)} model{'s' if len(models) != 1 else ''}, {total}"))
    for broken in damaged:
        screen.say(f"{screen.sign('failed')} {broken.name}: {broken.reason}")
    if unfinished:
        screen.say(
            dim("`portico pull NAME` goes on with a pull, `portico rm NAME` throws away what has arrived")
        )


def _arrived(pull: Unfinished) -> str:
    return f"pulled {units.file_size(pull.completed)} of {units.file_size(pull.total)}"


def _unfinished_json(pull: Unfinished) -> dict[str, Any]:
    return {"name": pull.name, "completed_bytes": pull.completed, "total_bytes": pull.total}


def _listed_row(listed: Listed, now: datetime) -> tuple[str, ...]:
    details, changed = listed.details, read_time(listed.modified_at)
    return (
        listed.name,
        "",
        units.file_size(listed.size) if listed.size else "",
        details.quantization_level or "",
        details.parameter_size or "",
        f"{details.context_length:,}" if details.context_length else "",
        " ".join(CAN.get(word, word) for word in listed.capabilities or ()),
        units.ago((now - changed).total_seconds()) if changed else "",
    )


def _listed_json(listed: Listed) -> dict[str, Any]:
    return {
        "name": listed.name,
        "size_bytes": listed.size or None,
        "digest": listed.digest or None,
        "modified_at": listed.modified_at or None,
        "format": listed.details.format or None,
        "family": listed.details.family or None,
        "weights": listed.details.parameter_size or None,
        "quantization": listed.details.quantization_level or None,
        "context_tokens": listed.details.context_length,
        "capabilities": list(listed.capabilities) if listed.capabilities is not None else None,
    }


@click.command()
@options.as_json
@options.address
@options.screen
def ps(as_json: bool, address: Address, screen: Screen) -> None:
    """List the models that are loaded, and when they unload."""
    with Server(address) as server:
        running = server.running()
        health = server.health()
    now = datetime.now(UTC)
    failed = [engine for engine in health.engines if engine.state == "failed"]
    if as_json:
        rows = [_loaded_json(loaded, health) for loaded in running] + [_failed_json(each) for each in failed]
        screen.answer(json.dumps({"schema": 1, "models": rows}))
        return
    if not running and not failed:
        screen.say(dim("no model is loaded; the first request loads one"))
        return
    titles = ("MODEL", "STATE", "WHERE", "MEMORY", "CONTEXT", "RUNNING", "WAITING", "UNLOADS")
    lines = [_loaded_row(loaded, health, now) for loaded in running]
    lines += [(engine.model, engine.state, *[""] * 6) for engine in failed]
    for line in table(titles, lines, right=("MEMORY", "CONTEXT", "RUNNING", "WAITING"), width=screen.width):
        screen.answer(line)
    for engine in failed:
        screen.say(f"{screen.sign('failed')} {engine.model}: {engine.error}")


def _loaded_row(loaded: Loaded, health: Health, now: datetime) -> tuple[str, ...]:
    engine, unloads = health.of(loaded.name), read_time(loaded.expires_at)
    return (
        loaded.name,
        engine.state if engine else "",
        _where(loaded),
        units.memory(loaded.size) if loaded.size else "",
        f"{loaded.context_length:,}" if loaded.context_length else "",
        f"{engine.in_flight:,}" if engine else "",
        f"{engine.waiting:,}" if engine else "",
        units.until((unloads - now).total_seconds()) if unloads else "",
    )


def _loaded_json(loaded: Loaded, health: Health) -> dict[str, Any]:
    engine = health.of(loaded.name)
    return {
        "name": loaded.name,
        "state": engine.state if engine else None,
        "error": engine.error if engine else None,
        "size_bytes": loaded.size or None,
        "gpu_bytes": loaded.size_vram,
        "context_tokens": loaded.context_length,
        "running": engine.in_flight if engine else None,
        "waiting": engine.waiting if engine else None,
        "unloads_at": loaded.expires_at or None,
    }


def _failed_json(engine: EngineHealth) -> dict[str, Any]:
    nothing: dict[str, Any] = dict.fromkeys(
        ("size_bytes", "gpu_bytes", "context_tokens", "running", "waiting", "unloads_at")
    )
    return {"name": engine.model, "state": engine.state, "error": engine.error, **nothing}


def _where(loaded: Loaded) -> str:
    if not loaded.size:
        return ""
    on_gpu = units.percent(loaded.size_vram, loaded.size)
    return "CPU" if not loaded.size_vram else "GPU" if on_gpu == 100 else f"GPU {on_gpu}%"


def read_time(text: str) -> datetime | None:
    """RFC 3339 as Go writes it: up to nine digits of a second, of which Python keeps six. None if it is none."""
    try:
        when = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        return None
    return when if when.tzinfo else when.replace(tzinfo=UTC)

"""`portico rm`, `portico cp` and `portico stop`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from portico.cli import options
from portico.cli.models_at import opened
from portico.cli.screen import Screen
from portico.cli.server import Server

if TYPE_CHECKING:
    from portico.cli.address import Address


@click.command()
@options.models
@options.as_json
@options.address
@options.screen
@options.environ
def rm(
    models: tuple[str, ...], as_json: bool, address: Address, screen: Screen, environ: options.Environ
) -> None:
    """Remove models, and their files where no other model needs them."""
    with opened(address, environ) as shelf:
        for model in models:
            shelf.delete(model)
            if not as_json:
                screen.say(f"{screen.sign('done')} removed {model}")
    if as_json:
        screen.answer(json.dumps({"schema": 1, "removed": list(models)}))


@click.command()
@click.argument("source", shell_complete=options.complete_models)
@click.argument("destination")
@options.as_json
@options.address
@options.screen
@options.environ
def cp(
    source: str, destination: str, as_json: bool, address: Address, screen: Screen, environ: options.Environ
) -> None:
    """Give the model SOURCE the second name DESTINATION; its files are not copied."""
    with opened(address, environ) as shelf:
        shelf.copy(source, destination)
    if as_json:
        screen.answer(json.dumps({"schema": 1, "source": source, "destination": destination}))
    else:
        screen.say(f"{screen.sign('done')} {destination} is now another name of {source}")


@click.command()
@options.model
@options.as_json
@options.address
@options.screen
def stop(model: str, as_json: bool, address: Address, screen: Screen) -> None:
    """Unload a model; the next request loads it again."""
    with Server(address) as server:
        server.unload(model)
    if as_json:
        screen.answer(json.dumps({"schema": 1, "model": model, "unloaded": True}))
    else:
        screen.say(f"{screen.sign('done')} {model} is unloaded")

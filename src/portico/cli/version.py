"""`portico version`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from portico import __version__
from portico.cli import options
from portico.cli.failure import Failure
from portico.cli.screen import Screen
from portico.cli.server import Server

if TYPE_CHECKING:
    from portico.cli.address import Address


@click.command()
@options.as_json
@options.address
@options.screen
def version(as_json: bool, address: Address, screen: Screen) -> None:
    """Print the version of this program, and of the server if one answers."""
    with Server(address) as server:
        try:
            answers_as = server.version()
            own = server.own_version()
        except Failure:
            answers_as, own = "", None
    if as_json:
        there = {"url": address.url, "version": own, "ollama_version": answers_as} if answers_as else None
        screen.answer(json.dumps({"schema": 1, "version": __version__, "server": there}))
        return
    screen.answer(f"portico {__version__}")
    if not answers_as:
        screen.answer(f"server  none at {address.url}")
    else:
        screen.answer(f"server  {own or 'not Portico'} at {address.url}, answers as Ollama {answers_as}")

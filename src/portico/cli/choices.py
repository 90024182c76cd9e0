"""What the user chose about the screen, collected from options in front of and behind the command's name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from portico.cli.screen import Screen

Command = TypeVar("Command", bound=Callable[..., Any])


class Choices:
    """Filled by the options while arguments are parsed, read once by `screen`. `main` owns it."""

    def __init__(self, *, environ: Mapping[str, str], as_json: bool = False) -> None:
        self.environ = environ
        self.as_json = as_json
        self.color = "auto"  # auto, always, never
        self.progress = "auto"  # auto, live, plain, none
        self.quiet = False
        self.debug = False
        self._screen: Screen | None = None

    @property
    def screen(self) -> Screen:
        if self._screen is None:
            from portico.cli.screen import decide

            self._screen = decide(self)
        return self._screen


def _keep(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if (
        parameter.name
        and context.get_parameter_source(parameter.name) is not click.core.ParameterSource.DEFAULT
    ):
        setattr(context.ensure_object(Choices), parameter.name, value)


def _screen_options(*, hidden: bool) -> list[Callable[[Command], Command]]:
    keep: dict[str, Any] = {"expose_value": False, "callback": _keep, "hidden": hidden, "is_eager": True}
    color = click.Choice(["auto", "always", "never"])
    progress = click.Choice(["auto", "live", "plain", "none"])
    return [
        click.option("-q", "--quiet", is_flag=True, help="Errors and the result, nothing else.", **keep),
        click.option("--color", type=color, help="Colour: auto, always or never.", metavar="WHEN", **keep),
        click.option("--progress", type=progress, help="auto, live, plain or none.", metavar="HOW", **keep),
        click.option("--debug", is_flag=True, help="Show the traceback of an error.", **keep),
    ]


def _with_screen_options(command: Command, *, hidden: bool) -> Command:
    for option in reversed(_screen_options(hidden=hidden)):
        command = option(command)
    return command


def on_every_command(command: Command) -> Command:
    """`-q`, `--color`, `--progress`, `--debug` behind a command's name; help shows them once, at the group."""
    return _with_screen_options(command, hidden=True)


def on_the_group(command: Command) -> Command:
    return _with_screen_options(command, hidden=False)

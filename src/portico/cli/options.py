"""Options and arguments that several commands share."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from portico.cli.address import find
from portico.cli.choices import Choices, Command, on_every_command
from portico.cli.failure import usage

if TYPE_CHECKING:
    from portico.cli.talk import Talk

Environ = Mapping[str, str]


def _choices() -> Choices:
    return click.get_current_context().ensure_object(Choices)


def screen(command: Command) -> Command:
    """Adds the options of every command and passes the decided `screen`."""

    @functools.wraps(command)
    def with_screen(*arguments: Any, **named: Any) -> Any:
        return command(*arguments, screen=_choices().screen, **named)

    return on_every_command(with_screen)  # type: ignore[return-value]


def environ(command: Command) -> Command:
    """Passes the environment, which `main` alone reads."""

    @functools.wraps(command)
    def with_environ(*arguments: Any, **named: Any) -> Any:
        return command(*arguments, environ=_choices().environ, **named)

    return with_environ  # type: ignore[return-value]


def fail_as_json() -> None:
    """From here on an error of this command is JSON, as with `--json`."""
    _choices().as_json = True


def address(command: Command) -> Command:
    """Adds `--host` and passes the server's `address`."""

    @functools.wraps(command)
    def with_address(*arguments: Any, host: str | None, **named: Any) -> Any:
        return command(*arguments, address=find(host, _choices().environ), **named)

    text = "Server to ask; default: PORTICO_HOST, OLLAMA_HOST, 127.0.0.1:11434."
    return click.option("--host", metavar="URL", help=text)(with_address)  # type: ignore[return-value]


def complete_models(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Names of models on this machine that begin with what was typed; never asks the network."""
    from portico.cli.completion import model_names

    names = model_names(context.ensure_object(Choices).environ)
    return [CompletionItem(name) for name in names if name.lower().startswith(incomplete.lower())]


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
model = click.argument("model", shell_complete=complete_models)
models = click.argument("models", nargs=-1, required=True, metavar="MODEL...", shell_complete=complete_models)


class Sampling:
    """`-o`, `--think`, `--format`, `--keep-alive`, as typed."""

    def __init__(
        self, pairs: tuple[str, ...], think: str | None, form: str | None, keep_alive: str | None
    ) -> None:
        self.pairs, self.think, self.format, self.keep_alive = pairs, think, form, keep_alive

    def apply(self, talk: Talk) -> None:
        settings = {"think": self.think, "format": self.format, "keep_alive": self.keep_alive}
        pairs = [pair.partition("=") for pair in self.pairs]
        if wrong := next((name for name, sign, _ in pairs if not sign), None):
            raise usage(f"-o takes NAME=VALUE, got {wrong!r}", attempt="-o temperature=0.2")
        try:
            for name, value in settings.items():
                if value is not None:
                    talk.set(name, value)
            for name, _, value in pairs:
                talk.set_option(name, value)
        except ValueError as error:
            raise usage(str(error)) from error


def sampling(command: Command) -> Command:
    """Adds the options that say how an answer is made, and passes them as `sampling`."""

    @functools.wraps(command)
    def with_sampling(
        *arguments: Any,
        option: tuple[str, ...],
        think: str | None,
        form: str | None,
        keep_alive: str | None,
        **named: Any,
    ) -> Any:
        return command(*arguments, sampling=Sampling(option, think, form, keep_alive), **named)

    wrapped: Any = with_sampling
    for added in reversed(
        (
            click.option(
                "-o", "--option", multiple=True, metavar="NAME=VALUE", help="temperature, num_ctx, seed, ..."
            ),
            click.option("--think", metavar="HOW", help="on, off, low, medium or high."),
            click.option("--format", "form", metavar="SHAPE", help="json, or a JSON schema."),
            click.option("--keep-alive", metavar="TIME", help="How long the model stays loaded: 10m, 0, -1."),
        )
    ):
        wrapped = added(wrapped)
    return wrapped  # type: ignore[no-any-return]


def home(environ: Environ) -> Path:
    """The data folder, the same that a server started here would use."""
    from portico.config_file import data_home, places

    return data_home(places(environ), environ)

"""The table of commands, and the group that imports each of them only when it is called."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from portico import __version__
from portico.cli.choices import on_the_group

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Entry(NamedTuple):
    name: str
    module: str  # in portico.cli; the command is the function of the same name as the module's entry below
    function: str
    summary: str  # one line of `portico --help`


SECTIONS: tuple[tuple[str, tuple[Entry, ...]], ...] = (
    (
        "Start",
        (
            Entry("serve", "serve", "serve", "Answer Ollama's and OpenAI's clients."),
            Entry("demo", "demo", "demo", "Start a server, talk to it in both languages, stop it."),
        ),
    ),
    (
        "Talk",
        (
            Entry("chat", "chat", "chat", "Talk with a model, or ask one question with -p."),
            Entry("generate", "generate", "generate", "Continue a text."),
            Entry("batch", "batch", "batch", "Answer a file of requests, each once."),
        ),
    ),
    (
        "Models",
        (
            Entry("ls", "listing", "ls", "List the models that are here."),
            Entry("ps", "listing", "ps", "List the models that are loaded."),
            Entry("show", "show", "show", "Show what is known about a model."),
            Entry("pull", "pull", "pull", "Fetch a model."),
            Entry("rm", "changing", "rm", "Remove models."),
            Entry("cp", "changing", "cp", "Give a model a second name."),
            Entry("stop", "changing", "stop", "Unload a model."),
        ),
    ),
    (
        "More",
        (
            Entry("engines", "engines", "engines", "Show what can run models here; install vLLM."),
            Entry("logs", "logs", "logs", "Print what a model's engine has written."),
            Entry("doctor", "doctor", "doctor", "Look for what is wrong here, and say what to do."),
            Entry("bench", "bench", "bench", "Measure any OpenAI or Ollama server."),
            Entry("completion", "completion", "completion", "Print the completion script of a shell."),
            Entry("version", "version", "version", "Print the versions of program and server."),
        ),
    ),
)
ENTRIES = {entry.name: entry for _, entries in SECTIONS for entry in entries}
ALSO = {"list": "ls"}  # what people coming from Ollama type


class LazyGroup(click.Group):
    """Names come from the table; a command's module is imported when the command is asked for."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:
            raise ReaderLeft from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(ENTRIES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name == "help":
            return _help
        entry = ENTRIES.get(ALSO.get(cmd_name, cmd_name))
        if entry is None:
            return None
        command = getattr(import_module(f"portico.cli.{entry.module}"), entry.function)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UnknownCommand(args[0])
        return super().resolve_command(ctx, args)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        from click.shell_completion import CompletionItem

        entries = [entry for entry in ENTRIES.values() if entry.name.startswith(incomplete)]
        return [CompletionItem(entry.name, help=entry.summary) for entry in entries]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        widest = max(map(len, ENTRIES))
        for title, entries in SECTIONS:
            with formatter.section(title):
                formatter.write_dl([(entry.name.ljust(widest), entry.summary) for entry in entries])


class ReaderLeft(Exception):
    """Whoever read our output has closed it. Under this name click does not take it for an error."""


class UnknownCommand(click.UsageError):
    """Nothing is called that; `nearest` is what may have been meant, or None."""

    def __init__(self, name: str) -> None:
        from difflib import get_close_matches

        super().__init__(f"there is no command {name!r}")
        self.nearest = next(iter(get_close_matches(name, ENTRIES, n=1)), None)


SETTINGS: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=LazyGroup, context_settings=SETTINGS, invoke_without_command=True)
@click.version_option(__version__, prog_name="portico", message="%(prog)s %(version)s")
@on_the_group
@click.pass_context
def portico(context: click.Context) -> None:
    """One front for open-weight models: Ollama's and OpenAI's APIs, locally.

    \b
    portico demo                        see it work, offline
    portico serve                       listen on 127.0.0.1:11434
    portico chat                        talk, from a second terminal
    portico COMMAND --help              all about one command
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


@click.command("help", add_help_option=False)
@click.argument("command", required=False)
@click.pass_context
def _help(context: click.Context, command: str | None) -> None:
    """`portico help COMMAND` is `portico COMMAND --help`."""
    root = context.find_root()
    if command is None:
        click.echo(root.get_help())
        return
    found = portico.get_command(root, command)
    if found is None:
        raise UnknownCommand(command)
    click.echo(found.get_help(click.Context(found, info_name=command, parent=root)))

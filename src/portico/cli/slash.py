"""The commands inside a conversation: lines that begin with a slash."""

from __future__ import annotations

import base64
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import click

from portico.cli import show, talk
from portico.cli.failure import Failure
from portico.cli.screen import dim

if TYPE_CHECKING:
    from portico.cli.converse import Session


class Command(NamedTuple):
    name: str
    arguments: str
    summary: str
    act: Callable[[Session, str], None]


class Leave(Exception):
    """/bye"""


def run(session: Session, line: str) -> None:
    """Do what `line` says. Raises Leave, or Failure with what is wrong; the conversation goes on after it."""
    name, _, argument = line.partition(" ")
    name = ALSO.get(name, name)
    command = next((command for command in COMMANDS if command.name == name), None)
    if command is None:
        nearest = get_close_matches(name, [command.name for command in COMMANDS], n=1, cutoff=0.4)
        hint = f"nearest: {nearest[0]}" if nearest else "/help lists them"
        raise Failure("usage", f"there is no command {name}; {hint}")
    command.act(session, argument.strip())


def _help(session: Session, argument: str) -> None:
    for command in COMMANDS:
        session.screen.say(f"{command.name} {command.arguments}".ljust(20) + f" {dim(command.summary)}")
    session.screen.say('"""'.ljust(20) + f" {dim('opens a message of several lines, and closes it')}")
    session.screen.say(
        "Ctrl-C".ljust(20) + f" {dim('stops the answer and keeps it; twice on an empty line leaves')}"
    )


def _set(session: Session, argument: str) -> None:
    name, _, value = argument.partition(" ")
    if not name:
        settings = session.talk.settings()
        for key, kept in settings:
            session.screen.say(f"{key.ljust(18)} {kept}")
        if not settings:
            session.screen.say(dim("everything is at the model's defaults; /set temperature 0.2"))
        return
    if name in ("parameter", "option"):  # Ollama's spelling: /set parameter temperature 0.2
        name, _, value = value.strip().partition(" ")
    try:
        session.talk.set(name, value.strip().strip("\"'") if name != "format" else value.strip())
    except ValueError as error:
        raise Failure("usage", str(error)) from error


def _show(session: Session, argument: str) -> None:
    for line in show.lines(session.talk.model, session.server.show(session.talk.model)):
        session.screen.say(line)
    for name, value in session.talk.settings():
        session.screen.say(f"{name.ljust(18)} {value}")
    session.screen.say(dim(f"{len(session.talk.messages)} messages so far"))


def _model(session: Session, argument: str) -> None:
    if not argument:
        raise Failure("usage", "which model? /model NAME")
    session.use(argument)


def _clear(session: Session, argument: str) -> None:
    session.talk.messages.clear()
    session.images = ()
    session.screen.say(dim("forgotten; the settings stay"))


def _retry(session: Session, argument: str) -> None:
    question = session.talk.take_back()
    if question is None:
        raise Failure("usage", "there is nothing to ask again")
    session.ask(question.content, question.images)


def _undo(session: Session, argument: str) -> None:
    question = session.talk.take_back()
    if question is None:
        raise Failure("usage", "there is nothing to take back")
    session.screen.say(dim(f"taken back: {question.content.splitlines()[0][:60]}"))


def _edit(session: Session, argument: str) -> None:
    text = click.edit(argument)
    if text and text.strip():
        session.ask(text.strip())


def _save(session: Session, argument: str) -> None:
    path = _file(session, argument or session.talk.model)
    session.talk.save(path)
    session.screen.say(dim(f"saved to {path}"))


def _load(session: Session, argument: str) -> None:
    if not argument:
        saved = sorted(path.stem for path in session.chats.glob("*.json"))
        raise Failure("usage", f"which one? saved: {', '.join(saved) or 'none'}")
    loaded = talk.load(_file(session, argument))
    session.use(loaded.model)
    session.talk = loaded
    session.screen.say(dim(f"{len(loaded.messages)} messages with {loaded.model}"))


def _attach(session: Session, argument: str) -> None:
    session.images = (*session.images, read_image(Path(argument).expanduser()))
    session.screen.say(dim("goes with your next message"))


def _bye(session: Session, argument: str) -> None:
    raise Leave


def _file(session: Session, name: str) -> Path:
    """A path where one is typed, else a name in the data folder."""
    if name.endswith(".json") or "/" in name or "\\" in name:
        if Path(name).suffix == ".json":
            return Path(name).expanduser()
        name = name.replace("/", "_").replace("\\", "_")
    return session.chats / f"{name.replace(':', '_')}.json"


def read_image(path: Path) -> str:
    """A picture's bytes in base64, as Ollama's API takes them."""
    try:
        return base64.b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise Failure("file", f"{path}: {error.strerror}") from error


COMMANDS = (
    Command(
        "/set", "NAME VALUE", "system, temperature, num_ctx, think, json, ...; no value: the default", _set
    ),
    Command("/show", "", "the model, and what is set", _show),
    Command("/model", "NAME", "another model, the same conversation", _model),
    Command("/clear", "", "forget the conversation", _clear),
    Command("/retry", "", "ask the last question again", _retry),
    Command("/undo", "", "take back the last question and its answer", _undo),
    Command("/edit", "", "write a message in $EDITOR", _edit),
    Command("/attach", "PATH", "a picture for the next message", _attach),
    Command("/save", "NAME", "keep the conversation, by a name or as FILE.json", _save),
    Command("/load", "NAME", "go on with a kept one", _load),
    Command("/help", "", "this list", _help),
    Command("/bye", "", "leave; so does Ctrl-D", _bye),
)
ALSO = {"/?": "/help", "/exit": "/bye", "/quit": "/bye"}

"""`portico chat`: a conversation in the terminal, or one question and its answer for a script."""

from __future__ import annotations

import json
import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portico.cli import options
from portico.cli.answer import stream
from portico.cli.failure import Failure, usage
from portico.cli.screen import Screen, dim
from portico.cli.server import Server
from portico.cli.slash import read_image
from portico.cli.talk import Talk

if TYPE_CHECKING:
    from portico.cli.address import Address


@click.command()
@click.argument("model", required=False, shell_complete=options.complete_models)
@click.option("-p", "--prompt", help="Ask this, print the answer, leave.")
@click.option("-s", "--system", help="What the model is told before the conversation.")
@options.sampling
@click.option(
    "--image", "images", multiple=True, type=click.Path(path_type=Path), help="A picture to ask about."
)
@click.option("--hide-thinking", is_flag=True, help="Do not show what the model thinks before it answers.")
@options.as_json
@options.address
@options.screen
@options.environ
def chat(
    model: str | None,
    prompt: str | None,
    system: str | None,
    sampling: options.Sampling,
    images: tuple[Path, ...],
    hide_thinking: bool,
    as_json: bool,
    address: Address,
    screen: Screen,
    environ: options.Environ,
) -> int:
    """Talk with MODEL; without a name, with the model that is there.

    \b
    portico chat qwen3:4b
    portico chat -p "Names for a pelican" -o temperature=1.2
    git diff | portico chat -p "Review this"
    """
    question = _question(prompt)
    if question is None and as_json:
        raise usage("--json needs a question", attempt='portico chat --json -p "Say hello"')
    if question == "":
        raise usage("the question is empty", attempt='portico chat -p "Say hello"')
    with Server(address) as server:
        talk = Talk(model=model or the_one_there(server), system=system)
        sampling.apply(talk)
        pictures = tuple(read_image(path) for path in images)
        if question is None:
            return _converse(server, talk, screen, environ, pictures, thinking=not hide_thinking)
        talk.ask(question, pictures)
        answer = stream(server.chat(talk.request()), screen, show=not as_json, thinking=not hide_thinking)
    if as_json:
        screen.answer(json.dumps(answer.as_json(talk.model), ensure_ascii=False))
    elif screen.err_is_terminal and answer.statistics():
        screen.say(dim(f"    {answer.statistics()}"))
    return 130 if answer.stopped else 0


def _converse(
    server: Server,
    talk: Talk,
    screen: Screen,
    environ: options.Environ,
    pictures: tuple[str, ...],
    *,
    thinking: bool,
) -> int:
    from portico.cli.converse import Session

    session = Session(server, talk, screen, home=options.home(environ), thinking=thinking)
    session.images = pictures
    session.use(talk.model)
    return session.run()


def _question(prompt: str | None) -> str | None:
    """What to ask: -p, what is piped in, or both, the prompt first. None: somebody will type."""
    piped = sys.stdin.read().strip() if _is_piped() else None
    if prompt is None:
        return None if sys.stdin.isatty() else piped or ""
    return f"{prompt}\n\n{piped}" if piped else prompt


def _is_piped() -> bool:
    """Whether stdin is a pipe or a file. A terminal is not read, nor a socket or /dev/null left over from
    whoever started us: waiting for their end could take for ever."""
    try:
        mode = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISREG(mode)


def the_one_there(server: Server) -> str:
    """The model to use where none is named: the loaded one, else the first listed."""
    found = [loaded.name for loaded in server.running()] or [listed.name for listed in server.models()]
    if not found:
        raise Failure("no_model", "the server has no model yet", attempt="portico pull NAME")
    return found[0]

"""`portico demo`: a server of its own, a short conversation in each of the two languages, and the end of both."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from portico.cli import options, units
from portico.cli.events import Events
from portico.cli.failure import Failure
from portico.cli.live import Waiting
from portico.cli.screen import Screen, bold, dim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from portico.cli.caller import Api
    from portico.messages import Event
    from portico.process import Child

START_SECONDS = 60.0
END_SECONDS = 10.0
OLLAMA_TURNS = ("My name is Sara. I live in Rome and I like coffee.", "Where do I live?")
OPENAI_TURNS = ("Hello!", "What is 2+3?")
SERVE = (sys.executable, "-P", "-m", "portico", "serve", "--port", "0", "--json", "--end-with-stdin")
NEXT = (
    ("serve", "the same server, on 127.0.0.1:11434"),
    ("chat", "talk with it yourself"),
    ("pull qwen3:4b", "fetch a model that knows more than this one"),
)


PATHS: dict[Api, str] = {"ollama": "/api/chat", "openai": "/v1/chat/completions"}


@click.command()
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line for each thing that happens."
)
@options.screen
@options.environ
def demo(as_json: bool, screen: Screen, environ: options.Environ) -> int:
    """Start a server with the bundled model, talk to it as Ollama's and as OpenAI's clients do, stop it.

    Needs no GPU, no account and no network, and leaves nothing behind.
    """
    told: _Telling = _Lines(screen) if not as_json else _Told(Events())
    told.begin()
    with tempfile.TemporaryDirectory(prefix="portico-demo-") as folder:
        # Only this command and the package decide what the demo shows, not a portico.toml that lies here or
        # variables meant for another server; and what it writes goes when it goes.
        empty = Path(folder, "empty.toml")
        empty.touch()
        unset = {name: "" for name in environ if name.startswith(("PORTICO_", "OLLAMA_"))}
        try:
            asyncio.run(_show(told, screen, empty, unset | {"PORTICO_HOME": folder}))
        except KeyboardInterrupt:
            screen.say(f"{screen.sign('failed')} stopped, and the server with it")
            return 130
    told.end()
    return 0


def _program() -> str:
    """What to type to get this program again: its name, or where it lies if no PATH leads there."""
    if shutil.which("portico"):
        return "portico"
    path = Path(sys.executable).with_name("portico")
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


async def _show(told: _Telling, screen: Screen, config: Path, environment: dict[str, str]) -> None:
    """Everything that was started is ended by the time this returns or raises."""
    from portico.process import Log, launch

    began = time.monotonic()
    child = launch([*SERVE, "--config", str(config)], log=Log(), environment=environment)
    try:
        with Waiting(screen, "starting the server"):
            started = await _started(child)
        url, model = str(started["url"]), next(iter(started["models"]), "default")
        told.started(url, model, time.monotonic() - began)
        told.talks("ollama")
        await _talk(told, url, model, "ollama", OLLAMA_TURNS)
        told.talks("openai")
        await _talk(told, url, model, "openai", OPENAI_TURNS)
    finally:
        with Waiting(screen, "stopping the server"):
            await child.end(END_SECONDS)


async def _talk(told: _Telling, url: str, model: str, api: Api, turns: tuple[str, ...]) -> None:
    from portico.cli.caller import Caller
    from portico.messages import ChatRequest, Message, Sampling, Text

    caller = Caller(url, api)
    said: list[Message] = []
    sampling = Sampling(temperature=0.0, max_tokens=64)
    try:
        for turn in turns:
            said.append(Message(role="user", parts=(Text(text=turn),)))
            told.asks(turn)
            began = time.monotonic()
            request = ChatRequest(model=model, messages=tuple(said), sampling=sampling, stream=True)
            answer = await _answer(told, caller.stream(request))
            told.answered(api, turn, answer, time.monotonic() - began)
            said.append(Message(role="assistant", parts=(Text(text=answer),)))
    finally:
        caller.close()


async def _answer(told: _Telling, arriving: AsyncIterator[list[Event]]) -> str:
    """The answer, told as it streams."""
    from portico.messages import TextDelta

    text = ""
    async for events in arriving:
        for event in events:
            if isinstance(event, TextDelta):
                text += event.text
                told.says(event.text)
    if not text.strip():
        raise Failure("no_answer", "the model gave no answer")
    return text


async def _started(child: Child) -> dict[str, Any]:
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await child.announcement()
    except TimeoutError as error:
        raise Failure("timeout", f"the server was not ready within {START_SECONDS:.0f} s") from error
    if line is None:
        await child.wait()
        raise _what_it_said(child)
    started: dict[str, Any] = json.loads(line)
    return started


class _Telling(Protocol):
    """What is told of the demo, in this order; `asks`, `says`, `answered` for each turn."""

    def begin(self) -> None: ...

    def started(self, url: str, model: str, seconds: float) -> None: ...

    def talks(self, api: Api) -> None: ...

    def asks(self, text: str) -> None: ...

    def says(self, piece: str) -> None: ...

    def answered(self, api: Api, prompt: str, answer: str, seconds: float) -> None: ...

    def end(self) -> None: ...


class _Lines:
    """Both sides of the talk, as it streams, for somebody who watches."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen

    def begin(self) -> None:
        self._screen.answer(f"{bold('Portico demo')}: no GPU, no account, no download")

    def started(self, url: str, model: str, seconds: float) -> None:
        took = units.duration(seconds)
        self._step(f"1/3  a server with {model}, ready after {took}", f"portico serve   {url}")

    def talks(self, api: Api) -> None:
        what = {
            "ollama": "2/3  as Ollama's clients talk to it",
            "openai": "3/3  as OpenAI's clients talk to it",
        }
        self._step(what[api], f"POST {PATHS[api]}")

    def _step(self, what: str, how: str) -> None:
        self._screen.answer(f"{bold(what.ljust(52))} {dim(how)}")

    def asks(self, text: str) -> None:
        self._screen.answer(f"       you    {text}")
        self._screen.answer("       model  ", end="")

    def says(self, piece: str) -> None:
        self._screen.answer(self._screen.shown(piece), end="")

    def answered(self, api: Api, prompt: str, answer: str, seconds: float) -> None:
        self._screen.answer("")

    def end(self) -> None:
        program = _program()
        self._screen.answer("Everything is stopped. Next, in two terminals:")
        for arguments, what in NEXT:
            self._screen.answer(f"  {bold(f'{program} {arguments}'.ljust(42))} {dim(what)}")


class _Told:
    """A JSON object a line for a program: the server started, each answer whole, the server stopped."""

    def __init__(self, events: Events) -> None:
        self._events = events

    def begin(self) -> None: ...

    def started(self, url: str, model: str, seconds: float) -> None:
        self._events.tell("server_started", url=url, model=model, took_ms=round(seconds * 1000))

    def talks(self, api: Api) -> None: ...

    def asks(self, text: str) -> None: ...

    def says(self, piece: str) -> None: ...

    def answered(self, api: Api, prompt: str, answer: str, seconds: float) -> None:
        took = round(seconds * 1000)
        self._events.tell("answer", api=api, path=PATHS[api], prompt=prompt, text=answer, took_ms=took)

    def end(self) -> None:
        self._events.tell("server_stopped")


def _what_it_said(child: Child) -> Failure:
    """Why the server did not start: its own error, which is JSON, or else the last lines of its log."""
    lines = [line for line in child.log.tail(5).splitlines() if line.strip()]
    try:
        error = json.loads(lines[-1])["error"]
        return Failure(error["code"], error["message"], facts=tuple(error["facts"].items()))
    except (IndexError, KeyError, TypeError, ValueError):
        facts = tuple(("log", line) for line in lines)
        return Failure("engine_start_failed", f"the server ended with code {child.exit_code}", facts=facts)

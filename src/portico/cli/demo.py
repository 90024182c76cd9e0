"""`portico demo`: a server of its own, a short conversation in each of the two languages, and the end of both."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portico.cli import options, units
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


@click.command()
@options.screen
@options.environ
def demo(screen: Screen, environ: options.Environ) -> int:
    """Start a server with the bundled model, talk to it as Ollama's and as OpenAI's clients do, stop it.

    Needs no GPU, no account and no network, and leaves nothing behind.
    """
    screen.answer(f"{bold('Portico demo')}: no GPU, no account, no download")
    with tempfile.TemporaryDirectory(prefix="portico-demo-") as folder:
        # Only this command and the package decide what the demo shows, not a portico.toml that lies here or
        # variables meant for another server; and what it writes goes when it goes.
        empty = Path(folder, "empty.toml")
        empty.touch()
        unset = {name: "" for name in environ if name.startswith(("PORTICO_", "OLLAMA_"))}
        try:
            asyncio.run(_show(screen, empty, unset | {"PORTICO_HOME": folder}))
        except KeyboardInterrupt:
            screen.say(f"{screen.sign('failed')} stopped, and the server with it")
            return 130
    program = _program()
    screen.answer("Everything is stopped. Next, in two terminals:")
    for arguments, what in NEXT:
        screen.answer(f"  {bold(f'{program} {arguments}'.ljust(42))} {dim(what)}")
    return 0


def _program() -> str:
    """What to type to get this program again: its name, or where it lies if no PATH leads there."""
    if shutil.which("portico"):
        return "portico"
    path = Path(sys.executable).with_name("portico")
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


async def _show(screen: Screen, config: Path, environment: dict[str, str]) -> None:
    """Everything that was started is ended by the time this returns or raises."""
    from portico.process import Log, launch

    began = time.monotonic()
    child = launch([*SERVE, "--config", str(config)], log=Log(), environment=environment)
    try:
        with Waiting(screen, "starting the server"):
            started = await _started(child)
        talker = _Talker(screen, str(started["url"]), next(iter(started["models"]), "default"))
        took = units.duration(time.monotonic() - began)
        talker.step(f"1/3  a server with {talker.model}, ready after {took}", f"portico serve   {talker.url}")
        talker.step("2/3  as Ollama's clients talk to it", "POST /api/chat")
        await talker.talk("ollama", OLLAMA_TURNS)
        talker.step("3/3  as OpenAI's clients talk to it", "POST /v1/chat/completions")
        await talker.talk("openai", OPENAI_TURNS)
    finally:
        with Waiting(screen, "stopping the server"):
            await child.end(END_SECONDS)


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


class _Talker:
    """Talks to one server and shows both sides."""

    def __init__(self, screen: Screen, url: str, model: str) -> None:
        self.screen, self.url, self.model = screen, url, model

    def step(self, what: str, how: str) -> None:
        self.screen.answer(f"{bold(what.ljust(52))} {dim(how)}")

    async def talk(self, api: Api, turns: tuple[str, ...]) -> None:
        from portico.cli.caller import Caller
        from portico.messages import ChatRequest, Message, Sampling, Text

        caller = Caller(self.url, api)
        said: list[Message] = []
        sampling = Sampling(temperature=0.0, max_tokens=64)
        try:
            for turn in turns:
                said.append(Message(role="user", parts=(Text(text=turn),)))
                self.screen.answer(f"       you    {turn}")
                request = ChatRequest(model=self.model, messages=tuple(said), sampling=sampling, stream=True)
                answer = await self._show(caller.stream(request))
                said.append(Message(role="assistant", parts=(Text(text=answer),)))
        finally:
            caller.close()

    async def _show(self, arriving: AsyncIterator[list[Event]]) -> str:
        """The answer, shown as it streams."""
        from portico.messages import TextDelta

        text = ""
        self.screen.answer("       model  ", end="")
        async for events in arriving:
            for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
                    self.screen.answer(self.screen.shown(event.text), end="")
        self.screen.answer("")
        if not text.strip():
            raise Failure("no_answer", "the model gave no answer")
        return text


def _what_it_said(child: Child) -> Failure:
    """Why the server did not start: its own error, which is JSON, or else the last lines of its log."""
    lines = [line for line in child.log.tail(5).splitlines() if line.strip()]
    try:
        error = json.loads(lines[-1])["error"]
        return Failure(error["code"], error["message"], facts=tuple(error["facts"].items()))
    except (IndexError, KeyError, TypeError, ValueError):
        facts = tuple(("log", line) for line in lines)
        return Failure("engine_start_failed", f"the server ended with code {child.exit_code}", facts=facts)

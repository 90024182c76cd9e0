"""The terminal conversation: reads, asks, shows, until somebody leaves."""

from __future__ import annotations

import time
from pathlib import Path

from portico.cli import slash
from portico.cli.answer import stream
from portico.cli.failure import Failure, as_lines
from portico.cli.live import Waiting
from portico.cli.prompt import Prompt
from portico.cli.replies import same_model
from portico.cli.screen import Screen, dim
from portico.cli.server import Server
from portico.cli.talk import Talk

LEAVE_SECONDS = 2.0
"""A second Ctrl-C on an empty line within this time leaves."""


class Session:
    """One conversation in a terminal. Owns the talk; slash commands change it through here."""

    def __init__(self, server: Server, talk: Talk, screen: Screen, *, home: Path, thinking: bool) -> None:
        self.server, self.talk, self.screen = server, talk, screen
        self.chats = home / "chats"
        self.images: tuple[str, ...] = ()
        self.thinking = thinking
        self.context: int | None = None
        words = [command.name for command in slash.COMMANDS]
        self.prompt = Prompt(screen, history=home / "chat_history", words=words)

    def use(self, model: str) -> None:
        """Talk with `model` from now on; returns when it is loaded."""
        shown = self.server.show(model)
        with Waiting(self.screen, f"loading {model}"):
            self.server.load(model, self.talk.keep_alive)
        self.talk.model = model
        self.context = self._context_in_use(model) or shown.trained_context

    def _context_in_use(self, model: str) -> int | None:
        running = self.server.running()
        return next((loaded.context_length for loaded in running if same_model(loaded.name, model)), None)

    def ask(self, text: str, images: tuple[str, ...] = ()) -> None:
        """One question and its answer, which is kept even if it was stopped."""
        self.talk.ask(text, images)
        try:
            answer = stream(self.server.chat(self.talk.request()), self.screen, thinking=self.thinking)
        except Failure:
            self.talk.take_back()
            raise
        self.talk.answered(answer.text)
        if answer.stopped:
            self.screen.say(dim("    stopped; what was said is kept" if answer.text else "    stopped"))
        elif statistics := answer.statistics(self.context):
            self.screen.say(dim(f"    {statistics}"))

    def run(self) -> int:
        """Until /bye, Ctrl-D (0) or Ctrl-C twice (130)."""
        self.screen.say(dim(self._greeting()))
        warned = 0.0
        while True:
            try:
                text = self.prompt.read()
            except EOFError:
                self.screen.say()
                return 0
            except KeyboardInterrupt:
                self.screen.say()
                if self.prompt.half_typed:
                    warned = 0.0
                    continue
                if time.monotonic() - warned < LEAVE_SECONDS:
                    return 130
                warned = time.monotonic()
                self.screen.say(dim("Ctrl-C again leaves; so do Ctrl-D and /bye"))
                continue
            try:
                self._answer(text)
            except slash.Leave:
                return 0
            except KeyboardInterrupt:  # while a model loads, or between two lines of output
                self.screen.say()
            except Failure as failure:
                self.screen.say("\n".join(as_lines(failure)))

    def _answer(self, text: str) -> None:
        if text.startswith("/") and "\n" not in text.partition(" ")[0]:
            slash.run(self, text)
        elif text:
            images, self.images = self.images, ()
            self.ask(text, images)

    def _greeting(self) -> str:
        context = f", context {self.context:,}" if self.context else ""
        return f'{self.talk.model}{context}.  /help lists commands, """ opens a long message, Ctrl-D leaves.'

"""One answer on the screen as it streams: the text to stdout; thinking and statistics, dim, to stderr."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec

from portico.cli import units
from portico.cli.live import Waiting
from portico.cli.replies import Chunk
from portico.cli.screen import Screen, dim


class Answer(msgspec.Struct, kw_only=True):
    """What arrived, and when: seconds since the request was sent."""

    text: str = ""
    thinking: str = ""
    stopped: bool = False
    """By the user, with Ctrl-C; `text` is what had arrived."""
    finish_reason: str | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    first: float | None = None
    last: float | None = None
    took: float = 0.0

    @property
    def rate(self) -> float | None:
        """Tokens a second between the first and the last."""
        if self.output_tokens is None or self.first is None or self.last is None or self.last <= self.first:
            return None
        return (self.output_tokens - 1) / (self.last - self.first) if self.output_tokens > 1 else None

    def statistics(self, context: int | None = None) -> str:
        """318 tok, 61 tok/s, first 142 ms, context 4% used."""
        parts = []
        if self.output_tokens is not None:
            parts.append(f"{units.rough(self.output_tokens)} tok")
        if self.rate is not None:
            parts.append(f"{units.rate(self.rate)} tok/s")
        if self.first is not None:
            parts.append(f"first {units.duration(self.first)}")
        if context and self.input_tokens is not None:
            used = units.percent(self.input_tokens + (self.output_tokens or 0), context)
            parts.append(f"context {used}% used")
        if self.finish_reason == "length":
            parts.append("cut at the token limit")
        return ", ".join(parts)

    def as_json(self, model: str) -> dict[str, Any]:
        return {
            "schema": 1,
            "model": model,
            "text": self.text,
            "thinking": self.thinking or None,
            "finish_reason": self.finish_reason,
            "tokens_in": self.input_tokens,
            "tokens_out": self.output_tokens,
            "first_token_ms": _ms(self.first),
            "took_ms": _ms(self.took),
            "tokens_per_s": round(self.rate, 2) if self.rate is not None else None,
        }


def _ms(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1000, 3)


def stream(chunks: Iterator[Chunk], screen: Screen, *, show: bool = True, thinking: bool = True) -> Answer:
    """Read an answer to its end, showing it on the way. Ctrl-C closes the connection, which stops the engine,
    and gives back what had arrived. `show=False` only collects."""
    answer, texts, thoughts = Answer(), [], []
    shower = _Shower(screen, thinking=thinking) if show else None
    began = time.monotonic()
    wait = Waiting(screen, "waiting for the first token")
    try:
        with wait:
            for chunk in chunks:
                if chunk.text or chunk.thought:
                    answer.last = time.monotonic() - began
                    if answer.first is None:
                        answer.first = answer.last
                        wait.over()
                    texts.append(chunk.text)
                    thoughts.append(chunk.thought)
                    if shower is not None:
                        shower.show(chunk)
                if chunk.done:
                    answer.finish_reason = chunk.done_reason
                    answer.input_tokens, answer.output_tokens = chunk.prompt_eval_count, chunk.eval_count
    except KeyboardInterrupt:
        answer.stopped, answer.finish_reason = True, "stopped"
        chunks.close()  # type: ignore[attr-defined]  # a generator: closing it hangs up
    finally:
        if shower is not None:
            shower.end()
    answer.took = time.monotonic() - began
    answer.text, answer.thinking = "".join(texts), "".join(thoughts)
    return answer


class _Shower:
    """Writes pieces as they come and knows whether the line is ended."""

    def __init__(self, screen: Screen, *, thinking: bool) -> None:
        self.screen, self.thinking = screen, thinking and screen.err_is_terminal
        self.in_thought = False
        self.at_start = True

    def show(self, chunk: Chunk) -> None:
        if chunk.thought and self.thinking:
            self.in_thought = True
            self.screen.say(dim(self.screen.shown(chunk.thought)), end="")
        if chunk.text:
            if self.in_thought:
                self.in_thought = False
                self.screen.say("\n")
            self.screen.answer(self.screen.shown(chunk.text), end="")
            self.at_start = chunk.text.endswith("\n")

    def end(self) -> None:
        if self.in_thought:
            self.screen.say()
        if not self.at_start:
            self.screen.answer("")

"""A conversation as the terminal keeps it, and its settings. No I/O but reading and writing its file."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from portico.cli.failure import Failure
from portico.cli.replies import Message

OPTIONS = (
    "temperature", "top_p", "top_k", "min_p", "seed", "stop", "num_predict", "num_ctx", "repeat_penalty",
    "presence_penalty", "frequency_penalty", "typical_p", "repeat_last_n", "ignore_eos", "min_tokens",
)  # fmt: skip
"""The options people set. Others are sent too: engines know names that no list of ours does."""
OWN_SETTINGS = ("system", "think", "json", "format", "keep_alive")
SWITCHES = {"on": True, "true": True, "off": False, "false": False}


class Talk(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Owned by one command. `messages` are user and assistant turns; the system text stands apart, so that
    changing it changes the whole conversation."""

    model: str
    system: str | None = None
    options: dict[str, Any] = {}
    think: bool | str | None = None
    format: Any = None
    keep_alive: str | float | None = None
    messages: list[Message] = []

    def request(self) -> dict[str, Any]:
        """The body of /api/chat for what has been said so far."""
        before = [Message(role="system", content=self.system)] if self.system else []
        body: dict[str, Any] = {"model": self.model, "messages": [*before, *self.messages], "stream": True}
        settings = {"think": self.think, "format": self.format, "keep_alive": self.keep_alive}
        body |= {name: value for name, value in settings.items() if value is not None}
        return body | ({"options": self.options} if self.options else {})

    def ask(self, text: str, images: tuple[str, ...] = ()) -> None:
        self.messages.append(Message(role="user", content=text, images=images))

    def answered(self, text: str) -> None:
        """An answer, whole or stopped. One without a word is no turn: the question is taken back with it."""
        if text:
            self.messages.append(Message(role="assistant", content=text))
        else:
            self.take_back()

    def take_back(self) -> Message | None:
        """Forget the last question and what came after it. Returns the question."""
        while self.messages:
            last = self.messages.pop()
            if last.role == "user":
                return last
        return None

    def set(self, name: str, value: str) -> None:
        """`/set NAME VALUE`; an empty value goes back to the default. Raises ValueError with what is wrong."""
        match name:
            case "system":
                self.system = value or None
            case "think":
                self.think = SWITCHES.get(value.lower(), value) if value else True
            case "nothink":
                self.think = False
            case "json":
                self.format = None if SWITCHES.get(value.lower()) is False else "json"
            case "format":
                self.format = _format(value)
            case "keep_alive":
                self.keep_alive = _literal(value) if value else None
            case _:
                self.set_option(name, value)

    def set_option(self, name: str, value: str) -> None:
        """One of the engine's options, such as temperature; an empty value goes back to the default."""
        key, parsed = option(name, value) if value else (known_option(name), None)
        options = {each: kept for each, kept in self.options.items() if each != key}
        self.options = options if parsed is None else options | {key: parsed}

    def settings(self) -> list[tuple[str, str]]:
        """What differs from the defaults, as (name, value)."""
        own = {
            "system": self.system,
            "think": self.think,
            "format": self.format,
            "keep_alive": self.keep_alive,
        }
        named = {name: value for name, value in own.items() if value is not None} | self.options
        return [(name, value if isinstance(value, str) else _written(value)) for name, value in named.items()]

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        text = msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"
        path.touch(mode=0o600)  # a conversation is nobody else's business
        path.write_bytes(text)


def load(path: Path) -> Talk:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Talk)
    except OSError as error:
        raise Failure("file", f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise Failure("file", f"{path} is not a saved conversation: {error}") from error


def option(name: str, value: str) -> tuple[str, Any]:
    """An option and its value as JSON. Raises ValueError for a name that is nearly a known one."""
    key, parsed = known_option(name), _literal(value)
    return key, [parsed] if key == "stop" and isinstance(parsed, str) else parsed


def known_option(name: str) -> str:
    key = name.strip().lower().replace("-", "_")
    known = (*OPTIONS, *OWN_SETTINGS)
    if key not in known:
        # Only what is nearly a known name is a mistake: top_a is no misspelt top_k, some engines have both.
        nearest = get_close_matches(key, known, n=1, cutoff=0.85)
        if nearest:
            raise ValueError(f"there is no option {name!r}; nearest: {nearest[0]}")
        if not key.isidentifier():
            raise ValueError(f"{name!r} is not the name of an option")
    return key


def _literal(value: str) -> Any:
    """A number, true, a list, ... as JSON has it; anything else is text."""
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return value


def _format(value: str) -> Any:
    if value in ("", "off"):
        return None
    parsed = _literal(value)
    if parsed != "json" and not isinstance(parsed, dict):
        raise ValueError("format is json, off or a JSON schema")
    return parsed


def _written(value: Any) -> str:
    return msgspec.json.encode(value).decode()

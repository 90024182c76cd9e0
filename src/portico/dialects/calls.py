"""Ids for tool calls and their results where callers leave them out, as Ollama's clients may.

An engine wants an id on both sides. It is made from the call's place in the conversation and not by
chance: the same conversation must give the same prompt, or no prefix of it is found in the engine's cache.
"""

from __future__ import annotations

import secrets
import string

_ALPHABET = string.ascii_lowercase + string.digits


def new_id() -> str:
    """An id as Ollama writes them: `call_` and 8 of a-z0-9."""
    return "call_" + "".join(secrets.choice(_ALPHABET) for _ in range(8))


class CallIds:
    """Reads one conversation in order and pairs its calls with its results."""

    def __init__(self) -> None:
        self._count = 0
        self._open: list[tuple[str, str]] = []  # (id, name) of calls without a result

    def turn(self) -> None:
        """An assistant's message begins: calls of an earlier turn that nobody answered are given up, else
        the answers of this turn would be paired with them."""
        self._open.clear()

    def call(self, id: str, name: str) -> str:
        """The id of the next call."""
        id = id or self._next()
        self._open.append((id, name))
        return id

    def result(self, id: str, name: str) -> tuple[str, str]:
        """Id and name of the next result: (1) by its id, (2) the first open call of its name, (3) the first
        open call, (4) an id of its own."""
        if id:
            self._open = [call for call in self._open if call[0] != id]  # (1)
            return id, name
        named = [call for call in self._open if call[1] == name]
        for call in named or self._open:  # (2), (3)
            self._open.remove(call)
            return call[0], name or call[1]
        return self._next(), name  # (4)

    def _next(self) -> str:
        self._count += 1
        return f"call_{self._count:08d}"

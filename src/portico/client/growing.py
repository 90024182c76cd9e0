"""JSON that is still being written, as the value it is so far."""

from __future__ import annotations

from typing import Any

import msgspec

_OF_NUMBERS = "+-.0123456789eE"
NOTHING = object()
"""Not even the beginning of a value."""


class Parsed(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a stream with an output type: the answer so far. Each value is a prefix of the next: texts, lists and
    objects grow at their end, a number, true, false or null comes whole."""

    value: Any
    """Plain lists, dicts and texts while it grows; at the end of the type that was asked for."""
    whole: bool = False
    """It is the last one, and was checked."""


class Growing:
    """Owns the text of one answer. `add` gives the value so far, or NOTHING where there is no news."""

    def __init__(self, *, wrapped: bool) -> None:
        self._text, self._wrapped = "", wrapped
        self._in_text = self._escaped = False
        self._last: Any = NOTHING

    def add(self, piece: str) -> Any:
        for char in piece:
            if self._escaped:
                self._escaped = False
            elif self._in_text and char == "\\":
                self._escaped = True
            elif char == '"':
                self._in_text = not self._in_text
        self._text += piece
        value = self._value()
        if value is NOTHING or value == self._last:
            return NOTHING
        self._last = value
        return value

    def _value(self) -> Any:
        from pydantic_core import from_json

        text = self._text
        if not self._in_text:
            # 12 may become 123: a number counts when something follows it.
            rest = text.rstrip(_OF_NUMBERS)
            if text[len(rest) :][:1] in "-0123456789":
                text = rest
        try:
            value = from_json(text, allow_partial="trailing-strings")
        except ValueError:
            return NOTHING
        if not self._wrapped:
            return value
        return value.get("value", NOTHING) if isinstance(value, dict) else NOTHING

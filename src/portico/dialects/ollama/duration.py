"""Durations as Ollama's clients write them: seconds as a number, or Go's `1h30m`."""

from __future__ import annotations

import re

from portico.errors import InvalidRequest

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_TERM = r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)"
_terms = re.compile(_TERM)
_duration = re.compile(rf"[+-]?(?:{_TERM})+")
_number = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)")


def read_duration(sent: object, param: str = "keep_alive") -> float | None:
    """Seconds; None for null. Negative means for ever. A number in a text without a unit counts as seconds,
    which Go refuses. Raises InvalidRequest."""
    if sent is None:
        return None
    if isinstance(sent, int | float) and not isinstance(sent, bool):
        return float(min(max(sent, -1e18), 1e18))  # an integer of 400 digits has no float
    if not isinstance(sent, str):
        raise InvalidRequest(f"Invalid {param!r}: expected a number of seconds or a duration.", param=param)
    text = sent.strip()
    if _number.fullmatch(text):
        return float(text)
    if not _duration.fullmatch(text):
        raise InvalidRequest(f'time: invalid duration "{sent}"', param=param)
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _terms.findall(text))
    return -seconds if text.startswith("-") else seconds

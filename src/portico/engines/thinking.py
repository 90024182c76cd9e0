"""Whether a model thinks when nobody says so. Its chat template has a default; llama.cpp's own is always "yes"."""

from __future__ import annotations

import re
from functools import lru_cache

from portico.engines import ModelSpec

_SWITCH = r"(?<![\w.\"'])(?:enable_)?thinking\b"
_BARE = rf"{_SWITCH}(?!\s*(?:is|==|!=|\||=))"
# The default that a template gives its switch: set, by a filter, or where it is not defined.
_DEFAULT = re.compile(
    rf"{_SWITCH}\s*(?:=|\|\s*default\()\s*(true|false)\b|{_SWITCH} is defined else (true|false)\b",
    re.IGNORECASE,
)
# Whether it is set is asked alone, and its value inside: unset, nothing of that happens.
_GUARDED = re.compile(rf"\bif {_SWITCH} is defined\s*[-+]?%}}")
_WHEN_ASKED = re.compile(
    rf"{_SWITCH} is defined and {_SWITCH}(?!\s*(?:is false|is not|==\s*false|!=))"
    rf"|\b(?:el)?if\s*\(?\s*(?:not\s+)?{_BARE}|\band\s*\(?\s*{_BARE}",
    re.IGNORECASE,
)


def thinks_unasked(spec: ModelSpec) -> bool:
    """False for a template that thinks only when its switch is on, and leaves it off where it is not set."""
    return _by_default(spec.chat_template or spec.facts.chat_template or "")


@lru_cache(maxsize=64)
def _by_default(template: str) -> bool:
    """Templates have thousands of characters, and every conversation asks."""
    if default := _DEFAULT.search(template):
        return (default[1] or default[2]).lower() == "true"
    return _GUARDED.search(template) is not None or _WHEN_ASKED.search(template) is None

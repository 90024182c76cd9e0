"""Whether a model thinks when nobody says so. Its chat template has a default; llama.cpp's own is always "yes"."""

from __future__ import annotations

import re

from portico.engines import ModelSpec

_SWITCH = r"(?<![\w.\"'])(?:enable_)?thinking\b"
_DEFAULT = re.compile(rf"{_SWITCH}\s*(?:=|\|\s*default\()\s*(true|false)\b", re.IGNORECASE)
_WHEN_ASKED = re.compile(
    rf"{_SWITCH} is defined and {_SWITCH}(?!\s*(?:is false|is not|==\s*false|!=))"
    rf"|\bif (?:not )?{_SWITCH}(?!\s*(?:is|==|!=|\|))",
    re.IGNORECASE,
)


def thinks_unasked(spec: ModelSpec) -> bool:
    """False for a template that thinks only when its switch is on, and leaves it off where it is not set."""
    template = spec.chat_template or spec.facts.chat_template or ""
    if default := _DEFAULT.search(template):
        return default[1].lower() == "true"
    return _WHEN_ASKED.search(template) is None

"""Keywords of JSON schema that a grammar does not hold an answer to: which of them a schema has, and where."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

NUMBERS = "bounds of a number"
PATTERN = "pattern without ^ and $, or with a look-around"
LLAMACPP = frozenset(
    {
        "multipleOf",
        "uniqueItems",
        "contains",
        "not",
        "if",
        "minProperties",
        "maxProperties",
        "propertyNames",
        "patternProperties",
        "dependentRequired",
        "dependentSchemas",
        NUMBERS,
        PATTERN,
    }
)
"""Measured with the embedded engine, and listed as limitations in grammars/README.md of llama.cpp (November 2026)."""
VLLM = frozenset({"not", "if", "dependentRequired", "dependentSchemas"})
"""Measured with 0.32 and its own choice of grammars; it refuses others itself (uniqueItems, contains), and names them."""
BY_SOFTWARE = {"llama.cpp": LLAMACPP, "vLLM": VLLM}

_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_ANCHORED = re.compile(r"\^(?!.*\(\?[=!<]).*\$", re.DOTALL)
_OF_NAMES = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
_OF_ONE = ("items", "additionalProperties", "contains", "not", "if", "then", "else", "propertyNames")
_OF_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")


class Keyword(NamedTuple):
    """`name` is one of LLAMACPP, `word` the keyword as the schema has it, `place` its path."""

    name: str
    word: str
    place: str

    def __str__(self) -> str:
        return f"{self.word} at {self.place}" if self.place else self.word


def keywords(schema: Any, place: str = "") -> Iterator[Keyword]:
    """Those that some engine's grammar overlooks. A name under `properties` is no keyword."""
    if not isinstance(schema, dict):
        return
    for word, value in schema.items():
        inside = f"{place}.{word}" if place else word
        if word in LLAMACPP and value is not False:
            yield Keyword(word, word, place)
        elif word in _BOUNDS and schema.get("type") == "number":
            yield Keyword(NUMBERS, word, place)
        elif word == "pattern" and not _ANCHORED.fullmatch(str(value)):
            yield Keyword(PATTERN, word, place)
        if word in _OF_NAMES and isinstance(value, dict):
            for name, each in value.items():
                yield from keywords(each, f"{inside}.{name}")
        elif word in _OF_ONE:
            yield from keywords(value, inside)
        elif word in _OF_SEVERAL and isinstance(value, list):
            for at, each in enumerate(value):
                yield from keywords(each, f"{inside}[{at}]")

"""Which schemas are so plain that every engine's grammar means the same by them. Pure."""

from __future__ import annotations

from typing import Any

_DEEPEST = 24
"""Levels; engines have limits of their own."""
_NOTES = {"title", "description", "default", "examples", "type", "enum", "const", "required"}
_NOTES |= {"minItems", "maxItems", "minLength", "maxLength"}
_BY_NAME = {"properties", "$defs", "definitions"}
_LOCAL = ("#/$defs/", "#/definitions/")


def is_plain(schema: Any, *, level: int = 0) -> bool:
    """It says what types, properties, items, choices and lengths there are, as a class of pydantic does, and nothing
    that is said in another way too, such as patterns and formats."""
    if isinstance(schema, bool):
        return True
    if not isinstance(schema, dict) or level > _DEEPEST:
        return False
    return all(_is_plain_part(key, value, level + 1) for key, value in schema.items())


def _is_plain_part(key: str, value: Any, level: int) -> bool:
    if key in _NOTES:
        return True
    if key in _BY_NAME:
        return isinstance(value, dict) and all(is_plain(each, level=level) for each in value.values())
    if key in ("items", "additionalProperties"):
        return is_plain(value, level=level)
    if key == "anyOf":
        return isinstance(value, list) and all(is_plain(each, level=level) for each in value)
    return key == "$ref" and isinstance(value, str) and value.startswith(_LOCAL)

"""How an answer is judged: its form, whatever it says, and its value."""

from __future__ import annotations

import json
from typing import Any

from recipe.sample import Message, Sample, called

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "null": type(None),
}


def well_formed(sample: Sample, got: Message) -> bool:
    """The right kind of answer.

    Where calls are wanted: as many of the same tools, with arguments as the tools' definitions ask for, and text
    beside them only if there should be some. Where the answer has a schema: JSON that fits it. Else: some text.
    JSON and text are also what the sample's own `form` asks, and with thinking on there is a thought.
    """
    if sample.thinking and not (got.get("reasoning_content") or "").strip():
        return False
    if wanted := called(sample.answer):
        given = called(got)
        tools = {tool["function"]["name"]: tool["function"].get("parameters") for tool in sample.tools or []}
        return (
            sorted(name for name, _ in given) == sorted(name for name, _ in wanted)
            and all(
                isinstance(said, dict) and fits(tools.get(name) or {"properties": {}}, said)
                for name, said in given
            )
            and bool(text(got)) == bool(text(sample.answer))
        )
    if got.get("tool_calls") or not text(got):
        return False
    if sample.schema is not None:
        try:
            value = json.loads(text(got))
        except ValueError:
            return False
        if not fits(sample.schema, value):
            return False
    return sample.form(got) if sample.form else True


def right(sample: Sample, got: Message) -> bool:
    """Exactly the wanted value: equal calls and equal text beside them; equal JSON, in any order of keys, where the
    answer has a schema; else equal text. White space at the ends of a text does not count."""
    wanted = sample.answer
    if called(wanted) or called(got):
        return same(called(wanted), called(got)) and text(got) == text(wanted)
    if text(got) == text(wanted):
        return True
    if sample.schema is None:
        return False
    try:
        return same(json.loads(text(got)), json.loads(text(wanted)))
    except ValueError:
        return False


def text(message: Message) -> str:
    return (message.get("content") or "").strip()


def same(one: Any, other: Any) -> bool:
    """Equal as JSON. To Python 1 is True and 5 is 5.0."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def fits(schema: dict[str, Any], value: Any) -> bool:
    """Whether a value has the shape that a JSON schema asks for, as far as the recipe's schemas go. In two things
    stricter than the standard: an object has no properties that its schema does not name, and 5.0 is no integer."""
    if "anyOf" in schema:
        return any(fits(branch, value) for branch in schema["anyOf"])
    if "const" in schema and not same(schema["const"], value):
        return False
    if "enum" in schema and not any(same(each, value) for each in schema["enum"]):
        return False
    if "type" in schema and not _is(schema["type"], value):
        return False
    if isinstance(value, dict):
        properties = schema.get("properties")
        return all(name in value for name in schema.get("required", ())) and (
            properties is None
            or all(name in properties and fits(properties[name], each) for name, each in value.items())
        )
    if isinstance(value, list) and "items" in schema:
        return all(fits(schema["items"], each) for each in value)
    return True


def _is(kinds: str | list[str], value: Any) -> bool:
    for kind in [kinds] if isinstance(kinds, str) else kinds:
        if isinstance(value, bool) and kind != "boolean":
            continue
        if isinstance(value, _TYPES[kind]):
            return True
    return False

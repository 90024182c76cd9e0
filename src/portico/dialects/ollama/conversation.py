"""Messages of a chat, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from portico.dialects import body, images
from portico.dialects.calls import CallIds
from portico.dialects.ollama import wire
from portico.errors import InvalidRequest
from portico.messages import JSON, Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

_MAX_DEPTH = 100

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}

# ---- reading -----------------------------------------------------------------------------------


def read(messages: Sequence[wire.Message]) -> tuple[Message, ...]:
    """Roles in any case. Results find their calls by id, name or order. Raises InvalidRequest."""
    ids = CallIds()
    return tuple(_message(message, ids, f"messages[{place}]") for place, message in enumerate(messages))


def _message(message: wire.Message, ids: CallIds, place: str) -> Message:
    role = _ROLES.get(message.role.lower())
    if role is None:
        raise InvalidRequest(f"invalid role: {message.role!r}", param=f"{place}.role")
    shown = read_images(message.images, f"{place}.images")
    text = message.content if isinstance(message.content, str) else ""
    if role == "tool":
        id, name = ids.result(message.tool_call_id or "", message.tool_name or message.name or "")
        return Message(role=role, parts=(ToolResult(id=id, name=name, text=text), *shown))
    parts: list[Part] = [*shown]
    if text:
        parts.append(Text(text=text))
    if role == "assistant":
        if message.thinking:
            parts.insert(0, Reasoning(text=message.thinking))
        ids.turn()
        parts += [_call(call, ids) for call in message.tool_calls or ()]
    return Message(role=role, parts=tuple(parts), name=message.name)


def read_images(sent: Sequence[str] | None, place: str) -> tuple[Image, ...]:
    return tuple(
        Image(url=images.url(image, f"{place}[{index}]", links=False))
        for index, image in enumerate(sent or ())
    )


def _call(call: wire.ToolCall, ids: CallIds) -> ToolCall:
    """The arguments become text, the same text each time: templates render it into the prompt."""
    arguments = call.function.arguments
    text = arguments if isinstance(arguments, str) else body.encode(arguments or {}).decode()
    return ToolCall(id=ids.call(call.id or "", call.function.name), name=call.function.name, arguments=text)


# ---- writing -----------------------------------------------------------------------------------


def write(messages: Sequence[Message]) -> list[wire.Message]:
    return [written for message in messages for written in _written(message)]


def _written(message: Message) -> Iterator[wire.Message]:
    shown = [images.encoded(part.url) for part in message.parts if isinstance(part, Image)]
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    for result in results:
        yield wire.Message(
            role="tool",
            content=result.text,
            tool_name=result.name or None,
            tool_call_id=result.id or None,
            images=shown or None,
        )
        shown = []
    if results:
        return
    calls = [part for part in message.parts if isinstance(part, ToolCall)]
    yield wire.Message(
        role=message.role,
        content=message.text,
        thinking="".join(part.text for part in message.parts if isinstance(part, Reasoning)) or None,
        images=shown or None,
        tool_calls=[write_call(call, index) for index, call in enumerate(calls)] or None,
        name=message.name,
    )


def write_call(call: ToolCall, index: int) -> wire.ToolCall:
    return wire.ToolCall(
        id=call.id or None,
        function=wire.Function(name=call.name, arguments=arguments(call.arguments), index=index),
    )


def arguments(text: str) -> dict[str, Any]:
    """A model's arguments as the object that Ollama's clients insist on.

    No arguments are an empty object, and an object written as a JSON text is unpacked. Broken JSON becomes
    {"invalid_json": the text as the model wrote it}: the client's tool then refuses an argument it does not
    have, its agent shows the model that error, and the model tries again. An empty object would run the tool
    with defaults that nobody chose, and leaving the call out would end the agent's turn as if all were well.
    """
    if not text.strip():
        return {}
    try:
        found = msgspec.json.decode(text)
        if isinstance(found, str):
            found = msgspec.json.decode(found)
    except (ValueError, RecursionError):
        return {"invalid_json": text}
    if found is None:
        return {}
    if not isinstance(found, dict) or _deeper_than(_MAX_DEPTH, found, text):
        return {"invalid_json": text}
    return found


def _deeper_than(limit: int, value: JSON, text: str) -> bool:
    """Whether `value`, decoded from `text`, is nested deeper. Near Python's own limit it could be read but
    no longer be written."""
    if text.count("{") + text.count("[") <= limit:
        return False
    level = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
    return bool(level)

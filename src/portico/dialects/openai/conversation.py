"""Messages of a chat, both ways."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from portico.dialects import body, images
from portico.dialects.calls import CallIds
from portico.dialects.openai import wire
from portico.errors import InvalidRequest
from portico.messages import Image, Message, Part, Reasoning, Role, Text, ToolCall, ToolResult

_ROLES: dict[str, Role] = {
    "system": "system",
    "developer": "system",  # templates of open models know no developer
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}

# ---- reading -----------------------------------------------------------------------------------


def read(messages: Sequence[wire.Message]) -> tuple[Message, ...]:
    """Raises InvalidRequest with a path such as `messages[1].content[0].type`."""
    ids = CallIds()
    return tuple(_message(message, ids, f"messages[{place}]") for place, message in enumerate(messages))


def _message(message: wire.Message, ids: CallIds, place: str) -> Message:
    role = _ROLES.get(message.role)
    if role is None:
        known = ", ".join(_ROLES)
        raise InvalidRequest(
            f"Invalid '{place}.role': {message.role!r} is not one of {known}.", param=f"{place}.role"
        )
    parts = list(_content(message, place))
    if role == "tool":
        return Message(role=role, parts=_result(message, parts, ids))
    if role == "assistant":
        parts = _assistant(message, parts, ids, place)
    return Message(role=role, parts=tuple(parts), name=message.name)


def _content(message: wire.Message, place: str) -> Iterator[Part]:
    content = message.content
    if not content:
        return
    if isinstance(content, str):
        yield Text(text=content)
        return
    for index, piece in enumerate(content):
        part = Text(text=piece) if isinstance(piece, str) else _piece(piece, f"{place}.content[{index}]")
        if not isinstance(part, Text) or part.text:
            yield part


def _piece(piece: wire.Piece, place: str) -> Part:
    kind = piece.type
    if kind in ("text", "input_text", "output_text", "") and piece.text is not None:
        return Text(text=piece.text)
    if kind in ("image_url", "input_image") and piece.image_url is not None:
        sent = piece.image_url
        url, detail = (sent, None) if isinstance(sent, str) else (sent.url, sent.detail)
        return Image(url=images.url(url, f"{place}.image_url", links=True), detail=detail)
    if kind == "refusal" and piece.refusal is not None:
        return Text(text=piece.refusal)
    if kind in ("thinking", "reasoning"):
        return Reasoning(text=piece.thinking or piece.reasoning or piece.text or "")
    if kind in ("text", "input_text", "output_text", "image_url", "input_image", "refusal"):
        field = {"refusal": "refusal", "image_url": "image_url", "input_image": "image_url"}.get(kind, "text")
        raise InvalidRequest(f"Missing required field: '{place}.{field}'.", param=f"{place}.{field}")
    raise InvalidRequest(
        f"Invalid '{place}.type': {kind!r} is not supported; this server reads text and image_url.",
        param=f"{place}.type",
    )


def _assistant(message: wire.Message, parts: list[Part], ids: CallIds, place: str) -> list[Part]:
    """Reasoning first, then text, then calls: the order in which a model writes them."""
    thoughts: list[Part] = [part for part in parts if isinstance(part, Reasoning)]
    said = [part for part in parts if not isinstance(part, Reasoning)]
    reasoning = message.reasoning or message.reasoning_content
    if reasoning:
        thoughts = [Reasoning(text=reasoning)]
    if not said and message.refusal:
        said = [Text(text=message.refusal)]
    ids.turn()
    calls: list[Part] = []
    for index, call in enumerate(message.tool_calls or ()):
        name = call.function.name
        arguments = _arguments(call.function.arguments, f"{place}.tool_calls[{index}].function.arguments")
        calls.append(ToolCall(id=ids.call(call.id or "", name), name=name, arguments=arguments))
    if message.function_call is not None:
        called = message.function_call
        arguments = _arguments(called.arguments, f"{place}.function_call.arguments")
        calls.append(ToolCall(id=ids.call("", called.name), name=called.name, arguments=arguments))
    return [*thoughts, *said, *calls]


def _arguments(arguments: str | dict[str, Any] | None, place: str) -> str:
    """Arguments as text. A text stays as it is, byte for byte: it is what the engine has in its cache."""
    if isinstance(arguments, dict):
        return body.encode(arguments).decode()
    return arguments or ""


def _result(message: wire.Message, parts: Sequence[Part], ids: CallIds) -> tuple[Part, ...]:
    id, name = ids.result(message.tool_call_id or "", message.name or "")
    text = "".join(part.text for part in parts if isinstance(part, Text))
    shown = [part for part in parts if isinstance(part, Image)]
    return (ToolResult(id=id, name=name, text=text), *shown)


# ---- writing -----------------------------------------------------------------------------------


def write(messages: Sequence[Message], *, extensions: bool = True) -> list[wire.Message]:
    """`extensions`: also what OpenAI's API does not have, the thoughts of earlier turns and the names of tools beside
    their results."""
    return [written for message in messages for written in _written(message, extensions)]


def _written(message: Message, extensions: bool) -> Iterator[wire.Message]:
    results = [part for part in message.parts if isinstance(part, ToolResult)]
    rest = [part for part in message.parts if isinstance(part, Text | Image)]
    for result in results:
        yield wire.Message(
            role="tool",
            content=_pieces([Text(text=result.text), *rest]) if rest else result.text,
            tool_call_id=result.id,
            name=(result.name or None) if extensions else None,
        )
        rest = []
    if results:
        return
    thoughts = [part.text for part in message.parts if extensions and isinstance(part, Reasoning)]
    reasoning = "".join(thoughts)
    calls = [_call(part) for part in message.parts if isinstance(part, ToolCall)]
    yield wire.Message(
        role=message.role,
        content=None if calls and not rest else _pieces(rest),
        name=message.name,
        # vLLM reads the first, llama.cpp and older vLLM the second.
        reasoning=reasoning or None,
        reasoning_content=reasoning or None,
        tool_calls=calls or None,
    )


def _call(call: ToolCall) -> wire.ToolCall:
    return wire.ToolCall(function=wire.Function(name=call.name, arguments=call.arguments), id=call.id)


def _pieces(parts: Sequence[Text | Image]) -> str | list[str | wire.Piece]:
    """Plain text where it can be: many templates know no list."""
    if not parts:
        return ""
    if len(parts) == 1 and isinstance(parts[0], Text):
        return parts[0].text
    return [
        wire.Piece(type="text", text=part.text)
        if isinstance(part, Text)
        else wire.Piece(type="image_url", image_url=wire.ImageURL(url=part.url, detail=part.detail))
        for part in parts
    ]

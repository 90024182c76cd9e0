"""Which tools a model may or must call: the words that both dialects use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from portico.errors import InvalidRequest
from portico.messages import Tool, ToolChoice

_MODES: dict[str, Literal["none", "auto", "required"]] = {
    "none": "none",
    "auto": "auto",
    "required": "required",
    "any": "required",
}


def by_word(word: str, tools: Sequence[Tool]) -> ToolChoice | None:
    """none, auto, required or any. Without tools there is nothing to choose, which is None."""
    mode = _MODES.get(word)
    if mode is None:
        raise InvalidRequest(
            f"Invalid 'tool_choice': {word!r} is not one of none, auto, required or a function.",
            param="tool_choice",
        )
    if tools:
        return ToolChoice(mode=mode)
    if mode == "required":
        raise InvalidRequest("Invalid 'tool_choice': 'required' needs tools.", param="tool_choice")
    return None


def by_name(name: str, tools: Sequence[Tool]) -> ToolChoice:
    if all(tool.name != name for tool in tools):
        raise InvalidRequest(
            f"Invalid 'tool_choice': there is no tool {name!r} in tools.", param="tool_choice"
        )
    return ToolChoice(mode="named", name=name)

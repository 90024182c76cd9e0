"""A tool: the weather, which is always the same."""

from __future__ import annotations

from typing import Any

from amplifier_core import ToolResult

__amplifier_module_type__ = "tool"


class Weather:
    name = "get_weather"
    description = "Get the weather in a city"
    input_schema = {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    }

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    async def execute(self, input: dict[str, Any]) -> ToolResult:
        self.asked.append(input)
        return ToolResult(success=True, output={"city": input.get("city"), "sky": "sunny", "celsius": 21})


async def mount(coordinator: Any, config: dict[str, Any]) -> None:
    await coordinator.mount("tools", Weather(), name=Weather.name)

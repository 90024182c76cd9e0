"""A conversation in a list, in the place of Amplifier's context-simple, which is not on PyPI."""

from __future__ import annotations

from typing import Any

__amplifier_module_type__ = "context"


class Conversation:
    def __init__(self, system: str | None) -> None:
        self._said: list[dict[str, Any]] = [{"role": "system", "content": system}] if system else []

    async def add_message(self, message: dict[str, Any]) -> None:
        self._said.append(message)

    async def get_messages_for_request(
        self, token_budget: int | None = None, provider: Any | None = None
    ) -> list[dict[str, Any]]:
        return list(self._said)

    async def get_messages(self) -> list[dict[str, Any]]:
        return list(self._said)

    async def set_messages(self, messages: list[dict[str, Any]]) -> None:
        self._said = list(messages)

    async def clear(self) -> None:
        self._said.clear()


async def mount(coordinator: Any, config: dict[str, Any]) -> None:
    await coordinator.mount("context", Conversation(config.get("system")))

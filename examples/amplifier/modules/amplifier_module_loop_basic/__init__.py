"""A small orchestrator, in the place of Amplifier's loop-basic, which is not on PyPI: asks, makes the calls that the model
asks for, and so on until it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from amplifier_core import ChatRequest, Message, ToolSpec

__amplifier_module_type__ = "orchestrator"


class Loop:
    """`request` holds fields for every request: `{"metadata": {"logprobs": 1}}`, `{"tool_choice": "required"}`."""

    def __init__(self, request: dict[str, Any], rounds: int) -> None:
        self._request, self._rounds = request, rounds
        self.responses: list[Any] = []

    async def execute(
        self,
        prompt: str,
        context: Any,
        providers: dict[str, Any],
        tools: dict[str, Any],
        hooks: Any,
        **_: Any,
    ) -> str:
        if not providers:
            raise RuntimeError("no provider is mounted; a warning says why")
        provider = min(providers.values(), key=lambda one: one.priority)
        specs = [
            ToolSpec(name=it.name, description=it.description, parameters=it.input_schema)
            for it in tools.values()
        ]
        await context.add_message({"role": "user", "content": prompt})
        for turn in range(self._rounds):
            said = await context.get_messages_for_request(provider=provider)
            fields = (
                self._request if turn == 0 else {k: v for k, v in self._request.items() if k != "tool_choice"}
            )
            request = ChatRequest(messages=[Message(**each) for each in said], tools=specs or None, **fields)
            response = await provider.complete(request)
            self.responses.append(response)
            content = [block.model_dump() for block in response.content]
            await context.add_message({"role": "assistant", "content": content})
            calls = provider.parse_tool_calls(response)
            if not calls:
                return "".join(block.text for block in response.content if block.type == "text")
            for call in calls:
                result = await tools[call.name].execute(call.arguments)
                output = result.get_serialized_output()
                await context.add_message({"role": "tool", "tool_call_id": call.id, "content": output})
        raise RuntimeError(f"no answer after {self._rounds} rounds")


async def mount(coordinator: Any, config: dict[str, Any]) -> Callable[[], Awaitable[None]] | None:
    loop = Loop(config.get("request", {}), config.get("rounds", 5))
    await coordinator.mount("orchestrator", loop)
    return None

"""Amplifier with chats: the configuration "With Chat API", with a tool, and the answer as it comes.

Start a server with `portico serve` (offline, with the bundled model), or name another: VLLM_BASE_URL, VLLM_MODEL.
"""

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

from amplifier_core import AmplifierSession, HookResult

sys.path.append(str(Path(__file__).parent / "modules"))  # loop-basic and context-simple are not on PyPI

config = {
    "session": {"orchestrator": "loop-basic", "context": "context-simple"},
    "providers": [
        {
            "module": "provider-vllm",
            "config": {
                "base_url": os.environ.get("VLLM_BASE_URL", "http://127.0.0.1:11434"),
                "default_model": os.environ.get("VLLM_MODEL", "portico-tiny"),  # on a GPU: openai/gpt-oss-20b
                "use_completions": False,  # /v1/chat/completions
                "temperature": 0,
            },
        }
    ],
    "tools": [{"module": "tool-weather"}],
}


async def show(event: str, data: dict[str, Any]) -> HookResult:
    if event == "llm:stream_block_start" and data["block_type"] == "tool_use":
        print(f"[calls {data['name']}]")
    if event == "llm:stream_block_delta":
        print(data["text"], end="", flush=True)
    return HookResult(action="continue")


async def main() -> None:
    async with AmplifierSession(config=config) as session:
        for event in ("llm:stream_block_start", "llm:stream_block_delta"):
            session.coordinator.hooks.register(event, show, name=f"show {event}")
        await session.execute("What is the weather in Oslo?")
        print()


asyncio.run(main())

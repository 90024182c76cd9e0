"""Amplifier with raw completions: the configuration "With Completions API", on whatever server runs.

Start one with `portico serve` (offline, with the bundled model), or name another: VLLM_BASE_URL, VLLM_MODEL.
"""

import asyncio
import os
import sys
from pathlib import Path

from amplifier_core import AmplifierSession

sys.path.append(str(Path(__file__).parent / "modules"))  # loop-basic and context-simple are not on PyPI

config = {
    "session": {"orchestrator": "loop-basic", "context": "context-simple"},
    "providers": [
        {
            "module": "provider-vllm",
            "config": {
                "base_url": os.environ.get("VLLM_BASE_URL", "http://127.0.0.1:11434"),
                "default_model": os.environ.get("VLLM_MODEL", "portico-tiny"),  # on a GPU: openai/gpt-oss-20b
                "use_completions": True,  # /v1/completions
                "max_tokens": 40,
            },
        }
    ],
}


async def main() -> None:
    async with AmplifierSession(config=config) as session:
        print(await session.execute("What is 2+2?"))


asyncio.run(main())

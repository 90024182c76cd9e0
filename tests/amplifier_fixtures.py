"""Amplifier itself, with modules of our own in the place of those that are not on PyPI."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from amplifier_core import AmplifierSession, HookResult

ROOT = Path(__file__).parent.parent
MODULES = ROOT / "examples" / "amplifier" / "modules"
PROVIDER = ROOT / "src" / "portico" / "amplifier.py"
SHARED = [
    *(
        "llm:request",
        "llm:response",
        "llm:stream_block_start",
        "llm:stream_block_delta",
        "llm:stream_block_end",
    ),
    *("llm:stream_aborted", "provider:retry", "provider:tool_sequence_repaired", "module:load_failed"),
    *("llm:request:debug", "llm:response:debug", "llm:request:raw", "llm:response:raw"),
]


def paths(folder: Path) -> list[Path]:
    """What a program's path must have beside portico for Amplifier to find all of it: our modules, and in `folder` the entry
    points that pyproject.toml declares, whether this copy is installed or not."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    entries = settings["project"]["entry-points"]["amplifier.modules"]
    about = folder / "declared-1.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: declared\nVersion: 1\n")
    lines = [f"{name} = {where}" for name, where in entries.items()]
    (about / "entry_points.txt").write_text("[amplifier.modules]\n" + "\n".join(lines) + "\n")
    return [folder, MODULES]


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Amplifier finds loop-basic, context-simple, tool-weather and the provider; no variable names a server."""
    for path in paths(tmp_path / "site"):
        monkeypatch.syspath_prepend(str(path))
    for variable in (
        "PORTICO_HOST",
        "VLLM_BASE_URL",
        "VLLM_ENDPOINT",
        "VLLM_MODEL",
        "VLLM_API_KEY",
        "PORTICO_API_KEY",
    ):
        monkeypatch.delenv(variable, raising=False)
    yield MODULES
    for name in [name for name in sys.modules if name.startswith("amplifier_module_")]:
        del sys.modules[name]


class Heard:
    """Every event of a session's hooks that concerns the provider, in order."""

    def __init__(self, session: Any) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        for name in SHARED:
            session.coordinator.hooks.register(name, self._hear, 0, f"heard {name}")

    async def _hear(self, event: str, data: dict[str, Any]) -> HookResult:
        self.events.append((event, dict(data)))
        return HookResult(action="continue")

    def all(self, name: str) -> list[dict[str, Any]]:
        return [data for event, data in self.events if event == name]

    def names(self) -> list[str]:
        return [event for event, _ in self.events]


@asynccontextmanager
async def session(
    provider: dict[str, Any],
    *,
    module: str = "provider-portico",
    request: dict[str, Any] | None = None,
    system: str | None = None,
    tools: tuple[str, ...] = (),
    **entry: Any,
) -> Any:
    """(a session, what its hooks hear). `provider` is its `config:` block."""
    config = {
        "session": {
            "orchestrator": {"module": "loop-basic", "config": {"request": request or {}}},
            "context": {"module": "context-simple", "config": {"system": system}},
        },
        "providers": [{"module": module, "config": provider, **entry}],
        "tools": [{"module": name} for name in tools],
    }
    one = AmplifierSession(config=config)
    heard = Heard(one)
    async with one:
        yield one, heard


def provider_of(one: Any) -> Any:
    (found,) = one.coordinator.get("providers").values()
    return found

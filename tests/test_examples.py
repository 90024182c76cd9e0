"""The examples run as they stand, against a server with the bundled model, and say what they promise."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from live_server import LiveServer, plain_environment

EXAMPLES = Path(__file__).parent.parent / "examples" / "client"
SAYS = {
    "binary_search.py": "func ",
    "einstein.py": "Albert Einstein, physicist",
    "haiku.py": "\n",
    "logprobs.py": "'F'",
    "models.py": "portico-tiny: 5120 tokens of context",
    "quantum_computing.py": "qubit",
    "weather.py": 'get_weather({"city": "Paris"}) -> 18 degrees',
}


def test_each_is_listed() -> None:
    assert set(SAYS) == {path.name for path in EXAMPLES.glob("*.py")}


@pytest.mark.parametrize("name", sorted(SAYS))
def test_it_runs(name: str, server: LiveServer, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=tmp_path,
        env=plain_environment(tmp_path, PORTICO_HOST=server.url),
    )
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout

"""The `ollama` and `openai` packages from npm, in node, against the real server."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from live_server import LiveServer

NPM = Path(__file__).parent / "npm"


def run(script: str, url: str, model: str) -> dict[str, Any]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (NPM / "node_modules/openai").is_dir():
        pytest.skip("the npm clients are not installed (npm ci --prefix tests/npm)")
    done = subprocess.run([node, str(NPM / script), url, model], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert isinstance(found, dict)
    return found


def test_ollama(server: LiveServer) -> None:
    found = run("ollama.mjs", server.url, server.model)
    assert any(name.startswith(server.model) for name in found["names"])
    assert {"completion", "tools"} <= set(found["capabilities"])
    assert found["chat"] == {"role": "assistant", "tokens": 5, "done": True, "reason": "length"}
    assert found["stream"]["length"] > 0 and found["stream"]["tokens"] == 5 and found["stream"]["done"]
    assert found["generated"] > 0
    assert isinstance(found["shaped"]["ok"], bool)
    assert any(name.startswith(server.model) for name in found["running"])
    assert found["created"] == found["pulled"] == found["copied"] == "success"
    assert found["deleted"] == ["success", "success"]
    assert [error and error["status"] for error in found["errors"]] == [404, 404, 400, 404]
    assert "no-such-model" in found["errors"][0]["message"]
    assert found["aborted"] == "AbortError"


def test_openai(server: LiveServer) -> None:
    found = run("openai.mjs", server.openai_url, server.model)
    assert server.model in found["models"] and found["model"]
    assert found["chat"] == {"finish": "length", "tokens": 5}
    assert found["stream"]["length"] > 0 and found["stream"]["tokens"] == 6
    assert found["call"]["name"] == "ring" and found["call"]["arguments"]["times"] in (1, 2)
    assert isinstance(found["shaped"]["ok"], bool)
    assert found["echo"] is True
    assert [error and error["name"] for error in found["errors"]] == [
        "NotFoundError",
        "BadRequestError",
        "NotFoundError",
        "BadRequestError",
    ]
    assert found["errors"][0]["code"] == "model_not_found"

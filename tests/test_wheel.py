"""The wheel, alone in a clean environment far from the clone: it serves the bundled model, offline."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest

from live_server import plain_environment, serve

ROOT = Path(__file__).parent.parent
NOWHERE = "http://127.0.0.1:9"  # a proxy that answers nothing: whoever asks the internet fails at once
OFFLINE = {"HTTP_PROXY": NOWHERE, "HTTPS_PROXY": NOWHERE, "ALL_PROXY": NOWHERE, "PYTHONPATH": ""}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("portico-*.whl")
    return built


@pytest.mark.timeout(180)
def test_the_wheel_holds_the_package_and_the_model(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entries,) = [name for name in names if name.endswith("dist-info/entry_points.txt")]
        assert b"provider-vllm = portico.amplifier:mount_vllm" in archive.read(entries)
    sources = {
        "portico/" + path.relative_to(ROOT / "src/portico").as_posix()
        for path in (ROOT / "src/portico").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources | {"amplifier_module_provider_portico/__init__.py"} <= names
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    model = settings["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    # ... and of models/portico-tiny nothing else: how it was made and measured stays in the clone.
    assert {name for name in names if name.startswith("portico/models/")} == set(model.values())
    assert any(name.endswith("dist-info/licenses/LICENSE") for name in names)
    assert not any(name.startswith(("tests", "benchmarks", "src")) for name in names)


@pytest.mark.timeout(400)
def test_the_wheel_alone_serves_offline(wheel: Path, tmp_path: Path) -> None:
    folder = tmp_path / "venv"
    venv.create(folder, with_pip=True)
    scripts = folder / ("Scripts" if os.name == "nt" else "bin")
    install = [str(scripts / "python"), "-m", "pip", "install", "--quiet", "--retries", "5", str(wheel)]
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(install, capture_output=True, text=True, timeout=300, env=environ)
    assert done.returncode == 0, done.stderr

    command = (str(scripts / "portico"),)
    with serve(tmp_path / "elsewhere", command=command, environ=OFFLINE) as server:
        messages = [{"role": "user", "content": "Hello!"}]
        said = server.ask("POST", "/api/chat", {"model": "default", "messages": messages, "stream": False})
        assert said["done"] and said["eval_count"] > 0
        answer = server.ask("POST", "/v1/chat/completions", {"model": "default", "messages": messages})
        assert answer["choices"][0]["message"]["content"] is not None
        assert server.health()["status"] == "ok"
    version = subprocess.run(
        [*command, "--version"],
        capture_output=True,
        text=True,
        timeout=30,
        env=plain_environment(tmp_path, **OFFLINE),
    )
    assert version.returncode == 0 and version.stdout.strip()

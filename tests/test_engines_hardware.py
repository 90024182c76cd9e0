from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from portico.engines import Account, gpus, hardware, memory
from portico.engines.apart import apart


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
    assert hardware.memory(meminfo) == 9000 * 1024 and hardware.memory(tmp_path / "none") is None
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("1000\n")
    assert hardware.free_memory(tmp_path, meminfo) == 4000 * 1024
    (tmp_path / "memory.max").write_text("3000\n")
    assert hardware.free_memory(tmp_path, meminfo) == 2000


def test_resident() -> None:
    assert (hardware.resident(os.getpid()) or 1 << 30) > 1 << 20
    assert hardware.resident(2**22 + 1) is None


# ---- GPUs, by a driver with a script


class DriverError(Exception):
    pass


class NotSupported(DriverError):
    pass


class FakeNvml:
    """NVIDIA's library with three GPUs of 100 bytes. `fails` names what raises, and for which GPU; `tells_not` what it
    does not support."""

    NVMLError, NVMLError_NotSupported = DriverError, NotSupported

    def __init__(self, *fails: tuple[str, int]) -> None:
        self.fails = set(fails)
        self.tells_not: set[tuple[str, int]] = set()
        self.threads: set[threading.Thread] = set()
        self.hangs = threading.Event()
        self.hangs.set()
        self.told = threading.Event()

    def __getattr__(self, name: str) -> Any:
        def call(index: int = 0, *rest: object) -> Any:
            self.threads.add(threading.current_thread())
            self.told.set()
            self.hangs.wait()
            if (name, index) in self.fails:
                raise DriverError(name)
            if (name, index) in self.tells_not:
                raise NotSupported("Not Supported")
            answers: dict[str, Any] = {
                "nvmlDeviceGetCount": 3,
                "nvmlDeviceGetHandleByIndex": index,
                "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=100, free=10 * index + 10),
                "nvmlDeviceGetUtilizationRates": SimpleNamespace(gpu=50),
                "nvmlDeviceGetComputeRunningProcesses": [SimpleNamespace(pid=7, usedGpuMemory=5)],
                "nvmlDeviceGetName": b"H100",
                "nvmlDeviceGetUUID": f"GPU-{index}{index}-5ebe",
                "nvmlSystemGetDriverVersion": "590.1",
                "nvmlSystemGetCudaDriverVersion_v2": 13000,
            }
            return answers.get(name)

        return call


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeNvml]:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)  # type: ignore[arg-type]
    yield fake
    fake.hangs.set()


def test_gpus(nvml: FakeNvml) -> None:
    assert gpus.gpus()[1] == gpus.Gpu(
        index=1, name="H100", uuid="GPU-11-5ebe", total=100, free=20, busy=0.5, used_by={7: 5}
    )


@pytest.mark.parametrize(
    "call", ["nvmlDeviceGetHandleByIndex", "nvmlDeviceGetMemoryInfo", "nvmlDeviceGetName"]
)
def test_a_gpu_that_has_failed_does_not_hide_the_others(nvml: FakeNvml, call: str) -> None:
    nvml.fails = {(call, 1)}
    assert [gpu.index for gpu in gpus.gpus()] == [0, 2]
    assert gpus.look().left_out == (gpus.LeftOut(index=1, reason=call),)


def test_a_gpu_without_memory_of_its_own_has_the_systems(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a DGX Spark: NVML does not support the question."""
    monkeypatch.setattr(hardware, "memory", lambda: 128)
    monkeypatch.setattr(hardware, "free_memory", lambda: 100)
    nvml.tells_not = {("nvmlDeviceGetMemoryInfo", 1)}
    seen = gpus.look()
    assert [(gpu.total, gpu.free, gpu.shared) for gpu in seen.gpus] == [
        (100, 10, False),
        (128, 100, True),
        (100, 30, False),
    ]
    assert not seen.left_out


def test_a_gpu_of_which_nothing_is_known_is_left_out(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "memory", lambda: None)
    nvml.tells_not = {("nvmlDeviceGetMemoryInfo", 1)}
    assert [gpu.index for gpu in gpus.gpus()] == [0, 2]
    assert gpus.look().left_out == (gpus.LeftOut(index=1, reason="Not Supported"),)


async def test_memory_that_a_gpu_shares_is_counted_once(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "memory", lambda: 128)
    monkeypatch.setattr(hardware, "free_memory", lambda: 100)
    nvml.tells_not = {("nvmlDeviceGetMemoryInfo", index) for index in range(3)}
    assert await memory.free() == {"host": 100}


def test_a_driver_that_fails_is_none(nvml: FakeNvml) -> None:
    nvml.fails = {("nvmlInit", 0)}
    assert gpus.gpus() == () and gpus.driver() is None
    nvml.fails = {("nvmlDeviceGetCount", 0), ("nvmlSystemGetCudaDriverVersion_v2", 0)}
    assert gpus.gpus() == () and gpus.driver() is None


def test_a_driver_that_hangs_keeps_one_thread(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.engines.gpus._ANSWER_SECONDS", 0.01)
    nvml.hangs.clear()
    first = threading.Thread(target=gpus.gpus)
    first.start()
    nvml.told.wait()
    assert gpus.gpus() == () and nvml.threads == {first}
    nvml.hangs.set()
    first.join()
    assert len(gpus.gpus()) == 3


async def test_what_is_free_is_asked_outside_the_event_loop(nvml: FakeNvml) -> None:
    found = await memory.free()
    assert [found[gpu] for gpu in "012"] == [10, 20, 30]
    assert threading.current_thread() not in nvml.threads


def test_a_driver_that_hangs_keeps_no_program_alive(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.engines.memory.ANSWER_SECONDS", 0.05, raising=False)
    nvml.hangs.clear()
    found: list[dict[Account, int]] = []
    program = threading.Thread(target=lambda: found.append(asyncio.run(memory.free())))
    program.start()
    program.join(4)
    assert not program.is_alive()
    assert set(found[0]) == {"host"}


async def test_an_error_apart_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        await apart(lambda: 1 // 0, within=5)


@pytest.mark.parametrize(
    ("said", "usable"), [(None, "012"), ("0,2", "02"), ("2", "2"), ("GPU-11", "1"), ("", ""), ("MIG-77", "")]
)
async def test_only_gpus_that_may_be_used_have_memory_for_us(
    nvml: FakeNvml, said: str | None, usable: str
) -> None:
    assert set(await memory.free(said)) == {"host", *usable}

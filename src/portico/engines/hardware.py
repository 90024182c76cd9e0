"""What this machine has: cores that may be used and memory that is free. Read when asked, never cached."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores(cgroup: Path = _CGROUP) -> int:
    """Cores this process may use: its affinity (taskset, `docker --cpuset-cpus`), less a container's quota.

    A thread more than that waits at every barrier of the computation: measured, two threads on one free core
    make a fifth of the tokens of one thread.
    """
    allowed = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    quota = _words(cgroup / "cpu.max")
    if len(quota) == 2 and quota[0].isdigit() and quota[1].isdigit():
        allowed = min(allowed, math.ceil(int(quota[0]) / int(quota[1])))
    return max(allowed, 1)


def memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that the machine has; None where it is not known."""
    lines = _words(meminfo)
    return int(lines[lines.index("MemTotal:") + 1]) * 1024 if "MemTotal:" in lines else None


def free_memory(cgroup: Path = _CGROUP, meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that can be taken without swapping, within a container's limit; None where it is not known."""
    free = None
    lines = _words(meminfo)
    if "MemAvailable:" in lines:
        free = int(lines[lines.index("MemAvailable:") + 1]) * 1024
    elif sys.platform == "darwin":
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    limit, used = _words(cgroup / "memory.max"), _words(cgroup / "memory.current")
    if limit and used and limit[0].isdigit():
        left = max(int(limit[0]) - int(used[0]), 0)
        free = left if free is None else min(free, left)
    return free


def resident(pid: int) -> int | None:
    """Bytes of memory a process holds now; None where that is not known or it has ended."""
    pages = _words(Path(f"/proc/{pid}/statm"))
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if len(pages) > 1 else None


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []

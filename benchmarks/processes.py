"""Child processes: started on chosen cores, watched through /proc, ended by their id whatever happens.

It knows nothing of proxies or loads. Linux only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

TICK = os.sysconf("SC_CLK_TCK")
PR_SET_PDEATHSIG = 1
STOP_SECONDS = 15  # from SIGTERM to SIGKILL: a server may end its streams first
DISTURBED = 0.1  # cores used by others from which a figure is not to be trusted


class ChildFailed(Exception):
    """A child ended, or did not do in time what it was started for."""


class Child:
    """One child process on its own cores, out of reach of the terminal. Leaving the block ends it and what it started."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cores: Iterable[int],
        log: Path,
        env: Mapping[str, str] | None = None,
        capture: bool = False,
        instructions: bytes | None = None,
    ) -> None:
        """`capture` gives its stdout as text instead of logging it; `instructions` are written to its stdin, which
        then stays open until it is stopped."""
        self.command = [str(part) for part in command]
        self.log = log
        pinned = set(cores)
        prctl = ctypes.CDLL(None).prctl

        def prepare() -> None:
            os.sched_setaffinity(0, pinned)
            prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # also when this driver is killed and cannot clean up
            most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # 1,000 streams are 2,000 sockets

        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL if instructions is None else subprocess.PIPE,
                stdout=subprocess.PIPE if capture else output,
                stderr=output,
                env=neutral_environment() | dict(env or {}),
                preexec_fn=prepare,
                start_new_session=True,  # Ctrl-C reaches the driver alone, which ends its children in order
            )
        self.pid = self.process.pid
        if instructions is not None:
            assert self.process.stdin
            self.process.stdin.write(instructions)
            self.process.stdin.flush()

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        everybody = processes()
        family = [(pid, everybody[pid]) for pid in tree(self.pid, everybody) if pid in everybody]
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        for pid, known in family:  # whatever outlived it; the start time tells a reused id from the child
            if (now := process(pid)) and now.started == known.started and not now.zombie:
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()

    def line(self) -> str:
        """The next line of its stdout; empty when it has ended."""
        assert self.process.stdout
        return self.process.stdout.readline().decode()

    def running(self) -> bool:
        return self.process.poll() is None

    def last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-3:]) or f"exit code {self.process.poll()}, no output"


def neutral_environment() -> dict[str, str]:
    """The environment without the servers' own settings and without proxies: some clients would send even 127.0.0.1
    through one."""
    ours = ("PORTICO_", "OLLAMA_", "LITELLM_", "PYTHONPATH")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(ours) and not name.lower().endswith("_proxy")
    }
    return kept | {"NO_PROXY": "*", "HF_HUB_OFFLINE": "1"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# ---- /proc


@dataclass(frozen=True)
class Process:
    """What /proc/PID/stat says: the parent, the start, and CPU seconds."""

    parent: int
    started: int
    zombie: bool
    kernel: bool  # a thread of the kernel
    cpu: float  # its own, all threads
    family_cpu: float  # its own and that of the children it has reaped


def process(pid: int | str) -> Process | None:
    """None when it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the command's name before it may hold anything
    user, system, children_user, children_system = (int(ticks) / TICK for ticks in fields[11:15])
    return Process(
        parent=int(fields[1]),
        started=int(fields[19]),
        zombie=fields[0] == "Z",
        kernel=bool(int(fields[6]) & 0x00200000),  # PF_KTHREAD
        cpu=user + system,
        family_cpu=user + system + children_user + children_system,
    )


def processes() -> dict[int, Process]:
    return {
        int(entry): found for entry in os.listdir("/proc") if entry.isdigit() and (found := process(entry))
    }


def tree(pid: int, among: Mapping[int, Process]) -> list[int]:
    """The process and its descendants."""
    children: dict[int, list[int]] = {}
    for each, found in among.items():
        children.setdefault(found.parent, []).append(each)
    family = [pid]
    for parent in family:  # grows while it is walked
        family += children.get(parent, [])
    return family


def rss_kb(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def stolen_seconds(cores: Iterable[int]) -> float:
    """Time a hypervisor gave to other guests."""
    wanted = {f"cpu{core}" for core in cores}
    rows = [line.split() for line in Path("/proc/stat").read_text().splitlines()]
    return sum(int(row[8]) for row in rows if row[0] in wanted) / TICK


# ---- Reading a window


@dataclass(frozen=True, kw_only=True)
class Reading:
    """What /proc said at one moment."""

    at: float
    cpu: float  # the watched process and its descendants
    others: float  # every process that is neither this driver nor below it, and stolen time


def read(watched: int | None, cores: Iterable[int]) -> Reading:
    """CPU used by others is summed over their processes, with the children they have reaped: /proc/stat's own sums
    are taken by a sampling tick, which misses programs that run in short turns, as all of ours do."""
    at = time.monotonic()
    everybody = processes()
    ours = set(tree(os.getpid(), everybody))
    theirs = sum(each.family_cpu for pid, each in everybody.items() if pid not in ours and not each.kernel)
    family = tree(watched, everybody) if watched else []
    return Reading(
        at=at,
        cpu=sum(everybody[pid].cpu for pid in family if pid in everybody),
        others=theirs + stolen_seconds(cores),
    )


def other_load(before: Reading, after: Reading) -> float:
    """Cores used by processes that are not ours."""
    return max(0.0, (after.others - before.others) / (after.at - before.at))


def wait_for_quiet(cores: Iterable[int], seconds: float) -> None:
    """Return when others leave the machine alone, or after `seconds` anyway."""
    cores = list(cores)
    give_up = time.monotonic() + seconds
    while time.monotonic() < give_up:
        before = read(None, cores)
        time.sleep(0.5)
        if other_load(before, read(None, cores)) < DISTURBED:
            return

"""The process between us and an engine of somebody else's, so that none of its processes is ever left behind.

Run as a script by its path (`python -P guard.py COMMAND...`): it imports nothing of ours. Engines such as vLLM are
a tree of processes of which each believes that its parent ends it; when one is killed, the others stay, with all
the memory they hold. What keeps them here:

1. stdin is the lifeline: whoever started us holds it open. It ends when they end, however that is; then the whole
   tree is killed.
2. The kernel kills the engine's first process when this one ends (PR_SET_PDEATHSIG, from its main thread, which
   lives as long as the process).
3. This process is the reaper of its descendants (PR_SET_CHILD_SUBREAPER): one whose parent was killed becomes our
   child and can still be found. When the engine's first process has ended, all others are killed.
4. A cgroup, where one can be had, holds them all, also one that left the session.

SIGTERM goes to the whole group from outside, so it is ignored here: the engine may take its time to end.
"""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_SWEEPS, _PAUSE = 200, 0.01


def prctl(option: int, value: int) -> None:
    if LINUX:
        ctypes.CDLL(None).prctl(option, value)


# ---- a cgroup of our own


def own_cgroup() -> Path | None:
    """A new cgroup below ours, if this user may make one (cgroup v2, as root or where systemd delegates it)."""
    try:
        mine = next(
            line[3:] for line in Path("/proc/self/cgroup").read_text().split("\n") if line[:3] == "0::"
        )
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        root = next(words[4] for words in mounts if words[words.index("-") + 1] == "cgroup2")
        folder = Path(root + mine) / f"portico-{os.getpid()}"
        folder.mkdir()
    except (OSError, StopIteration):
        return None
    return folder


def enter(folder: Path | None) -> None:
    if folder is not None:
        try:
            (folder / "cgroup.procs").write_text("0")
        except OSError:
            pass


def close(folder: Path | None) -> None:
    """Kills all that is left in it, and removes it: empty, or not at all."""
    if folder is None:
        return
    try:
        (folder / "cgroup.kill").write_text("1")
    except OSError:
        pass  # before Linux 5.14
    for _ in range(_SWEEPS):
        try:
            folder.rmdir()
            return
        except OSError:
            time.sleep(_PAUSE)


# ---- the tree


def parents() -> dict[int, int]:
    """The parent of every process, from /proc."""
    found = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                with open(f"/proc/{entry.name}/stat", "rb") as stat:
                    state, parent = stat.read().rpartition(b") ")[2].split(None, 2)[:2]
            except OSError:
                continue
            if state != b"Z":
                found[int(entry.name)] = int(parent)
    return found


def descendants() -> set[int]:
    """Every living process below this one."""
    tree, found = parents(), set[int]()
    wave = {os.getpid()}
    while wave:
        wave = {pid for pid, parent in tree.items() if parent in wave} - found
        found |= wave
    return found


def kill_tree() -> None:
    """Kills every descendant, and those that they start meanwhile, until there is none."""
    if not LINUX:
        return
    for _ in range(_SWEEPS):
        alive = descendants()
        if not alive:
            return
        for pid in alive:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        reap()
        time.sleep(_PAUSE)


def reap() -> None:
    """Collects descendants that have ended; until then they would look alive to others."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except OSError:
        pass


# ---- the whole


def main(command: list[str]) -> int:
    prctl(_PR_SET_CHILD_SUBREAPER, 1)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    folder = own_cgroup()

    def begin() -> None:
        # Between fork and exec, in a process that has one thread still.
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        enter(folder)

    try:
        engine = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=begin)
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)  # noqa: T201
        close(folder)
        return 127

    def follow_parent() -> None:
        while os.read(0, 4096):
            pass
        engine.kill()
        kill_tree()
        close(folder)
        os._exit(1)

    threading.Thread(target=follow_parent, name="lifeline", daemon=True).start()
    code = engine.wait()
    kill_tree()
    close(folder)
    return code


if __name__ == "__main__":
    code = main(sys.argv[1:])
    if code < 0:  # ended by a signal: so do we, for whoever reads our exit code
        if -code in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)

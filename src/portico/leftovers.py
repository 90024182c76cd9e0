"""Engines that outlived their server: found by what we gave them, ended when a server starts again.

Every engine gets a random mark in its environment, which all its processes inherit, and a record on disk that names
the mark and the server that started it. A record whose server is gone names leftovers: whatever of ours still bears
its mark. Nobody else's process can bear it, however process numbers are used again.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    import psutil

MARK = "PORTICO_ENGINE_MARK"
_ENDING_SECONDS = 5.0


class Process(msgspec.Struct, frozen=True, kw_only=True):
    """A process that cannot be taken for another one that got the same number later."""

    pid: int
    began: str

    def lives(self) -> bool:
        return began(self.pid) == self.began


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """What is on disk of one engine."""

    mark: str
    model: str
    host: str
    boot: str
    """This start of the machine, and the container in it: process numbers mean nothing elsewhere."""
    server: Process
    engine: Process


class Running:
    """The records of one data folder: `note()` once an engine has a process number, `forget()` when it is gone."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def note(self, mark: str, *, model: str, pid: int) -> None:
        """Raises OSError where the folder cannot be written: no engine is better than one that nobody finds."""
        record = Record(
            mark=mark,
            model=model,
            host=socket.gethostname(),
            boot=boot(),
            server=Process(pid=os.getpid(), began=began(os.getpid())),
            engine=Process(pid=pid, began=began(pid)),
        )
        self._folder.mkdir(parents=True, exist_ok=True)
        part = self._folder / f"{mark}.part"
        part.write_bytes(msgspec.json.encode(record))
        part.replace(self._folder / f"{mark}.json")

    def forget(self, mark: str) -> None:
        (self._folder / f"{mark}.json").unlink(missing_ok=True)

    def left(self) -> list[Record]:
        """The records of this machine whose server is gone; those of another start of it are forgotten."""
        found = []
        for path in sorted(self._folder.glob("*.json")):
            try:
                record = msgspec.json.decode(path.read_bytes(), type=Record)
            except (OSError, msgspec.DecodeError):
                continue  # another server is just removing it, or it is none of ours
            if record.host != socket.gethostname():
                continue  # the folder is shared, and that machine's processes are its own
            if record.boot.partition(" ")[0] != boot().partition(" ")[0]:
                path.unlink(missing_ok=True)
            elif record.boot == boot() and not record.server.lives():
                found.append(record)
        return found

    def end_leftovers(self) -> list[Record]:
        """Kills what servers that are gone have left running, and forgets it. Those of which something ran."""
        ended = []
        for record in self.left():
            if kill_marked(record.mark):
                ended.append(record)
            self.forget(record.mark)
        return ended


def new_mark() -> str:
    return secrets.token_hex(16)


def began(pid: int) -> str:
    """When a process began, exact enough to tell it from any other with its number; empty if there is none."""
    if sys.platform == "linux":
        # Ticks since the machine's start. Seconds since the epoch would move whenever the clock is set.
        try:
            with open(f"/proc/{pid}/stat", "rb") as stat:
                return stat.read().rpartition(b") ")[2].split()[19].decode()
        except OSError:
            return ""
    import psutil

    try:
        return f"{psutil.Process(pid).create_time():.2f}"
    except psutil.Error:
        return ""


def boot() -> str:
    """This start of this machine and, after a space, the container that process numbers belong to."""
    if sys.platform != "linux":
        return "-"
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return "-"


def kill_marked(mark: str) -> int:
    """Kills all processes that bear the mark, until there is none; how many there were."""
    import psutil

    killed: set[int] = set()
    deadline = time.monotonic() + _ENDING_SECONDS
    while (marked := with_mark(mark)) and time.monotonic() < deadline:
        for process in marked:
            try:
                process.kill()
                killed.add(process.pid)
            except psutil.Error:
                continue
        time.sleep(0.05)  # not psutil's wait: it would collect a child of ours that somebody else waits for
    return len(killed)


def with_mark(mark: str) -> list[psutil.Process]:
    """The living processes of this user that bear it. Never this one."""
    import psutil

    found = []
    for process in psutil.process_iter():
        try:
            ours = process.pid != os.getpid() and process.environ().get(MARK) == mark
            if ours and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # of another user, or gone
    return found

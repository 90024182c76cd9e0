"""Child processes: launched, watched, and ended together with everything they started.

A child gets a session of its own, so that Ctrl-C in the terminal does not reach it and so that one signal
reaches its whole tree. Three pipes tie it to us:

    stdin   the lifeline. We send what the child needs to know and then only hold it open. It ends when we
            end, however we end: a child reads it to its end and exits. This works on every system.
    stdout  its first line is the child's announcement (`Child.announcement`); all else is log. A guarded program is
            somebody else's and announces nothing.
    stderr  log, whoever writes it: native libraries write to the file descriptor, past Python.

On Linux a child also asks the kernel to kill it when its parent dies (PR_SET_PDEATHSIG), because a lifeline
needs a thread that runs, and native code may hold the interpreter for seconds. The child asks for it itself:
between fork and exec nothing but exec is safe in a program with threads. The kernel means the *thread* that
forked: so `launch` is called in the thread of the event loop and nowhere else, and a loop that runs in a
thread of its own takes its children along when that thread ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

LINE_LIMIT = 4096
"""Characters kept of one line: a native library in trouble may write megabytes without a newline."""

_GUARD = Path(__file__).with_name("guard.py")
_GUARD_SECONDS = 10.0

if sys.platform == "win32":
    _FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
else:
    _FLAGS = 0


class Log:
    """What a process wrote: the last lines in memory, all of it in a file where a path is given.

    The file grows to `file_limit` bytes, is then renamed to NAME.1 and begun anew. The thread that reads the
    process writes; any thread may ask for the tail.
    """

    def __init__(self, path: Path | None = None, *, lines: int = 200, file_limit: int = 4 << 20) -> None:
        self.path = path
        self._lines: deque[str] = deque(maxlen=lines)
        self._count = 0
        self._half = b""
        self._file: IO[bytes] | None = None
        self._room = self._file_limit = file_limit
        self._lock = threading.Lock()

    def write(self, piece: bytes) -> None:
        with self._lock:
            *whole, self._half = (self._half + piece).split(b"\n")
            if len(self._half) > LINE_LIMIT:
                whole.append(self._half)
                self._half = b""
            self._lines.extend(_readable(line) for line in whole)
            self._count += len(whole)
            self._keep(piece)

    def tail(self, lines: int = 8) -> str:
        """The last lines, one below the other."""
        with self._lock:
            half = [_readable(self._half)] if self._half else []
            return "\n".join([*self._lines, *half][-lines:])

    def lines(self) -> list[str]:
        """All lines that are still in memory."""
        with self._lock:
            return list(self._lines)

    def since(self, seen: int) -> tuple[int, list[str]]:
        """How many lines there have been, and those after the first `seen` that are still in memory."""
        with self._lock:
            new = min(self._count - seen, len(self._lines))
            return self._count, list(self._lines)[len(self._lines) - new :]

    def close(self) -> None:
        with self._lock:
            if self._file is not None:
                self._file.close()
            self._file, self.path = None, None

    def _keep(self, piece: bytes) -> None:
        if self.path is None:
            return
        try:
            if self._file is not None and self._room < len(piece):
                self._file.close()
                self._file = None
                self.path.replace(self.path.with_name(self.path.name + ".1"))
            if self._file is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("ab", buffering=0)
                self._room = self._file_limit - self._file.tell()
            self._file.write(piece)
            self._room -= len(piece)
        except OSError:
            # A full disk must not stop the reading: the child would block on its own log.
            if self._file is not None:
                self._file.close()
            self._file = self.path = None


def _readable(line: bytes) -> str:
    return line[:LINE_LIMIT].decode("utf-8", "replace").rstrip()


class Child:
    """A process of ours. Whoever launched it owns it and ends it; `log` stays readable afterwards."""

    def __init__(
        self, process: subprocess.Popen[bytes], log: Log, greeting: bytes, *, guarded: bool = False
    ) -> None:
        self.pid = process.pid
        self.log = log
        self.exit_code: int | None = None
        """None while it runs; negative: the number of the signal that ended it."""
        self._process, self._guarded = process, guarded
        self._loop = asyncio.get_running_loop()
        self._exit: asyncio.Future[int] = self._loop.create_future()
        self._announced: asyncio.Future[str | None] = self._loop.create_future()
        self._reaping = threading.Lock()
        self._reaped = False
        readers = [self._thread("log", self._read_log), self._thread("out", self._read_out)]
        self._thread("exit", self._watch, greeting, readers)

    async def announcement(self) -> str | None:
        """The first line it writes to stdout; None if it ends without one."""
        return await asyncio.shield(self._announced)

    async def wait(self) -> int:
        """Its exit code, once it has ended and everything it wrote is in the log."""
        return await asyncio.shield(self._exit)

    def when_ended(self, tell: Callable[[], None]) -> None:
        """`tell` is called in the event loop once `wait` would return."""
        self._exit.add_done_callback(lambda _: tell())

    async def end(self, grace: float = 5.0) -> int:
        """Asks the whole tree to end, kills what is left after `grace` seconds; returns the exit code."""
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(grace):
                return await self.wait()
        except TimeoutError:
            return await self.kill()

    async def kill(self) -> int:
        """Kills the whole tree; returns the exit code when it is gone."""
        self.abandon()
        if self._guarded:
            try:
                async with asyncio.timeout(_GUARD_SECONDS):
                    return await self.wait()
            except TimeoutError:
                self.signal(signal.SIGKILL)  # somebody stopped the guard
        return await self.wait()

    def abandon(self) -> None:
        """Kills the whole tree without waiting: for a caller that is being cancelled."""
        if self._guarded:
            # The guard finds also those that left the group; killed itself, it could not.
            self._hang_up()
        else:
            self.signal(signal.SIGTERM if sys.platform == "win32" else signal.SIGKILL)

    def _hang_up(self) -> None:
        lifeline = self._process.stdin
        assert lifeline is not None
        with contextlib.suppress(OSError):
            lifeline.close()

    def signal(self, number: int) -> None:
        """Sends a signal to the process and everything in its group; does nothing once it has ended."""
        with self._reaping:
            if self._reaped:
                return  # the number may belong to somebody else by now
            if sys.platform == "win32":
                self._process.terminate()
            else:
                _signal_group(self.pid, number)

    # ---- threads: they wait for what cannot be awaited on every system, and tell the loop

    def _thread(self, name: str, work: Any, *arguments: Any) -> threading.Thread:
        thread = threading.Thread(target=work, args=arguments, name=f"{name} of {self.pid}", daemon=True)
        thread.start()
        return thread

    def _read_log(self) -> None:
        pipe = self._process.stderr
        assert pipe is not None
        with pipe:
            while piece := os.read(pipe.fileno(), 65536):
                self.log.write(piece)

    def _read_out(self) -> None:
        pipe = self._process.stdout
        assert pipe is not None
        with pipe:
            first = b""
            while not self._guarded and b"\n" not in first and (piece := os.read(pipe.fileno(), 65536)):
                first += piece
            line, newline, rest = first.partition(b"\n")
            if newline:
                self._tell(self._announced, line.decode("utf-8", "replace"))
            self.log.write(rest)
            while piece := os.read(pipe.fileno(), 65536):
                self.log.write(piece)

    def _watch(self, greeting: bytes, readers: Sequence[threading.Thread]) -> None:
        lifeline = self._process.stdin
        assert lifeline is not None
        with lifeline:
            try:
                while greeting:
                    greeting = greeting[lifeline.write(greeting) or 0 :]
            except OSError:
                pass  # it ended before it listened: the exit code and the log say why
            code = self._reap()
        for reader in readers:
            # The tail has to be whole when the exit is told; a process that left the group may hold the pipe.
            reader.join(0.2)
        self.log.close()
        self._tell(self._announced, None)
        self._tell(self._exit, code)

    def _reap(self) -> int:
        process = self._process
        if hasattr(os, "waitid"):
            # Not reaped yet, so the number is still its own: what it left behind in its group ends now.
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
            with self._reaping:
                _signal_group(self.pid, signal.SIGKILL)
                code = process.wait()
                self._reaped = True
            return code
        code = process.wait()
        self._reaped = True
        if sys.platform != "win32":
            _signal_group(self.pid, signal.SIGKILL)
        return code

    def _tell(self, future: asyncio.Future[Any], outcome: object) -> None:
        def tell() -> None:
            if future is self._exit:
                self.exit_code = self._process.returncode
            if not future.done():
                future.set_result(outcome)

        try:
            self._loop.call_soon_threadsafe(tell)
        except RuntimeError:
            pass  # the loop has been closed: nobody is left to be told


def _signal_group(group: int, number: int) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        pass  # all ended; macOS answers EPERM for a group of which only a zombie is left


def launch(
    command: Sequence[str],
    *,
    log: Log,
    greeting: bytes = b"",
    environment: Mapping[str, str] | None = None,
    guarded: bool = False,
) -> Child:
    """Starts `command` in a session of its own; `greeting` is the first thing it can read from stdin.

    `guarded`: guard.py stands between us and it, for a program that is a tree of processes and does not watch its
    parent; such a program reads nothing from stdin. Call it in the thread of the running event loop (elsewhere it
    raises RuntimeError). `environment` is added to ours. Raises OSError if there is no such program.
    """
    asyncio.get_running_loop()
    guarded = guarded and sys.platform != "win32"
    if guarded:
        command = [sys.executable, "-P", str(_GUARD), *command]
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        env={**os.environ, **environment} if environment else None,
        start_new_session=sys.platform != "win32",
        creationflags=_FLAGS,
    )
    return Child(process, log, greeting, guarded=guarded)

"""Child processes, real ones: started, watched, and ended with everything they started."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from portico.process import LINE_LIMIT, Child, Log, launch

posix = pytest.mark.skipif(sys.platform == "win32", reason="process groups and signals are POSIX")

CHILD = Path(__file__).parents[1] / "src" / "portico" / "engines" / "llamacpp_child.py"


def python(code: str, **more: object) -> Child:
    return launch([sys.executable, "-u", "-c", code], log=Log(), **more)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Neither gone nor a zombie that its new parent has not collected yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def gone_within(pid: int, seconds: float) -> float:
    """Seconds until it was gone."""
    began = time.monotonic()
    while alive(pid):
        assert time.monotonic() - began < seconds, f"process {pid} still lives"
        time.sleep(0.002)
    return time.monotonic() - began


async def test_first_line_is_announced_and_the_rest_is_log() -> None:
    child = python(
        "import os; print('{\"ready\": true}', flush=True); print('more'); os.write(2, b'native\\n')"
    )
    assert await child.announcement() == '{"ready": true}'
    assert await child.wait() == 0 and child.exit_code == 0
    assert sorted(child.log.lines()) == ["more", "native"]


async def test_stdout_may_be_used_after_the_announcement() -> None:
    child = python("import time; print('ready', flush=True); time.sleep(0.1); print('more', flush=True)")
    assert await child.announcement() == "ready"
    assert await child.wait() == 0
    assert child.log.lines() == ["more"]


async def test_ends_without_a_word() -> None:
    child = python("import sys; sys.exit('no such model')")
    assert await child.announcement() is None
    assert await child.wait() == 1
    assert child.log.tail() == "no such model"


async def test_greeting_of_any_size_does_not_block() -> None:
    began = time.monotonic()
    code = "import sys, time; time.sleep(2); print(len(sys.stdin.readline()), flush=True)"
    child = python(code, greeting=b"x" * (1 << 20) + b"\n")
    assert time.monotonic() - began < 1.5
    assert await child.announcement() == str((1 << 20) + 1)
    assert await child.wait() == 0


async def test_a_program_that_is_not_there() -> None:
    with pytest.raises(FileNotFoundError):
        launch(["/no/such/program"], log=Log())


async def test_never_from_an_executor_thread() -> None:
    with pytest.raises(RuntimeError, match="no running event loop"):
        await asyncio.to_thread(python, "pass")


async def test_environment_is_added_to_ours() -> None:
    child = python(
        "import os; print(os.environ['GREETING'], 'PATH' in os.environ)", environment={"GREETING": "hi"}
    )
    assert await child.announcement() == "hi True"
    await child.wait()


# ---- ending


@posix
async def test_end_asks_first() -> None:
    child = python(
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print(); time.sleep(60)"
    )
    await child.announcement()
    assert await child.end() == 7


@posix
async def test_end_kills_what_does_not_listen() -> None:
    child = python("import signal, time; signal.signal(15, signal.SIG_IGN); print(); time.sleep(60)")
    await child.announcement()
    began = time.monotonic()
    assert await child.end(grace=0.2) == -signal.SIGKILL
    assert time.monotonic() - began < 2


PARENT_OF_TWO = """
import subprocess, sys, time
sleeper = [sys.executable, "-u", "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"]
print(*[subprocess.Popen(sleeper).pid for _ in range(2)], flush=True)
{then}
"""


@posix
@pytest.mark.parametrize("ends", ["by us", "by itself", "killed"])
async def test_the_whole_tree_ends(ends: str) -> None:
    child = python(PARENT_OF_TWO.format(then="" if ends == "by itself" else "time.sleep(60)"))
    announced = await child.announcement()
    assert announced is not None
    if ends == "by us":
        await child.end(grace=0.2)
    elif ends == "killed":
        os.kill(child.pid, signal.SIGKILL)
    await child.wait()
    for pid in announced.split():
        gone_within(int(pid), 1.0)


@posix
async def test_ctrl_c_in_the_terminal_does_not_reach_it() -> None:
    child = python("import os; print(os.getsid(0), os.getpgid(0), os.getpid()); input()")
    announced = await child.announcement()
    assert announced is not None and len(set(announced.split())) == 1
    await child.kill()


@posix
async def test_signals_after_the_end_go_nowhere() -> None:
    child = python("pass")
    await child.wait()
    child.signal(signal.SIGKILL)
    assert await child.end() == 0


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
async def test_a_crash_is_seen_at_once(number: int) -> None:
    child = python("import time; print(); time.sleep(60)")
    await child.announcement()
    began = time.monotonic()
    os.kill(child.pid, number)
    assert await child.wait() == -number
    assert time.monotonic() - began < 0.5  # 50 ms on an idle machine


async def test_nothing_is_left_over() -> None:
    def open_files() -> set[tuple[str, str]]:
        """Which, not how many: what an earlier test has left to the collector may be closed meanwhile."""
        if sys.platform != "linux":
            return set()
        found = set()
        for number in os.listdir("/proc/self/fd"):
            with contextlib.suppress(FileNotFoundError):  # the listing's own
                found.add((number, os.readlink(f"/proc/self/fd/{number}")))
        return found

    async def once() -> None:
        child = python("print()")
        await child.announcement()
        await child.wait()
        await asyncio.sleep(0.05)

    await once()
    files, threads = open_files(), set(threading.enumerate())
    for _ in range(5):
        await once()
    assert open_files() <= files and set(threading.enumerate()) <= threads


# ---- the parent is killed

SERVER = """
import asyncio, sys
from portico.process import Log, launch

async def main():
    child = launch([sys.executable, *sys.argv[1:]], log=Log(), greeting=b"{}\\n")
    assert await child.announcement() == "ready"
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""

PIPE_ALONE = "import os; os.write(1, b'ready\\n')\nwhile os.read(0, 4096): pass"
"""What macOS and Windows have."""

LAUNCHER = f"""
import os, runpy, time
child = runpy.run_path({str(CHILD)!r})
announcements = child["divert_output"]()
child["read_line"]()
child["follow_parent"]()
os.write(announcements, b"ready\\n")
while True: time.sleep(60)
"""

KERNEL_ALONE = LAUNCHER.replace(
    'child["follow_parent"]()', 'os.dup2(os.open("/dev/zero", 0), 0)\nchild["follow_parent"]()'
)
"""The lifeline never ends, as if the interpreter were held by native code."""


@posix
@pytest.mark.parametrize("child", [PIPE_ALONE, LAUNCHER, KERNEL_ALONE], ids=["pipe", "both", "kernel"])
def test_killing_the_parent_ends_the_child(child: str) -> None:
    if child is KERNEL_ALONE and sys.platform != "linux":
        pytest.skip("PR_SET_PDEATHSIG is Linux's")
    server = subprocess.Popen([sys.executable, "-u", "-c", SERVER, "-c", child], stdout=subprocess.PIPE)
    with server:
        assert server.stdout is not None
        pid = int(server.stdout.readline())
        assert alive(pid)
        server.kill()
        server.wait()
    gone_within(pid, 1.0)


# ---- the log


def test_log_keeps_the_last_lines() -> None:
    log = Log(lines=3)
    for piece in (b"one\ntw", b"o\nthree\nfour\nfi", b"ve \xff"):
        log.write(piece)
    assert log.lines() == ["two", "three", "four"]
    assert log.tail(2) == "four\nfive \N{REPLACEMENT CHARACTER}"


def test_log_tells_what_is_new() -> None:
    log = Log(lines=3)
    log.write(b"a\nb")
    assert log.since(0) == (1, ["a"])
    assert log.since(1) == (1, [])
    log.write(b"\nc\nd\ne\n")
    assert log.since(1) == (5, ["c", "d", "e"]), "b is in memory no more"
    assert log.since(4) == (5, ["e"])


def test_log_survives_megabytes_without_a_newline() -> None:
    log = Log(lines=10)
    for _ in range(200):
        log.write(b"x" * 65536)
    assert sum(map(len, log.lines())) <= 10 * LINE_LIMIT and len(log.tail()) < 9 * (LINE_LIMIT + 1)


def test_log_file_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "engine.log"
    log = Log(path, file_limit=1000)
    for number in range(100):
        log.write(b"%04d" % number + b"." * 45 + b"\n")
    log.close()
    kept = [file.read_bytes() for file in (path.with_name("engine.log.1"), path)]
    assert all(len(file) <= 1050 for file in kept)
    assert b"".join(kept).endswith(b"0099" + b"." * 45 + b"\n")


def test_log_goes_on_without_its_file(tmp_path: Path) -> None:
    log = Log(tmp_path / "no folder" / "engine.log")
    (tmp_path / "no folder").write_text("a file is in the way")
    log.write(b"still heard\n")
    assert log.tail() == "still heard"

"""The guard before an engine's process tree, and what a killed server left behind: real processes, really killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from portico.leftovers import MARK, Running, began, kill_marked, new_mark, with_mark
from portico.process import Child, Log, launch
from test_process import alive, gone_within

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="process trees are kept by Linux's means")

SLEEPER = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
# An engine as vLLM is one: a first process, and one below it in a session of its own that no signal to the group
# reaches.
TREE = f"""
import os, signal, subprocess, sys, time
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
{{first}}
below = subprocess.Popen([sys.executable, "-c", {SLEEPER!r}], start_new_session=True)
print(os.getpid(), below.pid, flush=True)
{{then}}
"""


def guarded(code: str, environment: dict[str, str] | None = None) -> Child:
    return launch([sys.executable, "-u", "-c", code], log=Log(), environment=environment, guarded=True)


async def tree(
    then: str = "time.sleep(60)", *, first: str = "", environment: dict[str, str] | None = None
) -> tuple[Child, int, int]:
    """The guard, the engine's first process and the one below it."""
    child = guarded(TREE.format(then=then, first=first), environment)
    while not child.log.lines():
        assert child.exit_code is None, child.log.tail()
        await asyncio.sleep(0.01)
    top, below = map(int, child.log.lines()[0].split())
    assert alive(top) and alive(below) and os.getsid(below) == below
    return child, top, below


@pytest.mark.parametrize(
    ("then", "code"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 11)", -signal.SIGSEGV)]
)
async def test_what_an_engine_leaves_behind_ends_with_it(then: str, code: int) -> None:
    child, first, below = await tree(f"signal.sigwait([signal.SIGUSR1]); {then}")
    os.kill(first, signal.SIGUSR1)
    assert await child.wait() == code
    assert not alive(below)


async def test_a_killed_first_process_takes_the_others_along() -> None:
    child, first, below = await tree()
    os.kill(first, signal.SIGKILL)
    assert await child.wait() == -signal.SIGKILL
    assert not alive(below)


async def test_a_killed_guard_takes_the_engine_along() -> None:
    child, first, below = await tree()
    try:
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
        gone_within(first, 2)
    finally:
        os.kill(below, signal.SIGKILL)  # nobody is left who could: the next start of a server finds it


async def test_an_engine_may_take_its_time_to_end() -> None:
    child, _, below = await tree(first="signal.signal(15, lambda *_: (time.sleep(0.3), sys.exit(3)))")
    assert await child.end(grace=10) == 3
    assert not alive(below)


async def test_an_engine_that_does_not_listen_is_killed() -> None:
    child, first, below = await tree(first="signal.signal(15, signal.SIG_IGN)")
    await child.end(grace=0.2)
    assert not alive(first) and not alive(below)


async def test_a_program_that_is_not_there() -> None:
    child = launch(["/no/such/engine"], log=Log(), guarded=True)
    assert await child.wait() == 127
    assert child.log.tail() == "/no/such/engine cannot be started: No such file or directory"


SERVER = """
import asyncio, os, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from portico.leftovers import MARK, Running, new_mark
from test_guard import tree

async def main():
    mark = new_mark()
    child, first, below = await tree(environment={{MARK: mark}})
    Running(Path({folder!r})).note(mark, model="m", pid=child.pid)
    print(child.pid, first, below, flush=True)
    {then}

asyncio.run(main())
"""


def server(folder: Path, then: str) -> tuple[subprocess.Popen[str], list[int]]:
    code = SERVER.format(tests=str(Path(__file__).parent), folder=str(folder), then=then)
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    return started, [int(word) for word in started.stdout.readline().split()]


def test_a_killed_server_leaves_nothing(tmp_path: Path) -> None:
    started, pids = server(tmp_path, "await asyncio.sleep(60)")
    started.kill()
    started.communicate()
    for pid in pids:
        gone_within(pid, 5)


def test_what_no_guard_could_end_is_found_at_the_next_start(tmp_path: Path) -> None:
    """Server and guard are killed together, as when the system runs out of memory."""
    started, (guard, first, below) = server(tmp_path, "os.kill(child.pid, 19); await asyncio.sleep(60)")
    while Path(f"/proc/{guard}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        time.sleep(0.01)
    running = Running(tmp_path)
    assert running.left() == [] and running.end_leftovers() == [], "its server lives: nothing is left over"
    assert alive(below)
    started.kill()
    os.kill(guard, signal.SIGKILL)
    started.communicate()
    gone_within(first, 2)
    assert alive(below)
    (ended,) = running.end_leftovers()
    assert ended.engine.pid == guard and ended.model == "m"
    gone_within(below, 1)
    assert running.left() == [] and not list(tmp_path.iterdir())


def test_processes_of_others_are_not_touched(tmp_path: Path) -> None:
    """A record whose numbers belong to somebody else by now."""
    other = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        running, mark = Running(tmp_path), new_mark()
        running.note(mark, model="m", pid=other.pid)
        path = tmp_path / f"{mark}.json"
        record = msgspec.json.decode(path.read_bytes())
        record["server"] = {"pid": other.pid, "began": "1"}
        path.write_bytes(msgspec.json.encode(record))
        assert [left.mark for left in running.left()] == [mark]
        assert running.end_leftovers() == [] and not path.exists()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


@pytest.mark.parametrize(
    ("changes", "kept"),
    [({"host": "another"}, True), ({"boot": "an earlier one"}, False), ({}, True)],
    ids=["another machine's", "of an earlier start of this machine", "a living server's"],
)
def test_records_of_elsewhere(tmp_path: Path, changes: dict[str, str], kept: bool) -> None:
    running, mark = Running(tmp_path), new_mark()
    running.note(mark, model="m", pid=os.getpid())
    path = tmp_path / f"{mark}.json"
    path.write_bytes(msgspec.json.encode(msgspec.json.decode(path.read_bytes()) | changes))
    assert running.end_leftovers() == []
    assert path.exists() == kept


def test_a_record_that_is_none_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{")
    assert Running(tmp_path).end_leftovers() == [] and (tmp_path / "x.json").exists()
    assert Running(tmp_path / "none").left() == []


def test_a_number_used_again_is_another_process() -> None:
    assert began(os.getpid()) == began(os.getpid()) != began(1)
    assert began(2**22 + 1) == ""


async def test_marks_are_inherited_by_the_whole_tree() -> None:
    mark = new_mark()
    child, first, below = await tree(environment={MARK: mark})
    assert {process.pid for process in with_mark(mark)} == {child.pid, first, below}
    assert await asyncio.to_thread(kill_marked, mark) >= 1  # the guard's end may be the engine's
    await child.wait()
    assert not alive(first) and not alive(below)

"""vLLM as a child process, with a stand-in that is a process tree like it: started, watched, ended."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from portico.engines import ModelSpec, Progress, Progressed
from portico.engines.gpus import Gpu, Seen
from portico.engines.supervisor import Supervisor
from portico.engines.vllm.engine import AHEAD, Vllm, VllmReplica, abilities, ended_by
from portico.engines.vllm.health import Limits
from portico.engines.vllm.installs import Install
from portico.engines.vllm.options import VllmOptions
from portico.errors import EngineStartFailed, UpstreamClosed, UpstreamFailed, UpstreamUnreachable
from portico.leftovers import MARK, with_mark
from portico.process import Log
from portico.testing import FakeReplica
from test_process import alive, gone_within
from virtual_time import run

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="vLLM does not run on Windows")

FAKE = Install(name="vllm", version="0.32.0", python=sys.executable, module="fake_vllm", device="gpu")
QUICK = Limits(stopped=0.5, silent=2.0, unseen=2.0, spinning=6.0, idle=1.0)


@pytest.fixture(autouse=True)
def fake_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))


def spec(*wrong: str, **options: Any) -> ModelSpec:
    return ModelSpec(name="m", engine="vllm", source="/models/m", vllm=VllmOptions(args=wrong, **options))


@asynccontextmanager
async def started(
    home: Path, *wrong: str, limits: Limits = QUICK, **options: Any
) -> AsyncIterator[tuple[Vllm, VllmReplica]]:
    engine = Vllm(home, limits=limits, install=FAKE)
    replica = await engine.start(spec(*wrong, **options))
    try:
        yield engine, replica
    finally:
        await engine.stop(replica)
        assert not with_mark(replica.mark), "something of it is left"
        assert not list((home / "engines" / "running").iterdir())


async def ask(replica: VllmReplica, text: str = "hello there", **more: Any) -> Any:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
    answer = await replica.upstream.fetch("POST", "/v1/chat/completions", msgspec.json.encode(body))
    return msgspec.json.decode(answer.body)


async def until(true: Callable[[], object], within: float = 10.0) -> None:
    """What other processes do cannot be awaited."""
    deadline = time.monotonic() + within
    while not true():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def ended(replica: VllmReplica, within: float) -> tuple[str, float]:
    """Its last words, and the seconds until they were known."""
    began = time.monotonic()
    while replica.died() is None:
        assert time.monotonic() - began < within, "nobody has noticed"
        await asyncio.sleep(0.01)
    return replica.died() or "", time.monotonic() - began


def core_of(replica: VllmReplica) -> psutil.Process:
    """The process that makes the tokens: the last of guard, server, core."""
    (core,) = [p for p in with_mark(replica.mark) if "--as-core" in p.cmdline()]
    return core


async def test_it_starts_answers_and_leaves_nothing(tmp_path: Path) -> None:
    async with started(tmp_path) as (_, replica):
        said = await ask(replica, "one two three")
        assert said["choices"][0]["message"]["content"] == "one two three"
        assert replica.context == 4096 and replica.died() is None
        assert await replica.tokenize("a b c") == (0, 1, 2)
        assert len(with_mark(replica.mark)) == 3
    assert "Starting to load model /models/m" in (tmp_path / "logs" / "m.log").read_text()


async def test_stages_are_told_in_order(tmp_path: Path) -> None:
    heard: list[Progress | None] = []

    def hear(progress: Progress | None = None) -> None:
        heard.append(progress)

    engine = Vllm(tmp_path, install=FAKE)
    replica = await engine.start(spec("--slow-start", "0.5"), hear)
    await engine.stop(replica)
    assert [one.stage for one in heard if one] == ["starting", "loading weights", "warming up", "ready"]
    assert None in heard, "a line that says nothing new is still a sign of life"


async def test_its_key_is_no_argument(tmp_path: Path) -> None:
    async with started(tmp_path) as (_, replica):
        assert all(replica.place.key not in " ".join(p.cmdline()) for p in with_mark(replica.mark))
        assert {p.environ()["VLLM_API_KEY"] for p in with_mark(replica.mark)} == {replica.place.key}


async def test_a_tcp_port_where_one_is_asked_for(tmp_path: Path) -> None:
    from portico.engines.vllm.engine import free_port

    port = free_port()
    async with started(tmp_path, port=port) as (_, replica):
        assert replica.upstream.url == f"http://127.0.0.1:{port}"
        assert (await ask(replica))["choices"]


async def test_one_starts_at_a_time(tmp_path: Path) -> None:
    engine = Vllm(tmp_path, install=FAKE)
    first = asyncio.create_task(engine.start(spec("--slow-start", "0.6")))
    await asyncio.sleep(0.1)
    second = asyncio.create_task(engine.start(spec()))
    done, _ = await asyncio.wait([first, second], return_when=asyncio.FIRST_COMPLETED)
    assert done == {first}
    for task in (first, second):
        await engine.stop(await task)


async def test_only_a_model_that_was_asked_for_as_a_folder_is_started_without_the_hub(tmp_path: Path) -> None:
    """One that was fetched may need more of the hub than its own files."""

    async def fetch(asked: ModelSpec, progressed: Progressed) -> ModelSpec:
        return msgspec.structs.replace(asked, source=str(tmp_path))

    engine = Vllm(tmp_path, install=FAKE, fetch=fetch)
    for source, offline in (("org/m", None), (str(tmp_path), "1")):
        replica = await engine.start(msgspec.structs.replace(spec(), source=source))
        assert {p.environ().get("HF_HUB_OFFLINE") for p in with_mark(replica.mark)} == {offline}
        await engine.stop(replica)


async def test_it_is_given_as_many_at_once_as_its_arguments_say(tmp_path: Path) -> None:
    async with started(tmp_path, "--max-num-seqs=512", max_num_seqs=4) as (_, replica):
        assert replica.turns is not None and replica.turns.at_once == 512 + AHEAD


class OneByOne(Vllm):
    """Each of its starts takes 80 seconds of the loop's clock, and is seen to go on."""

    async def _start(
        self, spec: ModelSpec, local: ModelSpec, install: Install, progressed: Progressed, given: str
    ) -> VllmReplica:
        for _ in range(8):
            await asyncio.sleep(10)
            progressed()
        return FakeReplica(spec, number=1, url="http://127.0.0.1:9")  # type: ignore[return-value]


def test_who_waits_for_other_starts_is_not_taken_for_one_that_hangs(tmp_path: Path) -> None:
    async def all_at_once() -> None:
        supervisor = Supervisor({"vllm": OneByOne(tmp_path, install=FAKE)}, load_timeout=300)
        specs = [msgspec.structs.replace(spec(), name=f"m#{number}", keep_alive=-1) for number in range(8)]
        loads = [asyncio.ensure_future(supervisor.load(each)) for each in specs]
        await asyncio.sleep(100)
        assert supervisor.doing("m#7") == "m#7: waiting for another start"
        await asyncio.gather(*loads)
        assert {status.state for status in supervisor.states()} == {"ready"}

    run(all_at_once())


def test_who_waits_for_another_start_may_leave(tmp_path: Path) -> None:
    async def one_leaves() -> None:
        engine = OneByOne(tmp_path, install=FAKE)
        starts = [asyncio.ensure_future(engine.start(spec())) for _ in range(3)]
        await asyncio.sleep(5)
        starts[1].cancel()
        await asyncio.gather(*starts, return_exceptions=True)
        assert [start.cancelled() for start in starts] == [False, True, False]

    run(one_leaves())


async def test_what_lies_in_the_working_folder_is_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout of vLLM, or a file that is called like something it imports."""
    for name in ("fake_vllm", "argparse"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('the wrong one')")
    monkeypatch.chdir(tmp_path)
    async with started(tmp_path / "home") as (_, replica):
        assert (await ask(replica))["choices"]


# ---- starts that fail


async def test_out_of_memory_in_one_line(tmp_path: Path) -> None:
    engine = Vllm(tmp_path, install=FAKE)
    with pytest.raises(EngineStartFailed) as caught:
        await engine.start(spec("--oom"))
    error = caught.value
    assert "memory" in error.reason and "--gpu-memory-utilization" in error.reason
    assert error.exit_code == 1 and "No available memory" in error.log_tail
    assert not list((tmp_path / "engines" / "running").iterdir())


async def test_an_argument_it_does_not_know(tmp_path: Path) -> None:
    engine = Vllm(tmp_path, install=FAKE)
    with pytest.raises(EngineStartFailed, match="--no-such-thing"):
        await engine.start(spec("--no-such-thing"))


async def test_nothing_is_installed(tmp_path: Path) -> None:
    with pytest.raises(EngineStartFailed, match="portico engines install vllm"):
        await Vllm(tmp_path).start(spec())


async def test_a_start_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    engine = Vllm(tmp_path, install=FAKE)
    starting = asyncio.create_task(engine.start(spec("--slow-start", "60")))
    await until(lambda: list((tmp_path / "engines").glob("running/*.json")))
    mark = next((tmp_path / "engines" / "running").iterdir()).stem
    await until(lambda: len(with_mark(mark)) == 3)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    await until(lambda: not with_mark(mark))


# ---- the end of one that ran


@pytest.mark.parametrize("which", ["core", "server", "guard"])
async def test_the_death_of_any_of_its_processes_is_noticed_at_once(tmp_path: Path, which: str) -> None:
    async with started(tmp_path, "--stay-after-core") as (_, replica):
        by_role = {"core": core_of(replica).pid, "guard": replica.pid}
        by_role["server"] = core_of(replica).ppid()
        everything = [p.pid for p in with_mark(replica.mark)]
        os.kill(by_role[which], signal.SIGKILL)  # type: ignore[arg-type]
        words, seconds = await ended(replica, 3)
        assert seconds < 3
        for pid in everything:
            gone_within(pid, 3)
        if which == "core":
            assert "has ended" in words


async def test_a_core_that_is_stopped_is_noticed_though_health_says_200(tmp_path: Path) -> None:
    async with started(tmp_path) as (_, replica):
        core = core_of(replica)
        core.suspend()
        assert (await replica.upstream.fetch("GET", "/health")).status == 200
        words, _ = await ended(replica, 5)
        assert f"its process {core.pid} has been stopped" in words
        gone_within(core.pid, 3)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (["--hang", "5"], "made no progress and used no CPU for 2 s"),
        (["--hang", "5", "--spin"], "made no progress for 6 s"),
    ],
)
async def test_a_hang_is_noticed_and_the_request_told(tmp_path: Path, wrong: list[str], why: str) -> None:
    async with started(tmp_path, *wrong) as (_, replica):
        asking = asyncio.create_task(ask(replica, max_tokens=50, ignore_eos=True))
        words, _ = await ended(replica, 20)
        assert why in words
        with pytest.raises((UpstreamClosed, UpstreamUnreachable)):
            await asking


@pytest.mark.parametrize(
    ("busy", "limits", "why"),
    [
        (0.9, Limits(silent=1.0, unseen=1.0, spinning=4.0), r"made no progress for \d+ s"),
        (
            0.0,
            Limits(silent=1.0, unseen=900.0, spinning=900.0),
            r"made no progress and used no CPU for \d+ s",
        ),
        (
            None,
            Limits(silent=900.0, unseen=1.0, spinning=900.0),
            r"made no progress and used no CPU for \d+ s",
        ),
    ],
    ids=["computes", "does not", "nobody knows"],
)
async def test_a_gpu_that_computes_is_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, busy: float | None, limits: Limits, why: str
) -> None:
    """Each can only be ended by the limit that is meant: the others are far, or are passed over."""
    present = (Gpu(index=0, name="H100", total=100, free=50, busy=busy),)
    monkeypatch.setattr("portico.engines.vllm.engine.gpus", lambda: present)
    monkeypatch.setattr("portico.engines.vllm.engine.look", lambda: Seen(gpus=present))
    async with started(tmp_path, "--hang", "5", limits=limits) as (_, replica):
        asking = asyncio.create_task(ask(replica, max_tokens=50, ignore_eos=True))
        words, _ = await ended(replica, 60)
        assert re.search(why, words)
        with pytest.raises((UpstreamClosed, UpstreamUnreachable)):
            await asking


async def test_an_idle_one_that_hangs_is_noticed_by_a_probe(tmp_path: Path) -> None:
    async with started(tmp_path, "--hang", "2") as (_, replica):
        words, _ = await ended(replica, 20)  # two probes are answered, the third is not
        assert "made no progress and used no CPU" in words


async def test_long_work_is_left_alone(tmp_path: Path) -> None:
    """No token for three times `silent`, but somebody computes."""
    limits = Limits(stopped=0.5, silent=1.0, unseen=1.0, spinning=60.0, idle=1.0)
    async with started(tmp_path, "--hang", "5", "--spin", limits=limits) as (_, replica):
        asking = asyncio.create_task(ask(replica, max_tokens=50, ignore_eos=True))
        await asyncio.sleep(3)
        assert replica.died() is None and not asking.done()
        asking.cancel()


async def test_one_that_ignores_sigterm_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portico.engines.vllm.engine.END_SECONDS", 0.3)
    async with started(tmp_path, "--ignore-sigterm") as (_, replica):
        pids = [p.pid for p in with_mark(replica.mark)]
    for pid in pids:
        assert not alive(pid)


async def test_a_probe_is_nobodys_request(tmp_path: Path) -> None:
    told: list[Callable[[], None]] = []
    async with started(tmp_path, limits=Limits(idle=0.5)) as (_, replica):
        assert replica.watch is not None
        await asyncio.sleep(2.5)
        assert replica.died() is None and not told
        assert replica.watch.counted.moved > 0
        assert replica.watch.resident > 1 << 20


async def test_a_driver_that_hangs_keeps_no_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = threading.Event()
    monkeypatch.setattr("portico.engines.vllm.engine.ANSWER_SECONDS", 0.1, raising=False)
    monkeypatch.setattr("portico.engines.vllm.engine.look", lambda: (answer.wait(), Seen())[1])
    engine = Vllm(tmp_path, install=FAKE)
    try:
        await asyncio.wait_for(engine.look(), 5)
        replica = await asyncio.wait_for(engine.start(spec()), 30)
        assert replica.gpus == frozenset()
        await engine.stop(replica)
    finally:
        answer.set()


@pytest.mark.parametrize("driver", ["fails", "hangs"])
async def test_a_driver_that_is_broken_keeps_nothing_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: str
) -> None:
    answer = threading.Event()

    def broken() -> tuple[Gpu, ...]:
        if driver == "hangs":
            answer.wait()
        raise RuntimeError("GPU is lost")

    monkeypatch.setattr("portico.engines.vllm.engine.MEASURE_SECONDS", 0.1)
    engine = Vllm(tmp_path, install=FAKE)
    replica = await engine.start(spec())
    monkeypatch.setattr("portico.engines.vllm.engine.gpus", broken)
    with contextlib.suppress(RuntimeError):
        await engine.stop(replica)
    answer.set()
    assert not with_mark(replica.mark)


@pytest.mark.parametrize(
    ("version", "args", "bounded"),
    [
        ("0.32.0", (), True),
        ("0.33.1rc2", ("--max-num-seqs", "4"), True),
        ("1.0", (), True),
        ("0.31.2", (), False),
        ("unknown", (), False),
        ("0.32.0", ("--structured-outputs-config", '{"backend": "guidance"}'), False),
        ("0.32.0", ("--structured_outputs_config.backend=guidance",), False),
        ("0.32.0", ("--config", "vllm.yaml"), False),
    ],
)
def test_grammars_that_are_known_are_given_a_bound(
    version: str, args: tuple[str, ...], bounded: bool
) -> None:
    assert abilities(VllmOptions(args=args), version).spelling.bounds_white_space is bounded


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "(it is dead)"),
        (
            [
                "(EngineCore pid=7) ERROR 11-26 08:53:58 [core.py:1] torch.OutOfMemoryError: CUDA out of memory.",
                "(APIServer pid=6) ERROR 11-26 08:53:58 [async_llm.py:906] vllm.EngineDeadError: EngineCore is dead.",
            ],
            "torch.OutOfMemoryError: CUDA out of memory.\n(it is dead)",
        ),
        (
            ["(APIServer pid=6) ERROR 11-26 08:53:58 [a.py:9] vllm.EngineDeadError: it is dead."],
            "(it is dead)",
        ),
        (["(EngineCore pid=7) INFO 11-26 08:53:58 [core.py:1] all is well"], "(it is dead)"),
    ],
)
def test_what_failed_inside_is_told_and_no_lines_of_code(lines: list[str], words: str) -> None:
    log = Log()
    log.write("".join(f"{line}\n" for line in lines).encode())
    assert ended_by(log, "it is dead") == words


# ---- its files


async def test_its_files_are_kept_while_it_runs(tmp_path: Path) -> None:
    held: list[str] = []

    def hold(path: str) -> Callable[[], None]:
        held.append(path)
        return held.clear

    engine = Vllm(tmp_path, install=FAKE, limits=QUICK, hold=hold)
    replica = await engine.start(spec())
    assert held == ["/models/m"]
    await engine.stop(replica)
    assert not held
    with pytest.raises(EngineStartFailed):
        await engine.start(spec("--oom"))
    assert not held


async def test_files_that_go_while_it_is_about_to_start_are_fetched_again(tmp_path: Path) -> None:
    """A newer version takes the place of the one that was found a moment ago."""
    found = iter(["/old", "/new"])

    async def fetch(asked: ModelSpec, progressed: Progressed) -> ModelSpec:
        return msgspec.structs.replace(asked, source=next(found))

    engine = Vllm(
        tmp_path,
        install=FAKE,
        limits=QUICK,
        fetch=fetch,
        hold=lambda path: None if path == "/old" else lambda: None,
    )
    replica = await engine.start(spec())
    assert "/new" in psutil.Process(replica.child.pid).cmdline()
    await engine.stop(replica)


# ---- sleep


@pytest.mark.parametrize(
    ("level", "told"),
    [
        (1, ["asleep level=1&mode=wait", "awake"]),
        (
            2,
            [
                "asleep level=2&mode=wait",
                "awake tags=weights",
                "did /collective_rpc",
                "awake tags=kv_cache",
                "did /reset_prefix_cache",
            ],
        ),
    ],
)
async def test_sleep_and_wake(tmp_path: Path, level: int, told: list[str]) -> None:
    """Level 2 has dropped its weights: they are read again between waking the one and the other memory."""
    async with started(
        tmp_path, "--sleepable", sleep=True, limits=Limits(idle=0.3, silent=0.6, unseen=0.6)
    ) as (
        engine,
        replica,
    ):
        await engine.sleep(replica, level)
        await asyncio.sleep(2)
        assert replica.died() is None, "it is not probed while it sleeps"
        await engine.wake(replica)
        assert (await ask(replica, "good morning"))["choices"][0]["message"]["content"] == "good morning"

        def heard() -> list[str]:
            said = [line.partition("[fake.py:1] ")[2] for line in replica.child.log.lines()]
            return [line for line in said if line.startswith(("asleep", "awake", "did"))]

        await until(
            lambda: len(heard()) >= len(told)
        )  # its log is read by a thread, which may lag behind its answers
        assert heard() == told


async def test_deeper_sleep_goes_over_waking(tmp_path: Path) -> None:
    async with started(tmp_path, "--sleepable", sleep=True) as (engine, replica):
        await engine.sleep(replica, 1)
        await engine.sleep(replica, 2)
        assert replica.level == 2 and replica.takes() is None
        await engine.wake(replica)
        assert (await ask(replica))["choices"]


async def test_one_that_cannot_sleep_says_so(tmp_path: Path) -> None:
    async with started(tmp_path) as (engine, replica):
        with pytest.raises(UpstreamFailed, match="404"):
            await engine.sleep(replica, 1)


async def test_claims_do_not_ask_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are made in the event loop."""
    asked: list[int] = []

    def present() -> Seen:
        asked.append(1)
        return Seen(gpus=tuple(Gpu(index=at, name="GPU", total=100 * (at + 1), free=0) for at in range(3)))

    monkeypatch.setattr("portico.engines.vllm.engine.look", present)
    engine = Vllm(tmp_path, install=FAKE, visible="0,1")
    assert engine.claim(spec()).memory == 0 and not asked, "nobody knows yet"
    await engine.look()
    assert {engine.claim(spec()).memory for _ in range(3)} == {180}, (
        "nine tenths of the largest that may be used"
    )
    assert engine.claim(spec()).by_gpu == {"0": 90, "1": 180}, "and of each other one"
    assert len(asked) == 1


@pytest.mark.parametrize(("shared", "device"), [("", "gpu"), ("01", "host"), ("1", "gpu")])
async def test_a_gpu_that_has_the_hosts_memory_takes_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str, device: str
) -> None:
    """Then it is no second account: what a model takes there, another on the host has not."""
    cards = tuple(Gpu(index=at, name="GB10", total=100, free=80, shared=str(at) in shared) for at in range(2))
    monkeypatch.setattr("portico.engines.vllm.engine.look", lambda: Seen(gpus=cards))
    engine = Vllm(tmp_path, install=FAKE)
    assert (await engine.look()).gpus == cards
    claim = engine.claim(spec(tensor_parallel_size=2))
    assert (claim.device, claim.memory, claim.count) == (device, 90, 2)


async def test_it_gets_the_gpus_that_it_is_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the driver is not asked again: who gave them has counted what is free."""
    monkeypatch.setattr("portico.engines.vllm.engine.look", lambda: pytest.fail("asked"))
    engine = Vllm(tmp_path, install=FAKE)
    replica = await engine.start(spec(), gpus=["1", "3"])
    try:
        environment = psutil.Process(replica.child.pid).environ()
        assert environment["CUDA_VISIBLE_DEVICES"] == "1,3" and replica.gpus == {"1", "3"}
    finally:
        await engine.stop(replica)


async def measured(home: Path, install: Install, present: Callable[[], tuple[Gpu, ...]]) -> int:
    """The claim after one run. `present`: what the driver says once it runs."""
    engine = Vllm(home, install=install, limits=QUICK)
    replica = await engine.start(spec())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("portico.engines.vllm.engine.gpus", present)
        await engine.stop(replica)
    return Vllm(home, install=install).claim(spec()).memory


async def test_what_it_took_is_remembered(tmp_path: Path) -> None:
    cpu = msgspec.structs.replace(FAKE, device="cpu")
    before = Vllm(tmp_path, install=cpu).claim(spec()).memory
    after = await measured(tmp_path, cpu, tuple)
    assert before > 1 << 30 and 10 << 20 < after < 1 << 30, (before, after)


async def test_what_it_took_of_a_gpu_is_remembered(tmp_path: Path) -> None:
    def present() -> tuple[Gpu, ...]:
        ours = [p.pid for p in psutil.Process().children(recursive=True)]
        return (Gpu(index=0, name="H100", total=1000, free=300, used_by=dict.fromkeys(ours, 100)),)

    assert await measured(tmp_path, FAKE, present) in (200, 300), "its server and core, and no other"


async def test_what_it_took_of_several_gpus_is_the_most_of_one(tmp_path: Path) -> None:
    def present() -> tuple[Gpu, ...]:
        ours = [p.pid for p in psutil.Process().children(recursive=True)]
        one, two = (Gpu(index=at, name="H100", total=1000, free=300) for at in range(2))
        return (
            msgspec.structs.replace(one, used_by=dict.fromkeys(ours, 100)),
            msgspec.structs.replace(two, used_by=dict.fromkeys(ours, 90)),
        )

    assert await measured(tmp_path, FAKE, present) in (200, 300)


async def test_where_the_driver_does_not_name_our_processes_nothing_is_remembered(tmp_path: Path) -> None:
    """In a container. Its memory of the host is no measure: every model would then fit beside it."""

    def present() -> tuple[Gpu, ...]:
        return (Gpu(index=0, name="H100", total=1000, free=300, used_by={2**22 + 1: 700}),)

    assert await measured(tmp_path, FAKE, present) == 0


async def test_a_start_that_runs_out_of_memory_says_on_which_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    present = tuple(Gpu(index=at, name="H100", total=100, free=10 * at) for at in range(3))
    monkeypatch.setattr("portico.engines.vllm.engine.look", lambda: Seen(gpus=present))
    engine = Vllm(tmp_path, install=FAKE, visible="0,1", limits=QUICK)
    with pytest.raises(EngineStartFailed) as caught:
        await engine.start(spec("--oom"))
    assert caught.value.out_of_memory and caught.value.gpus == {"1"}
    replica = await engine.start(spec(tensor_parallel_size=2))
    assert replica.gpus == {"0", "1"}
    assert {p.environ()["CUDA_VISIBLE_DEVICES"] for p in with_mark(replica.mark)} == {"0,1"}
    await engine.stop(replica)


def test_marks_are_in_the_environment() -> None:
    assert MARK not in os.environ

"""What is concluded from an engine's progress: cases, and what always holds."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from portico.engines.vllm.health import Counted, Health, Limits, Look, counted
from portico.engines.vllm.watch import Processes, Watch
from portico.errors import UpstreamUnreachable

LIMITS = Limits(stopped=4, silent=10, unseen=30, spinning=60, idle=20)


def watched(looks: list[dict[str, Any]], limits: Limits = LIMITS) -> list[str]:
    """A look a second, each with what differs from the one before; the verdicts."""
    health, state, found = Health(limits, 0.0), {"running": 0, "moved": 0.0, "cpu": 0.0}, []
    for at, changes in enumerate(looks, start=1):
        if "used" in changes:
            changes = {**changes, "cpu": state["cpu"] + changes["used"]}
            del changes["used"]
        state |= changes
        found.append(health.verdict(Look(at=float(at), **state)))
    return found


def test_idle_is_well_and_is_asked_now_and_then() -> None:
    verdicts = watched([{}] * 25)
    assert verdicts == ["well"] * 20 + ["probe"] * 5  # the first look counts as progress: it is the beginning


def test_an_answered_probe_is_progress() -> None:
    verdicts = watched([{}] * 21 + [{"asked": True}, {"asked": False, "moved": 2.0}, *[{}] * 18])
    assert verdicts[-1] == "well" and "probe" in verdicts


def test_an_idle_engine_that_hangs_does_not_answer_its_probe() -> None:
    verdicts = watched([{}] * 21 + [{"asked": True}] + [{}] * 10)
    assert verdicts[-2] == "well"
    assert verdicts[-1] == "it has made no progress and used no CPU for 10 s"


def test_work_that_moves_is_well() -> None:
    assert set(watched([{"running": 3, "moved": float(at)} for at in range(200)])) == {"well"}


def test_no_token_and_no_cpu_is_a_stall() -> None:
    verdicts = watched([{"running": 1, "moved": 5.0, "used": 1.0}] + [{}] * 11)
    assert verdicts[:10] == ["well"] * 10
    assert verdicts[10] == "it has made no progress and used no CPU for 10 s"


def test_a_long_prefill_is_left_alone() -> None:
    """No token for most of a minute, but somebody computes."""
    verdicts = watched([{"running": 1, "moved": 5.0}] + [{"used": 0.9}] * 59 + [{"moved": 6.0, "used": 0.9}])
    assert set(verdicts) == {"well"}


def test_a_long_step_on_a_gpu_is_left_alone() -> None:
    """vLLM uses no CPU while it waits for one."""
    step = [{"running": 1, "moved": 5.0}] + [{"gpu": True, "used": 0.01}] * 59
    assert set(watched([*step, {"moved": 6.0}])) == {"well"}
    assert watched([*step, {}])[-1] == "it has made no progress for 60 s"


def test_a_gpu_that_computes_nothing_is_no_work() -> None:
    verdicts = watched([{"running": 1, "moved": 5.0, "gpu": True}] + [{"gpu": False}] * 10)
    assert verdicts[-2:] == ["well", "it has made no progress and used no CPU for 10 s"]


def test_where_a_gpu_does_not_tell_a_step_has_longer() -> None:
    verdicts = watched([{"running": 1, "moved": 5.0, "gpu": None}] + [{}] * 30)
    assert verdicts[29] == "well" and verdicts[30] == "it has made no progress and used no CPU for 30 s"
    stopped = watched([{"running": 1, "moved": 5.0, "gpu": None}, {"stopped": 77}, {}, {}, {}, {}])
    assert stopped[-1] == "its process 77 has been stopped for 4 s"


def test_one_that_spins_for_ever_is_ended_too() -> None:
    verdicts = watched([{"running": 1, "moved": 5.0}] + [{"used": 1.0}] * 61)
    assert verdicts[59] == "well" and verdicts[60] == "it has made no progress for 60 s"


def test_an_interpreter_that_only_waits_is_not_at_work() -> None:
    """vLLM's processes use a little CPU while they wait for each other."""
    verdicts = watched([{"running": 1, "moved": 5.0}] + [{"used": 0.005}] * 12)
    assert verdicts[-1].startswith("it has made no progress and used no CPU")


def test_a_stopped_process() -> None:
    verdicts = watched([{}, {"stopped": 77}, {}, {}, {}, {}])
    assert verdicts == ["well"] * 5 + ["its process 77 has been stopped for 4 s"]


def test_a_moments_stop_is_nothing() -> None:
    assert set(watched([{}, {"stopped": 77}, {}, {}, {"stopped": None}, {"stopped": 77}, {}, {}])) == {"well"}


def test_no_answer_means_busy_while_the_cpu_is_used() -> None:
    verdicts = watched([{}, {"running": None, "used": 1.0}] + [{"used": 1.0}] * 30)
    assert set(verdicts) == {"well"}
    assert watched([{}, {"running": None}] + [{}] * 10)[-1].startswith("it has made no progress and used no")


def test_work_that_comes_after_a_long_silence_has_its_time() -> None:
    verdicts = watched([{}] * 19 + [{"running": 1}] + [{}] * 9)
    assert set(verdicts) == {"well"}


@given(st.lists(st.tuples(st.integers(0, 2), st.booleans(), st.booleans()), max_size=80))
def test_nothing_that_moves_is_ever_ended(steps: list[tuple[int, bool, bool]]) -> None:
    """Whatever else is seen: a process that is not stopped and makes progress each second is well or probed."""
    looks = [
        {"running": running, "asked": asked, "moved": float(at), "used": 1.0 if used else 0.0}
        for at, (running, asked, used) in enumerate(steps)
    ]
    assert set(watched(looks)) <= {"well", "probe"}


@given(st.integers(1, 40), st.booleans())
def test_whatever_stands_still_is_ended_in_time(before: int, asked: bool) -> None:
    busy = [{"running": 1, "moved": float(at), "used": 1.0} for at in range(before)]
    verdicts = watched([*busy, *[{"running": 0 if asked else 1, "asked": asked}] * 12])
    assert all(verdict == "well" for verdict in verdicts[:before])
    assert verdicts[-1] not in ("well", "probe")


METRICS = b"""# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 2.0
vllm:num_requests_running{engine="1",model_name="m"} 1.0
vllm:num_requests_waiting{engine="0",model_name="m"} 4.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 1.5e+03
vllm:generation_tokens_total{engine="0",model_name="m"} 20.0
vllm:generation_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:iteration_tokens_total_count{engine="0",model_name="m"} 7.0
vllm:iteration_tokens_total_sum{engine="0",model_name="m"} 1520.0
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [(METRICS, Counted(running=3, waiting=4, moved=1527.0)), (b"", Counted()), (b"<html>", Counted())],
)
def test_what_metrics_say(text: bytes, found: Counted) -> None:
    assert counted(text) == found


# ---- what is asked for a verdict


class Quiet:
    """An engine in a long step: no process uses the CPU, /metrics says the same each time, or nothing for once."""

    def __init__(self, missed: int) -> None:
        self.missed, self.asked = missed, 0

    def look(self) -> Processes:
        return Processes(cpu=1.0)

    async def fetch(self, method: str, path: str) -> SimpleNamespace:
        self.asked += 1
        if self.asked == self.missed:
            raise UpstreamUnreachable(url="unix:///run/x.sock")
        return SimpleNamespace(body=METRICS)


async def test_one_answer_that_did_not_come_does_not_hide_what_the_gpus_do() -> None:
    """Else the look after it takes the step for a new one, without asking the GPUs, and the short limit holds."""
    engine: Any = Quiet(missed=3)
    watch = Watch(
        engine,
        engine,
        probe=lambda: asyncio.ensure_future(asyncio.sleep(0)),
        dead=print,
        computes=lambda: None,
        limits=LIMITS,
    )
    looks = [await watch._look() for _ in range(5)]
    assert [look.running for look in looks] == [3, 3, None, 3, 3]
    assert [look.gpu for look in looks] == [False, None, None, None, None]

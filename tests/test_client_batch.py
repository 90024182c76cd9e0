"""Batches: what is answered is never asked again, whatever ends the program in between."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_server import plain_environment
from portico.client.batch import Batch, Journal, Outcome, Pace, Progress, Row, read_rows
from portico.client.drive_async import Pool
from portico.client.servers import Server
from portico.client.settings import Retry, Settings, Timeouts
from portico.errors import InvalidRequest, NotRunning
from scripted_answers import CHAT, reply
from scripted_upstream import ScriptedUpstream

SETTINGS = Settings(retry=Retry(first=0.001), timeouts=Timeouts(connect=2.0))


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


def rows(count: int) -> list[Row]:
    return [
        Row(custom_id=f"r{at}", url=CHAT, body={"messages": [{"role": "user", "content": f"Row {at}"}]})
        for at in range(count)
    ]


def run(upstream: ScriptedUpstream, journal: Path, count: int, **more: Any) -> dict[str, Outcome]:
    async def work() -> dict[str, Outcome]:
        pool = Pool(Server(url=upstream.url.removesuffix("/v1")), SETTINGS.timeouts)
        kept = Journal(journal)
        try:
            return await Batch(
                rows(count), kept, sender=pool, settings=SETTINGS, model="mock-model", **more
            ).run()
        finally:
            kept.close()
            await pool.close()

    return asyncio.run(work())


def asked(upstream: ScriptedUpstream) -> Counter[str]:
    return Counter(request.json["messages"][0]["content"] for request in upstream.requests(CHAT))


def test_each_row_is_answered_once(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    told: list[Progress] = []
    found = run(upstream, tmp_path / "out.jsonl", 40, on_progress=told.append)
    assert len(found) == 40 and all(outcome.ok for outcome in found.values())
    assert set(asked(upstream).values()) == {1} and len(asked(upstream)) == 40
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert {line["custom_id"] for line in lines} == set(found)
    assert lines[0]["response"]["body"]["choices"][0]["message"]["content"] == "Hello there"
    assert told[-1].done == told[-1].total == 40 and told[-1].tokens == 3 * 40 and told[-1].seconds_left == 0


def test_a_second_run_asks_nothing(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    run(upstream, tmp_path / "out.jsonl", 10)
    run(upstream, tmp_path / "out.jsonl", 12)
    assert len(asked(upstream)) == 12 and set(asked(upstream).values()) == {1}


def test_a_row_that_fails_fails_alone(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, reply(400, {"error": {"message": "bad row", "code": 400}}))
    found = run(upstream, tmp_path / "out.jsonl", 10)
    (failed,) = [outcome for outcome in found.values() if not outcome.ok]
    assert failed.error is not None and "bad row" in failed.error["message"]
    again = run(upstream, tmp_path / "out.jsonl", 10)
    assert all(outcome.ok for outcome in again.values())
    assert sum(asked(upstream).values()) == 11


def test_a_server_that_is_gone_ends_the_run_and_loses_nothing(tmp_path: Path) -> None:
    with ScriptedUpstream() as first:
        run(first, tmp_path / "out.jsonl", 5)
    with pytest.raises(NotRunning):
        run(first, tmp_path / "out.jsonl", 9)
    journal = Journal(tmp_path / "out.jsonl")
    journal.close()
    assert len(journal.kept) == 5


@given(cut=st.integers(min_value=0, max_value=400))
def test_a_line_that_was_cut_is_thrown_away(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    journal = Journal(path)
    for at in range(3):
        journal.add(Outcome(custom_id=f"r{at}", response={"status_code": 200, "body": {"text": "é" * at}}))
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    again = Journal(path)
    lines = whole[: max(0, len(whole) - cut)].count(b"\n")
    assert list(again.kept) == [f"r{at}" for at in range(lines)]
    again.add(Outcome(custom_id="new"))
    again.close()
    last = Journal(path)
    assert list(last.kept) == [*(f"r{at}" for at in range(lines)), "new"]
    last.close()


@given(st.lists(st.booleans()), st.integers(min_value=1, max_value=64))
def test_the_pace_stays_within_its_bounds(answers: list[bool], most: int) -> None:
    pace = Pace(most)
    for well in answers:
        before = pace.now
        pace.answered() if well else pace.busy()
        assert 1 <= pace.now <= most
        assert pace.now <= before + 1 if well else pace.now == max(1, before // 2)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "batch:2: "),
        ('{"custom_id": "a", "url": "/v1/chat/completions", "body": {}}', "'a' stands in line 1 already"),
        ('{"custom_id": "b", "url": "/v1/models", "body": {}}', "url '/v1/models' is none of"),
        ('{"custom_id": "b", "url": "/v1/completions", "body": {"stream": true}}', "is not streamed"),
    ],
)
def test_a_row_that_is_none_names_its_line(line: str, says: str) -> None:
    first = b'{"custom_id": "a", "url": "/v1/chat/completions", "body": {}}\n'
    with pytest.raises(InvalidRequest, match=says):
        list(read_rows([first, line.encode()]))


PROGRAM = """
import asyncio, sys
from pathlib import Path
from portico.client.batch import Batch, Journal
from portico.client.drive_async import Pool
from portico.client.servers import Server
from test_client_batch import SETTINGS, rows

async def work():
    pool = Pool(Server(url=sys.argv[1]), SETTINGS.timeouts)
    await Batch(rows(int(sys.argv[3])), Journal(Path(sys.argv[2])), sender=pool, settings=SETTINGS, model="m").run()

asyncio.run(work())
"""


def test_five_kills_lose_nothing_and_no_finished_row_goes_out_twice(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    count, out = 400, tmp_path / "out.jsonl"
    command = [sys.executable, "-c", PROGRAM, upstream.url.removesuffix("/v1"), str(out), str(count)]
    env = plain_environment(tmp_path) | {
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    }
    drawn, finished = random.Random(1), set()
    for _ in range(5):
        before = len(upstream.requests(CHAT))
        with subprocess.Popen(command, env=env) as child:
            wanted = before + drawn.randint(10, 40)
            until = time.monotonic() + 30
            while len(upstream.requests(CHAT)) < wanted and child.poll() is None and time.monotonic() < until:
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
        journal = Journal(out)
        now = {name for name, outcome in journal.kept.items() if outcome.ok}
        journal.close()
        assert finished <= now
        sent = Counter(
            r.json["messages"][0]["content"].replace("Row ", "r") for r in upstream.requests(CHAT)[before:]
        )
        assert not finished & sent.keys(), "a finished row was sent again"
        finished = now
    assert 0 < len(finished) < count
    assert subprocess.run(command, env=env, timeout=60).returncode == 0
    journal = Journal(out)
    assert len(journal.kept) == count and all(outcome.ok for outcome in journal.kept.values())
    journal.close()

"""Batches: what is answered is never asked again, whatever ends the program in between."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_server import LiveServer, plain_environment
from portico import Choice
from portico.client import batch
from portico.client.async_client import AsyncClient
from portico.client.batch import Done, Pace, Progress
from portico.client.client import Client
from portico.client.journal import Journal, Outcome
from portico.client.rows import read_rows
from portico.client.settings import NO_RETRY, Retry, Timeouts
from portico.errors import InUse, InvalidRequest, NotRunning, TimedOut, WrongKey
from scripted_answers import CHAT, COMPLETIONS, EMBEDDINGS, chat_result, reply
from scripted_upstream import HOLD, RESET, ScriptedUpstream

OPTIONS: dict[str, Any] = {"retry": Retry(first=0.001), "timeouts": Timeouts(connect=2.0)}


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


class Both:
    """The same batch with either client."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def run(self, url: str, requests: Any, *, model: str | None = None, **more: Any) -> list[Done[Any]]:
        if self.kind == "sync":
            with Client(url, **OPTIONS, model=model) as client:
                return list(client.batch(requests, **more))

        async def work() -> list[Done[Any]]:
            async with AsyncClient(url, **OPTIONS, model=model) as client:
                return [done async for done in client.batch(requests, **more)]

        return asyncio.run(work())


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest) -> Both:
    return Both(request.param)


def rows(count: int) -> list[dict[str, Any]]:
    return [row(f"r{at}", f"Row {at}") for at in range(count)]


def row(name: str, text: str, **body: Any) -> dict[str, Any]:
    return {
        "custom_id": name,
        "method": "POST",
        "url": CHAT,
        "body": {"messages": [{"role": "user", "content": text}], **body},
    }


def asked(upstream: ScriptedUpstream) -> Counter[str]:
    return Counter(request.json["messages"][-1]["content"] for request in upstream.requests(CHAT))


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---- what is asked, and what comes back


def test_each_row_is_answered_once(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    told: list[Progress] = []
    out = tmp_path / "out.jsonl"
    found = both.run(upstream.url, rows(40), journal=out, on_progress=told.append)
    assert {done.custom_id for done in found} == {f"r{at}" for at in range(40)}
    assert all(done.result is not None and done.result.text == "Hello there" for done in found)
    assert set(asked(upstream).values()) == {1} and len(asked(upstream)) == 40
    kept = lines(out)
    assert {line["custom_id"] for line in kept} == {done.custom_id for done in found}
    assert kept[0]["response"]["body"]["choices"][0]["message"]["content"] == "Hello there"
    assert kept[0]["error"] is None and kept[0]["id"].startswith("batch_req_")
    assert not (tmp_path / "out.errors.jsonl").exists()
    last = told[-1]
    assert last.done == last.total == last.here == 40 and last.tokens == 3 * 40 and last.seconds_left == 0


@dataclass
class Sky:
    colour: str


def test_prompts_are_requests_too(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, *[reply(200, chat_result('{"colour": "blue"}'))] * 2)
    chat = [{"role": "user", "content": "And at night?"}]
    found = both.run(upstream.url, ["Sky?", chat], output=Sky, system="Be brief.", temperature=0)
    assert sorted(done.custom_id for done in found) == ["0", "1"]
    assert all(done.result is not None and done.result.parsed == Sky("blue") for done in found)
    sent = upstream.last(CHAT)
    assert sent["messages"][0] == {"role": "system", "content": "Be brief."}
    assert sent["temperature"] == 0 and sent["response_format"]["type"] == "json_schema"


def test_an_answer_of_another_type_is_an_error_of_its_row(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, reply(200, chat_result('{"colour": 7}')))
    (done,) = both.run(upstream.url, ["Sky?"], output=Sky)
    assert done.result is None and done.error is not None
    assert done.error.code == "wrong_answer" and "colour: " in done.error.message


def test_completions_and_embeddings(both: Both, upstream: ScriptedUpstream) -> None:
    more = [
        {"custom_id": "c", "url": COMPLETIONS, "body": {"prompt": "Once", "max_tokens": 4}},
        {"custom_id": "e", "url": EMBEDDINGS, "body": {"input": "a text"}},
    ]
    found = {done.custom_id: done for done in both.run(upstream.url, more)}
    assert found["c"].result is not None and found["c"].result.text == "Hello there"
    assert len(found["e"].body["data"][0]["embedding"]) == 4


def test_rows_that_begin_alike_go_out_one_after_the_other(both: Both, upstream: ScriptedUpstream) -> None:
    mixed = [row(f"{at}", f"{at}") | {"body": {"messages": [system(at % 3), user(at)]}} for at in range(30)]
    both.run(upstream.url, mixed, at_once=1)
    systems = [request.json["messages"][0]["content"] for request in upstream.requests(CHAT)]
    assert systems == sorted(systems)


def system(number: int) -> dict[str, str]:
    return {"role": "system", "content": f"Brief {number}"}


def user(number: int) -> dict[str, str]:
    return {"role": "user", "content": f"{number}"}


# ---- what fails


def test_a_row_that_fails_fails_alone(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    upstream.script(CHAT, reply(400, {"error": {"message": "bad row", "code": 400}}))
    found = both.run(upstream.url, rows(10), journal=out)
    (failed,) = [done for done in found if done.error is not None]
    assert failed.error is not None and "bad row" in failed.error.message and failed.error.status == 400
    (line,) = lines(tmp_path / "out.errors.jsonl")
    assert line["custom_id"] == failed.custom_id and line["error"] is None
    assert (
        line["response"]["status_code"] == 400 and "bad row" in line["response"]["body"]["error"]["message"]
    )
    assert len(lines(out)) == 9

    again = both.run(upstream.url, rows(10), journal=out)
    assert [done.custom_id for done in again if done.error is not None] == [failed.custom_id]
    assert sum(asked(upstream).values()) == 10, "a failed row is finished too"
    mended = both.run(upstream.url, rows(10), journal=out, again=True)
    assert all(done.error is None for done in mended) and len(mended) == 10
    assert sum(asked(upstream).values()) == 11
    assert not (tmp_path / "out.errors.jsonl").exists() and len(lines(out)) == 10


def test_a_row_without_a_reply_says_why(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, *[(RESET,)] * 9)  # a kept connection that resets is asked once more
    (done,) = both.run(upstream.url, rows(1), journal=tmp_path / "out.jsonl")
    assert done.error is not None and done.error.status is None
    (line,) = lines(tmp_path / "out.errors.jsonl")
    assert line["response"] is None and line["error"]["code"] == done.error.code == "cut_off"


def test_a_busy_server_is_waited_for(both: Both, upstream: ScriptedUpstream) -> None:
    """More often than a single call would, and with fewer rows at once."""
    upstream.script(CHAT, *[reply(503, {"error": {"message": "busy"}})] * 30)
    found = both.run(upstream.url, rows(20))
    assert all(done.error is None for done in found)
    assert len(upstream.requests(CHAT)) == 50


def test_a_server_that_is_gone_ends_the_run_and_loses_nothing(both: Both, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with ScriptedUpstream() as first:
        both.run(first.url, rows(5), journal=out)
    told: list[Progress] = []
    with pytest.raises(NotRunning):
        both.run(first.url, rows(9), journal=out, model="mock-model", on_progress=told.append)
    assert told[-1].done == 5 == len(lines(out))
    assert told[-1].in_flight == 0 and not (tmp_path / "out.errors.jsonl").exists()


def test_a_key_that_is_refused_ends_the_run(both: Both, upstream: ScriptedUpstream, tmp_path: Path) -> None:
    upstream.script(CHAT, *[reply(401, {"error": {"message": "no"}})] * 20)
    with pytest.raises(WrongKey):
        both.run(upstream.url, rows(200), journal=tmp_path / "out.jsonl")
    assert len(upstream.requests(CHAT)) <= 20, "the others were not sent"
    assert not (tmp_path / "out.errors.jsonl").exists()


def test_a_server_to_which_no_connection_comes_ends_the_run(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that is switched off, or behind a wall that drops what comes: every row would wait for nothing."""

    def silent(*_: Any, **__: Any) -> Any:
        raise TimedOut(which="connect", seconds=2.0)

    monkeypatch.setattr("portico.client.drive_sync.Sender.send", silent)
    monkeypatch.setattr("portico.client.drive_async.Pool.send", silent)
    with pytest.raises(TimedOut, match="connect"):
        both.run(upstream.url, rows(50), journal=tmp_path / "out.jsonl", model="mock-model")
    assert not list(tmp_path.iterdir()), "no row failed of it"


def test_one_that_stops_does_not_wait_for_a_busy_server(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    """Those rows are for the next run."""
    busy = reply(503, {"error": {"message": "busy"}}, headers={"retry-after": "0"})
    with Client(upstream.url, retry=NO_RETRY, model="mock-model") as client:
        upstream.script(CHAT, reply(200, chat_result()), (HOLD, *busy), (HOLD, *busy))
        running = client.batch(rows(20), journal=tmp_path / "out.jsonl", at_once=3)
        next(running)
        upstream.wait_for_request(CHAT, 3)
        threading.Timer(0.1, upstream.release).start()
        running.close()
    sent = len(upstream.requests(CHAT))
    assert sent <= 5, "neither was asked again"
    assert len(lines(tmp_path / "out.jsonl")) == sent - 2


# ---- going on


def test_what_an_earlier_run_asked_names_its_server(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    (first,) = both.run(upstream.url, rows(1), journal=out)
    (second,) = both.run(upstream.url, rows(1), journal=out)
    assert first.result is not None and second.result is not None
    assert second.result.url == first.result.url != "" and len(asked(upstream)) == 1


def test_a_disk_that_is_full_ends_the_run_and_loses_nothing_else(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, kept = tmp_path / "out.jsonl", os.fsync

    def full(file: int) -> None:
        if os.fstat(file).st_size > 2000:
            raise OSError(errno.ENOSPC, "No space left on device")
        kept(file)

    with monkeypatch.context() as patched:
        patched.setattr("portico.client.journal.os.fsync", full)
        with pytest.raises(OSError, match=r"No space left on device: .*out\.jsonl"):
            both.run(upstream.url, rows(40), journal=out)
    assert not (tmp_path / "out.jsonl.lock").exists()
    assert len(both.run(upstream.url, rows(40), journal=out)) == 40
    assert max(asked(upstream).values()) <= 2 and len(lines(out)) == 40


def test_an_error_of_ours_in_one_row_loses_no_other(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(row: Any, *_: Any) -> Outcome:
        if row.custom_id == "r3":
            raise RuntimeError("a mistake")
        return answered(row, *_)

    answered = batch._answered
    out = tmp_path / "out.jsonl"
    with monkeypatch.context() as patched:
        patched.setattr("portico.client.batch._answered", broken)
        with pytest.raises(RuntimeError, match="a mistake"):
            both.run(upstream.url, rows(4), journal=out, at_once=4)
    if both.kind == "sync":
        assert len(lines(out)) == 3, "the others were awaited"
    assert len(both.run(upstream.url, rows(4), journal=out)) == 4


def test_answers_that_are_there_when_it_is_left_are_kept(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    async def work() -> None:
        async with AsyncClient(upstream.url, **OPTIONS) as client:
            running = client.batch(rows(8), journal=tmp_path / "out.jsonl", at_once=4)
            await anext(running)
            await asyncio.wait([task for task in asyncio.all_tasks() if task.get_name().startswith("row ")])
            await running.aclose()

    asyncio.run(work())
    assert len(lines(tmp_path / "out.jsonl")) == len(upstream.requests(CHAT))


ODD: list[Any] = [
    {**chat_result(), "usage": {"completion_tokens": "many"}},
    {"detail": "the page of a proxy"},
    {"error": {"message": "CUDA error"}},
    {"choices": "none"},
    ["no", "object"],
]


@pytest.mark.parametrize("body", ODD)
def test_a_reply_of_no_known_shape_fails_its_row_alone(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path, body: Any
) -> None:
    out = tmp_path / "out.jsonl"
    upstream.script(CHAT, reply(200, body))
    for _ in range(2):
        found = both.run(upstream.url, rows(3), journal=out)
        assert sorted(done.error.code for done in found if done.error is not None) == ["malformed"]
    assert len(lines(out)) == 2 and len(asked(upstream)) == 3
    assert len(both.run(upstream.url, rows(3), journal=out, again=True)) == 3 == len(lines(out))


def test_an_odd_line_of_another_program_fails_its_row_alone(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    odd = {"id": "x", "custom_id": "r0", "response": {"status_code": 200, "body": {"choices": 1}}}
    (tmp_path / "out.jsonl").write_text(json.dumps({**odd, "error": None}) + "\n")
    found = both.run(upstream.url, rows(2), journal=tmp_path / "out.jsonl")
    assert sorted(done.error.code for done in found if done.error is not None) == ["malformed"]


def test_a_second_run_asks_what_is_new_and_gives_everything(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    both.run(upstream.url, rows(10), journal=out)
    changed = [*rows(12)[:-1], row("r11", "Another question")]
    changed[3] = row("r3", "A changed row")
    found = both.run(upstream.url, changed, journal=out)
    assert len(found) == 12 and set(asked(upstream).values()) == {1} and sum(asked(upstream).values()) == 13
    assert Counter(line["custom_id"] for line in lines(out)) == Counter({f"r{at}": 1 for at in range(12)})


def test_leaving_it_keeps_what_is_done(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with Client(upstream.url, **OPTIONS) as client:
        for done in client.batch(rows(200), journal=out):
            assert done.result is not None
            break
    sent = len(upstream.requests(CHAT))
    assert sent < 50 and len(lines(out)) == sent, "what was in flight was awaited and kept"


def test_leaving_it_in_an_event_loop_ends_what_is_in_flight(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    upstream.script(CHAT, reply(200, chat_result()), *[(HOLD,)] * 3)

    async def work() -> None:
        async with AsyncClient(upstream.url, **OPTIONS) as client:
            running = client.batch(rows(20), journal=tmp_path / "out.jsonl", at_once=4)
            await anext(running)
            await asyncio.to_thread(upstream.wait_for_request, CHAT, 4)
            await running.aclose()

    asyncio.run(work())
    upstream.wait_for_hangup(3)
    assert len(lines(tmp_path / "out.jsonl")) == 1


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    first = Journal(out)
    with pytest.raises(InUse, match=r"Another run is writing to .*out\.jsonl"):
        Journal(out)
    first.close()
    Journal(out).close()


@pytest.mark.parametrize("text", ["something else\n", '{"a": 1}\n', "no line at all"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.errors.jsonl"])
def test_a_file_that_is_none_of_ours_is_left_alone(tmp_path: Path, text: str, name: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InvalidRequest, match=rf"{name}:1 is no line of a batch's output"):
        Journal(tmp_path / "out.jsonl")
    assert (tmp_path / name).read_text() == text


def test_what_openai_has_answered_is_not_asked_again(
    both: Both, upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    theirs = {"id": "batch_req_1", "custom_id": "r0", "error": None}
    theirs["response"] = {"status_code": 200, "request_id": "x", "body": chat_result("Theirs")}
    (tmp_path / "out.jsonl").write_text(json.dumps(theirs) + "\n")
    found = both.run(upstream.url, rows(2), journal=tmp_path / "out.jsonl")
    texts = {done.custom_id: done.result.text for done in found if done.result is not None}
    assert texts == {"r0": "Theirs", "r1": "Hello there"} and len(asked(upstream)) == 1


@given(cut=st.integers(min_value=0, max_value=600))
def test_a_line_that_was_cut_is_thrown_away(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    journal = Journal(path)
    for at in range(3):
        journal.add([Outcome(custom_id=f"r{at}", response={"status_code": 200, "body": {"text": "é" * at}})])
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole[: max(0, len(whole) - cut)])
    again = Journal(path)
    count = whole[: max(0, len(whole) - cut)].count(b"\n")
    assert list(again.done) == [f"r{at}" for at in range(count)]
    again.add([Outcome(custom_id="new", response={"status_code": 200, "body": {}})])
    again.close()
    last = Journal(path)
    assert list(last.done) == [*(f"r{at}" for at in range(count)), "new"]
    assert [outcome.custom_id for outcome in last.outcomes()] == list(last.done)
    last.close()


@given(
    st.lists(st.tuples(st.booleans(), st.floats(min_value=0, max_value=10))),
    st.integers(min_value=1, max_value=64),
)
def test_the_pace_stays_within_its_bounds(answers: list[tuple[bool, float]], most: int) -> None:
    now = 0.0
    pace = Pace(most, lambda: now)
    for well, seconds in answers:
        before, sent = pace.now, pace.sent()
        now += seconds
        pace.answered() if well else pace.busy(sent)
        assert 1 <= pace.now <= most
        assert pace.now <= 2 * before if well else pace.now == max(1, before // 2)


def paced(pace: Pace, clock: list[float], *, slots: int, queue: int, rounds: int) -> list[int]:
    """How many are in flight after each answer of a server that works on `slots` rows at a time, each a second long (more or less),
    lets `queue` wait, and refuses others."""
    drawn = random.Random(3)
    working: list[tuple[float, int]] = []  # when each ends
    waiting: list[int] = []
    widths = []
    for _ in range(rounds):
        while len(working) + len(waiting) < pace.now:
            sent = pace.sent()
            if len(working) < slots:
                working.append((clock[0] + drawn.uniform(0.7, 1.3), sent))
            elif len(waiting) < queue:
                waiting.append(sent)
            else:
                pace.busy(sent)
        working.sort()
        clock[0], _ = working.pop(0)
        if waiting:
            working.append((clock[0] + drawn.uniform(0.7, 1.3), waiting.pop(0)))
        pace.answered()
        widths.append(pace.now)
    return widths


@pytest.mark.parametrize(
    ("slots", "queue", "least", "most"),
    [
        (1000, 1000, 64, 64),
        (16, 1000, 16, 32),
        (4, 1000, 4, 8),
        (1, 1000, 4, 8),
        (24, 0, 12, 25),
        (2, 1, 1, 3),
    ],
)
def test_the_pace_follows_the_server(slots: int, queue: int, least: int, most: int) -> None:
    """It keeps a server busy, and does not fill its queue; what is in flight beyond that is tried from time to time."""
    clock = [0.0]
    pace = Pace(64, lambda: clock[0])
    widths = paced(pace, clock, slots=slots, queue=queue, rounds=4000)[500:]
    within = sum(least <= width <= most for width in widths) / len(widths)
    assert within > 0.85, Counter(widths)


def test_many_who_hear_of_one_crowd_slow_down_once() -> None:
    pace = Pace(4)
    sent = pace.sent()
    for _ in range(4):
        pace.busy(sent)
    assert pace.now == 2
    pace.busy(pace.sent())
    assert pace.now == 1


# ---- rows


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{", "batch:2: "),
        ('{"url": "/v1/chat/completions", "body": {}}', "missing required field `custom_id`"),
        (json.dumps(row("a", "x")), "'a' stands in line 1 already"),
        ('{"custom_id": "b", "url": "/v1/models", "body": {}}', "url '/v1/models' is none of"),
        ('{"custom_id": "b", "url": "/v1/chat/completions", "body": {}}', "the body has no `messages`"),
        (json.dumps(row("b", "x", stream=True)), "is not streamed"),
        (json.dumps(row("b", "x") | {"method": "GET"}), "method 'GET' is not POST"),
    ],
)
def test_a_row_that_is_none_names_its_line(line: str, says: str) -> None:
    first = json.dumps(row("a", "x")).encode() + b"\n"
    with pytest.raises(InvalidRequest, match=says) as caught:
        read_rows([first, line.encode(), b"", b"[]"])
    assert str(caught.value).startswith("batch:2: ") and str(caught.value).endswith("; wrong too: line 4")


def test_a_request_that_is_none_is_named_before_anything_is_sent(
    both: Both, upstream: ScriptedUpstream
) -> None:
    with pytest.raises(InvalidRequest, match="request 1: the body has no `messages`"):
        both.run(upstream.url, ["Hello", {"custom_id": "b", "url": CHAT, "body": {"prompt": "x"}}])
    with pytest.raises(InvalidRequest, match="A batch is a list of requests"):
        both.run(upstream.url, "Hello")
    assert not upstream.requests(CHAT)


# ---- kill -9


PROGRAM = """
import sys
from portico import Client
from test_client_batch import OPTIONS, rows

for done in Client(sys.argv[1], model="m", **OPTIONS).batch(rows(int(sys.argv[3])), journal=sys.argv[2]):
    pass
"""


def killed_and_gone_on(
    upstream: ScriptedUpstream, folder: Path, *, count: int, kills: int, seed: int
) -> None:
    """A batch whose program is killed `kills` times at random, and then left alone."""
    out = folder / "out.jsonl"
    command = [sys.executable, "-c", PROGRAM, upstream.url, str(out), str(count)]
    env = plain_environment(folder) | {
        "PYTHONPATH": f"{Path(__file__).parent}:{os.environ.get('PYTHONPATH', '')}"
    }
    drawn = random.Random(seed)
    finished: set[str] = set()
    for _ in range(kills):
        before = len(upstream.requests(CHAT))
        wanted = before + drawn.randint(1, max(2, count // (kills + 1)))
        with subprocess.Popen(command, env=env) as child:
            until = time.monotonic() + 60
            while len(upstream.requests(CHAT)) < wanted and child.poll() is None and time.monotonic() < until:
                time.sleep(0.001)
            child.send_signal(signal.SIGKILL)
        now = whole_lines(out)
        assert finished <= now
        sent = named(upstream)[before:]
        assert not finished & set(sent), "a finished row was sent again"
        assert len(set(sent) - now) <= 32, "no more were lost than were in flight"
        finished = now
    assert 0 < len(finished) < count
    before = len(upstream.requests(CHAT))
    assert subprocess.run(command, env=env, timeout=300).returncode == 0
    assert set(named(upstream)[before:]) == {f"r{at}" for at in range(count)} - finished
    assert Counter(line["custom_id"] for line in lines(out)) == Counter(f"r{at}" for at in range(count))


def named(upstream: ScriptedUpstream) -> list[str]:
    return [r.json["messages"][0]["content"].replace("Row ", "r") for r in upstream.requests(CHAT)]


def whole_lines(path: Path) -> set[str]:
    """What the file holds now, without touching it."""
    if not path.exists():
        return set()
    whole = [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    return {json.loads(line)["custom_id"] for line in whole}


def test_three_kills_lose_nothing_and_no_finished_row_goes_out_twice(
    upstream: ScriptedUpstream, tmp_path: Path
) -> None:
    killed_and_gone_on(upstream, tmp_path, count=300, kills=3, seed=1)


@pytest.mark.long
def test_two_thousand_rows_and_five_kills(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    killed_and_gone_on(upstream, tmp_path, count=2000, kills=5, seed=2)


# ---- on the embedded engine


def test_the_bundled_model(both: Both, server: LiveServer, tmp_path: Path) -> None:
    asked = ["What is 2+3?", "What is the capital of France?"]
    found = both.run(server.openai_url, asked, journal=tmp_path / "out.jsonl", temperature=0)
    texts = {done.custom_id: done.result.text for done in found if done.result is not None}
    assert texts == {"0": "5", "1": "The capital of France is Paris."}
    (done,) = both.run(
        server.openai_url, ["Is this good or bad? I love it!"], output=Choice("good", "bad"), temperature=0
    )
    assert done.result is not None and done.result.parsed in ("good", "bad")

"""batch, as a command: what is on the screen, how it ends, and how it goes on."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_fixtures import Terminal, environment, program, run
from portico.cli.batch import Speed
from portico.client.batch import Progress
from scripted_answers import CHAT, chat_result, reply
from scripted_upstream import HOLD, ScriptedUpstream
from test_client_batch import lines, row, rows

REFUSED = {"error": {"message": "too long for me", "code": "context_length_exceeded"}}


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def env(tmp_path: Path, upstream: ScriptedUpstream) -> dict[str, str]:
    return environment(tmp_path, PORTICO_HOST=upstream.url, COLUMNS="120", HOME=str(tmp_path))


def written(path: Path, some: list[Any]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in some))
    return str(path)


def test_a_file_is_answered_and_then_it_is_there(
    tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream
) -> None:
    command = ["batch", written(tmp_path / "in.jsonl", rows(30)), "-o", str(tmp_path / "out.jsonl")]
    done = run(*command, env=env)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "ok   " in done.stderr and "30 rows" in done.stderr
    assert "run  30 rows" in done.stderr and " of 30 rows   " in done.stderr and "tok/s" in done.stderr
    assert len(lines(tmp_path / "out.jsonl")) == 30
    told = json.loads(run(*command, "--json", env=env).stdout)
    assert (told["rows"], told["ok"], told["asked"], told["errors"]) == (30, 30, 0, None)
    assert len(upstream.requests(CHAT)) == 30
    assert sorted(path.name for path in tmp_path.glob("*.jsonl*")) == ["in.jsonl", "out.jsonl"]


def test_rows_that_fail_are_counted_and_can_be_asked_again(
    tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream
) -> None:
    upstream.script(CHAT, reply(400, REFUSED), reply(400, REFUSED))
    where, out = written(tmp_path / "in.jsonl", rows(9)), tmp_path / "out.jsonl"
    done = run("batch", where, "-o", str(out), env=env)
    assert done.returncode == 1
    assert "7 ok, 2 failed: 2 context_length_exceeded" in done.stderr
    assert f"why      {tmp_path / 'out.errors.jsonl'}" in done.stderr
    assert f"again    portico batch {where} -o {out} --again" in done.stderr
    again = run("batch", where, "-o", str(out), env=env)
    assert again.returncode == 1 and "2 failed: 2 context" in again.stderr
    assert len(upstream.requests(CHAT)) == 9
    assert run("batch", where, "-o", str(out), "--again", env=env).returncode == 0
    assert len(upstream.requests(CHAT)) == 11 and len(lines(out)) == 9


def test_the_command_that_goes_on_is_the_same(
    tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream
) -> None:
    """To the same server, wherever the variables point."""
    upstream.script(CHAT, reply(400, REFUSED))
    where, out = written(tmp_path / "in.jsonl", rows(2)), tmp_path / "out.jsonl"
    typed = ["batch", where, "-o", str(out), "-m", "mock-model", "-c", "2", "--host", upstream.url]
    done = run(*typed, env=env)
    typed[-1] = typed[-1].removeprefix("http://")
    assert f"  again    portico {' '.join(typed)} --again\n" in done.stderr


def test_which_model(tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream) -> None:
    named = written(tmp_path / "in.jsonl", [row("a", "x", model="gpt-4o-mini"), row("b", "y")])
    run("batch", named, "-o", str(tmp_path / "1.jsonl"), env=env)
    assert {request.json["model"] for request in upstream.requests(CHAT)} == {"gpt-4o-mini", "mock-model"}
    upstream.reset()
    run("batch", named, "-o", str(tmp_path / "2.jsonl"), "-m", "other", env=env)
    assert {request.json["model"] for request in upstream.requests(CHAT)} == {"other"}


def test_bad_lines_are_named_before_anything_is_sent(
    tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream
) -> None:
    where = written(tmp_path / "in.jsonl", [*rows(2), {"custom_id": "r0"}, 7])
    done = run("batch", where, "-o", str(tmp_path / "out.jsonl"), env=env)
    assert done.returncode == 2 and not upstream.received
    assert f"error[usage]: {where}:3: " in done.stderr and "wrong too: line 4" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()
    done = run("batch", where, "-o", where, env=env)
    assert done.returncode == 2 and "the output is the file of requests" in done.stderr
    assert len(lines(Path(where))) == 4


def test_stdin(tmp_path: Path, env: dict[str, str]) -> None:
    done = run("batch", "-", "-o", str(tmp_path / "out.jsonl"), env=env, stdin=json.dumps(row("a", "x")))
    assert done.returncode == 0 and len(lines(tmp_path / "out.jsonl")) == 1


def test_no_server_leaves_nothing(tmp_path: Path, env: dict[str, str]) -> None:
    where = written(tmp_path / "in.jsonl", rows(3))
    done = run("batch", where, "-o", str(tmp_path / "out.jsonl"), "--host", "127.0.0.1:9", env=env)
    assert done.returncode == 1 and "error[unreachable]" in done.stderr and "portico serve" in done.stderr
    assert [path.name for path in tmp_path.glob("out*")] == []


def test_two_runs_on_the_same_output(tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, *[(HOLD,)] * 4)
    command = ["batch", written(tmp_path / "in.jsonl", rows(9)), "-o", str(tmp_path / "out.jsonl")]
    with subprocess.Popen(program(*command), env=env, stderr=subprocess.DEVNULL) as first:
        upstream.wait_for_request(CHAT)
        second = run(*command, env=env)
        assert second.returncode == 1 and "error[in_use]: Another run is writing to" in second.stderr
        first.kill()
    assert run(*command, env=env).returncode == 0


def test_ctrl_c_waits_for_what_is_in_flight(
    tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream
) -> None:
    where, out = written(tmp_path / "in.jsonl", rows(9)), tmp_path / "out.jsonl"
    upstream.script(CHAT, *[(HOLD, *reply(200, chat_result()))] * 4)
    with Terminal("batch", where, "-o", str(out), env=env) as terminal:
        upstream.wait_for_request(CHAT, 4)
        terminal.wait_for("0 of 9 rows")
        terminal.interrupt()
        terminal.wait_for("stopping; 4 rows in flight are awaited, Ctrl-C again leaves them")
        upstream.release()
        terminal.wait_for("stopped; 4 of 9 rows are done and kept")
        terminal.wait_for(f"go on    portico batch {where} -o {out}")
        assert terminal.end() == 130
    assert len(lines(out)) == 4
    assert run("batch", where, "-o", str(out), env=env).returncode == 0
    assert len(upstream.requests(CHAT)) == 9


def test_a_second_ctrl_c_leaves_it(tmp_path: Path, env: dict[str, str], upstream: ScriptedUpstream) -> None:
    where, out = written(tmp_path / "in.jsonl", rows(9)), tmp_path / "out.jsonl"
    upstream.script(CHAT, *[(HOLD,)] * 4)
    with Terminal("batch", where, "-o", str(out), env=env) as terminal:
        upstream.wait_for_request(CHAT, 4)
        terminal.interrupt()
        terminal.wait_for("stopping; ")
        terminal.interrupt()
        terminal.wait_for("stopped; 0 of 9 rows are done and kept")
        assert terminal.end() == 130
    upstream.wait_for_hangup(4)
    assert "Traceback" not in terminal.seen


def progress(done: int, tokens: int, seconds: float, *, here: int | None = None, failed: int = 0) -> Progress:
    return Progress(
        done=done,
        failed=failed,
        total=10_000,
        here=done if here is None else here,
        in_flight=32,
        tokens=tokens,
        seconds=seconds,
    )


def test_the_speed_is_that_of_the_last_twenty_seconds() -> None:
    speed = Speed()
    speed.heard(progress(6000, 0, 0.0, here=0))
    assert speed.line(progress(6000, 0, 0.0, here=0)) == " 60%   6,000 of 10,000 rows"
    speed.heard(progress(6041, 2480, 1.0, here=41))
    assert speed.line(progress(6041, 2480, 1.0, here=41)).endswith("41 rows/s   2,480 tok/s"), "no guess yet"
    for second in range(2, 60):
        told = progress(6000 + 41 * second, 2480 * second, second, here=41 * second, failed=12)
        speed.heard(told)
    assert speed.line(told) == " 84%   8,419 of 10,000 rows   12 failed   41 rows/s   2,480 tok/s   39 s left"

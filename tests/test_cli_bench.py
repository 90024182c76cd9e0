"""bench: figures out of samples, and a measurement of a server whose pace is known."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_fixtures import Ollama, Terminal, environment, run, serving
from live_server import LiveServer
from portico.cli.figures import Sample, percentile, summed
from portico.cli.load import Ask
from portico.messages import ChatRequest, CompletionRequest

# ---- figures -----------------------------------------------------------------------------------


def test_a_percentile_is_one_that_was_measured() -> None:
    values = [float(value) for value in range(100, 0, -1)]
    assert [percentile(values, each) for each in (50, 99, 100)] == [50.0, 99.0, 100.0]
    assert percentile([3.0], 50) == 3.0
    assert percentile([3.0, 1.0], 50) == 1.0


def sample(first: float, *, tokens: int = 11, gap: float = 0.01) -> Sample:
    return Sample(first=first, last=first + gap * (tokens - 1), input_tokens=5, output_tokens=tokens)


def test_a_row() -> None:
    samples = [sample(0.1) for _ in range(98)] + [sample(0.3, gap=0.05), sample(0.5, gap=0.05)]
    row = summed(4, [*samples, Sample(error="status 500"), Sample(error="status 500")], seconds=10)
    assert (row.ok, row.failed, row.errors) == (100, 2, {"status 500": 2})
    assert row.first == (0.1, 0.3)
    assert row.per_token == pytest.approx((0.01, 0.05))
    assert row.rate == pytest.approx((100, 20))  # the slowest hundredth: what the others reached
    assert (row.requests_per_second, row.tokens_per_second) == (10, 110)
    assert row.cells() == ("4", "100", "10", "100 ms", "300 ms", "10 ms", "50 ms", "100", "20", "110")


def test_p99_needs_a_hundred_answers() -> None:
    row = summed(1, [sample(0.1)] * 99, seconds=1)
    assert row.first == (0.1, None) and row.cells()[4] == "-"
    assert row.as_json()["first_token_p99_ms"] is None


def test_answers_of_one_token_have_no_time_between_tokens() -> None:
    row = summed(1, [sample(0.1, tokens=1)] * 3, seconds=1)
    assert row.per_token == (None, None) and row.rate == (None, None)
    assert row.ok == 3


def test_nothing_but_failures() -> None:
    row = summed(2, [Sample(error="x")] * 3, seconds=1)
    assert (row.ok, row.cells()[3:9]) == (0, ("-",) * 6)


def test_no_two_prompts_begin_alike_and_a_seed_repeats_them() -> None:
    ask = Ask(model="toy", max_tokens=8, complete=False, full_length=True, words=20)
    texts = [ask.text(number) for number in range(50)]
    assert len({text[:6] for text in texts}) > 40
    assert texts == [ask.text(number) for number in range(50)]
    assert ask._replace(seed=2).text(0) != texts[0]
    request = ask.request(0)
    assert isinstance(request, ChatRequest) and request.sampling.extra == {"ignore_eos": True}
    assert isinstance(ask._replace(complete=True).request(0), CompletionRequest)


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with serving(Ollama()) as ollama:
        ollama.say = lambda body: iter(["word "] * _asked(body))
        yield ollama


def _asked(body: dict[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("options", {}).get("num_predict") or 1)


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path)


@pytest.mark.parametrize(
    ("api", "path"),
    [("auto", "/v1/chat/completions"), ("ollama", "/api/chat"), ("openai", "/v1/chat/completions")],
)
def test_a_measurement_in_either_language(api: str, path: str, env: dict[str, str], ollama: Ollama) -> None:
    options = ["-c", "1,4", "-n", "12", "--max-tokens", "8", "--api", api, "--json", "-q"]
    done = run("bench", ollama.url, *options, env=env)
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["schema"], told["api"]) == (1, "ollama" if api == "ollama" else "openai")
    one, four = told["rows"]
    assert (one["at_once"], one["ok"], one["failed"], one["tokens_out"]) == (1, 12, 0, 96)
    assert (four["at_once"], four["ok"], four["tokens_in"]) == (4, 12, 84)
    assert one["first_token_p50_ms"] > 0 and one["first_token_p99_ms"] is None
    bodies = ollama.bodies(path)
    assert len(bodies) == 1 + (1 + 12) + (4 + 12)  # the first loads; each row is warmed up
    assert sum(_asked(body) == 8 for body in bodies) == 1 + 24
    texts = [body["messages"][0]["content"] for body in bodies if _asked(body) == 8]
    assert len(set(texts)) == len(texts)


def test_the_table(env: dict[str, str], ollama: Ollama) -> None:
    done = run("bench", ollama.url, "-c", "1,2", "-n", "4", "--max-tokens", "4", "-m", "toy", env=env)
    head, one, two = done.stdout.splitlines()
    assert head.split()[:4] == ["AT", "ONCE", "OK", "REQ/S"]
    assert (one.split()[:2], two.split()[:2]) == (["1", "4"], ["2", "4"])
    assert "toy at http://127.0.0.1:" in done.stderr and "p99 needs 100 answers" in done.stderr


def test_failures_are_counted_and_named(env: dict[str, str], ollama: Ollama) -> None:
    turns = iter(range(1000))

    def sometimes(body: dict[str, Any]) -> Iterator[str]:
        if _asked(body) == 8 and next(turns) % 4 == 1:
            raise ConnectionResetError
        yield from ["word "] * _asked(body)

    ollama.say = sometimes
    done = run("bench", ollama.url, "-c", "1", "-n", "8", "--max-tokens", "8", env=env)
    assert done.returncode == 0  # most were answered: it is a result
    assert done.stdout.splitlines()[1].split()[:2] == ["1", "6"]
    assert "FAIL 2 failed at 1: " in done.stderr


def test_a_server_that_refuses_what_it_does_not_know_is_asked_without_it(
    env: dict[str, str], ollama: Ollama
) -> None:
    ollama.refuses = "ignore_eos"
    done = run("bench", ollama.url, "-c", "1", "-n", "3", "--max-tokens", "4", "--json", "-q", env=env)
    assert json.loads(done.stdout)["full_length"] is False
    assert json.loads(done.stdout)["rows"][0]["ok"] == 3


def test_nobody_there_and_nothing_to_measure(env: dict[str, str], ollama: Ollama) -> None:
    done = run("bench", "http://127.0.0.1:9", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error[unreachable]: no server answers at http://127.0.0.1:9")
    ollama.error = (500, "no memory")
    done = run("bench", ollama.url, env=env)
    assert (done.returncode, done.stderr.strip()) == (1, "error[server]: toy: no memory")
    for wrong in ("0", "1,x", ""):
        assert run("bench", ollama.url, "-c", wrong, env=env).returncode == 2


def test_ctrl_c_keeps_the_rows_that_were_finished(env: dict[str, str], ollama: Ollama) -> None:
    second_row = threading.Event()

    def say(body: dict[str, Any]) -> Iterator[str]:
        requests = sum(_asked(each) == 8 for each in ollama.bodies("/v1/chat/completions"))
        if requests > 1 + 3:  # loading and the first row
            second_row.set()
            while not ollama.hung_up.wait(0.01):
                yield "word "
        yield from ["word "] * _asked(body)

    ollama.say = say
    with Terminal("bench", ollama.url, "-c", "1,2", "-n", "3", "--max-tokens", "8", env=env) as terminal:
        assert second_row.wait(20)
        terminal.wait_for("2 at once")
        terminal.interrupt()
        terminal.wait_for("stopped; the rows that were finished")
        assert terminal.end() == 130
        assert "ALL TOK/S" in terminal.seen
        assert "Traceback" not in terminal.seen


def test_the_real_server(server: LiveServer, env: dict[str, str]) -> None:
    options = ["-c", "1,3", "-n", "6", "--max-tokens", "8", "--prompt-tokens", "32", "--json", "-q"]
    rows = json.loads(run("bench", server.url, *options, env=env).stdout)["rows"]
    assert [(row["ok"], row["tokens_out"]) for row in rows] == [(6, 48), (6, 48)]

"""pull: how far it is, what is said on a terminal and in a log, and Ctrl-C."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli_fixtures import Ollama, Terminal, environment, run, serving
from portico.cli.replies import Pulling
from portico.cli.transfer import Transfer

MB = 1_000_000


def line(digest: str, total: int, completed: int) -> Pulling:
    return Pulling(status=f"pulling {digest}", digest=digest, total=total, completed=completed)


# ---- how far it is -----------------------------------------------------------------------------


def test_files_are_added_up_and_figures_never_run_backwards() -> None:
    transfer = Transfer(now=0)
    transfer.heard(line("a", 100 * MB, 50 * MB), 1)
    assert transfer.percent == 50
    transfer.heard(line("b", 100 * MB, 0), 2)  # a second file makes the whole larger
    assert (transfer.total, transfer.done, transfer.percent) == (200 * MB, 50 * MB, 50)
    transfer.heard(line("a", 100 * MB, 20 * MB), 3)  # a piece that is fetched again
    assert transfer.done == 50 * MB
    transfer.heard(line("a", 100 * MB, 100 * MB), 4)
    transfer.heard(line("b", 100 * MB, 100 * MB - 1), 5)
    assert transfer.percent == 99
    transfer.heard(line("b", 100 * MB, 100 * MB), 6)
    assert transfer.percent == 100


def test_the_rate_is_of_the_last_twenty_seconds_and_an_estimate_waits_for_three() -> None:
    transfer = Transfer(now=0)
    transfer.heard(line("a", 1000 * MB, 100 * MB), 0)  # from an earlier pull
    assert transfer.rate is None
    transfer.heard(line("a", 1000 * MB, 120 * MB), 2)
    assert transfer.rate == 10 * MB
    assert transfer.left(2) is None
    assert transfer.left(4) == pytest.approx(88)
    assert transfer.line(4) == " 12%   120 MB of 1.0 GB   10 MB/s   1m28s left"
    for second in range(3, 60):
        transfer.heard(line("a", 1000 * MB, (120 + second - 2) * MB), second)
    assert transfer.rate == pytest.approx(1 * MB)
    assert transfer.fetched == 77 * MB


def test_small_files_without_a_digest_are_told_apart_by_their_status() -> None:
    transfer = Transfer(now=0)
    transfer.heard(Pulling(status="pulling config.json", total=10, completed=10), 1)
    transfer.heard(Pulling(status="pulling tokenizer.json", total=30, completed=10), 1)
    assert (transfer.total, transfer.done) == (40, 20)


# ---- the command -------------------------------------------------------------------------------


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with serving(Ollama()) as ollama:
        yield ollama


@pytest.fixture
def env(tmp_path: Path, ollama: Ollama) -> dict[str, str]:
    return environment(tmp_path, PORTICO_HOST=ollama.url, COLUMNS="100")


def pulled(*percents: int) -> Iterator[dict[str, Any]]:
    yield {"status": "pulling manifest"}
    for percent in percents:
        size = {"total": 1000 * MB, "completed": percent * 10 * MB}
        yield {"status": "pulling 0123456789ab", "digest": "sha256:0123456789ab", **size}


def test_a_log_gets_whole_lines_each_tenth(env: dict[str, str], ollama: Ollama) -> None:
    ends = [{"status": "verifying sha256 digest"}, {"status": "writing manifest"}, {"status": "success"}]
    ollama.pulls = [*pulled(*range(0, 101, 5)), *ends]
    done = run("pull", "big", env=env)
    assert (done.returncode, done.stdout) == (0, "")
    lines = done.stderr.splitlines()
    assert all(each.startswith("run  big  ") for each in lines[:-1])
    assert [each.split()[2] for each in lines if "%" in each] == [f"{tenth}%" for tenth in range(0, 101, 10)]
    assert lines[-3:-1] == ["run  big  verifying sha256 digest", "run  big  writing manifest"]
    assert lines[-1].startswith("ok   big  1.0 GB in ")
    assert ollama.bodies("/api/pull") == [{"model": "big", "stream": True}]


def test_pull_as_json(env: dict[str, str], ollama: Ollama) -> None:
    ollama.pulls = [*pulled(40, 100), {"status": "success"}]
    done = run("pull", "big", "--json", "-q", env=env)
    assert done.stderr == ""
    told = json.loads(done.stdout)
    assert told.pop("took_ms") >= 0
    assert told == {"schema": 1, "model": "big", "size_bytes": 1000 * MB, "fetched_bytes": 600 * MB}


def test_what_is_here_already_says_so(env: dict[str, str]) -> None:
    assert "toy  is here already" in run("pull", "toy", env=env).stderr


def test_an_error_in_the_middle(env: dict[str, str], ollama: Ollama) -> None:
    ollama.pulls = [*pulled(40), {"error": "the hub wants a licence accepted"}]
    done = run("pull", "big", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == "error[server]: the hub wants a licence accepted"


@pytest.mark.parametrize("where", ["server", "disk"])
def test_what_cannot_be_found_is_not_advised_again(env: dict[str, str], ollama: Ollama, where: str) -> None:
    ollama.error = (404, "model 'toyy' not found. Nearest: toys")
    done = run("pull", "toyy", env=env if where == "server" else env | {"PORTICO_HOST": "127.0.0.1:1"})
    assert (done.returncode, done.stdout) == (1, "")
    first, takes, attempt = done.stderr.splitlines()[-3:]
    assert first.startswith("error[model_not_found]: model 'toyy")
    assert where == "disk" or first.endswith("Nearest: toys")  # the server's own words, not what is here
    assert "OWNER/REPOSITORY" in takes
    assert "toyy" not in attempt and attempt.startswith("  try      portico pull ")


def test_a_stream_that_just_ends_is_no_success(env: dict[str, str], ollama: Ollama) -> None:
    ollama.pulls = list(pulled(40))
    done = run("pull", "big", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error[closed]: the server stopped in the middle")


class Held(list[dict[str, Any]]):
    """The lines of a pull; the last of them waits until the caller has gone."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = threading.Event()

    def __iter__(self) -> Iterator[dict[str, Any]]:
        yield from pulled(10, 63)
        while not self.ended.wait(0.01):
            yield from list(pulled(63))[1:]


def test_ctrl_c_stops_says_what_is_kept_and_how_to_go_on(env: dict[str, str], ollama: Ollama) -> None:
    ollama.pulls = Held()
    with Terminal("pull", "big", env=env) as terminal:
        assert "[###############.........]  63%" in terminal.wait_for("630 MB of 1.0 GB")
        terminal.wait_for("Ctrl-C keeps this part")
        terminal.interrupt()
        terminal.wait_for("stopped; 630 MB of big are kept")
        terminal.wait_for("go on    portico pull big")
        assert terminal.end() == 130
        assert "Traceback" not in terminal.seen
    assert ollama.hung_up.wait(10)


def test_the_bar_leaves_a_clean_line(env: dict[str, str], ollama: Ollama) -> None:
    ollama.pulls = [*pulled(0, 100), {"status": "success"}]
    with Terminal("pull", "big", env=env | {"NO_COLOR": "1"}) as terminal:
        assert terminal.end() == 0
        assert "✓ " in terminal.seen and "big" in terminal.seen.splitlines()[-1]
        assert "%" not in terminal.seen.splitlines()[-1].rpartition("\x1b[2K")[2]


def test_progress_can_be_switched_off(env: dict[str, str], ollama: Ollama) -> None:
    ollama.pulls = [*pulled(0, 100), {"status": "success"}]
    assert run("pull", "big", "--progress", "none", env=env).stderr.startswith("ok   big")
    assert run("pull", "big", "-q", env=env).stderr == ""

"""serve and demo: flags into settings, what is told while a server starts, and that nothing stays behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import portico.inprocess
from cli_fixtures import Terminal, environment, program, run
from portico.cli import main
from portico.cli.serve import FLAGS, LISTS
from portico.config import Config, ModelEntry
from portico.errors import CannotListen

# ---- flags -------------------------------------------------------------------------------------


def test_every_flag_is_a_setting_with_that_name(served: list[Config]) -> None:
    names = (
        {name for name, *_ in FLAGS} | {name for _, name, *_ in LISTS} | {"models", "aliases", "log_prompts"}
    )
    assert names <= set(Config.__struct_fields__)


def test_nothing_given_changes_nothing(served: list[Config]) -> None:
    assert main(["serve"]) == 0
    assert served == [Config()]


def test_flags_become_settings(served: list[Config], tmp_path: Path) -> None:
    arguments = ["serve", "qwen3:4b", "other", "--host", "0.0.0.0", "--port", "0", "--context", "8192"]
    arguments += [
        "--served-model-name",
        "a",
        "--served-model-name",
        "b",
        "--api-key",
        "k1",
        "--api-key",
        "k2",
    ]
    arguments += ["--engine", "http://box:8000/v1", "--keep-alive", "0", "--shutdown-timeout", "5"]
    arguments += ["--alias", "gpt-4o-mini=qwen3:4b", "--origins", "https://x.org", "--log-prompts"]
    arguments += ["--chat-template", "t.jinja", "--chat-fallback", "prompt", "--log-format", "json"]
    assert main(arguments) == 0
    (config,) = served
    assert config.models == (ModelEntry(name="qwen3:4b"), ModelEntry(name="other"))
    assert (config.host, config.port, config.context) == ("0.0.0.0", 0, 8192)
    assert config.served_model_names == ("a", "b") and config.api_keys == ("k1", "k2")
    assert (config.engine, config.shutdown_timeout) == ("http://box:8000/v1", 5.0)
    assert config.keep_alive in ("0", 0, 0.0)
    assert config.aliases == {"gpt-4o-mini": "qwen3:4b"} and config.origins == ("https://x.org",)
    assert config.chat_template == tmp_path / "t.jinja" and config.chat_fallback == "prompt"
    assert (config.log_format, config.log_prompts) == ("json", True)


def test_a_file_and_a_flag_over_it(
    served: list[Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("port = 1\nmax_queue = 2\n")
    assert main(["serve", "--config", str(file), "--port", "3"]) == 0
    assert (served[0].port, served[0].max_queue) == (3, 2)
    assert "config ~/mine.toml" in capsys.readouterr().err


def test_wrong_settings_are_wrong_usage(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--port", "x"], ["--alias", "x"], ["--config", "none.toml"], ["--log-level", "loud"]):
        assert main(["serve", *wrong]) == 2, wrong
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("error["), wrong
    assert served == []


def test_the_addresses_come_last(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    ready, attempt, end = told.err.splitlines()[-3:]
    assert end == "Stopped."
    assert ready == "Ready.  OpenAI http://127.0.0.1:5/v1   Ollama http://127.0.0.1:5   this machine only"
    assert attempt == "Try: portico chat --host 127.0.0.1:5     Stop: Ctrl-C"


def test_a_start_that_is_stopped_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("portico.inprocess.serve", lambda config, **told: None)
    assert main(["serve"]) == 0
    assert capsys.readouterr().err.splitlines()[-1] == "Stopped before it was ready."


@pytest.mark.parametrize(
    ("arguments", "warned"),
    [
        ([], False),
        (["--host", "localhost"], False),
        (["--host", "0.0.0.0"], True),
        (["--host", "::"], True),
        (["--host", "0.0.0.0", "--api-key", "k"], False),
    ],
)
def test_a_server_for_everybody_without_a_key_is_warned_about(
    arguments: list[str], warned: bool, served: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *arguments]) == 0
    assert ("no API key is set" in capsys.readouterr().err) == warned


def test_events_as_json_lines(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--json"]) == 0
    started, stopped = map(json.loads, capsys.readouterr().out.splitlines())
    assert started.pop("at").endswith("Z")
    assert started == {
        "schema": 1,
        "event": "server_started",
        "seq": 1,
        "host": "127.0.0.1",
        "port": 5,
        "url": "http://127.0.0.1:5",
        "endpoints": {"ollama": "http://127.0.0.1:5", "openai": "http://127.0.0.1:5/v1"},
        "models": ["toy"],
    }
    assert (stopped["event"], stopped["seq"]) == ("server_stopped", 2)


def test_the_warning_is_an_event_too(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--json", "--host", "0.0.0.0"]) == 0
    told = capsys.readouterr()
    warning, started, stopped = map(json.loads, told.out.splitlines())
    assert (warning["event"], warning["code"], warning["seq"]) == ("warning", "no_api_key", 1)
    assert "0.0.0.0" in warning["message"] and "PORTICO_API_KEY" in warning["do"]
    assert (started["event"], stopped["event"]) == ("server_started", "server_stopped")
    assert told.err == ""
    assert main(["serve", "--json", "--host", "0.0.0.0", "--api-key", "k"]) == 0
    assert "warning" not in capsys.readouterr().out


def test_a_log_in_json_begins_with_json(served: list[Config], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--log-format", "json", "--host", "0.0.0.0"]) == 0
    told = capsys.readouterr()
    assert told.out == ""
    events = [json.loads(line)["event"] for line in told.err.splitlines()]
    assert events == ["warning", "server_started", "server_stopped"]


def test_a_server_that_never_started_did_not_stop(
    monkeypatch: pytest.MonkeyPatch, served: list[Config], capsys: pytest.CaptureFixture[str]
) -> None:
    def serve(config: Config, **told: Any) -> None:
        raise CannotListen("the port is taken")

    monkeypatch.setattr(portico.inprocess, "serve", serve)
    assert main(["serve", "--log-format", "json", "--host", "0.0.0.0"]) == 1
    warning, failure = map(json.loads, capsys.readouterr().err.splitlines())
    assert (warning["event"], failure["error"]["code"]) == ("warning", "port")


# ---- real servers ------------------------------------------------------------------------------


class Marked:
    """Processes that inherited this test's mark, whoever started them and whatever became of their parents."""

    def __init__(self) -> None:
        self.mark = f"MARK_OF_TEST={uuid.uuid4().hex}"

    def environment(self, home: Path) -> dict[str, str]:
        name, _, value = self.mark.partition("=")
        return environment(home, **{name: value})

    def alive(self) -> list[str]:
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (folder / "environ").read_bytes():
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # it ended meanwhile
        return found

    def wait_until_gone(self, seconds: float = 15) -> None:
        until = time.monotonic() + seconds
        while found := self.alive():
            assert time.monotonic() < until, f"still there: {found}"
            time.sleep(0.05)


@pytest.fixture
def marked() -> Iterator[Marked]:
    marked = Marked()
    yield marked
    if sys.platform == "linux":
        marked.wait_until_gone()


def test_a_server_whose_stdin_ends_ends(tmp_path: Path, marked: Marked) -> None:
    process = subprocess.Popen(
        program("serve", "--port", "0", "--json", "--end-with-stdin"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=marked.environment(tmp_path),
    )
    assert process.stdout is not None and process.stdin is not None
    with process.stdout, process.stdin:
        started = json.loads(process.stdout.readline())
        assert started["event"] == "server_started" and started["models"]
        process.stdin.close()
        assert process.wait(20) == 0
        assert json.loads(process.stdout.readline())["event"] == "server_stopping"
        assert json.loads(process.stdout.readline())["event"] == "server_stopped"


def test_every_line_of_a_log_in_json_is_json(tmp_path: Path, marked: Marked) -> None:
    """From the first to the last, also what the listener says of a caller who speaks no HTTP."""
    import socket

    process = subprocess.Popen(
        program("serve", "--port", "0", "--log-format", "json", "--log-level", "debug", "--end-with-stdin"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=marked.environment(tmp_path),
    )
    assert process.stdin is not None and process.stderr is not None
    try:
        started = json.loads(process.stderr.readline())
        assert started["event"] == "server_started"
        with socket.create_connection((started["host"], started["port"]), 10) as caller:
            caller.sendall(b"\x16\x03\x01 is this TLS?\r\n\r\n")
            assert caller.recv(100).startswith(b"HTTP/1.1 400")
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
        process.communicate()
    lines = [json.loads(line) for line in err.splitlines()]
    assert (process.returncode, out) == (0, b"")
    assert all(line["at"] and line["event"] for line in lines)
    (said,) = [line for line in lines if line["event"] == "log" and "not HTTP" in line["message"]]
    assert (said["level"], said["logger"], said["traceback"]) == ("debug", "portico.listen", None)
    assert lines[-1]["event"] == "server_stopped"


def test_a_taken_port_is_one_line_that_says_what_to_type(tmp_path: Path, marked: Marked) -> None:
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = run("serve", "--port", port, env=marked.environment(tmp_path))
    assert done.returncode in (1, 2)
    assert done.stdout == "" and port in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_stops_a_server_without_a_traceback(tmp_path: Path, marked: Marked) -> None:
    with Terminal("serve", "--port", "0", env=marked.environment(tmp_path)) as terminal:
        terminal.wait_for("Ready.")
        terminal.wait_for("Stop: Ctrl-C")
        terminal.interrupt()
        assert terminal.wait_for("Stopped.").splitlines()[-1] == "Stopped."  # not behind the ^C
        assert terminal.end() in (0, 130)
        assert "Traceback" not in terminal.seen


def test_the_demo_talks_in_both_languages_and_leaves_nothing(tmp_path: Path, marked: Marked) -> None:
    (tmp_path / "portico.toml").write_text("port = 1\napi_keys = ['secret']\n")
    env = marked.environment(tmp_path) | {"PORTICO_API_KEY": "secret", "OLLAMA_HOST": "0.0.0.0:1"}
    done = subprocess.run(program("demo"), env=env, capture_output=True, text=True, timeout=50, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    told = [line.split("model  ")[1] for line in lines if line.startswith("       model  ")]
    assert len(told) == 4 and all(answer.strip() for answer in told)
    assert any("/api/chat" in line for line in lines) and any(
        "/v1/chat/completions" in line for line in lines
    )
    assert "serve" in lines[-3] and "chat" in lines[-2]
    if sys.platform == "linux":
        assert marked.alive() == []
    assert not (tmp_path / "portico").exists()  # not even a data folder


def test_the_demo_as_json_lines(tmp_path: Path, marked: Marked) -> None:
    done = run("demo", "--json", env=marked.environment(tmp_path), timeout=50)
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [event["seq"] for event in events] == [1, 2, 3, 4, 5, 6]
    started, *answers, stopped = events
    assert (started["event"], stopped["event"]) == ("server_started", "server_stopped")
    assert started["url"].startswith("http://127.0.0.1:") and started["model"]
    assert {event["event"] for event in answers} == {"answer"}
    assert [event["path"] for event in answers] == ["/api/chat"] * 2 + ["/v1/chat/completions"] * 2
    assert all(event["prompt"] and event["text"].strip() and event["took_ms"] >= 0 for event in answers)


def test_ctrl_c_in_the_demo_stops_its_server(tmp_path: Path, marked: Marked) -> None:
    with Terminal("demo", env=marked.environment(tmp_path)) as terminal:
        terminal.wait_for("1/3")
        terminal.interrupt()
        # It may just have been over, or so nearly that Python took its handler away already.
        assert terminal.end() in (130, 0, -signal.SIGINT)
        assert "Traceback" not in terminal.seen
    if sys.platform == "linux":
        assert marked.alive() == []


def test_a_demo_that_is_killed_takes_its_server_along(tmp_path: Path, marked: Marked) -> None:
    process = subprocess.Popen(
        program("demo"), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=marked.environment(tmp_path)
    )
    assert process.stdout is not None
    with process.stdout:
        while b"1/3" not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_a_demo_that_fails_says_why(tmp_path: Path, marked: Marked) -> None:
    broken = tmp_path / "broken"
    (broken / "xllamacpp").mkdir(parents=True)
    (broken / "xllamacpp" / "__init__.py").write_text("raise ImportError('no such engine here')\n")
    env = marked.environment(tmp_path)
    done = run(
        "demo", env=env | {"PYTHONPATH": f"{broken}{os.pathsep}{env.get('PYTHONPATH', '')}"}, timeout=50
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error[")
    assert "no such engine here" in done.stderr


def test_flags_of_vllm_are_about_the_models_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], served: list[Config]
) -> None:
    (tmp_path / "portico.toml").write_text('[[model]]\nname = "Qwen/Qwen3-8B"\nengine = "vllm"\n')
    assert main(["serve", "--gpu-memory-utilization", "0.7"]) == 2
    assert not served
    said = capsys.readouterr().err
    assert "--gpu-memory-utilization" in said and "Qwen/Qwen3-8B" in said
    assert main(["serve", "Qwen/Qwen3-8B", "--gpu-memory-utilization", "0.7"]) == 0
    assert served[0].models[0].gpu_memory_utilization == 0.7

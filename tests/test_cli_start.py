"""What the command line costs to start, and how it answers before any command runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from cli_fixtures import environment, program, run
from portico import __version__
from portico.cli import options
from portico.cli.commands import ENTRIES, SECTIONS, portico
from portico.cli.completion import model_names

HEAVY = (
    "rich",
    "httpx2",
    "msgspec",
    "uvicorn",
    "huggingface_hub",
    "asyncio",
    "xllamacpp",
    "prometheus_client",
)


def cpu_seconds(command: list[str], env: dict[str, str]) -> float:
    """User and system time of a child process."""
    pid = os.spawnve(os.P_NOWAIT, command[0], command, env)
    _, status, usage = os.wait4(pid, 0)
    assert status == 0
    return usage.ru_utime + usage.ru_stime


@pytest.fixture
def quiet_help(tmp_path: Path) -> list[str]:
    """`portico --help` without its output, which the measurement does not want on the screen."""
    code = f"import os, sys; sys.stdout = open(os.devnull, 'w'); sys.argv = ['portico', '--help']; {MAIN}"
    return [sys.executable, "-c", code]


MAIN = "from portico.cli import main; sys.exit(main())"


def test_help_costs_at_most_150_ms_of_cpu_time(tmp_path: Path, quiet_help: list[str]) -> None:
    env = environment(tmp_path)
    costs = []
    for _ in range(25):  # other processes disturb the caches: the least of several is what the program costs
        costs.append(cpu_seconds(quiet_help, env))
        if min(costs) <= 0.150 and len(costs) >= 5:
            return
    pytest.fail(f"portico --help took {min(costs) * 1000:.0f} ms of CPU time at best")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], [], ["completion", "bash"]])
def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = ['portico', *{arguments!r}]\n"
        "from portico.cli import main\n"
        "code = main()\n"
        "print([name for name in sys.modules], file=sys.stderr)\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0
    assert [name for name in HEAVY if f"'{name}'" in done.stderr] == []


def test_every_command_of_the_table_is_there_and_says_what_it_does() -> None:
    context = click.Context(portico)
    for name in ENTRIES:
        command = portico.get_command(context, name)
        assert command is not None and command.name == name
        assert command.help and command.help.strip()


@pytest.mark.parametrize("name", ENTRIES)
def test_every_command_takes_json(name: str) -> None:
    command = portico.get_command(click.Context(portico), name)
    assert command is not None
    assert "--json" in [flag for parameter in command.params for flag in parameter.opts]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_a_completion_script_as_json(shell: str, tmp_path: Path) -> None:
    env = environment(tmp_path)
    told = json.loads(run("completion", shell, "--json", env=env).stdout)
    assert told == {"schema": 1, "shell": shell, "script": run("completion", shell, env=env).stdout[:-1]}
    assert "portico" in told["script"]


def test_completion_and_chats_know_the_folder_that_a_file_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that a server started here would use."""
    (tmp_path / "portico.toml").write_text('home = "kept"\nollama_models = "theirs"\nport = "not a number"\n')
    monkeypatch.chdir(tmp_path)
    env = {"HOME": str(tmp_path / "home")}
    assert options.home(env) == tmp_path / "kept"
    (tmp_path / "kept/models/manifests").mkdir(parents=True)
    (tmp_path / "kept/models/manifests/qwen3%3A4b.json").touch()
    (tmp_path / "theirs/manifests/registry.ollama.ai/library/phi4").mkdir(parents=True)
    (tmp_path / "theirs/manifests/registry.ollama.ai/library/phi4/latest").touch()
    assert model_names(env) == ["phi4:latest", "portico-tiny", "qwen3:4b"]
    (tmp_path / "portico.toml").write_text("no TOML")
    assert "portico-tiny" in model_names(env)  # a Tab key has nothing to say about it


def test_help_shows_every_command_and_fits_one_screen(tmp_path: Path) -> None:
    done = run("--help", env=environment(tmp_path, COLUMNS="80"))
    assert all(f"\n  {entry.name} " in done.stdout for _, entries in SECTIONS for entry in entries)
    assert len(done.stdout.splitlines()) <= 50
    assert run(env=environment(tmp_path, COLUMNS="80")).stdout == done.stdout


def test_help_is_a_command_too(tmp_path: Path) -> None:
    env = environment(tmp_path)
    assert run("help", env=env).stdout == run("--help", env=env).stdout
    assert run("help", "ls", env=env).stdout == run("ls", "--help", env=env).stdout
    assert run("help", "lss", env=env).stderr.splitlines()[-1] == "  try      portico ls"


def test_version_needs_no_server(tmp_path: Path) -> None:
    assert run("--version", env=environment(tmp_path)).stdout == f"portico {__version__}\n"


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    done = run("srve", env=environment(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error[usage]: there is no command 'srve'\n  try      portico serve\n"


def test_wrong_usage_is_code_2_and_json_on_demand(tmp_path: Path) -> None:
    done = run("ls", "--json", "--jsn", env=environment(tmp_path))
    assert (done.returncode, done.stdout) == (2, "")
    error = json.loads(done.stderr)["error"]
    assert error["code"] == "usage"
    assert error["try"] == "portico ls --help"


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        program("--help"), stdout=writing, stderr=subprocess.PIPE, env=environment(tmp_path), timeout=30
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_mistake_of_ours_is_one_line_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from portico.cli import completion, main

    def fall_over(name: str) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr(completion, "get_completion_class", fall_over)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    assert main(["completion", "bash"]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error[internal]: ZeroDivisionError: oh\n")
    assert "Traceback" not in told.err
    (crash,) = tmp_path.glob("portico-crash-*.txt")
    assert "fall_over" in crash.read_text()

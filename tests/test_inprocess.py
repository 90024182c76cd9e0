"""From a config to what engines are told: which setting reaches which model, and which cannot."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from asking import ask
from gguf_edit import TINY, edit
from live_server import serve, wait_until
from portico.config import Config, ModelEntry
from portico.configured import configure, copies
from portico.engines import ModelSpec
from portico.errors import ConfigError
from portico.inprocess import Portico, Shelf
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


@pytest.mark.parametrize(
    ("entry", "key"),
    [
        ({}, "sesame"),
        ({"engine": URL}, "sesame"),
        ({"engine": "http://other:8000/v1"}, None),
        ({"engine": "http://other:8000/v1", "api_key": "own"}, "own"),
        ({"api_key": "own"}, "own"),
        ({"api_key": ""}, None),
    ],
)
def test_the_key_of_one_server_goes_to_no_other(
    library: Library, entry: dict[str, Any], key: str | None
) -> None:
    config = Config(engine=URL, engine_api_key="sesame")
    assert configure(ModelEntry(name="far", **entry), config, library).api_key == key


def test_a_user_in_the_url_is_who_asks(library: Library) -> None:
    url = "http://me:secret@far:8000/v1"
    assert (
        configure(ModelEntry(name="far"), Config(engine=url, engine_api_key="sesame"), library).api_key
        is None
    )


def test_endpoints_are_given_no_more_at_once_either(library: Library) -> None:
    config = Config(engine=URL)
    entry = ModelEntry(name="far", parallel=3, endpoints=("http://other:8000/v1",))
    ((_, copied),) = copies([configure(entry, config, library)], [entry], config).items()
    assert [spec.parallel for spec in copied] == [3]


def test_endpoints_get_the_models_key_alone(library: Library) -> None:
    config = Config(engine=URL, engine_api_key="sesame")
    for own, key in ((None, None), ("own", "own")):
        entry = ModelEntry(name="far", api_key=own, endpoints=("http://other:8000/v1",))
        ((_, copied),) = copies([configure(entry, config, library)], [entry], config).items()
        assert [spec.api_key for spec in copied] == [key]


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


def test_the_configs_chat_template_is_for_models_named_at_the_start_and_those_without(tmp_path: Path) -> None:
    ollama, template = tmp_path / "ollama", tmp_path / "t.jinja"
    template.write_text("{{ messages[0].content }}")
    base = edit(TINY, tmp_path / "base.gguf", without=["tokenizer.chat_template"])
    library = Library(tmp_path / "home", hub=HubSettings.read({}), ollama=(ollama,))
    library.lend([library.at(TINY, name="whole"), library.at(base, name="base")])
    config = Config(chat_template=template)
    named = configure(ModelEntry(name=str(TINY)), config, library)
    assert named.chat_template == "{{ messages[0].content }}"

    def specs(config: Config) -> dict[str, ModelSpec]:
        return {served.spec.name: served.spec for served in Shelf(library, config).served()}

    shelf = specs(config)
    assert shelf["whole:latest"].chat_template is None
    assert shelf["base:latest"].chat_template == "{{ messages[0].content }}"
    own = ModelEntry(name=str(TINY), chat_template=base)
    with pytest.raises(ConfigError, match=r"chat template .*base\.gguf cannot be read"):
        configure(own, config, library)  # its own wins, and this one is no text


async def test_a_start_that_fails_in_its_last_step_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    portico = Portico(Config(port=0, home=tmp_path), {})

    async def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(portico, "_prune", fail)
    with pytest.raises(ZeroDivisionError):
        await portico.start()
    assert {status.state for status in portico.supervisor.states()} == {"stopped"}
    with pytest.raises(OSError):
        await asyncio.open_connection(*portico.listener.addresses[0])

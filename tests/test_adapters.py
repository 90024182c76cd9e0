"""LoRA adapters: each is a name of its own, on the engine of its model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from fake_engines import serve_fakes
from live_server import LiveServer
from portico.config import Config, ModelEntry
from portico.configured import configured
from portico.engines import ModelSpec
from portico.engines.vllm.options import VllmOptions
from portico.errors import ConfigError
from portico.gateway.models import Models, Served
from portico.library import HubSettings, Library

HI = [{"role": "user", "content": "hi there"}]
PATHS = ["/v1/chat/completions", "/v1/completions", "/api/chat", "/api/generate"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    model = {"name": "org/m", "replicas": 2, "lora_modules": {"sql": "/a/sql", "law": "/a/law"}}
    with serve_fakes(tmp_path_factory.mktemp("adapters"), model) as running:
        yield running


def test_they_are_listed_beside_their_model(server: LiveServer) -> None:
    listed = [model["id"] for model in server.ask("GET", "/v1/models")["data"]]
    assert [name for name in listed if name in ("org/m", "sql", "law")] == ["org/m", "sql", "law"]
    tags = [model["name"] for model in server.ask("GET", "/api/tags")["models"]]
    assert {"org/m:latest", "sql:latest", "law:latest"} <= set(tags)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("name", ["org/m", "sql", "law:latest"])
def test_the_engine_is_asked_for_the_adapter(server: LiveServer, path: str, stream: bool, name: str) -> None:
    """The stand-in's adapters begin every answer with their names."""
    prompt = {"messages": HI} if "chat" in path else {"prompt": "hi there"}
    reply = httpx2.post(server.url + path, json={"model": name, "stream": stream, **prompt}, timeout=30)
    assert reply.status_code == 200, reply.text
    said = "".join(pieces(reply.text))
    assert said == ("hi there" if name == "org/m" else f"{name.removesuffix(':latest')} hi there")


def pieces(body: str) -> Iterator[str]:
    """The text of an answer in any of the four shapes, streamed or not."""
    for line in body.splitlines():
        line = line.removeprefix("data: ")
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        for choice in event.get("choices", [event]):
            said = choice.get("message") or choice.get("delta") or {}
            yield said.get("content") or choice.get("text") or choice.get("response") or ""


def test_an_adapter_that_is_not_there_is_not_found(server: LiveServer) -> None:
    reply = httpx2.post(server.url + PATHS[0], json={"model": "sqk", "messages": HI}, timeout=30)
    assert reply.status_code == 404 and "sql" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "models",
    [
        [ModelEntry(name="org/m", lora_modules={"org/m": "/a"})],
        [
            ModelEntry(name="org/m", lora_modules={"a": "/a"}),
            ModelEntry(name="org/n", lora_modules={"a": "/b"}),
        ],
        [ModelEntry(name="org/m", lora_modules={"org/n:latest": "/a"}), ModelEntry(name="org/n")],
        [ModelEntry(name="org/m", lora_modules={"SQL": "/a", "sql": "/b"})],
        [ModelEntry(name="org/m", served_names=("sql",), lora_modules={"sql": "/a"})],
    ],
)
async def test_a_name_means_one_thing(tmp_path: Path, models: list[ModelEntry]) -> None:
    library = Library(tmp_path / "home", hub=HubSettings.read({}))
    with pytest.raises(ConfigError, match="is taken by another model, alias or adapter"):
        await configured(Config(models=tuple(models), engine="vllm"), library)


async def test_a_model_of_the_library_does_not_hide_an_adapter() -> None:
    spec = ModelSpec(
        name="org/m", engine="vllm", source="org/m", vllm=VllmOptions(lora_modules=(("fin", "/a"),))
    )
    own = ModelSpec(name="fin", engine="llamacpp", source="/fin.gguf")
    models = Models([spec], lambda: [Served(name="fin:latest", spec=own)])
    await models.current()
    for asked in ("fin", "fin:latest", "FIN"):
        served = await models.resolve(asked)
        assert (served.spec.name, served.adapter) == ("org/m", "fin")

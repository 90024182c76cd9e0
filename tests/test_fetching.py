"""A model of the hub that vLLM is to run: its files come here first, with progress, unless vLLM must fetch them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fake_engines import command_of, processes, serve_fakes
from library_fixtures import TINY, FakeHub, Repository, hub, library, safetensors
from portico.configured import elsewhere
from portico.engines import ModelSpec, Progress
from portico.engines.vllm.options import VllmOptions
from portico.errors import EngineStartFailed
from portico.fetching import fetched, is_offline

WEIGHTS = safetensors({"w": ("BF16", (40, 100), 8000)})
FILES = {path.name: path.read_bytes() for path in TINY.iterdir() if path.suffix in (".json", ".jinja")}
FILES |= {"model.safetensors": WEIGHTS}


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with hub() as server:
        server.repositories["org/m"] = Repository(dict(FILES), small=100)
        yield server


def spec(*args: str) -> ModelSpec:
    return ModelSpec(name="org/m", engine="vllm", source="org/m", vllm=VllmOptions(args=args))


async def test_it_comes_with_progress_and_is_started_from_its_folder(fake: FakeHub, tmp_path: Path) -> None:
    heard: list[Progress] = []

    def hear(progress: Progress | None = None) -> None:
        if progress is not None:
            heard.append(progress)

    found = await fetched(spec(), hear, library=library(tmp_path, fake), offline=False)
    assert (Path(found.source) / "model.safetensors").read_bytes() == WEIGHTS
    assert found.facts.format == "safetensors" and found.facts.class_name == "Qwen3ForCausalLM"
    assert found.name == "org/m"
    fractions = [one.fraction for one in heard if one.fraction is not None]
    assert fractions == sorted(fractions) and fractions[-1] == 1
    assert {one.stage for one in heard} == {"downloading"}


@pytest.mark.parametrize(
    "args",
    [
        ("--trust-remote-code",),
        ("--trust_remote_code",),
        ("--revision=v2",),
        ("--load-format", "dummy"),
        ("--load_format=dummy",),
    ],
)
async def test_what_vllm_fetches_in_its_own_way_is_left_to_it(
    fake: FakeHub, tmp_path: Path, args: tuple[str, ...]
) -> None:
    asked = spec(*args)
    assert await fetched(asked, print, library=library(tmp_path, fake), offline=False) == asked
    assert not fake.asked


@pytest.mark.parametrize("files", [{"m-Q4_K_M.gguf": b"GGUF"}, {"pytorch_model.bin": b"x"}, {}])
async def test_what_has_other_weights_is_left_to_vllm(
    fake: FakeHub, tmp_path: Path, files: dict[str, bytes]
) -> None:
    fake.repositories["org/m"] = Repository(files)
    assert await fetched(spec(), print, library=library(tmp_path, fake), offline=False) == spec()


async def test_a_hub_that_cannot_be_asked_is_left_to_vllm(fake: FakeHub, tmp_path: Path) -> None:
    assert await fetched(spec(), print, library=library(tmp_path), offline=False) == spec()
    assert await fetched(spec(), print, library=library(tmp_path, fake), offline=True) == spec()
    assert not fake.asked


async def test_what_was_fetched_is_started_again_as_it_is(fake: FakeHub, tmp_path: Path) -> None:
    """Another revision would take the files away from the replicas that run with these."""
    ours = library(tmp_path, fake)
    first = await fetched(spec(), print, library=ours, offline=False)
    asked = len(fake.asked)
    changed = FILES | {"model.safetensors": safetensors({"w": ("BF16", (80, 100), 16000)})}
    fake.repositories["org/m"] = Repository(changed, sha="beef" * 10)
    for offline in (False, True):
        assert await fetched(spec(), print, library=ours, offline=offline) == first
    assert len(fake.asked) == asked, "nor need the hub be there"
    assert await fetched(spec(), print, library=library(tmp_path), offline=False) == first


async def test_what_is_not_whole_any_more_is_fetched_again(fake: FakeHub, tmp_path: Path) -> None:
    first = await fetched(spec(), print, library=library(tmp_path, fake), offline=False)
    weights = Path(first.source) / "model.safetensors"
    weights.resolve().unlink()
    weights.unlink()
    assert await fetched(spec(), print, library=library(tmp_path, fake), offline=False) == first
    assert weights.read_bytes() == WEIGHTS


async def test_a_model_that_is_only_named_at_the_start_is_fetched(fake: FakeHub, tmp_path: Path) -> None:
    ours = library(tmp_path, fake)
    ours.lend([elsewhere(spec())])
    assert (await fetched(spec(), print, library=ours, offline=False)).source != "org/m"


async def test_what_is_no_name_to_us_is_left_to_vllm(fake: FakeHub, tmp_path: Path) -> None:
    asked = msgspec.structs.replace(spec(), source="my.org/model")
    assert await fetched(asked, print, library=library(tmp_path, fake), offline=False) == asked


async def test_a_gated_model_says_what_to_do(fake: FakeHub, tmp_path: Path) -> None:
    fake.repositories["org/m"] = Repository(dict(FILES), gated=True)
    with pytest.raises(EngineStartFailed, match="accept a licence first"):
        await fetched(spec(), print, library=library(tmp_path, fake), offline=False)


async def test_a_full_disk_is_told_before_anything_comes(fake: FakeHub, tmp_path: Path) -> None:
    full = library(tmp_path, fake, free=lambda path: 10)
    with pytest.raises(EngineStartFailed, match="10"):
        await fetched(spec(), print, library=full, offline=False)


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline(value: str, offline: bool) -> None:
    assert is_offline({"HF_HUB_OFFLINE": value}) is offline
    assert not is_offline({})


def test_a_server_fetches_once_and_lists_it_once(fake: FakeHub, tmp_path: Path) -> None:
    online: Any = {"HF_HUB_OFFLINE": "", "HF_ENDPOINT": fake.url}
    for _ in range(2):
        with serve_fakes(tmp_path, {"name": "org/m"}, **online) as server:
            command = next(command for command in map(command_of, processes(server)) if "--model" in command)
            assert Path(command[command.index("--model") + 1], "model.safetensors").read_bytes() == WEIGHTS
            listed = [model["name"] for model in server.ask("GET", "/api/tags")["models"]]
            assert [name for name in listed if "org/m" in name] == ["org/m:latest"]
            server.ask(
                "POST",
                "/api/chat",
                {"model": "org/m", "messages": [{"role": "user", "content": "hi"}], "stream": False},
            )
    assert len(fake.gets("model.safetensors")) == 1

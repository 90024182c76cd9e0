"""Pulls from a hub: what arrives, what is said meanwhile, and going on after an interruption."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from functools import partial
from pathlib import Path

import pytest
from filelock import FileLock

from library_fixtures import (
    COMMIT,
    TINY,
    FakeHub,
    Repository,
    gguf,
    hub,
    left,
    library,
    pulled,
    safetensors,
    until,
)
from portico.errors import ModelNotFound
from portico.library import HubSettings, Progress, holds
from portico.library.choice import choose
from portico.library.hub import Hub
from portico.library.progress import VERIFYING
from portico.library.transfer import Stop

MODEL = gguf({"general.file_type": 15}, tensors={"blk.0.w": (1000, 800)})
OTHER = gguf({"general.file_type": 7}, tensors={"blk.0.w": (100, 80)})
SHA = hashlib.sha256(MODEL).hexdigest()
MB = 1_000_000
NAME = "org/Model-GGUF:latest"


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with hub() as running:
        running.repositories["org/Model-GGUF"] = Repository({"M-Q4_K_M.gguf": MODEL, "M-Q8_0.gguf": OTHER})
        yield running


def part(folder: Path, digest: str = SHA) -> Path:
    return folder / "hub" / "models--org--Model-GGUF" / "blobs" / f"{digest}.incomplete"


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def pulling() -> bool:
    """Whether a pull still has its thread: what it has is then not all written yet."""
    return any(thread.name.startswith("pull ") for thread in threading.enumerate())


# ---- what arrives --------------------------------------------------------------------------------


def test_a_gguf_arrives_and_is_listed(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    said = pulled(shelf, "hf.co/org/Model-GGUF")
    assert [one.status for one in said if not one.digest] == [
        "pulling manifest",
        "verifying sha256 digest",
        "writing manifest",
        "success",
    ]
    (model,) = shelf.models()
    assert (model.name, model.origin, model.repository) == (NAME, "hub", "org/Model-GGUF")
    assert Path(model.path).read_bytes() == MODEL
    assert (model.facts.digest, model.facts.size) == (SHA, len(MODEL))
    assert (model.facts.quantization, model.facts.license) == ("Q4_K_M", "apache-2.0")
    assert model.spec().source == model.path
    assert shelf.find("ORG/model-gguf") == model
    assert not part(tmp_path).exists()


def test_what_is_fetched_lies_where_other_tools_look(fake: FakeHub, tmp_path: Path) -> None:
    pulled(library(tmp_path, fake), NAME)
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache("org/Model-GGUF", "M-Q4_K_M.gguf", cache_dir=tmp_path / "hub")
    assert isinstance(found, str) and Path(found).read_bytes() == MODEL


def test_what_other_tools_have_fetched_is_not_fetched_again(fake: FakeHub, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    hf_hub_download(
        "org/Model-GGUF", "M-Q4_K_M.gguf", cache_dir=tmp_path / "hub", endpoint=fake.url, token=False
    )
    fake.asked.clear()
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    assert fake.gets("M-Q4_K_M.gguf") == []
    # It was there before, so it is not ours to delete.
    path = shelf.find(NAME).path
    shelf.delete(NAME)
    assert shelf.models() == ()
    assert Path(path).exists()


def test_a_quantization_and_a_short_name(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, "org/Model-GGUF:q8_0")
    assert shelf.find("org/model-gguf:Q8_0").facts.quantization == "Q8_0"
    fake.repositories["bartowski/Llama-3.2-1B-Instruct-GGUF"] = fake.repositories["org/Model-GGUF"]
    pulled(shelf, "Llama3.2:1B")
    assert shelf.find("llama3.2:1b").name == "llama3.2:1b"


def test_progress_counts_every_byte_and_never_falls(fake: FakeHub, tmp_path: Path) -> None:
    said = [one for one in pulled(library(tmp_path, fake), NAME) if one.digest]
    assert said[0] == Progress(
        status=f"pulling {SHA[:12]}", digest=f"sha256:{SHA}", total=len(MODEL), completed=0
    )
    counts = [one.completed or 0 for one in said]
    assert counts == sorted(counts)
    assert counts[-1] == len(MODEL)


def test_a_sharded_gguf_comes_whole(fake: FakeHub, tmp_path: Path) -> None:
    first = gguf({"split.tensors.count": 2, "llama.block_count": 2}, tensors={"blk.0.w": (64, 64)})
    second = gguf(tensors={"blk.1.w": (64, 64)})
    names = [f"Q8_0/M-Q8_0-0000{number}-of-00002.gguf" for number in (1, 2)]
    fake.repositories["org/Model-GGUF"] = Repository(dict(zip(names, (first, second), strict=True)))
    shelf = library(tmp_path, fake)
    said = pulled(shelf, NAME)
    # All files are announced before the first byte, so that the sum is known.
    announced = {one.digest: one.total for one in said[1:3]}
    assert sum(total or 0 for total in announced.values()) == len(first) + len(second)
    model = shelf.find(NAME)
    assert model.path.endswith("00001-of-00002.gguf")
    assert model.facts.parameters == 2 * 64 * 64
    assert model.facts.size == len(first) + len(second)


def test_a_projector_makes_it_see(fake: FakeHub, tmp_path: Path) -> None:
    fake.repositories["org/Model-GGUF"].files["mmproj-M-f16.gguf"] = gguf(architecture="clip")
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    model = shelf.find(NAME)
    assert "vision" in model.facts.capabilities
    assert model.spec().mmproj == model.projector and model.projector.endswith("mmproj-M-f16.gguf")


def test_sharded_safetensors_come_whole(fake: FakeHub, tmp_path: Path) -> None:
    shard = safetensors({"w": ("BF16", (40, 100), 8000)})
    files = {path.name: path.read_bytes() for path in TINY.iterdir() if path.suffix in (".json", ".jinja")}
    shards = {f"model-0000{number}-of-00002.safetensors": shard + b"" for number in (1, 2)}
    index = {"weight_map": {"w": next(iter(shards)), "v": list(shards)[1]}}
    files |= {**shards, "model.safetensors.index.json": json.dumps(index).encode()}
    files |= {"pytorch_model.bin": b"x" * 9000, "modeling_odd.py": b"raise SystemExit"}
    fake.repositories["Qwen/Qwen3-8B"] = Repository(files)
    shelf = library(tmp_path, fake)
    said = pulled(shelf, "Qwen/Qwen3-8B")
    model = shelf.find("qwen/qwen3-8b:latest")
    assert (model.facts.format, model.facts.parameters, model.facts.context) == ("safetensors", 8000, 5120)
    there = {path.name for path in Path(model.path).iterdir()}
    assert there == set(files) - {"pytorch_model.bin", "modeling_odd.py"}
    # Small files have no sha256; they are told apart by their names.
    assert any(one.status == "pulling config.json" and one.completed == one.total for one in said)
    with pytest.raises(Exception, match="portico pull Qwen/Qwen3-8B-GGUF"):
        model.spec()


def test_large_files_come_from_another_host_without_the_token(fake: FakeHub, tmp_path: Path) -> None:
    fake.cdn = True
    fake.repositories["org/Model-GGUF"].gated = True
    pulled(library(tmp_path, fake, token="hf_good"), NAME)
    (redirected,) = fake.gets("M-Q4_K_M.gguf")
    assert redirected.path.startswith("/cdn/") and redirected.token is None
    assert "Bearer hf_good" in [one.token for one in fake.asked]
    assert all("portico" in (one.agent or "") for one in fake.asked if "/resolve/" in one.path)


# ---- what is here already ------------------------------------------------------------------------


def test_a_model_that_is_here_is_quickly_successful(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake, bundled=TINY)
    pulled(shelf, NAME)
    fake.asked.clear()
    assert (pulled(shelf, NAME))[-1].status == "success"
    assert [one.path.partition("?")[0] for one in fake.asked] == ["/api/models/org/Model-GGUF/revision/main"]
    # Neither needs a hub.
    alone = library(tmp_path, None, bundled=TINY)
    assert [one.status for one in pulled(alone, NAME)] == ["pulling manifest", "success"]
    assert [one.status for one in pulled(alone, "portico-tiny")] == ["pulling manifest", "success"]


def test_a_newer_commit_replaces_the_older_one(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    old = Path(shelf.find(NAME).path)
    newer = gguf({"general.file_type": 15}, tensors={"blk.0.w": (1000, 801)})
    fake.repositories["org/Model-GGUF"] = Repository({"M-Q4_K_M.gguf": newer}, sha=COMMIT[::-1])
    pulled(shelf, NAME)
    assert Path(shelf.find(NAME).path).read_bytes() == newer
    assert not old.exists()
    assert [path.name for path in (tmp_path / "hub" / "models--org--Model-GGUF" / "blobs").iterdir()] == [
        hashlib.sha256(newer).hexdigest()
    ]


def blobs(folder: Path) -> set[str]:
    return {path.name for path in (folder / "hub" / "models--org--Model-GGUF" / "blobs").iterdir()}


def newer(fake: FakeHub, number: int = 1) -> str:
    """The hub has another version; its hash."""
    content = gguf({"general.file_type": 15}, tensors={"blk.0.w": (1000, 800 + number)})
    sha = hashlib.sha256(str(number).encode()).hexdigest()[:40]
    fake.repositories["org/Model-GGUF"] = Repository({"M-Q4_K_M.gguf": content}, sha=sha)
    return hashlib.sha256(content).hexdigest()


def test_what_is_used_stays_until_that_has_ended(fake: FakeHub, tmp_path: Path) -> None:
    """An engine that runs reads its files again when it wakes."""
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    old = Path(shelf.find(NAME).path)
    let_go, also = shelf.hold(str(old)), shelf.hold(str(old))
    assert let_go is not None and also is not None
    new = newer(fake)
    pulled(shelf, NAME)
    assert old.read_bytes() == MODEL and shelf.find(NAME).path != str(old)
    let_go()
    let_go()
    assert old.read_bytes() == MODEL, "another one still uses it"
    also()
    assert not old.exists() and blobs(tmp_path) == {new}
    assert shelf.hold(str(old)) is None, "it is gone"


def test_what_is_used_stays_though_its_model_is_deleted(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    old = Path(shelf.find(NAME).path)
    let_go = shelf.hold(str(old))
    assert let_go is not None
    shelf.delete(NAME)
    assert old.exists() and NAME not in {model.name for model in shelf.models()}
    pulled(shelf, NAME)
    let_go()
    assert old.exists(), "by now it is wanted again"
    shelf.delete(NAME)
    assert not old.exists(), "and it is ours as before"


def test_what_a_killed_server_used_goes_with_the_next_one(fake: FakeHub, tmp_path: Path) -> None:
    """Its locks have ended with it."""
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    old = Path(shelf.find(NAME).path)
    code = "import sys, pathlib, time; from portico.library.holds import hold; assert hold(pathlib.Path(sys.argv[1])); print(1, flush=True); time.sleep(600)"
    process = subprocess.Popen([sys.executable, "-c", code, str(old)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline()
        new = newer(fake)
        pulled(shelf, NAME)
        shelf.prune()
        assert old.exists()
    finally:
        process.kill()
        process.communicate()
    library(tmp_path, fake).prune()
    assert not old.exists() and blobs(tmp_path) == {new}


def test_nobody_begins_to_use_what_is_being_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "snapshots" / "abc"
    folder.mkdir(parents=True)
    with holds.alone(folder) as nobody:
        assert nobody and holds.hold(folder) is None
    let_go = holds.hold(folder)
    with holds.alone(folder) as nobody:
        assert let_go is not None and not nobody
    let_go()
    elsewhere = holds.hold(tmp_path / "mine.gguf")
    assert elsewhere is not None, "what is not in the cache is nobody's to delete"
    elsewhere()


# ---- interruptions -------------------------------------------------------------------------------


def test_a_cut_connection_is_taken_up_where_it_ended(fake: FakeHub, tmp_path: Path) -> None:
    fake.cut["M-Q4_K_M.gguf"] = 1_500_000
    shelf = library(tmp_path, fake)
    said = pulled(shelf, NAME)
    assert [one.range for one in fake.gets("M-Q4_K_M.gguf")] == [None, "bytes=1500000-"]
    counts = [one.completed or 0 for one in said if one.digest]
    assert counts == sorted(counts)
    assert shelf.find(NAME).facts.digest == SHA


def test_a_server_that_is_busy_is_asked_again(fake: FakeHub, tmp_path: Path) -> None:
    fake.answers["M-Q4_K_M.gguf"] = [503, 429, 500]
    pulled(library(tmp_path, fake), NAME)
    assert len(fake.gets("M-Q4_K_M.gguf")) == 4


@pytest.mark.parametrize("how", ["close", "cancel"])
def test_leaving_stops_the_pull_at_once_and_the_next_one_goes_on(
    fake: FakeHub, tmp_path: Path, how: str
) -> None:
    fake.stall["M-Q4_K_M.gguf"] = 2 * MB
    shelf = library(tmp_path, fake)
    left(shelf, NAME, lambda: fake.stalled.is_set() and size(part(tmp_path)) >= MB, how=how)
    assert fake.gone.wait(2), "the hub did not see the connection close"
    until(lambda: not pulling())
    arrived = size(part(tmp_path))
    (unfinished,) = shelf.unfinished()
    assert (unfinished.name, unfinished.completed, unfinished.total) == (NAME, arrived, len(MODEL))
    assert shelf.models() == ()
    fake.stall.clear()
    pulled(shelf, NAME)
    assert fake.gets("M-Q4_K_M.gguf")[-1].range == f"bytes={arrived}-"
    assert shelf.find(NAME).facts.digest == SHA
    assert shelf.unfinished() == ()


def test_a_killed_process_has_left_what_had_arrived(fake: FakeHub, tmp_path: Path) -> None:
    fake.stall["M-Q4_K_M.gguf"] = 2 * MB
    script = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from library_fixtures import FakeHub, library, pulled
        pulled(library(Path({str(tmp_path)!r}), FakeHub(url={fake.url!r})), {NAME!r})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=os.environ)
    try:
        until(lambda: size(part(tmp_path)) >= MB)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    arrived = size(part(tmp_path))
    assert 0 < arrived < len(MODEL)
    fake.stall.clear()
    shelf = library(tmp_path, fake)
    assert [one.name for one in shelf.unfinished()] == [NAME]
    pulled(shelf, NAME)
    assert [one.range for one in fake.gets("M-Q4_K_M.gguf")] == [None, f"bytes={arrived}-"]
    assert shelf.find(NAME).facts.digest == SHA


def test_a_server_that_cannot_continue_sends_all_again(fake: FakeHub, tmp_path: Path) -> None:
    fake.ranges = False
    fake.cut["M-Q4_K_M.gguf"] = 3_000_000
    said = pulled(library(tmp_path, fake), NAME)
    counts = [one.completed or 0 for one in said if one.digest]
    assert counts == sorted(counts)
    assert counts[-1] == len(MODEL)


@pytest.mark.parametrize("extra", [b"", b"more"])
def test_a_part_that_is_no_beginning_of_the_file(fake: FakeHub, tmp_path: Path, extra: bytes) -> None:
    path = part(tmp_path)
    path.parent.mkdir(parents=True)
    path.write_bytes(bytes(len(MODEL)) + extra)
    shelf = library(tmp_path, fake)
    if extra:  # longer than the file: thrown away at once
        pulled(shelf, NAME)
    else:  # as long as the file: only its hash tells
        with pytest.raises(Exception, match="digest mismatch"):
            pulled(shelf, NAME)
        pulled(shelf, NAME)
    assert shelf.find(NAME).facts.digest == SHA


async def test_two_pulls_of_one_name_are_one(fake: FakeHub, tmp_path: Path) -> None:
    fake.stall["M-Q4_K_M.gguf"] = 1_000_000
    shelf = library(tmp_path, fake)

    async def pull(name: str) -> list[Progress]:
        return [progress async for progress in shelf.pull(name)]

    first = asyncio.create_task(pull(NAME))
    assert await asyncio.to_thread(fake.stalled.wait, 20)
    second = asyncio.create_task(pull("hf.co/org/Model-GGUF"))
    await asyncio.sleep(0.05)
    first.cancel()  # one of the two leaves, the pull goes on
    await asyncio.gather(first, return_exceptions=True)
    fake.go.set()
    said = await second
    assert said[0].status == "pulling manifest" and said[-1].status == "success"
    assert len(fake.gets("M-Q4_K_M.gguf")) == 1


async def test_a_slow_watcher_misses_only_counts(fake: FakeHub, tmp_path: Path) -> None:
    said = []
    async with aclosing(library(tmp_path, fake).pull(NAME)) as progress:
        async for one in progress:
            said.append(one)
            await asyncio.sleep(0.2)
    assert said[-1].status == "success"
    assert [one.completed for one in said if one.digest][-1] == len(MODEL)
    assert len(said) < 10


def test_what_an_unfinished_pull_has_left_can_be_thrown_away(fake: FakeHub, tmp_path: Path) -> None:
    fake.stall["M-Q4_K_M.gguf"] = 2 * MB
    shelf = library(tmp_path, fake)
    left(shelf, NAME, lambda: size(part(tmp_path)) >= MB)
    assert fake.gone.wait(2)
    until(lambda: not pulling())
    assert shelf.prune() == 0 and len(shelf.unfinished()) == 1  # a pull can be continued for ever
    shelf.delete("org/model-gguf")
    assert shelf.unfinished() == ()
    assert not (tmp_path / "hub" / "models--org--Model-GGUF").exists()


# ---- settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "cache"),
    [
        ({}, "~/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/huggingface/hub"),
        ({"HF_HOME": "/h", "XDG_CACHE_HOME": "/x"}, "/h/hub"),
        ({"HF_HOME": "~/h"}, "~/h/hub"),
        ({"HF_HUB_CACHE": "/c", "HF_HOME": "/h"}, "/c"),
        ({"HF_HOME": " "}, "~/.cache/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hubs_variables_say(environ: dict[str, str], cache: str) -> None:
    assert HubSettings.read(environ).cache == os.path.expanduser(cache)


def test_endpoint_and_token_come_from_the_environment() -> None:
    found = HubSettings.read({"HF_ENDPOINT": "http://mirror/", "HF_TOKEN": "hf_x"})
    assert (found.endpoint, found.token) == ("http://mirror", "hf_x")
    assert "hf_x" not in repr(found)


def test_a_short_name_nobody_knows(fake: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        pulled(library(tmp_path, fake), "lama3.2:1b")
    assert "llama3.2:1b" in caught.value.nearest
    assert fake.asked == []


# ---- signs of life: whoever waits for a load hears nothing else


def fetching(fake: FakeHub, folder: Path, said: list[Progress]) -> tuple[Callable[[], None], Path]:
    """What fetches `org/m`, and the lock of its weights."""
    made = Hub(HubSettings(endpoint=fake.url, token=None, cache=str(folder / "hub")), delay=0.01)
    remote = made.look("org/m")
    snapshot, files = made.plan(remote, choose(remote.files, repository="org/m", quantization=None))
    weights = next(file for file in files if file.path == "model.safetensors")
    return partial(made.fetch, snapshot, files, said.append, Stop()), snapshot.lock(weights.hash)


@pytest.fixture
def weights(fake: FakeHub) -> None:
    files = {"config.json": (TINY / "config.json").read_bytes()}
    files["model.safetensors"] = safetensors({"w": ("BF16", (40, 100), 8000)})
    fake.repositories["org/m"] = Repository(files)


@pytest.mark.usefixtures("weights")
def test_verifying_says_that_it_goes_on(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portico.library.hub.BEAT", 0.0, raising=False)
    monkeypatch.setattr("portico.library.transfer._CHUNK", 1000)
    said: list[Progress] = []
    fetch, _ = fetching(fake, tmp_path, said)
    fetch()
    assert said.count(VERIFYING) > 8


@pytest.mark.usefixtures("weights")
def test_who_waits_for_another_process_says_so(fake: FakeHub, tmp_path: Path) -> None:
    said: list[Progress] = []
    fetch, lock = fetching(fake, tmp_path, said)
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        waiting = threading.Thread(target=fetch)
        waiting.start()
        until(lambda: len(said) >= 2 and len(fake.gets("config.json")) == 1)
        before = len(said) + 2  # what is still said of that file
        until(lambda: len(said) > before + 1, seconds=10)
    waiting.join(10)
    assert not waiting.is_alive() and VERIFYING in said

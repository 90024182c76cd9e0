"""Pulls that cannot succeed: the reason is the hub's own, and nothing unusable is left behind."""

from __future__ import annotations

import errno
import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from library_fixtures import FakeHub, Repository, gguf, hub, library, pulled, safetensors
from portico.errors import DamagedFile, Gated, InvalidRequest, NoSpace, PullFailed
from portico.library import transfer
from portico.library.disk import SPARE
from portico.library.hub import Unreachable

MODEL = gguf({"general.file_type": 15}, tensors={"blk.0.w": (1000, 800)})
NAME = "org/Model-GGUF:latest"


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with hub() as running:
        running.repositories["org/Model-GGUF"] = Repository({"M-Q4_K_M.gguf": MODEL})
        yield running


def blobs(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("hub/models--*/blobs/*"))


def test_a_gated_repository(fake: FakeHub, tmp_path: Path) -> None:
    fake.repositories["org/Model-GGUF"].gated = True
    shelf = library(tmp_path, fake)
    with pytest.raises(Gated) as caught:
        pulled(shelf, NAME)
    assert "https://huggingface.co/org/Model-GGUF" in caught.value.message
    assert "Access to model org/Model-GGUF is restricted." in caught.value.message
    assert (shelf.unfinished(), blobs(tmp_path)) == ((), [])
    pulled(library(tmp_path, fake, token="hf_good"), NAME)


def test_no_such_repository(fake: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(PullFailed, match="no repository org/none on the hub") as caught:
        pulled(library(tmp_path, fake), "org/none")
    assert "HF_TOKEN" in caught.value.message and "Repository not found" in caught.value.message


def test_no_such_quantization(fake: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(PullFailed, match=r"no GGUF file Q2_K\. It has: Q4_K_M"):
        pulled(library(tmp_path, fake), "org/Model-GGUF:Q2_K")


def test_a_file_that_is_gone_meanwhile(fake: FakeHub, tmp_path: Path) -> None:
    fake.answers["M-Q4_K_M.gguf"] = [404]
    shelf = library(tmp_path, fake)
    with pytest.raises(PullFailed, match="try later"):
        pulled(shelf, NAME)
    assert shelf.unfinished() == ()


def test_a_server_that_stays_busy_is_given_up_and_what_arrived_is_kept(fake: FakeHub, tmp_path: Path) -> None:
    class Busy(list[int]):
        """From the second request on."""

        def __bool__(self) -> bool:
            return len(fake.gets("M-Q4_K_M.gguf")) > 1

        def pop(self, index: Any = 0) -> int:
            return 503

    fake.cut["M-Q4_K_M.gguf"] = 1_000_000
    fake.answers["M-Q4_K_M.gguf"] = Busy()
    shelf = library(tmp_path, fake)
    with pytest.raises(PullFailed, match=r"answered 503\. What has arrived is kept"):
        pulled(shelf, NAME)
    assert [one.completed for one in shelf.unfinished()] == [1_000_000]


def test_a_hub_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(Unreachable, match=r"http://127\.0\.0\.1:9 cannot be reached"):
        pulled(library(tmp_path), NAME)


def test_offline_mode_is_named(fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Unreachable, match="HF_HUB_OFFLINE"):
        pulled(library(tmp_path, fake), NAME)
    assert fake.asked == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_hub_keeps_nobody_from_a_model_that_is_here(
    fake: FakeHub, tmp_path: Path, status: int
) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    fake.busy = status
    assert [one.status for one in pulled(shelf, NAME)] == ["pulling manifest", "success"]
    with pytest.raises(PullFailed, match=rf"the hub answered {status}\. The hub says: try later"):
        pulled(shelf, "org/Other-GGUF")


def test_a_hub_that_refuses_is_believed_also_of_a_model_that_is_here(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, NAME)
    fake.busy = 403
    with pytest.raises(PullFailed, match="the hub answered 403"):
        pulled(shelf, NAME)


@pytest.mark.parametrize("size", ["same", "longer"])
def test_other_bytes_than_announced(fake: FakeHub, tmp_path: Path, size: str) -> None:
    fake.forged["M-Q4_K_M.gguf"] = MODEL[:-1] + (b"x" if size == "same" else b"xyz")
    shelf = library(tmp_path, fake)
    reason = "digest mismatch, expected sha256:" if size == "same" else "more than its"
    with pytest.raises(PullFailed, match=reason):
        pulled(shelf, NAME)
    assert (shelf.models(), shelf.unfinished(), blobs(tmp_path)) == ((), (), [])
    fake.forged.clear()
    pulled(shelf, NAME)


def test_small_files_are_verified_too(fake: FakeHub, tmp_path: Path) -> None:
    files = {"config.json": b"{}", "model.safetensors": safetensors({"w": ("F32", (2000,), 8000)})}
    fake.repositories["org/s"] = Repository(files)
    fake.forged["config.json"] = b"[]"
    with pytest.raises(PullFailed, match=r"config\.json: digest mismatch, expected git:"):
        pulled(library(tmp_path, fake), "org/s")


def test_what_is_no_model_is_refused_and_removed(fake: FakeHub, tmp_path: Path) -> None:
    hostile = gguf({"llama.block_count": 10**9}) + bytes(5000)
    fake.repositories["org/Model-GGUF"].files["M-Q4_K_M.gguf"] = hostile
    shelf = library(tmp_path, fake)
    with pytest.raises(DamagedFile, match="1000000000 blocks"):
        pulled(shelf, NAME)
    assert (shelf.models(), shelf.unfinished(), blobs(tmp_path)) == ((), (), [])


def test_a_missing_shard(fake: FakeHub, tmp_path: Path) -> None:
    fake.repositories["org/Model-GGUF"] = Repository({"M-Q8_0-00001-of-00002.gguf": MODEL})
    with pytest.raises(PullFailed, match="00002-of-00002"):
        pulled(library(tmp_path, fake), NAME)


@pytest.mark.parametrize("name", ["../../M-Q4_K_M.gguf", "/M-Q4_K_M.gguf", "a\\..\\M-Q4_K_M.gguf"])
def test_names_that_lead_out_of_the_cache(fake: FakeHub, tmp_path: Path, name: str) -> None:
    fake.repositories["org/Model-GGUF"].files = {name: MODEL}
    with pytest.raises(PullFailed, match="a file with the name"):
        pulled(library(tmp_path, fake), NAME)
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize("commit", ["main", "../../etc"])
def test_a_commit_that_is_none(fake: FakeHub, tmp_path: Path, commit: str) -> None:
    fake.repositories["org/Model-GGUF"].sha = commit
    with pytest.raises(PullFailed, match="names a commit"):
        pulled(library(tmp_path, fake), NAME)


@pytest.mark.parametrize("name", ["", "a b", "../x", "a/b/c/d"])
def test_what_is_no_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        pulled(library(tmp_path), name)


# ---- no space ------------------------------------------------------------------------------------


def test_too_little_space_is_seen_before_the_first_byte(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake, free=lambda folder: SPARE + 1000)
    with pytest.raises(NoSpace) as caught:
        pulled(shelf, NAME)
    assert (caught.value.needed, caught.value.free) == (len(MODEL) + SPARE, SPARE + 1000)
    assert fake.gets("M-Q4_K_M.gguf") == []
    assert shelf.unfinished() == ()
    pulled(library(tmp_path, fake, free=lambda folder: SPARE + len(MODEL)), NAME)


def test_what_has_arrived_already_needs_no_more_space(fake: FakeHub, tmp_path: Path) -> None:
    path = tmp_path / "hub" / "models--org--Model-GGUF" / "blobs"
    path.mkdir(parents=True)
    (path / (hashlib.sha256(MODEL).hexdigest() + ".incomplete")).write_bytes(MODEL[:3_000_000])
    pulled(library(tmp_path, fake, free=lambda folder: SPARE + 300_000), NAME)
    assert fake.gets("M-Q4_K_M.gguf")[0].range == "bytes=3000000-"


def test_a_disk_that_fills_up_meanwhile(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.FileIO):
        def write(self, piece: Any) -> int:
            if self.tell() + len(piece) > 1_000_000:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().write(piece)

    def opens(path: Path, mode: str, buffering: int = -1) -> Any:
        return Full(path, mode) if "w" in mode else open(path, mode, buffering=buffering)

    monkeypatch.setattr(transfer, "open", opens, raising=False)
    shelf = library(tmp_path, fake)
    with pytest.raises(NoSpace) as caught:
        pulled(shelf, NAME)
    assert 0 < caught.value.needed < len(MODEL)
    assert caught.value.path.endswith("blobs")
    (unfinished,) = shelf.unfinished()
    assert 900_000 < unfinished.completed <= 1_000_000
    monkeypatch.undo()
    pulled(shelf, NAME)
    assert fake.gets("M-Q4_K_M.gguf")[-1].range == f"bytes={unfinished.completed}-"


def test_a_cache_that_cannot_be_written(fake: FakeHub, tmp_path: Path) -> None:
    (tmp_path / "hub").write_text("a file, not a folder")
    with pytest.raises(PullFailed, match="cannot be written"):
        pulled(library(tmp_path, fake), NAME)

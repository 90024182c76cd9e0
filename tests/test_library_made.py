"""Models made of others: create, copy, delete, uploads; and that a kill leaves the old or the new, nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from library_fixtures import TINY, FakeHub, Repository, gguf, hub, library, pulled, until
from portico.errors import DamagedFile, InvalidRequest, ModelNotFound, NoSpace, Unsupported
from portico.library import Library, atomic, blobs
from portico.messages import Message, Text

MODEL = gguf({"general.file_type": 15}, tensors={"blk.0.w": (100, 80)})
HELLO = (
    Message(role="user", parts=(Text(text="Hi"),)),
    Message(role="assistant", parts=(Text(text="Hello"),)),
)


@pytest.fixture
def fake() -> Iterator[FakeHub]:
    with hub() as running:
        running.repositories["org/Model-GGUF"] = Repository({"M-Q4_K_M.gguf": MODEL})
        yield running


@pytest.fixture
def shelf(tmp_path: Path) -> Library:
    return library(tmp_path, bundled=TINY)


def upload(shelf: Library, content: bytes, digest: str = "") -> str:
    digest = digest or f"sha256:{hashlib.sha256(content).hexdigest()}"

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 1000):
            yield content[start : start + 1000]

    asyncio.run(shelf.put_blob(digest, pieces()))
    return digest


# ---- create --------------------------------------------------------------------------------------


def test_a_preset(shelf: Library) -> None:
    said = shelf.create(
        "Pirate",
        from_="portico-tiny",
        system="Arr.",
        parameters={"temperature": 0, "stop": ["x"]},
        messages=HELLO,
    )
    statuses = ["reading model metadata", "creating system layer", "writing manifest", "success"]
    assert [one.status for one in said] == statuses
    made = shelf.find("pirate")
    base = shelf.find("portico-tiny")
    assert (made.name, made.parent, made.origin) == ("Pirate:latest", "portico-tiny:latest", "bundled")
    assert (made.system, made.parameters, made.messages) == ("Arr.", {"temperature": 0, "stop": ["x"]}, HELLO)
    assert (made.removable, base.removable) == (True, False)
    # It runs in the replica of the model it is made of, and is still a model of its own.
    assert made.spec() == base.spec()
    assert made.facts.digest != base.facts.digest and len(made.facts.digest or "") == 64
    assert [model.name for model in shelf.models()] == ["Pirate:latest", "portico-tiny:latest"]


def test_a_preset_of_a_preset(shelf: Library) -> None:
    shelf.create(
        "a", from_="portico-tiny", system="A", parameters={"temperature": 0, "top_k": 1}, license="MIT"
    )
    shelf.create("b", from_="a", parameters={"temperature": 1})
    made = shelf.find("b")
    assert (made.parent, made.system, made.runs) == ("a:latest", "A", "portico-tiny:latest")
    assert made.parameters == {"temperature": 1, "top_k": 1}
    assert made.facts.license == "MIT"
    shelf.create("b", from_="b", system="")  # taken away again
    assert (shelf.find("b").system, shelf.find("b").parent) == ("", "a:latest")


def test_a_preset_survives_the_process_and_its_parent(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, "org/Model-GGUF")
    shelf.create("mine", from_="org/Model-GGUF", system="S")
    assert shelf.find("mine").runs == "org/Model-GGUF:latest"
    shelf.delete("org/Model-GGUF")
    again = library(tmp_path, fake)
    mine = again.find("mine")
    assert (mine.system, mine.runs, Path(mine.path).read_bytes()) == ("S", "mine:latest", MODEL)
    again.delete("mine")
    assert not Path(mine.path).exists()
    assert list((tmp_path / "hub").glob("models--*")) == []


def test_a_preset_of_nothing(shelf: Library) -> None:
    with pytest.raises(ModelNotFound):
        shelf.create("x", from_="none")
    with pytest.raises(InvalidRequest, match="neither from nor files"):
        shelf.create("x")
    with pytest.raises(InvalidRequest, match="invalid model name"):
        shelf.create("a b", from_="portico-tiny")


def test_a_preset_whose_base_is_gone_says_so(tmp_path: Path) -> None:
    library(tmp_path, bundled=TINY).create("x", from_="portico-tiny")
    alone = library(tmp_path)
    assert alone.models() == ()
    with pytest.raises(DamagedFile, match="made from portico-tiny:latest, which is gone"):
        alone.find("x")
    alone.delete("x")
    with pytest.raises(ModelNotFound):
        alone.find("x")


# ---- copy and delete -----------------------------------------------------------------------------


def test_a_copy_outlives_its_source(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake)
    pulled(shelf, "org/Model-GGUF")
    shelf.copy("ORG/model-gguf", "mine:v1")
    assert shelf.find("mine:v1").runs == "org/Model-GGUF:latest"
    assert shelf.find("mine:v1").facts.digest == shelf.find("org/Model-GGUF").facts.digest
    shelf.delete("org/Model-GGUF")
    assert [model.name for model in shelf.models()] == ["mine:v1"]
    assert Path(shelf.find("mine:v1").path).read_bytes() == MODEL


def test_a_copy_of_the_bundled_model(shelf: Library) -> None:
    shelf.copy("portico-tiny", "gpt-4o-mini")
    assert shelf.find("gpt-4o-mini").spec() == shelf.find("portico-tiny").spec()
    shelf.copy("portico-tiny", "portico-tiny:latest")  # onto itself: nothing
    assert shelf.find("portico-tiny").origin == "bundled"
    with pytest.raises(ModelNotFound):
        shelf.copy("none", "x")
    with pytest.raises(InvalidRequest):
        shelf.copy("portico-tiny", "no name")


def test_what_is_replaced_is_collected(fake: FakeHub, tmp_path: Path) -> None:
    shelf = library(tmp_path, fake, bundled=TINY)
    pulled(shelf, "org/Model-GGUF")
    path = Path(shelf.find("org/Model-GGUF").path)
    shelf.copy("portico-tiny", "org/Model-GGUF")
    assert not path.exists()
    assert shelf.find("org/Model-GGUF").runs == "portico-tiny:latest"


def test_delete_in_any_case_but_never_by_auto(shelf: Library) -> None:
    shelf.create("Mine", from_="portico-tiny")
    for name in ("auto", "default", "min"):
        with pytest.raises((ModelNotFound, Unsupported)):
            shelf.delete(name)
    shelf.delete("MINE:latest")
    with pytest.raises(ModelNotFound):
        shelf.delete("mine")


def test_the_bundled_model_stays(shelf: Library) -> None:
    with pytest.raises(Unsupported, match="comes with the package"):
        shelf.delete("portico-tiny")


# ---- uploads -------------------------------------------------------------------------------------


def test_an_uploaded_gguf_becomes_a_model(shelf: Library) -> None:
    digest = upload(shelf, MODEL)
    assert shelf.has_blob(digest)
    shelf.create("mine", files={"m.gguf": digest}, system="S")
    mine = shelf.find("mine")
    assert (mine.origin, mine.system, mine.facts.quantization) == ("upload", "S", "Q4_K_M")
    assert Path(mine.path).read_bytes() == MODEL
    shelf.create("other", from_="mine")
    shelf.delete("mine")
    assert shelf.has_blob(digest)
    shelf.delete("other")
    assert not shelf.has_blob(digest)


def test_an_uploaded_projector(shelf: Library) -> None:
    projector = upload(shelf, gguf(architecture="clip"))
    shelf.create("mine", files={"p.gguf": projector, "m.gguf": upload(shelf, MODEL)})
    assert "vision" in shelf.find("mine").facts.capabilities
    with pytest.raises(InvalidRequest, match="no model among the files"):
        shelf.create("x", files={"p.gguf": projector})
    with pytest.raises(InvalidRequest, match="at most one projector"):
        shelf.create("x", files={"p.gguf": projector, "q.gguf": projector})


def test_what_cannot_become_a_model(shelf: Library) -> None:
    with pytest.raises(InvalidRequest, match="was not uploaded"):
        shelf.create("x", files={"m.gguf": "sha256:" + "0" * 64})
    with pytest.raises(InvalidRequest, match="only GGUF files"):
        shelf.create("x", files={"m.safetensors": upload(shelf, b"x")})
    with pytest.raises(InvalidRequest, match="invalid digest"):
        shelf.create("x", files={"m.gguf": "../../etc/passwd"})
    with pytest.raises(DamagedFile, match="does not begin with GGUF"):
        shelf.create("x", files={"m.gguf": upload(shelf, b"y" * 100)})
    assert [model.name for model in shelf.models()] == ["portico-tiny:latest"]


def test_an_upload_with_another_hash_is_not_kept(shelf: Library, tmp_path: Path) -> None:
    digest = "sha256:" + "0" * 64
    found = hashlib.sha256(MODEL).hexdigest()
    with pytest.raises(InvalidRequest) as caught:
        upload(shelf, MODEL, digest)
    assert caught.value.message == f'digest mismatch, expected "{digest}", got "sha256:{found}"'
    assert not shelf.has_blob(digest)
    assert list((tmp_path / "home" / "models" / "blobs").iterdir()) == []


def test_an_upload_that_breaks_off_leaves_nothing(shelf: Library, tmp_path: Path) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield MODEL[:1000]
        raise ConnectionResetError("the caller left")

    with pytest.raises(ConnectionResetError, match="the caller left"):
        asyncio.run(shelf.put_blob("sha256:" + hashlib.sha256(MODEL).hexdigest(), pieces()))
    assert list((tmp_path / "home" / "models" / "blobs").iterdir()) == []


def test_an_upload_leaves_room_on_the_disk(
    shelf: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blobs, "free_bytes", lambda folder: blobs.SPARE + 100)
    with pytest.raises(NoSpace):
        upload(shelf, MODEL)
    assert list((tmp_path / "home" / "models" / "blobs").iterdir()) == []


def test_an_upload_that_is_there_is_not_read(shelf: Library) -> None:
    digest = upload(shelf, MODEL)

    async def pieces() -> AsyncIterator[bytes]:
        raise AssertionError("it was read")
        yield b""

    assert asyncio.run(shelf.put_blob(digest, pieces())) is False


def test_uploads_of_a_killed_server_are_removed_after_a_day(
    shelf: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "home" / "models" / "blobs"
    folder.mkdir(parents=True)
    old, new = folder / f"upload-1{blobs.PART}", folder / f"upload-2{blobs.PART}"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - blobs.STALE - 1,) * 2)
    upload(shelf, MODEL)
    assert (old.exists(), new.exists()) == (False, True)


def aged(folder: Path) -> None:
    """All that was uploaded was so more than a day ago."""
    for path in (folder / "home" / "models" / "blobs").iterdir():
        os.utime(path, (time.time() - blobs.STALE - 1,) * 2)


def test_prune_removes_old_uploads_that_nothing_was_made_of(shelf: Library, tmp_path: Path) -> None:
    used, unused = upload(shelf, MODEL), upload(shelf, b"x" * 500)
    shelf.create("mine", files={"m.gguf": used})
    assert shelf.prune() == 0  # something may yet be made of it
    aged(tmp_path)
    new = upload(shelf, b"y" * 500)
    assert shelf.prune() == 500
    assert [shelf.has_blob(digest) for digest in (used, unused, new)] == [True, False, True]


def test_prune_removes_nothing_while_a_manifest_cannot_be_read(shelf: Library, tmp_path: Path) -> None:
    """It may be one of a later version, whose weights these are."""
    unused = upload(shelf, MODEL)
    aged(tmp_path)
    later = tmp_path / "home" / "models" / "manifests" / "later.json"
    later.parent.mkdir()
    later.write_text('{"name": "later", "source": {"type": "later"}, "created": 0}')
    assert (shelf.prune(), shelf.has_blob(unused)) == (0, True)
    later.unlink()
    assert shelf.prune() == 0  # whoever asked for it may be about to make something of it
    aged(tmp_path)
    assert (shelf.prune(), shelf.has_blob(unused)) == (len(MODEL), False)


# ---- nothing halves ------------------------------------------------------------------------------


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.json"
    atomic.write(path, b"old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="No space"):
                atomic.write(path, b"new")
        assert (path.read_bytes(), list(tmp_path.iterdir())) == (b"old", [path])


def test_a_preset_is_whole_after_a_kill(tmp_path: Path) -> None:
    library(tmp_path, bundled=TINY).create("x", from_="portico-tiny", system="0" * 50_000)
    script = f"""
        import itertools, sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from library_fixtures import TINY, library
        shelf = library(Path({str(tmp_path)!r}), bundled=TINY)
        for n in itertools.count(1):
            shelf.create("x", from_="portico-tiny", system=str(n % 10) * 50_000)
    """
    for _ in range(3):
        seen = library(tmp_path, bundled=TINY).find("x").system
        process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], env=os.environ)
        try:
            until(lambda seen=seen: library(tmp_path, bundled=TINY).find("x").system != seen)  # type: ignore[misc]
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        system = library(tmp_path, bundled=TINY).find("x").system
        assert len(system) == 50_000 and len(set(system)) == 1


@pytest.mark.parametrize("content", [b"", b"{", b"null", b'{"name": 5}', b"\xff"])
def test_a_file_that_is_no_manifest_is_passed_over(shelf: Library, tmp_path: Path, content: bytes) -> None:
    shelf.create("x", from_="portico-tiny")
    (tmp_path / "home" / "models" / "manifests" / "stray.json").write_bytes(content)
    (tmp_path / "home" / "models" / "manifests" / "notes.txt").write_bytes(content)
    shelf.refresh()
    assert [model.name for model in shelf.models()] == ["x:latest", "portico-tiny:latest"]

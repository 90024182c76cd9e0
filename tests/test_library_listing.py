"""What is here: listings, finding, files of the user's own, and what a listing costs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from library_fixtures import TINY, gguf, library, ollama_model
from portico import library as package
from portico.errors import DamagedFile, InvalidRequest, ModelNotFound
from portico.library import bundled_folder, facts, shelf
from portico.library.ledger import Ledger

BUNDLED = TINY / "portico-tiny.gguf"


def test_the_bundled_model_is_listed(tmp_path: Path) -> None:
    (model,) = library(tmp_path, bundled=TINY).models()
    assert (model.name, model.origin, model.runs) == ("portico-tiny:latest", "bundled", "portico-tiny:latest")
    assert model.facts.digest == hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
    assert (model.facts.size, model.facts.modified) == (BUNDLED.stat().st_size, BUNDLED.stat().st_mtime)
    spec = model.spec()
    assert (spec.engine, spec.source, spec.name) == ("llamacpp", str(BUNDLED), "portico-tiny:latest")


def test_the_bundled_folder_of_this_checkout_is_found() -> None:
    assert bundled_folder() == TINY


def test_an_installed_package_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from portico.library import model

    installed = tmp_path / "site-packages" / "portico"
    folder = installed / "models" / "portico-tiny"
    folder.mkdir(parents=True)
    monkeypatch.setattr(model, "__file__", str(installed / "library" / "model.py"))
    assert bundled_folder() is None
    (folder / "portico-tiny.gguf").write_bytes(b"")
    assert bundled_folder() == folder


@pytest.mark.parametrize(
    "asked", ["portico-tiny", "PORTICO-tiny:latest", "default", "auto", "alias", "library/portico-tiny"]
)
def test_a_model_is_found_by_every_form_of_its_name(tmp_path: Path, asked: str) -> None:
    here = library(tmp_path, bundled=TINY)
    assert here.find(asked, aliases={"alias": "portico-tiny"}).name == "portico-tiny:latest"


def test_what_is_not_here_names_what_is_near(tmp_path: Path) -> None:
    here = library(tmp_path, bundled=TINY)
    with pytest.raises(ModelNotFound) as caught:
        here.find("portico-tinny")
    assert caught.value.nearest[0] == "portico-tiny:latest"
    with pytest.raises(ModelNotFound) as caught:
        here.find("llama3.2:1b")  # known, but not here: naming it as its own nearest would help nobody
    assert caught.value.model == "llama3.2:1b"
    assert "llama3.2:1b" not in caught.value.nearest
    with pytest.raises(ModelNotFound):
        here.find("/etc/passwd")


def test_a_listing_is_used_again_and_seen_to_be_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = library(tmp_path, bundled=TINY)
    here.models()
    calls: list[int] = []
    monkeypatch.setattr(shelf.Shelf, "listing", lambda self: calls.append(1))
    here.find("portico-tiny")
    assert calls == []
    here.refresh()
    with pytest.raises(AttributeError):
        here.find("portico-tiny")
    assert calls == [1]


def test_two_names_of_the_same_weights_run_as_one(tmp_path: Path) -> None:
    weights = gguf()
    for name in ("a", "b"):
        ollama_model(tmp_path / "ollama", f"registry.ollama.ai/library/{name}/latest", {"model": weights})
    layers = {"model": weights, "system": "S"}
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/0/latest", layers)
    models = library(tmp_path, ollama=tmp_path / "ollama").models()
    assert {model.name: model.runs for model in models} == dict.fromkeys(
        ("0:latest", "a:latest", "b:latest"), "a:latest"
    )


# ---- files of the user's own ---------------------------------------------------------------------


def test_a_path(tmp_path: Path) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf({"general.file_type": 7}))
    here = library(tmp_path)
    model = here.at(path, name="own")
    assert (model.name, model.origin, model.facts.quantization) == ("own:latest", "path", "Q8_0")
    assert model.facts.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert here.models() == ()
    assert here.at(TINY).facts.format == "safetensors"
    with pytest.raises(InvalidRequest):
        here.at(path, name="no name")
    with pytest.raises(DamagedFile, match="No such file"):
        here.at(tmp_path / "none.gguf")


def test_a_large_file_is_not_hashed_by_a_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "HASHED_AT_ONCE", 10)
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    here = library(tmp_path)
    stand_in = here.at(path).facts.digest or ""
    assert len(stand_in) == 64 and stand_in != hashlib.sha256(path.read_bytes()).hexdigest()
    assert here.at(path).facts.digest == library(tmp_path).at(path).facts.digest == stand_in


# ---- what is known about files -------------------------------------------------------------------


def test_files_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    ledger = Ledger(tmp_path / "files.json")
    known = ledger.facts(path)
    digest = ledger.hash(path)
    ledger.flush()

    def forbidden(path: Path) -> None:
        raise AssertionError("it was read again")

    monkeypatch.setattr(facts, "read", forbidden)
    for one in (ledger, Ledger(tmp_path / "files.json")):
        assert one.facts(path) == known
        assert one.sha256(path) == digest


@pytest.mark.parametrize("change", ["content", "time", "gone"])
def test_a_changed_file_is_read_again(tmp_path: Path, change: str) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    ledger = Ledger(tmp_path / "files.json")
    ledger.facts(path)
    ledger.hash(path)
    if change == "content":
        path.write_bytes(gguf({"general.file_type": 15}))
        assert ledger.facts(path).quantization == "Q4_K_M"
    elif change == "time":
        os.utime(path, (1, 1))
        assert ledger.sha256(path) is None
    else:
        path.unlink()
        with pytest.raises(DamagedFile, match="No such file"):
            ledger.facts(path)


@pytest.mark.parametrize("content", ["", "{", '{"version": 0, "files": {"/x": {"stamp": "1"}}}', "[]"])
def test_a_ledger_that_cannot_be_read_is_begun_anew(tmp_path: Path, content: str) -> None:
    path = tmp_path / "own.gguf"
    path.write_bytes(gguf())
    (tmp_path / "files.json").write_text(content)
    assert Ledger(tmp_path / "files.json").facts(path).architecture == "llama"


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file, not a folder")
    assert len(library(tmp_path, bundled=TINY).models()) == 1


# ---- what it costs -------------------------------------------------------------------------------


def test_importing_the_library_loads_nothing_heavy() -> None:
    script = """if True:
        import sys
        import portico.library
        heavy = {"huggingface_hub", "httpx2", "asyncio", "uvicorn", "rich", "tqdm", "filelock", "tomllib"}
        print(",".join(sorted(heavy & set(sys.modules))))
    """
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == ""
    assert package.__all__ == sorted(package.__all__)


def test_a_listing_of_known_files_is_quick(tmp_path: Path) -> None:
    for number in range(30):
        ollama_model(
            tmp_path / "ollama",
            f"registry.ollama.ai/library/m{number}/latest",
            {"model": gguf({"n": number})},
        )
    here = library(tmp_path, ollama=tmp_path / "ollama", bundled=TINY)
    assert len(here.models()) == 31
    times = []
    for _ in range(5):
        here.refresh()
        start = time.perf_counter()
        here.models()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05

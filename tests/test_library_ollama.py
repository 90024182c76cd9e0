"""Ollama's own model folder: read, never written."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from library_fixtures import TINY, gguf, library, ollama_model
from portico import ollama_env
from portico.config import Config
from portico.errors import DamagedFile, ModelNotFound, Unsupported
from portico.inprocess import library as composed
from portico.messages import Message, Text
from portico.ollama_env import model_folders

WEIGHTS = gguf({"general.file_type": 15})
LAYERS: dict[str, Any] = {
    "model": WEIGHTS,
    "template": "{{ .System }} {{ .Prompt }}",
    "system": "You are a pirate.",
    "params": {"temperature": 0.5, "stop": ["<|eot|>"]},
    "messages": [{"role": "user", "content": "Ahoy"}, {"role": "assistant", "content": "Aye"}],
    "license": "MIT",
    "license#2": "Use policy",
}


def tree(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_model_of_ollamas(tmp_path: Path) -> None:
    store = tmp_path / "ollama"
    manifest = ollama_model(store, "registry.ollama.ai/library/pirate/1b", LAYERS)
    before = tree(store)
    shelf = library(tmp_path, ollama=store)
    (model,) = shelf.models()
    assert (model.name, model.origin, model.runs, model.removable) == (
        "pirate:1b",
        "ollama",
        "pirate:1b",
        False,
    )
    assert Path(model.path).read_bytes() == WEIGHTS
    assert model.facts.digest == hashlib.sha256(manifest.read_bytes()).hexdigest()
    assert model.facts.quantization == "Q4_K_M"
    assert model.facts.license == "MIT\nUse policy"
    assert model.facts.modified == manifest.stat().st_mtime
    assert model.facts.size is not None and model.facts.size > len(WEIGHTS)
    assert model.system == "You are a pirate."
    assert model.template == "{{ .System }} {{ .Prompt }}"
    assert model.parameters == {"temperature": 0.5, "stop": ["<|eot|>"]}
    assert model.messages == (
        Message(role="user", parts=(Text(text="Ahoy"),)),
        Message(role="assistant", parts=(Text(text="Aye"),)),
    )
    assert model.made
    assert model.spec().source == model.path
    assert tree(store) == before


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("registry.ollama.ai/library/llama3.2/latest", "llama3.2:latest"),
        ("registry.ollama.ai/someone/thing/q8", "someone/thing:q8"),
        ("hf.co/org/Repo-GGUF/Q4_K_M", "org/Repo-GGUF:Q4_K_M"),
        ("example.com/team/model/1", "example.com/team/model:1"),
    ],
)
def test_names(tmp_path: Path, folder: str, name: str) -> None:
    ollama_model(tmp_path / "ollama", folder, {"model": WEIGHTS})
    assert [model.name for model in library(tmp_path, ollama=tmp_path / "ollama").models()] == [name]


def test_a_projector_makes_it_see(tmp_path: Path) -> None:
    layers = {"model": WEIGHTS, "projector": gguf(architecture="clip")}
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/seer/latest", layers)
    (model,) = library(tmp_path, ollama=tmp_path / "ollama").models()
    assert "vision" in model.facts.capabilities
    assert model.spec().mmproj == model.projector


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[]",
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:../../../etc/passwd"}]}',
        '{"layers": [{"mediaType": "application/vnd.ollama.image.tensor", "digest": "sha256:%s"}]}'
        % ("0" * 64),
        '{"layers": [{"mediaType": "application/vnd.ollama.image.model", "digest": "sha256:%s"}]}'
        % ("0" * 64),
        '{"layers": 5}',
        '{"layers": [{"digest": 5}]}',
    ],
)
def test_what_cannot_be_read_is_passed_over(tmp_path: Path, content: str) -> None:
    store = tmp_path / "ollama"
    ollama_model(store, "registry.ollama.ai/library/good/latest", {"model": WEIGHTS})
    broken = store / "manifests" / "registry.ollama.ai" / "library" / "broken" / "latest"
    broken.parent.mkdir(parents=True)
    broken.write_text(content)
    odd = store / "manifests" / "registry.ollama.ai" / "library" / "a b" / "latest"
    odd.parent.mkdir(parents=True)
    odd.write_text("{}")
    assert [model.name for model in library(tmp_path, ollama=store).models()] == ["good:latest"]


def test_damaged_weights_are_named_when_asked_for(tmp_path: Path) -> None:
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/bad/latest", {"model": WEIGHTS[:-1]})
    shelf = library(tmp_path, ollama=tmp_path / "ollama")
    assert shelf.models() == ()
    assert list(shelf.problems()) == ["bad:latest"]
    with pytest.raises(DamagedFile, match="truncated"):
        shelf.find("bad")


def test_a_model_that_ollama_removed_is_gone(tmp_path: Path) -> None:
    manifest = ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/x/latest", {"model": WEIGHTS})
    shelf = library(tmp_path, ollama=tmp_path / "ollama")
    assert len(shelf.models()) == 1
    manifest.unlink()
    shelf.refresh()
    with pytest.raises(ModelNotFound):
        shelf.find("x")


def test_ours_and_the_bundled_one_come_before_ollamas_of_the_same_name(tmp_path: Path) -> None:
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/portico-tiny/latest", {"model": WEIGHTS})
    shelf = library(tmp_path, ollama=tmp_path / "ollama", bundled=TINY)
    assert [(model.name, model.origin) for model in shelf.models()] == [("portico-tiny:latest", "bundled")]


def test_ollamas_models_are_not_deleted(tmp_path: Path) -> None:
    store = tmp_path / "ollama"
    ollama_model(store, "registry.ollama.ai/library/x/latest", {"model": WEIGHTS})
    before = tree(store)
    with pytest.raises(Unsupported, match="ollama rm x:latest"):
        library(tmp_path, ollama=store).delete("x")
    assert tree(store) == before


def test_something_made_of_ollamas_model_keeps_what_it_said(tmp_path: Path) -> None:
    ollama_model(tmp_path / "ollama", "registry.ollama.ai/library/pirate/latest", LAYERS)
    shelf = library(tmp_path, ollama=tmp_path / "ollama")
    shelf.create("mine", from_="pirate", parameters={"temperature": 1})
    mine = shelf.find("mine")
    assert (mine.parent, mine.system, mine.runs) == ("pirate:latest", "You are a pirate.", "pirate:latest")
    assert mine.parameters == {"temperature": 1, "stop": ["<|eot|>"]}
    assert mine.messages == shelf.find("pirate").messages
    assert mine.facts.license == "MIT\nUse policy"


def test_there_need_be_no_folder(tmp_path: Path) -> None:
    assert library(tmp_path, ollama=tmp_path / "none").models() == ()


def test_where_ollama_keeps_its_models() -> None:
    service = Path("/usr/share/ollama/.ollama/models")
    assert model_folders() == (Path.home() / ".ollama" / "models", service)
    assert model_folders(' "/data/models" ') == (Path("/data/models"),)
    assert model_folders("~/m") == (Path.home() / "m",)


def test_the_models_of_ollamas_service_are_found_beside_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    service, home = tmp_path / "service", tmp_path / "home"
    monkeypatch.setattr(ollama_env, "SERVICE", service)
    monkeypatch.setenv("HOME", str(home))
    for store, names in ((home / ".ollama" / "models", "ab"), (service, "bc")):
        for name in names:
            layers = {"model": WEIGHTS, "system": str(store)}
            ollama_model(store, f"registry.ollama.ai/library/{name}/latest", layers)
    found = composed(Config(), {}, tmp_path / "portico").models()
    systems = {model.name: model.system for model in found if model.origin == "ollama"}
    own = str(home / ".ollama" / "models")
    assert systems == {"a:latest": own, "b:latest": own, "c:latest": str(service)}
    alone = composed(Config(), {"OLLAMA_MODELS": str(service)}, tmp_path / "portico").models()
    assert [model.name for model in alone if model.origin == "ollama"] == ["b:latest", "c:latest"]

"""Which files of a repository are fetched, and which repository a short name means."""

from __future__ import annotations

import pytest

from library_fixtures import COMMIT
from portico.errors import ModelNotFound, PullFailed
from portico.library.catalogue import Catalogue, bundled
from portico.library.choice import Choice, RemoteFile, choose
from portico.library.hubcache import CachedFile, Snapshot, check
from portico.names import parse


def pick(names: str, quantization: str | None = None) -> Choice:
    files = [RemoteFile(path=name, size=100 + index) for index, name in enumerate(names.split())]
    return choose(files, repository="org/repo", quantization=quantization)


def paths(choice: Choice) -> list[str]:
    return [file.path for file in choice.files]


BARTOWSKI = (
    "README.md M-Q8_0.gguf M-Q4_K_M.gguf M-Q4_K_S.gguf M-IQ4_XS.gguf M-f16.gguf M.imatrix M-imatrix.gguf"
)


@pytest.mark.parametrize(
    ("names", "asked", "chosen"),
    [
        (BARTOWSKI, None, "M-Q4_K_M.gguf"),
        (BARTOWSKI, "Q8_0", "M-Q8_0.gguf"),
        (BARTOWSKI, "q8_0", "M-Q8_0.gguf"),
        (BARTOWSKI, "FP16", "M-f16.gguf"),
        (BARTOWSKI, "M-IQ4_XS.gguf", "M-IQ4_XS.gguf"),
        (BARTOWSKI, "m-q4_k_s", "M-Q4_K_S.gguf"),
        ("M-UD-Q4_K_M.gguf M-Q4_K_M.gguf", None, "M-Q4_K_M.gguf"),
        ("M-UD-Q4_K_XL.gguf M-Q8_0.gguf", None, "M-UD-Q4_K_XL.gguf"),
        ("qwen3-0.6b-q8_0.gguf", None, "qwen3-0.6b-q8_0.gguf"),
        (
            "Phi-3-mini-4k-instruct-q4.gguf Phi-3-mini-4k-instruct-fp16.gguf",
            None,
            "Phi-3-mini-4k-instruct-q4.gguf",
        ),
        ("a/M.Q6_K.gguf b/M.Q2_K.gguf", "Q2_K", "b/M.Q2_K.gguf"),
        ("M-Q2_X.gguf M-odd.gguf", None, "M-Q2_X.gguf"),
        ("gpt-oss-20b-mxfp4.gguf config.json model.safetensors", None, "gpt-oss-20b-mxfp4.gguf"),
    ],
)
def test_one_gguf_file_is_chosen(names: str, asked: str | None, chosen: str) -> None:
    choice = pick(names, asked)
    assert (paths(choice), choice.main, choice.projector) == ([chosen], chosen, "")


def test_shards_come_whole_and_in_order() -> None:
    choice = pick("Q8/M-Q8_0-00002-of-00003.gguf Q8/M-Q8_0-00001-of-00003.gguf Q8/M-Q8_0-00003-of-00003.gguf")
    assert choice.main == "Q8/M-Q8_0-00001-of-00003.gguf"
    assert paths(choice) == [f"Q8/M-Q8_0-0000{n}-of-00003.gguf" for n in (1, 2, 3)]


def test_a_missing_shard_is_named() -> None:
    with pytest.raises(PullFailed, match=r"M-Q4_0-00002-of-00003\.gguf is missing of 3"):
        pick("M-Q4_0-00001-of-00003.gguf M-Q4_0-00003-of-00003.gguf")
    with pytest.raises(PullFailed, match="99999"):
        pick("M-Q4_0-00001-of-99999.gguf")


def test_a_projector_comes_along() -> None:
    choice = pick("M-Q4_K_M.gguf mmproj-M-Q8_0.gguf mmproj-M-f16.gguf")
    assert (choice.main, choice.projector) == ("M-Q4_K_M.gguf", "mmproj-M-f16.gguf")
    assert len(choice.files) == 2
    assert pick("M-Q4_K_M.gguf mmproj-BF16.gguf mmproj-F32.gguf").projector == "mmproj-BF16.gguf"


def test_safetensors_come_with_all_they_need_and_nothing_else() -> None:
    choice = pick(
        "README.md .gitattributes LICENSE config.json generation_config.json tokenizer.json tokenizer_config.json "
        "vocab.json merges.txt chat_template.jinja model-00001-of-00002.safetensors model-00002-of-00002.safetensors "
        "model.safetensors.index.json consolidated.safetensors original/params.json original/consolidated.00.pth "
        "pytorch_model.bin modeling_odd.py onnx/model.onnx 1_Pooling/config.json tf_model.h5"
    )
    assert choice.main == ""
    assert set(paths(choice)) == {
        "LICENSE",
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.json",
        "merges.txt",
        "chat_template.jinja",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
        "1_Pooling/config.json",
    }


@pytest.mark.parametrize(
    ("names", "asked", "reason"),
    [
        (BARTOWSKI, "Q5_K_M", "no GGUF file Q5_K_M. It has: F16, IQ4_XS, Q4_K_M, Q4_K_S, Q8_0"),
        ("config.json model.safetensors", "Q4_K_M", "no GGUF files"),
        ("config.json pytorch_model.bin", None, "neither GGUF nor safetensors files. It has .bin files only"),
        ("model.safetensors", None, "no config.json"),
        ("README.md", None, "neither GGUF nor safetensors"),
    ],
)
def test_what_is_not_there_is_said(names: str, asked: str | None, reason: str) -> None:
    with pytest.raises(PullFailed) as caught:
        pick(names, asked)
    assert reason in caught.value.message


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "a/../../x", "a\\b", "c:x", "a//b", "", "a/.", "x\0", "x\n", "con ", "a./b"]
)
def test_a_hubs_file_never_leads_out_of_the_cache(path: str) -> None:
    snapshot = Snapshot(cache="/c", repository="org/repo", commit=COMMIT)
    check(snapshot, (CachedFile(path="a/b-c.gguf", size=1, hash="a" * 64),))
    with pytest.raises(PullFailed):
        check(snapshot, (CachedFile(path=path, size=1, hash="a" * 64),))


@pytest.mark.parametrize(
    ("repository", "commit", "hash"),
    [
        ("../x", COMMIT, "a" * 64),
        ("a/b/c", COMMIT, "a" * 64),
        ("a/..", COMMIT, "a" * 64),
        ("a/b", "../x", "a" * 64),
        ("a/b", COMMIT, "../" + "a" * 61),
        ("a/b", COMMIT, ""),
    ],
)
def test_nor_do_its_repository_commit_and_hashes(repository: str, commit: str, hash: str) -> None:
    with pytest.raises(PullFailed):
        check(
            Snapshot(cache="/c", repository=repository, commit=commit),
            (CachedFile(path="x", size=1, hash=hash),),
        )


# ---- the catalogue -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "repository", "quantization"),
    [
        ("llama3.2:1b", "bartowski/Llama-3.2-1B-Instruct-GGUF", None),
        ("llama3.2", "bartowski/Llama-3.2-3B-Instruct-GGUF", None),
        ("LLAMA3.2:1B", "bartowski/Llama-3.2-1B-Instruct-GGUF", None),
        ("qwen3:8b", "Qwen/Qwen3-8B-GGUF", None),
        ("qwen3:8b-q8_0", "Qwen/Qwen3-8B-GGUF", "q8_0"),
        ("llama3.1:8b-instruct-fp16", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", "fp16"),
        ("llama3.1:8b-instruct", "bartowski/Meta-Llama-3.1-8B-Instruct-GGUF", None),
        ("qwen3:30b-a3b", "Qwen/Qwen3-30B-A3B-GGUF", None),
        ("nomic-embed-text", "nomic-ai/nomic-embed-text-v1.5-GGUF", "F16"),
        ("mistral", "bartowski/Mistral-7B-Instruct-v0.3-GGUF", None),
        ("hf.co/Org/Repo-GGUF:Q5_K_M", "Org/Repo-GGUF", "Q5_K_M"),
        ("Org/Repo", "Org/Repo", None),
    ],
)
def test_a_name_leads_to_a_repository(name: str, repository: str, quantization: str | None) -> None:
    source = bundled().find(parse(name))
    assert (source.repository, source.quantization) == (repository, quantization)


def test_every_name_in_the_seeds_has_an_entry() -> None:
    seeds = "llama-2-7b llama-2-13b llama-2-70b mistral-7b codellama-7b vicuna-7b glm-4.7-flash gpt-oss-20b gpt-oss-120b"
    for name in seeds.split():
        bundled().find(parse(name))
    for repository in [
        "openai/gpt-oss-20b",
        "TinyLlama/TinyLlama-1.1B-Chat-v1.0",
        "meta-llama/llama-2-7b-chat-HF",
    ]:
        assert bundled().gguf_of(repository)


def test_every_entry_leads_somewhere() -> None:
    for name in bundled().names:
        source = bundled().find(parse(name))
        assert parse(source.repository).repository == source.repository


@pytest.mark.parametrize(
    "name", ["lama3.2:1b", "llama3.2:99b", "qwen3:8b-extra-long", "example.com/library/llama3.2"]
)
def test_an_unknown_name_is_not_found(name: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        bundled().find(parse(name))
    if name.startswith(("lama", "llama")):
        assert "llama3.2:1b" in caught.value.nearest


def test_a_catalogue_of_ones_own() -> None:
    catalogue = Catalogue(b'[models.x]\nlatest = "a"\na = "o/r:Q8_0"\n[gguf]\n"o/s" = "o/r"\n')
    assert catalogue.find(parse("x")).quantization == "Q8_0"
    assert catalogue.gguf_of("O/S") == "o/r"
    assert catalogue.names == ("x:latest", "x:a")

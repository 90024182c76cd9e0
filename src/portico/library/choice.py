"""Which files of a hub repository make up the model that was asked for. Pure: names and sizes in, a choice out.

(1) A quantization was asked for: the GGUF files it names. (2) There are GGUF files: the usual quantization.
(3) There are safetensors: all of them with tokenizer and configuration. (4) Neither: the repository is refused.
A sharded file is chosen whole, or refused if a shard is missing; a projector for images comes along.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import PurePosixPath

from portico.errors import PullFailed
from portico.messages import Value

# The first of these that a repository has: small and nearly as good as the original first, then by size upwards.
USUAL = (
    *(
        "Q4_K_M",
        "Q4_K_XL",
        "Q4_K_S",
        "Q4_K",
        "MXFP4",
        "Q4_0",
        "Q4",
        "IQ4_XS",
        "IQ4_NL",
        "Q4_1",
        "Q5_K_M",
        "Q5_K_S",
    ),
    *("Q5_0", "Q5_1", "Q6_K", "Q8_0", "Q3_K_M", "Q3_K_L", "Q3_K_S", "BF16", "F16", "FP16", "F32", "FP32"),
)
_SPELLINGS = {"FP16": "F16", "F16": "FP16", "FP32": "F32", "F32": "FP32"}
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_COMPANIONS = re.compile(
    r"[^/]+\.(json|jinja|tiktoken|model|txt)|LICENSE[^/]*|NOTICE[^/]*|\d+_[A-Za-z]+/config\.json",
    re.IGNORECASE,
)


class RemoteFile(Value, frozen=True, kw_only=True):
    """A file of a repository. `sha256` is known of large files (LFS); of small ones git's own hash is."""

    path: str
    size: int
    sha256: str | None = None
    git: str | None = None

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]


class Choice(Value, frozen=True, kw_only=True):
    files: tuple[RemoteFile, ...]
    main: str = ""
    """Path of the GGUF file (the first shard) to load; empty: the folder as a whole is the model."""
    projector: str = ""


def choose(files: Sequence[RemoteFile], *, repository: str, quantization: str | None) -> Choice:
    """Raises PullFailed, naming what there is instead."""
    weights = [file for file in files if file.path.lower().endswith(".gguf")]
    projectors = [file for file in weights if "mmproj" in file.name.lower()]
    models = [file for file in weights if file not in projectors and "imatrix" not in file.name.lower()]
    if quantization or models:
        chosen = _quantized(models, repository, quantization)  # (1) (2)
        projector = _projector(projectors, chosen)
        return Choice(
            files=(*chosen, *([projector] if projector else [])),
            main=chosen[0].path,
            projector=projector.path if projector else "",
        )
    return _checkpoint(files, repository)  # (3) (4)


def _quantized(models: Sequence[RemoteFile], repository: str, asked: str | None) -> tuple[RemoteFile, ...]:
    for word in [asked] if asked else USUAL:
        found = [file for file in models if _is(file, word)]
        if found:
            # The plainest name: not UD-Q4_K_M where there is Q4_K_M as well.
            return _whole(min(found, key=lambda file: (len(file.path), file.path)), models, repository)
    if asked is None:
        return _whole(min(models, key=lambda file: (file.size, file.path)), models, repository)
    there = sorted({_quantization(file) for file in models})
    if not there:
        raise PullFailed(f"{repository} has no GGUF files, so it has no {asked}. Leave `:{asked}` out.")
    raise PullFailed(f"{repository} has no GGUF file {asked}. It has: {', '.join(there)}.")


def _is(file: RemoteFile, word: str) -> bool:
    """Whether `word` is this file's quantization, or the file's name."""
    if word.lower() in (file.name.lower(), file.name.lower().removesuffix(".gguf")):
        return True
    words = {word, _SPELLINGS.get(word.upper(), word)}
    pattern = rf"(?:^|[-._/])(?:{'|'.join(map(re.escape, words))})(?:$|[-._/])"
    return re.search(pattern, file.path, re.IGNORECASE) is not None


def _quantization(file: RemoteFile) -> str:
    """What to type for this file: its quantization where it can be told, else its name."""
    found = re.findall(
        r"(?:^|[-._/])((?:UD-)?I?Q\d\w*|B?F\d+|FP\d+|MXFP4|TQ\d_\d)(?=$|[-._/])", file.path, re.I
    )
    return found[-1].upper() if found else file.name.removesuffix(".gguf")


def _whole(one: RemoteFile, models: Sequence[RemoteFile], repository: str) -> tuple[RemoteFile, ...]:
    shard = _SHARD.fullmatch(one.path)
    if not shard:
        return (one,)
    count = int(shard["count"])
    by_path = {file.path: file for file in models}
    names = [
        f"{shard['stem']}-{number:05}-of-{shard['count']}.gguf" for number in range(1, min(count, 1000) + 1)
    ]
    missing = [name for name in names if name not in by_path]
    if missing or not 0 < count <= 1000:
        raise PullFailed(
            f"{repository} has not all parts of {one.name}: {(missing or [one.name])[0]} is missing of {count}."
        )
    return tuple(by_path[name] for name in names)


def _projector(projectors: Sequence[RemoteFile], chosen: Sequence[RemoteFile]) -> RemoteFile | None:
    """F16 where there is one: a projector is small and suffers most from quantization."""
    folder = PurePosixPath(chosen[0].path).parent
    near = [file for file in projectors if PurePosixPath(file.path).parent in (folder, PurePosixPath("."))]
    for word in ("F16", "BF16", "Q8_0", "F32"):
        found = [file for file in near if _is(file, word)]
        if found:
            return min(found, key=lambda file: (len(file.path), file.path))
    return min(near, key=lambda file: file.path, default=None)


def _checkpoint(files: Sequence[RemoteFile], repository: str) -> Choice:
    top = [file for file in files if "/" not in file.path]
    weights = [file for file in top if file.path.endswith(".safetensors")]
    # Mistral's repositories hold the same weights twice, once as one consolidated file.
    weights = [file for file in weights if not file.name.startswith("consolidated")] or weights
    if not weights:
        kinds = sorted(
            {PurePosixPath(file.path).suffix for file in top} & {".bin", ".pt", ".pth", ".onnx", ".h5"}
        )
        has = f" It has {', '.join(kinds)} files only." if kinds else ""
        raise PullFailed(f"{repository} has neither GGUF nor safetensors files.{has}")
    if not any(file.path == "config.json" for file in top):
        raise PullFailed(
            f"{repository} has safetensors files but no config.json, so it is no language model."
        )
    # Code (*.py) stays there on purpose: a model is data, and nothing here runs what it brings along.
    companions = [file for file in files if _COMPANIONS.fullmatch(file.path)]
    return Choice(files=(*companions, *weights))

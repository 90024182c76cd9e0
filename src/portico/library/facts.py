"""The truth about a model from its own files: a GGUF file's metadata, or config.json and what lies beside it.

Only headers are read, never weights; what cannot be read is a DamagedFile with a reason.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from portico.engines import Facts
from portico.errors import DamagedFile
from portico.library import checkpoint, gguf
from portico.library.capabilities import EMBEDDING_ARCHITECTURES, capabilities
from portico.library.ggml import FILE_TYPES

LONGEST_VALUE = 256  # characters; longer texts (a template, a vocabulary's notes) are no facts for a listing
_GUESSED = 1024  # llama.cpp adds this to a file type that it inferred
_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)
_FIM_KEYS = ("tokenizer.ggml.fim_pre_token_id", "tokenizer.ggml.prefix_token_id")


def read(path: Path) -> Facts:
    """Facts of the GGUF file (with its shards) or of the safetensors folder at `path`. `digest` is left out."""
    return checkpoint.facts(path) if path.is_dir() else _from_gguf(path)


def shards(path: Path) -> tuple[Path, ...]:
    """All files of the GGUF model that `path` belongs to, in order; just `path` where it is not sharded.
    Raises DamagedFile for a number of shards that no model has."""
    found = _SHARD.fullmatch(path.name)
    if not found:
        return (path,)
    count, stem = int(found["count"]), found["stem"]
    if not 0 < count <= 1000:
        raise DamagedFile(path=str(path), reason=f"its name says it is one of {count} files")
    return tuple(path.with_name(f"{stem}-{n:05}-of-{found['count']}.gguf") for n in range(1, count + 1))


def _from_gguf(path: Path) -> Facts:
    files = shards(path)
    headers = [gguf.read(file) for file in files]
    first = headers[0]
    if not any(header.tensors for header in headers):
        raise DamagedFile(path=str(path), reason="it holds no weights")
    found = [file.stat() for file in files]
    architecture = first.architecture
    template = first.text("tokenizer.chat_template")
    return Facts(
        architecture=architecture,
        family=architecture,
        parameters=sum(header.parameters for header in headers),
        quantization=_quantization(headers),
        format="gguf",
        context=first.number(f"{architecture}.context_length"),
        embedding=first.number(f"{architecture}.embedding_length"),
        capabilities=_capabilities(first, template),
        chat_template=template,
        license=first.text("general.license"),
        size=sum(one.st_size for one in found),
        modified=found[0].st_mtime,
        metadata=_metadata(first),
    )


def _quantization(headers: list[gguf.Header]) -> str | None:
    number = headers[0].number("general.file_type")
    if number is not None and number & ~_GUESSED in FILE_TYPES:
        return FILE_TYPES[number & ~_GUESSED]
    weights: dict[str, int] = {}
    for header in headers:
        for kind, size in header.weights.items():
            weights[kind] = weights.get(kind, 0) + size
    return max(weights, key=lambda kind: weights[kind], default=None)


def _capabilities(header: gguf.Header, template: str | None) -> tuple[str, ...]:
    if header.architecture == "clip":
        return ()  # a projector: it belongs to a model and is none
    pools = f"{header.architecture}.pooling_type" in header.values
    return capabilities(
        template,
        embeds=pools or header.architecture in EMBEDDING_ARCHITECTURES,
        sees=any(".vision." in key for key in header.values),
        inserts=header.fim or any(key in header.values for key in _FIM_KEYS),
    )


def _metadata(header: gguf.Header) -> dict[str, object]:
    """Numbers and short texts. JSON has no infinity: it would become null, which clients do not expect."""
    return {
        key: value
        for key, value in header.values.items()
        if not (isinstance(value, str) and len(value) > LONGEST_VALUE)
        and not (isinstance(value, float) and not math.isfinite(value))
    }

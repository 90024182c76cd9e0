"""Embeddings for callers who speak Ollama."""

from __future__ import annotations

import math
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from portico.dialects.ollama.replies import Timing
from portico.messages import Usage


class _Embeddings(Struct, omit_defaults=True, gc=False):
    model: str
    embeddings: list[list[float]]
    total_duration: int
    load_duration: int
    prompt_eval_count: int = 0


class _Embedding(Struct, gc=False):
    embedding: Sequence[float]


def embed_reply(
    model: str,
    vectors: Sequence[Sequence[float]],
    timing: Timing,
    usage: Usage,
    *,
    dimensions: int | None = None,
) -> bytes:
    """The body of /api/embed. The vectors are cut to `dimensions`, if given, and have length 1."""
    return msgspec.json.encode(
        _Embeddings(
            model=model,
            embeddings=[normalised(vector, dimensions) for vector in vectors],
            total_duration=max(1, timing.total),
            load_duration=max(1, timing.load),
            prompt_eval_count=usage.input_tokens,
        )
    )


def embeddings_reply(vector: Sequence[float]) -> bytes:
    """The body of /api/embeddings, the older route: the vector as the model gave it."""
    return msgspec.json.encode(_Embedding(embedding=vector))


def normalised(vector: Sequence[float], dimensions: int | None = None) -> list[float]:
    """The first `dimensions` numbers of `vector`, scaled to length 1. A zero vector stays one."""
    cut = list(vector if dimensions is None else vector[:dimensions])
    length = math.sqrt(math.fsum(number * number for number in cut))
    return [number / length for number in cut] if length > 0 else cut

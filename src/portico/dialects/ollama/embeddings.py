"""Embeddings for callers who speak Ollama."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from portico.dialects.ollama.replies import Timing
from portico.dialects.vectors import normalised
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
) -> bytes:
    """The body of /api/embed, its vectors of length 1."""
    return msgspec.json.encode(
        _Embeddings(
            model=model,
            embeddings=[normalised(vector) for vector in vectors],
            total_duration=max(1, timing.total),
            load_duration=max(1, timing.load),
            prompt_eval_count=usage.input_tokens,
        )
    )


def embeddings_reply(vector: Sequence[float]) -> bytes:
    """The body of /api/embeddings, the older route: the vector as the model gave it."""
    return msgspec.json.encode(_Embedding(embedding=vector))

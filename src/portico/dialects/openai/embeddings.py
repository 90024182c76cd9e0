"""Embeddings, read from engines and written for callers."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from portico.dialects.openai.errors import told_error
from portico.errors import UpstreamFailed
from portico.messages import Usage


class _Counted(Struct, gc=False):
    prompt_tokens: int = 0
    total_tokens: int = 0


class _Vector(Struct, gc=False):
    index: int
    embedding: list[float] | str
    object: str = "embedding"


class _Vectors(Struct, gc=False):
    data: list[_Vector]
    model: str = ""
    usage: _Counted | None = None
    object: str = "list"


_decoder = msgspec.json.Decoder(_Vectors)


def read_embeddings(body: bytes) -> tuple[list[list[float]], Usage]:
    """The vectors in the order of the inputs, and what they cost. Raises UpstreamFailed for anything else."""
    try:
        vectors = _decoder.decode(body)
        found = [_floats(vector.embedding) for vector in sorted(vectors.data, key=lambda it: it.index)]
    except (ValueError, RecursionError) as error:  # msgspec's and binascii's errors are ValueErrors
        told = told_error(body)
        if told is not None:
            raise told from None
        raise UpstreamFailed(f"The engine's embeddings cannot be read: {error}", status=502) from None
    return found, Usage(input_tokens=vectors.usage.prompt_tokens if vectors.usage else 0)


def embedding_reply(
    model: str, vectors: Sequence[Sequence[float]], usage: Usage, *, encoding: Literal["float", "base64"]
) -> bytes:
    """A whole /v1/embeddings body. base64: little-endian 32-bit floats, as the openai package asks for."""
    return msgspec.json.encode(
        _Vectors(
            data=[
                _Vector(index=index, embedding=_packed(vector) if encoding == "base64" else list(vector))
                for index, vector in enumerate(vectors)
            ],
            model=model,
            usage=_Counted(prompt_tokens=usage.input_tokens, total_tokens=usage.input_tokens),
        )
    )


def _packed(vector: Sequence[float]) -> str:
    floats = array("f", vector)
    if sys.byteorder == "big":
        floats.byteswap()
    return base64.b64encode(floats.tobytes()).decode()


def _floats(embedding: list[float] | str) -> list[float]:
    if isinstance(embedding, list):
        return embedding
    packed = binascii.a2b_base64(embedding)
    if len(packed) % 4:
        raise ValueError("base64 of no whole number of 32-bit floats")
    floats = array("f")
    floats.frombytes(packed)
    if sys.byteorder == "big":
        floats.byteswap()
    return floats.tolist()

"""A model of the hub that vLLM is asked to run and that is not here: fetched by us before its engine starts.

vLLM would fetch it too, but it says nothing until each file is whole, and a cut connection ends its start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from pathlib import Path

import msgspec

from portico.engines import ModelSpec, Progress, Progressed
from portico.engines.vllm.arguments import has_any
from portico.errors import (
    DamagedFile,
    EngineStartFailed,
    Gated,
    InvalidRequest,
    LibraryError,
    ModelNotFound,
    NoSpace,
)
from portico.library import Library
from portico.library import Progress as Pulled

STAGE = "downloading"
_OF_THE_HUB = ("--revision", "--trust-remote-code", "--download-dir", "--load-format")
"""Arguments of vLLM with which it needs other files than a pull brings, or brings them itself."""


async def fetched(spec: ModelSpec, progressed: Progressed, *, library: Library, offline: bool) -> ModelSpec:
    """The model with its files here. Those of a model that was pulled before are taken as they are, whatever the hub has by
    now: all replicas run the same. Left to vLLM, which
    looks into the hub's cache and says what is wrong: where the hub cannot be asked, what has other weights than
    safetensors, and what vLLM's own arguments fetch in another way.

    Raises EngineStartFailed for a model whose owner asks for a licence to be accepted, and for a full disk."""
    if _is_here(spec.source) or has_any(spec.vllm.args, _OF_THE_HUB):
        return spec
    if (kept := await asyncio.to_thread(_kept, spec, library)) is not None:
        return kept
    if offline:
        return spec
    try:
        offer = await asyncio.to_thread(library.offered, spec.source)
        if offer.facts.format != "safetensors":
            return spec
        counts: dict[str, tuple[int, int]] = {}
        async with aclosing(library.pull(spec.source)) as said:
            async for one in said:
                progressed(_told(one, counts))
        return await asyncio.to_thread(_kept, spec, library) or spec
    except (Gated, NoSpace, DamagedFile) as error:
        raise EngineStartFailed(model=spec.name, reason=str(error)) from error
    except (LibraryError, ModelNotFound, InvalidRequest):  # what is no name to us may be one of the hub's
        return spec


def _kept(spec: ModelSpec, library: Library) -> ModelSpec | None:
    """With the files of the hub that were pulled under its name; None: they are not here, or not all of them."""
    try:
        model = library.find(spec.source)
    except (ModelNotFound, DamagedFile):
        return None
    if model.origin != "hub" or model.weights.format != "safetensors":
        return None
    return msgspec.structs.replace(spec, source=model.path, facts=model.weights)


def _told(one: Pulled, counts: dict[str, tuple[int, int]]) -> Progress | None:
    """`counts`: bytes that are here and bytes in all, of each file so far."""
    if one.total is None:
        return None
    counts[one.digest or one.status] = (one.completed or 0, one.total)
    here, all_ = (sum(column) for column in zip(*counts.values(), strict=True))
    # In tenths of a percent: each step is told to whoever watches.
    fraction = round(here / all_, 3) if all_ else None
    return Progress(stage=STAGE, fraction=fraction, detail=f"{here / 1e9:.1f} of {all_ / 1e9:.1f} GB")


def _is_here(source: str) -> bool:
    return Path(source).exists()


def is_offline(environ: Mapping[str, str]) -> bool:
    """As huggingface_hub reads HF_HUB_OFFLINE."""
    return environ.get("HF_HUB_OFFLINE", "").strip().upper() in ("1", "ON", "YES", "TRUE")

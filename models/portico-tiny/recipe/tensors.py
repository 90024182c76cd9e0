"""safetensors files with nothing but numpy, which has no bfloat16: those values are the upper half of a float32."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


def read(path: Path) -> dict[str, Array]:
    """All tensors as float32; F32, F16 and BF16 can be read."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header: dict[str, Any] = json.loads(raw[8 : 8 + length])
    found: dict[str, Array] = {}
    for name, about in header.items():
        if name == "__metadata__":
            continue
        first, last = (8 + length + at for at in about["data_offsets"])
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}.get(about["dtype"])
        if kind is None:
            raise ValueError(f"{path}: {name} is {about['dtype']}; only F32, F16 and BF16 can be exported")
        values = np.frombuffer(raw[first:last], kind).reshape(about["shape"])
        if about["dtype"] == "BF16":
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[name] = values.astype(np.float32)
    return found


def halves(values: Array) -> NDArray[np.uint16]:
    """The nearest bfloat16 of each, ties to the even one, as bits."""
    if not np.isfinite(values).all():
        raise ValueError("a weight is not finite")
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def rounded(values: Array) -> Array:
    """As float32 what bfloat16 keeps of them."""
    return (halves(values).astype(np.uint32) << 16).view(np.float32)


def write_bf16(path: Path, values: dict[str, Array]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    pieces, at = [], 0
    for name in sorted(values):
        data = halves(values[name]).astype("<u2").tobytes()
        header[name] = {
            "dtype": "BF16",
            "shape": list(values[name].shape),
            "data_offsets": [at, at + len(data)],
        }
        pieces.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(pieces))

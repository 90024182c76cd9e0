"""Reads the header of a safetensors file: names, types and shapes of its tensors, never the weights.

The file begins with the length of its header (8 bytes), then comes the header as JSON, then the weights. All
of it is checked against the file's size before anything is allocated.
"""

from __future__ import annotations

import math
import os
import stat
from pathlib import Path
from typing import Final

import msgspec

from portico.errors import DamagedFile
from portico.messages import Value

MAX_HEADER: Final = 32 * 1024 * 1024  # the format allows 100 MB; the largest models have 2 MB a file

# Bits of a weight; what is not here is newer than this table and is not checked.
_DTYPES: Final = {64: "F64 I64 U64 C64", 32: "F32 I32 U32", 16: "F16 BF16 I16 U16", 4: "F4"} | {
    8: "I8 U8 BOOL F8_E4M3 F8_E5M2 F8_E8M0",
    6: "F6_E2M3 F6_E3M2",
}
_BITS: Final = {name: bits for bits, names in _DTYPES.items() for name in names.split()}


class Tensor(Value, frozen=True, kw_only=True):
    name: str
    dtype: str
    shape: tuple[int, ...]
    bytes: int

    @property
    def elements(self) -> int:
        return math.prod(self.shape)


class _Entry(msgspec.Struct, gc=False):
    """A tensor as written. `__metadata__` is an object too, with none of these fields."""

    dtype: str = ""
    shape: list[int] = []
    data_offsets: tuple[int, int] | None = None


_decoder = msgspec.json.Decoder(dict[str, _Entry])


def read(path: Path | str) -> tuple[Tensor, ...]:
    """The tensors of the file at `path`. Raises DamagedFile with a reason."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise _Damage("it is not a file")
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if found.st_size < 8 or length > found.st_size - 8:
                raise _Damage(f"it is truncated: its header says it is longer than its {found.st_size} bytes")
            if length > MAX_HEADER:
                raise _Damage(f"its header is {length} bytes long")
            header = file.read(length)
        return _tensors(header, found.st_size - 8 - length)
    except _Damage as damage:
        raise DamagedFile(path=str(path), reason=damage.args[0]) from None
    except OSError as error:
        raise DamagedFile(path=str(path), reason=error.strerror or str(error)) from error


class _Damage(Exception):
    """The reason alone; `read` adds the path."""


def _tensors(header: bytes, length: int) -> tuple[Tensor, ...]:
    if not header.startswith(b"{"):
        raise _Damage("it does not begin like a safetensors file")
    try:
        entries = _decoder.decode(header)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _Damage(f"its header cannot be read ({error})") from None
    tensors = tuple(_tensor(name, entry, length) for name, entry in entries.items() if name != "__metadata__")
    if sum(tensor.bytes for tensor in tensors) > length:
        raise _Damage("its tensors overlap")
    return tensors


def _tensor(name: str, entry: _Entry, length: int) -> Tensor:
    if entry.data_offsets is None or not entry.dtype:
        raise _Damage(f"its tensor {name[:200]!r} has no type or place")
    start, end = entry.data_offsets
    if len(entry.shape) > 16 or any(not 0 <= size < 1 << 48 for size in entry.shape):
        raise _Damage(f"its tensor {name[:200]!r} has an absurd shape")
    if not 0 <= start <= end:
        raise _Damage(f"its tensor {name[:200]!r} lies at bytes {start} to {end}")
    if end > length:
        raise _Damage(f"it is truncated: its weights end at byte {end}, but it has {length}")
    tensor = Tensor(name=name, dtype=entry.dtype, shape=tuple(entry.shape), bytes=end - start)
    bits = _BITS.get(entry.dtype)
    if bits is not None and tensor.elements * bits != tensor.bytes * 8:
        raise _Damage(
            f"its tensor {name[:200]!r} has {tensor.bytes} bytes for {tensor.elements} of {entry.dtype}"
        )
    return tensor

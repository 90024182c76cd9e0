"""Copies of a GGUF file with some of its metadata left out or changed, for tests."""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TINY = ROOT / "models" / "portico-tiny" / "portico-tiny.gguf"

_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY, _UINT32 = 8, 9, 4


def edit(
    source: Path,
    target: Path,
    *,
    without: Collection[str] = (),
    integers: Mapping[str, int] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Path:
    """`target`: `source` without the keys `without`, and with `integers` (uint32) and `texts` added or replaced.

    The tensors' offsets count from an aligned place behind the header, so only the padding changes.
    """
    raw = source.read_bytes()
    magic, version, tensors, count = struct.unpack_from("<4sIQQ", raw)
    assert magic == b"GGUF"
    at, kept = 24, []
    for _ in range(count):
        start = at
        key, at = _string(raw, at)
        (kind,) = struct.unpack_from("<I", raw, at)
        at = _skip(raw, at + 4, kind)
        if key not in without and key not in (integers or {}) and key not in (texts or {}):
            kept.append(raw[start:at])
    for key, value in (integers or {}).items():
        name = key.encode()
        kept.append(struct.pack("<Q", len(name)) + name + struct.pack("<II", _UINT32, value))
    for key, text in (texts or {}).items():
        name, value_bytes = key.encode(), text.encode()
        head = struct.pack("<Q", len(name)) + name + struct.pack("<IQ", _STRING, len(value_bytes))
        kept.append(head + value_bytes)
    infos = at
    for _ in range(tensors):
        _, at = _string(raw, at)
        (dimensions,) = struct.unpack_from("<I", raw, at)
        at += 4 + 8 * dimensions + 4 + 8
    head = struct.pack("<4sIQQ", magic, version, tensors, len(kept)) + b"".join(kept) + raw[infos:at]
    target.write_bytes(head + b"\0" * (-len(head) % 32) + raw[at + -at % 32 :])
    return target


def _string(raw: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", raw, at)
    return raw[at + 8 : at + 8 + length].decode(), at + 8 + length


def _skip(raw: bytes, at: int, kind: int) -> int:
    if kind == _STRING:
        return _string(raw, at)[1]
    if kind == _ARRAY:
        inner, length = struct.unpack_from("<IQ", raw, at)
        at += 12
        if inner in _SIZES:
            return at + _SIZES[inner] * int(length)
        skip: Callable[[bytes, int, int], int] = _skip
        for _ in range(length):
            at = skip(raw, at, inner)
        return at
    return at + _SIZES[kind]

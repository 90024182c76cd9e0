"""Reads the header of a GGUF file: its metadata and the shapes of its tensors, never the weights.

The file is anybody's. So nothing is allocated by a number that the file gives, every count and length has a
limit, and what is wrong is a DamagedFile with a reason. It is read through a window instead of being mapped:
a mapped file that somebody truncates meanwhile would end the process with SIGBUS. Arrays (a vocabulary has
hundreds of thousands of strings) are stepped over; only their lengths are kept.
"""

from __future__ import annotations

import contextlib
import os
import stat
import struct
from io import BytesIO, FileIO
from pathlib import Path
from typing import Final, NoReturn

from portico.errors import DamagedFile
from portico.library.ggml import TENSOR_TYPES
from portico.messages import Value

Scalar = int | float | bool | str

WINDOW: Final = 256 * 1024
MAX_HEADER: Final = 512 * 1024 * 1024  # the largest known, with two big vocabularies, have 20 MB
MAX_KEYS: Final = 4096  # a model has 20 to 60
MAX_TENSORS: Final = 65_536  # a model has 100 to 3,000
MAX_ELEMENTS: Final = 1 << 21  # texts in arrays; the largest vocabularies have 800,000
MAX_STRING: Final = 1 << 20  # longer texts are stepped over; the longest chat templates have 40 KB
MAX_KEPT: Final = 16 * 1024 * 1024  # of texts altogether
MAX_NAME: Final = 1024

_STRING, _ARRAY = 8, 9
_CODES = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_SCALARS = {number: struct.Struct("<" + code) for number, code in _CODES.items()}
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_HEAD = struct.Struct("<IQQ")  # version, tensors, keys

# Tokens that open a fill-in-the-middle prompt, as llama.cpp finds them by their text.
_FIM_TOKENS = tuple(
    text.encode()
    for text in ("<|fim_prefix|>", "<fim_prefix>", "<fim-prefix>", "<｜fim▁begin｜>", "<PRE>", "[PREFIX]")
)

# The highest value a key may have, by the end of its name. Beyond these the engine would not refuse the file but
# abort, or ask for more memory than there is.
_HIGHEST = {
    ".context_length": 1 << 31,
    ".embedding_length": 1 << 20,
    ".feed_forward_length": 1 << 24,
    ".attention.head_count": 1 << 16,
    ".attention.head_count_kv": 1 << 16,
    ".attention.key_length": 1 << 20,
    ".attention.value_length": 1 << 20,
    ".expert_count": 1 << 16,
    ".expert_used_count": 1 << 16,
    ".vocab_size": 1 << 24,
}


class Header(Value, frozen=True, kw_only=True):
    """What a GGUF file says about itself."""

    architecture: str
    values: dict[str, Scalar]
    """Metadata that is a number, a bool or a text of at most MAX_STRING bytes."""
    lengths: dict[str, int]
    """Metadata that is an array: how many elements it has."""
    tensors: int
    parameters: int
    """Weights in this file's tensors."""
    weights: dict[str, int]
    """Bytes of tensors by the name of their type."""
    fim: bool = False
    """Its vocabulary has the tokens for fill-in-the-middle."""

    def number(self, key: str) -> int | None:
        value = self.values.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def text(self, key: str) -> str | None:
        value = self.values.get(key)
        return value if isinstance(value, str) and value else None


def read(path: Path | str) -> Header:
    """The header of the GGUF file at `path`. Raises DamagedFile with a reason."""
    try:
        # Not only a courtesy: opening a pipe would wait for a writer for ever.
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise DamagedFile(path=str(path), reason="it is not a file")
        with FileIO(path) as file:
            return _Reading(_Window(file, str(path), found.st_size)).header()
    except OSError as error:
        raise DamagedFile(path=str(path), reason=error.strerror or str(error)) from error


def beginning(content: bytes) -> dict[str, Scalar]:
    """The metadata in the first bytes of a GGUF file, as far as they go: writers put what describes the model
    before its vocabulary. Raises DamagedFile for what does not begin as such a file."""
    reading = _Reading(_Window(BytesIO(content), "its beginning", len(content)))
    return reading.values()


class _Window:
    """A stretch of the file in memory, and a position in it. The position may lie beyond the stretch; `need`
    moves the stretch there."""

    def __init__(self, file: FileIO | BytesIO, path: str, size: int) -> None:
        self._file, self.path, self.size = file, path, size
        self.buffer = b""
        self.start = 0
        self.at = 0

    @property
    def position(self) -> int:
        return self.start + self.at

    def need(self, count: int) -> None:
        """Makes `count` bytes readable at `at`. `count` is never a number from the file that was not limited."""
        if self.at + count <= len(self.buffer):
            return
        position = self.position
        if position + count > self.size:
            self.refuse(f"it is truncated: its header needs more than its {self.size} bytes")
        if position + count > MAX_HEADER:
            self.refuse(f"its header is larger than {MAX_HEADER} bytes")
        self._file.seek(position)
        self.buffer = self._file.read(max(count, WINDOW))
        self.start, self.at = position, 0
        if len(self.buffer) < count:
            self.refuse("it became shorter while it was read")

    def take(self, count: int) -> bytes:
        self.need(count)
        self.at += count
        return self.buffer[self.at - count : self.at]

    def skip(self, count: int) -> None:
        self.at += count
        if self.position > min(self.size, MAX_HEADER):
            self.refuse(f"it is truncated: its header says it is longer than its {self.size} bytes")

    def u32(self) -> int:
        value: int = _U32.unpack(self.take(4))[0]
        return value

    def u64(self) -> int:
        value: int = _U64.unpack(self.take(8))[0]
        return value

    def refuse(self, reason: str) -> NoReturn:
        raise DamagedFile(path=self.path, reason=reason)


class _Reading:
    """One pass over one header."""

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._values: dict[str, Scalar] = {}
        self._lengths: dict[str, int] = {}
        self._kept = 0
        self._elements = 0
        self._fim = False

    def header(self) -> Header:
        window = self._window
        tensors, keys = self._counts()
        for _ in range(keys):
            self._pair()
        architecture = self._values.get("general.architecture")
        if not isinstance(architecture, str) or not 0 < len(architecture) <= 64 or not architecture.isascii():
            window.refuse("it does not say its architecture (general.architecture)")
        self._check(architecture, tensors)
        parameters, weights, end = self._tensors(tensors)
        alignment = self._alignment()
        start = -(-window.position // alignment) * alignment
        if tensors and start + end > window.size:
            window.refuse(f"it is truncated: its weights end at byte {start + end}, but it has {window.size}")
        return Header(
            architecture=architecture,
            values=self._values,
            lengths=self._lengths,
            tensors=tensors,
            parameters=parameters,
            weights=weights,
            fim=self._fim,
        )

    def values(self) -> dict[str, Scalar]:
        """What stands before the first thing that is cut off or cannot be read."""
        _, keys = self._counts()
        with contextlib.suppress(DamagedFile):
            for _ in range(keys):
                self._pair()
        return self._values

    def _counts(self) -> tuple[int, int]:
        window = self._window
        if window.size < 4 + _HEAD.size:
            window.refuse(f"it has only {window.size} bytes")
        magic = window.take(4)
        if magic in (b"ggml", b"lmgg", b"tjgg", b"fmgg", b"algg"):
            window.refuse("it is in the old GGML format; convert it to GGUF")
        if magic != b"GGUF":
            window.refuse(f"it does not begin with GGUF but with {magic!r}")
        version, tensors, keys = _HEAD.unpack(window.take(_HEAD.size))
        if version & 0xFFFF == 0 and version:
            window.refuse("it is in big-endian byte order")
        if version not in (2, 3):
            window.refuse(f"its GGUF version is {version}; 2 and 3 can be read")
        # At least 13 bytes a key and 24 a tensor.
        if keys > MAX_KEYS or keys * 13 > window.size:
            window.refuse(f"it claims to have {keys} metadata keys")
        if tensors > MAX_TENSORS or tensors * 24 > window.size:
            window.refuse(f"it claims to have {tensors} tensors")
        return tensors, keys

    def _pair(self) -> None:
        window = self._window
        key = self._name("key")
        if key in self._values or key in self._lengths:
            window.refuse(f"its key {key!r} appears twice")
        kind = window.u32()
        if kind == _STRING:
            self._text(key)
        elif kind == _ARRAY:
            self._array(key)
        elif kind in _SCALARS:
            scalar = _SCALARS[kind]
            self._values[key] = scalar.unpack(window.take(scalar.size))[0]
        else:
            window.refuse(f"its key {key!r} has the unknown type {kind}")

    def _name(self, what: str) -> str:
        length = self._window.u64()
        if not 0 < length <= MAX_NAME:
            self._window.refuse(f"the name of a {what} is {length} bytes long")
        return self._window.take(length).decode("utf-8", "replace")

    def _text(self, key: str) -> None:
        window = self._window
        length = window.u64()
        if length > MAX_STRING:
            window.skip(length)
            return
        self._kept += length
        if self._kept > MAX_KEPT:
            window.refuse(f"its texts have more than {MAX_KEPT} bytes")
        self._values[key] = window.take(length).decode("utf-8", "replace")

    def _array(self, key: str) -> None:
        window = self._window
        kind, count = window.u32(), window.u64()
        self._lengths[key] = count
        if kind in _SCALARS:
            window.skip(count * _SCALARS[kind].size)
        elif kind == _STRING:
            self._elements += count
            if self._elements > MAX_ELEMENTS:
                window.refuse(f"its array {key!r} claims to have {count} texts")
            if window.position + count * 8 > window.size:
                window.refuse(
                    f"it is truncated: its array {key!r} has {count} texts, the file {window.size} bytes"
                )
            self._skip_texts(count, find_fim=key == "tokenizer.ggml.tokens")
        else:
            window.refuse(f"its array {key!r} has elements of the unknown type {kind}")

    def _skip_texts(self, count: int, *, find_fim: bool) -> None:
        window, unpack = self._window, _U64.unpack_from
        while count:
            # More than a length's 8 bytes, so that no short text is cut twice at the window's edge.
            window.need(max(8, min(256, window.size - window.position)))
            buffer, first, at = window.buffer, window.at, window.at
            last, end = at, len(buffer) - 8
            while count and at <= end:
                last = at
                at += 8 + unpack(buffer, at)[0]
                count -= 1
            if find_fim and not self._fim:
                if last > first and len(buffer) < at < last + 64:
                    # The last one is cut by the edge: read it again, whole, in the next window.
                    at, count = last, count + 1
                self._fim = any(buffer.find(token, first, at) >= 0 for token in _FIM_TOKENS)
            window.at = first
            window.skip(at - first)

    def _check(self, architecture: str, tensors: int) -> None:
        """Refuses numbers that no model has."""
        window, values = self._window, self._values
        for suffix, highest in _HIGHEST.items():
            value = values.get(architecture + suffix)
            if value is not None and not (isinstance(value, int) and 0 <= value <= highest):
                window.refuse(f"it says {architecture}{suffix} is {value!r:.40}")
        # A shard may hold the metadata of tensors that are all in other files.
        split = values.get("split.tensors.count", 0)
        if not isinstance(split, int) or not 0 <= split <= MAX_TENSORS:
            window.refuse(f"it says split.tensors.count is {split!r:.40}")
        blocks = values.get(f"{architecture}.block_count", 0)
        if not isinstance(blocks, int) or not 0 <= blocks <= max(tensors, split):
            window.refuse(f"it says it has {blocks!r:.40} blocks in {max(tensors, split)} tensors")

    def _alignment(self) -> int:
        alignment = self._values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 65_536 or alignment & (alignment - 1):
            self._window.refuse(f"it says general.alignment is {alignment!r:.40}")
        return alignment

    def _tensors(self, count: int) -> tuple[int, dict[str, int], int]:
        """Weights, bytes by type, and the end of the last tensor, counted from the start of the weights."""
        window = self._window
        parameters, end = 0, 0
        weights: dict[str, int] = {}
        for _ in range(count):
            name = self._name("tensor")
            dimensions = window.u32()
            if dimensions > 4:
                window.refuse(f"its tensor {name!r} has {dimensions} dimensions")
            shape = struct.unpack(f"<{dimensions}Q", window.take(8 * dimensions))
            elements = 1
            for size in shape:
                elements *= size
            number, offset = struct.unpack("<IQ", window.take(12))
            length = self._length(name, number, shape, elements)
            if elements >= 1 << 48 or offset >= 1 << 48:
                window.refuse(f"its tensor {name!r} claims to have {elements} weights at byte {offset}")
            parameters += elements
            kind = TENSOR_TYPES[number].name if number in TENSOR_TYPES else f"type {number}"
            weights[kind] = weights.get(kind, 0) + length
            end = max(end, offset + length)
        return parameters, weights, end

    def _length(self, name: str, number: int, shape: tuple[int, ...], elements: int) -> int:
        """Bytes of a tensor; 0 for a type that is newer than this table."""
        if number > 255:
            self._window.refuse(f"its tensor {name!r} has the unknown type {number}")
        kind = TENSOR_TYPES.get(number)
        if kind is None:
            return 0
        if shape and shape[0] % kind.block:
            self._window.refuse(f"its tensor {name!r} has rows of {shape[0]}, not a multiple of {kind.block}")
        return elements // kind.block * kind.size

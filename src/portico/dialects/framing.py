"""Events and lines out of a byte stream that is split anywhere. Bytes in, bytes out: half a UTF-8
character at the end of a packet waits here for its other half."""

from __future__ import annotations

import re

SSE_DONE = b"data: [DONE]\n\n"

_LF = 10
_LINE_END = re.compile(rb"\r\n|\n|\r")


def sse(payload: bytes) -> bytes:
    """One server-sent event. The payload has no line breaks, as JSON on one line has none."""
    return b"data: " + payload + b"\n\n"


def is_one_event(data: bytes) -> bool:
    """Whether this is one whole event of one data line, and nothing else."""
    return (
        data.find(b"\n") == len(data) - 2
        and data[:6] == b"data: "
        and data[-1] == _LF  # the last byte is the only one behind the first line feed
        and b"\r" not in data
    )


class SSEReader:
    """Takes the payloads of whole server-sent events out of a stream.

    Knows LF, CRLF and CR line ends, comments, several `data:` lines in one event, and fields it has no use
    for. `feed` returns what has become whole; `end` returns an event whose closing blank line never came.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []  # a line that has begun, without its end
        self._lines: list[bytes] = []  # data lines of the event that has begun

    @property
    def empty(self) -> bool:
        """Nothing is kept of what was fed: the next bytes begin an event."""
        return not self._pieces and not self._lines

    def feed(self, data: bytes) -> list[bytes]:
        if self._pieces:
            # Joined only once a line ends: an 8 MB line in small packets would else be copied each time.
            if b"\n" not in data and b"\r" not in data and not self._pieces[-1].endswith(b"\r"):
                self._pieces.append(data)
                return []
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
        # What engines send nearly always: whole events of one data line each, and mostly one.
        if not self._lines and is_one_event(data):
            return [data[6:-2]]
        if not self._lines and data.startswith(b"data: ") and data.endswith(b"\n\n"):
            payloads = data[6:-2].split(b"\n\ndata: ")
            if data.count(b"\n") == 2 * len(payloads) and b"\r" not in data:
                return payloads
        return self._by_line(data)

    def end(self) -> list[bytes]:
        payloads = self._by_line(b"".join(self._pieces) + b"\n\n")
        self._pieces.clear()
        return payloads

    def _by_line(self, data: bytes) -> list[bytes]:
        payloads = []
        held = b""
        if data.endswith(b"\r"):  # perhaps the first half of a CRLF: as two line ends it would end the event
            data, held = data[:-1], b"\r"
        *lines, rest = _LINE_END.split(data)
        if rest or held:
            self._pieces.append(rest + held)
        for line in lines:
            if line:
                self._field(line)
            elif self._lines:
                payloads.append(b"\n".join(self._lines))
                self._lines.clear()
        return payloads

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        value = value[1:] if value.startswith(b" ") else value
        if name == b"data":
            self._lines.append(value)
        elif name == b"error":
            # llama.cpp announces an error in mid-stream under this name of its own; unread, the stream
            # would just end.
            self._lines.append(b'{"error":' + value + b"}")


class LineReader:
    """Takes whole lines out of a stream of NDJSON; blank lines are skipped. `end` returns a last line
    whose line break never came."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> list[bytes]:
        if b"\n" not in data:
            self._pieces.append(data)
            return []
        if self._pieces:
            data = b"".join([*self._pieces, data])
            self._pieces.clear()
        *lines, rest = data.split(b"\n")
        if rest:
            self._pieces.append(rest)
        return [line for line in lines if line and not line.isspace()]

    def end(self) -> list[bytes]:
        line = b"".join(self._pieces)
        self._pieces.clear()
        return [line] if line and not line.isspace() else []

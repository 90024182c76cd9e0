"""Events and lines out of bytes that are split anywhere."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dialects_fixtures import split
from portico.dialects.framing import SSE_DONE, LineReader, SSEReader, sse

payloads = st.lists(
    st.text(st.characters(exclude_characters="\r\n", exclude_categories=["Cs"]), min_size=1).map(str.encode),
    max_size=5,
)
cuts = st.lists(st.integers(0, 10**6), max_size=10)


@given(payloads, cuts)
def test_events_split_anywhere(sent: list[bytes], cuts: list[int]) -> None:
    reader = SSEReader()
    body = b"".join(sse(payload) for payload in sent)
    assert [payload for piece in split(body, cuts) for payload in reader.feed(piece)] == sent


def test_several_events_in_one_packet() -> None:
    assert SSEReader().feed(b"data: a\n\ndata: b\n\ndata: [DONE]\n\n") == [b"a", b"b", b"[DONE]"]


def test_half_a_character_waits_for_its_other_half() -> None:
    reader = SSEReader()
    body = sse("ü".encode())
    assert reader.feed(body[:7]) == []
    assert reader.feed(body[7:]) == ["ü".encode()]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@given(cuts)
def test_line_ends_comments_fields_and_joined_lines(end: bytes, cuts: list[int]) -> None:
    body = end.join(
        [
            b": keep-alive",
            b"",
            b"event: x",
            b"id: 1",
            b"data: one",
            b"data:two",
            b"",
            b": more",
            b"data: three",
            b"",
            b"",
        ]
    )
    reader = SSEReader()
    found = [payload for piece in split(body, cuts) for payload in reader.feed(piece)] + reader.end()
    assert found == [b"one\ntwo", b"three"]


def test_a_comment_between_events_in_one_packet() -> None:
    assert SSEReader().feed(b"data: a\n\n: ping\n\ndata: b\n\n") == [b"a", b"b"]


def test_crlf_cut_in_the_middle_is_one_line_end() -> None:
    reader = SSEReader()
    assert reader.feed(b"data: a\r") == []
    assert reader.feed(b"\ndata: b\r") == []
    assert reader.feed(b"\n\r\n") == [b"a\nb"]


def test_the_last_event_may_lack_its_blank_line() -> None:
    reader = SSEReader()
    assert reader.feed(b"data: a\n\ndata: [DONE]") == [b"a"]
    assert reader.end() == [b"[DONE]"]
    assert reader.end() == []


def test_llamacpp_announces_errors_under_a_name_of_its_own() -> None:
    assert SSEReader().feed(b'error: {"message":"m"}\n\n') == [b'{"error":{"message":"m"}}']


def test_a_long_event_in_small_packets_is_not_copied_each_time() -> None:
    """1 MB in 100-byte packets: joined once, it takes milliseconds; copied at each packet, it takes a
    thousand times 5 GB."""
    reader = SSEReader()
    payload = b"x" * 1_000_000
    body = sse(payload)
    found = [event for start in range(0, len(body), 100) for event in reader.feed(body[start : start + 100])]
    assert found == [payload]


def test_done_is_an_event() -> None:
    assert SSEReader().feed(SSE_DONE) == [b"[DONE]"]


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line and not line.isspace())), cuts)
def test_lines_split_anywhere(sent: list[bytes], cuts: list[int]) -> None:
    reader = LineReader()
    body = b"".join(line + b"\n" for line in sent)
    assert [line for piece in split(body, cuts) for line in reader.feed(piece)] == sent
    assert reader.end() == []


def test_blank_lines_are_skipped_and_the_last_may_lack_its_end() -> None:
    reader = LineReader()
    assert reader.feed(b"a\n\n \r\nb") == [b"a"]
    assert reader.end() == [b"b"]

"""Chunks: what passes is passed to the byte, what is counted is right, however packets are cut."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portico.errors import UpstreamFailed
from portico.gateway.relay import Chunks, glance, mended
from portico.messages import Usage

TOKEN = b'data: {"choices":[{"index":0,"delta":{"content":"caf\xc3\xa9 \xe2\x82\xac"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}}\n\n'
WITH_CHOICES = (
    b'data: {"choices":[{"index":0,"delta":{}}],"usage": {"prompt_tokens":7,"completion_tokens":2}}\n\n'
)
ABOUT_USAGE = b'data: {"choices":[{"index":0,"delta":{"content":"\\"usage\\": {}"}}]}\n\n'
DONE = b"data: [DONE]\n\n"


def fed(chunks: Chunks, wire: bytes, cuts: list[int]) -> bytes:
    out, start = [], 0
    for cut in sorted({*(cut % (len(wire) + 1) for cut in cuts), len(wire)}):
        if cut > start:
            out.append(chunks.feed(wire[start:cut]))
            start = cut
    return b"".join(out) + chunks.end()


@given(st.lists(st.integers(0, 2000), max_size=30), st.booleans())
def test_events_pass_unchanged_and_the_usage_only_if_wanted(cuts: list[int], keep: bool) -> None:
    chunks = Chunks(keep_usage=keep)
    out = fed(chunks, TOKEN * 3 + ABOUT_USAGE + USAGE + DONE, cuts)
    assert out == TOKEN * 3 + ABOUT_USAGE + (USAGE if keep else b"") + DONE
    assert chunks.usage == Usage(input_tokens=7, output_tokens=2)
    assert chunks.done


@given(st.lists(st.integers(0, 2000), max_size=30))
def test_usage_beside_choices_is_never_taken_out(cuts: list[int]) -> None:
    chunks = Chunks(keep_usage=False)
    assert fed(chunks, TOKEN + WITH_CHOICES, cuts) == TOKEN + WITH_CHOICES
    assert chunks.usage == Usage(input_tokens=7, output_tokens=2)
    assert not chunks.done


@given(st.lists(st.integers(0, 2000), max_size=30))
def test_crlf_servers_are_reframed(cuts: list[int]) -> None:
    chunks = Chunks(keep_usage=False)
    wire = (TOKEN + USAGE + DONE).replace(b"\n", b"\r\n")
    assert fed(chunks, wire, cuts) == TOKEN + DONE
    assert chunks.usage == Usage(input_tokens=7, output_tokens=2)
    assert chunks.done


def test_an_event_cut_by_the_end_is_passed_on() -> None:
    chunks = Chunks(keep_usage=False)
    assert chunks.feed(TOKEN[:-2]) == b""
    assert chunks.end() == TOKEN


@pytest.mark.parametrize(
    "nonsense", [b"{not json}", b'"text"', b'{"choices": 7}', b'{"choices":[{"delta":\xff}]}']
)
def test_nonsense_is_no_answer(nonsense: bytes) -> None:
    chunks = Chunks(keep_usage=False)
    assert chunks.feed(TOKEN + b"data: " + nonsense + b"\n\n") == TOKEN
    assert isinstance(chunks.failure, UpstreamFailed)


def test_an_error_in_the_stream_comes_after_what_was_said() -> None:
    chunks = Chunks(keep_usage=False)
    error = b'data: {"error":{"message":"out of memory","type":"server_error"}}\n\n'
    assert chunks.feed(TOKEN + error) == TOKEN
    assert "out of memory" in str(chunks.failure)


def test_comments_and_nulls_are_not_passed_on() -> None:
    chunks = Chunks(keep_usage=False)
    assert chunks.feed(b": ping\n\n" + TOKEN + b"data: null\n\n") == TOKEN


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("said", ["delta", "message"])
def test_reasoning_gets_both_its_names(name: str, said: str) -> None:
    body = json.dumps({"id": "1", "choices": [{"index": 0, said: {name: "hm", "content": "x"}}]}).encode()
    seen = glance(body)
    assert seen is not None and seen.lacks_a_name
    found = json.loads(mended(body))["choices"][0][said]
    assert (found["reasoning"], found["reasoning_content"], found["content"]) == ("hm", "hm", "x")
    again = glance(mended(body))
    assert again is not None and not again.lacks_a_name


def test_pieces_of_calls_get_their_index() -> None:
    body = b'{"choices":[{"index":0,"delta":{"tool_calls":[{"id":"a"},{"id":"b","index":1}]}}]}'
    seen = glance(body)
    assert seen is not None and seen.lacks_a_name
    assert [call["index"] for call in json.loads(mended(body))["choices"][0]["delta"]["tool_calls"]] == [0, 1]


def test_usage_with_details_and_without() -> None:
    body = (
        b'{"choices":[{}],"usage":{"prompt_tokens":5,"completion_tokens":3,"prompt_tokens_details":'
        b'{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}'
    )
    seen = glance(body)
    assert seen is not None
    assert seen.counted() == Usage(input_tokens=5, output_tokens=3, cached_tokens=4, reasoning_tokens=2)
    embeddings = glance(b'{"data":[]}')
    assert embeddings is not None and embeddings.counted() is None

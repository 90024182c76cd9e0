"""Bodies that are passed on: looked at and edited from outside."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portico.dialects import openai
from portico.errors import InvalidRequest

BODY = b'{ "model": "a", "messages": [{"role": "user", "content": "\\u00e9"}], "x": 1.10, "stream": true }'


def test_peek() -> None:
    seen = openai.peek(BODY)
    assert (seen.model, seen.stream, seen.include_usage, seen.limit) == ("a", True, False, None)
    seen = openai.peek(
        b'{"model":"a","prompt":[1],"stream":true,"stream_options":{"include_usage":true},"max_tokens":9.0}'
    )
    assert (seen.include_usage, seen.limit) == (True, 9)
    assert openai.peek(b'{"model":"a","stream_options":{"include_usage":true}}').include_usage is False
    assert openai.peek(b'{"model":"a","max_tokens":3,"max_completion_tokens":5}').limit == 5


@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"messages":[]}', "model"),
        (b'{"model":1}', "model"),
        (b'{"model":"a","messages":"hi"}', "messages"),
        (b'{"model":"a","temperature":"hot"}', "temperature"),
        (b'{"model":"a","stream":1}', "stream"),
        (b'{"model":"a","stop":[1]}', "stop[0]"),
        (b'{"model":"a","messages":[],"top_logprobs":3}', "top_logprobs"),
        (b'{"model":"a","model":"b"}', "model"),
        (b'\xef\xbb\xbf{"model":"a"}', None),
        (b'{"model":"a","x":"\xff"}', None),
        (b'{"model":"a","x":"\\ud800"}', None),
        (b'{"model":"a","x":' + b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_peek_refuses_what_is_wrong(body: bytes, param: str | None) -> None:
    with pytest.raises(InvalidRequest) as caught:
        openai.peek(body)
    assert caught.value.param == param


def relayed(body: bytes, **changes: Any) -> Any:
    return openai.relay_body(body, **{"model": "a", "include_usage": False, **changes})


def test_a_body_in_which_nothing_changes_is_the_same_object() -> None:
    assert relayed(BODY) is BODY
    assert relayed(BODY, drop=["absent"]) is BODY
    assert relayed(BODY, glance=openai.peek(BODY)) is BODY
    asking = b'{"model":"a","stream":true,"stream_options":{"include_usage":true}}'
    assert relayed(asking, include_usage=True) is asking
    whole = b'{"model":"a","stream":false}'
    assert relayed(whole, include_usage=True) is whole


def test_what_does_not_change_keeps_its_bytes() -> None:
    edited = relayed(BODY, model="b", include_usage=True)
    assert json.loads(edited) == {**json.loads(BODY), "model": "b", "stream_options": {"include_usage": True}}
    assert b'"x":1.10' in edited and b'[{"role": "user", "content": "\\u00e9"}]' in edited


def test_stream_options_keep_what_else_is_in_them() -> None:
    for sent in (
        "null",
        "{}",
        '{"include_usage":null}',
        '{"include_usage":false,"continuous_usage_stats":true}',
    ):
        body = f'{{"model":"a","stream":true,"stream_options":{sent}}}'.encode()
        options = json.loads(relayed(body, include_usage=True))["stream_options"]
        assert options == {**(json.loads(sent) or {}), "include_usage": True}


def test_names_are_dropped_and_changed() -> None:
    body = b'{"model":"a","max_tokens":99999,"store":true}'
    edited = relayed(body, drop={"store"}, changes={"max_tokens": 5})
    assert json.loads(edited) == {"model": "a", "max_tokens": 5}


def test_a_name_given_twice_is_refused_when_the_body_is_edited() -> None:
    with pytest.raises(InvalidRequest):
        relayed(b'{"model":"a","stream":true,"stream":false}', model="b")

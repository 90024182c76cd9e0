"""The scripted upstream itself: a double that lies would make every test on it worthless."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator

import pytest

from scripted_answers import CHAT, USAGE, chat_stream, reply
from scripted_upstream import CLOSE, HOLD, RESET, ScriptedUpstream, split


@pytest.fixture(scope="module")
def one() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def up(one: ScriptedUpstream) -> ScriptedUpstream:
    one.reset()
    return one


Post = Callable[[str, object], http.client.HTTPResponse]


@pytest.fixture
def post(up: ScriptedUpstream) -> Iterator[Post]:
    with contextlib.ExitStack() as opened:

        def ask(path: str, body: object) -> http.client.HTTPResponse:
            connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=10)
            opened.callback(connection.close)
            connection.request("POST", path, json.dumps(body))
            return opened.enter_context(connection.getresponse())

        yield ask


def test_it_answers_by_itself_and_keeps_what_it_got(up: ScriptedUpstream, post: Post) -> None:
    answer = json.load(post(CHAT, {"messages": []}))
    assert answer["usage"] == USAGE
    assert [request.json for request in up.requests(CHAT)] == [{"messages": []}]
    assert post("/nothing", {}).status == 404
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", up.port)) as connection:
        for _ in range(3):  # kept alive
            connection.request("GET", "/v1/models")
            assert json.load(connection.getresponse())["data"][0]["max_model_len"] == 8192


def test_scripts_are_taken_in_order_and_end(up: ScriptedUpstream, post: Post) -> None:
    up.script(CHAT, reply(429, {"error": {"message": "slow down"}}, headers={"retry-after": "7"}))
    busy = post(CHAT, {})
    assert (busy.status, busy.headers["retry-after"]) == (429, "7")
    assert post(CHAT, {}).status == 200


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_packets_of_any_size_are_the_same_answer(up: ScriptedUpstream, post: Post, size: int) -> None:
    up.script(CHAT, split(chat_stream("Grüße", " 🙂"), size))
    text = post(CHAT, {"stream": True}).read().decode()
    assert "Grüße" in text and "🙂" in text and text.endswith("data: [DONE]\n\n")


ASK = b"POST /v1/chat/completions HTTP/1.1\r\ncontent-length: 2\r\n\r\n{}"


def test_it_sees_a_caller_leave(up: ScriptedUpstream) -> None:
    up.script(CHAT, (*chat_stream("one")[:3], HOLD))
    with socket.create_connection(("127.0.0.1", up.port), 10) as caller:
        caller.sendall(ASK)
        assert caller.recv(12) == b"HTTP/1.1 200"
        assert not up.hangups
        left = time.monotonic()
    assert 0 <= up.wait_for_hangup().at - left < 0.5


def test_a_whole_answer_is_no_hang_up(up: ScriptedUpstream, post: Post) -> None:
    post(CHAT, {"stream": True}).read()
    up.script(CHAT, (*chat_stream("one")[:3], CLOSE))
    with pytest.raises(http.client.IncompleteRead):
        post(CHAT, {"stream": True}).read()
    assert not up.hangups


def test_a_reset_is_a_reset(up: ScriptedUpstream, post: Post) -> None:
    up.script(CHAT, (*chat_stream("one")[:3], 0.05, RESET))
    with pytest.raises(ConnectionResetError):
        post(CHAT, {"stream": True}).read()
    assert not up.hangups


def test_a_held_answer_goes_on_when_released(up: ScriptedUpstream) -> None:
    up.script(CHAT, (HOLD, *chat_stream("late")))
    with socket.create_connection(("127.0.0.1", up.port), 10) as caller:
        caller.sendall(ASK)
        up.wait_for_request(CHAT)
        caller.settimeout(0.1)
        with pytest.raises(TimeoutError):
            caller.recv(1)
        up.release()
        caller.settimeout(10)
        assert caller.recv(12) == b"HTTP/1.1 200"

"""Several replicas of a model and models that stand in, over real sockets: what is tried again, what is not, and what
the answer says of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from live_server import LiveServer, serve, wait_until
from portico.gateway.serving import ATTEMPTS
from scripted_answers import chat_stream
from scripted_answers import reply as answered
from scripted_upstream import HOLD, RESET, ScriptedUpstream


def error(status: int, message: str) -> Any:
    return answered(status, {"error": {"message": message, "type": "x", "code": status}})


CHAT = "/v1/chat/completions"
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Any]:
    """Starts a server with one model on several servers, and what stands in for it."""
    with ExitStack() as stack:

        def start(
            count: int, *, fallback: int = 0, heartbeat: float = 5.0
        ) -> tuple[LiveServer, list[ScriptedUpstream]]:
            made = [stack.enter_context(ScriptedUpstream()) for _ in range(count + fallback)]
            urls = [upstream.url for upstream in made]
            lines = [f"heartbeat = {heartbeat}", "[[model]]", 'name = "mock-model"', f'engine = "{urls[0]}"']
            lines.append(f"endpoints = {urls[1:count]}".replace("'", '"'))
            names = [f"other-{at}" for at in range(fallback)]
            lines.append(f"fallback = {names}".replace("'", '"'))
            for name, url in zip(names, urls[count:], strict=True):
                lines += ["[[model]]", f'name = "{name}"', 'source = "mock-model"', f'engine = "{url}"']
            config = tmp_path / "portico.toml"
            config.write_text("\n".join(lines))
            return stack.enter_context(serve(tmp_path / "server", "--config", str(config))), made

        yield start


def ask(server: LiveServer, **more: Any) -> httpx2.Response:
    body = {"model": "mock-model", "messages": HELLO, **more}
    return httpx2.post(server.url + CHAT, json=body, timeout=30)


def seen(upstreams: list[ScriptedUpstream]) -> list[int]:
    return [len(upstream.requests(CHAT)) for upstream in upstreams]


def test_headers_say_how_an_answer_came_about(world: Any) -> None:
    server, _ = world(1)
    for stream in (False, True):
        headers = ask(server, stream=stream).headers
        assert headers["x-portico-replica"] == "mock-model"
        assert headers["x-portico-attempts"] == "1"
        assert float(headers["x-portico-queue-ms"]) >= 0
        assert 0 < float(headers["x-portico-overhead-ms"]) < 1000
        assert "x-portico-fallback" not in headers
    chat = {"model": "mock-model", "messages": HELLO}
    assert httpx2.post(f"{server.url}/api/chat", json=chat).headers["x-portico-attempts"] == "1"


def test_all_replicas_are_used_and_one_conversation_stays(world: Any) -> None:
    server, upstreams = world(3)
    for _ in range(5):
        ask(server)
    assert sorted(seen(upstreams)) == [0, 0, 5]
    for at in range(40):
        ask(server, messages=[{"role": "user", "content": f"Something else, number {at}"}])
    assert all(count > 0 for count in seen(upstreams))


def home_of(
    server: LiveServer, upstreams: list[ScriptedUpstream]
) -> tuple[ScriptedUpstream, ScriptedUpstream]:
    """The one of two that this conversation belongs to, and the other; it has been asked once."""
    home = ask(server).headers["x-portico-replica"]
    return (upstreams[0], upstreams[1]) if home == "mock-model" else (upstreams[1], upstreams[0])


@pytest.mark.parametrize("status", [429, 502, 503])
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_busy_is_asked_elsewhere(world: Any, status: int, stream: bool) -> None:
    server, upstreams = world(2)
    home, other = home_of(server, upstreams)
    home.script(CHAT, error(status, "engine is currently busy"))
    reply = ask(server, stream=stream)
    assert reply.status_code == 200 and reply.headers["x-portico-attempts"] == "2"
    assert seen([home, other]) == [2, 1]


def test_a_vllm_elsewhere_whose_engine_is_dead(world: Any) -> None:
    """It answers everything with 500 until somebody starts it again."""
    server, upstreams = world(2)
    dead = "EngineCore encountered an issue. See stack trace (above) for the root cause."
    for upstream in upstreams:
        upstream.script(CHAT, error(500, dead))
    reply = ask(server)
    assert reply.status_code == 503 and "EngineCore" in reply.json()["error"]["message"]
    assert seen(upstreams) == [1, 1]


def test_a_dead_server_sees_one_attempt_on_a_kept_connection_and_one_on_a_new_one(world: Any) -> None:
    server, upstreams = world(2)
    dead, _ = home_of(server, upstreams)
    dead.script(CHAT, [RESET], [RESET])
    reply = ask(server)
    assert reply.status_code == 200 and reply.headers["x-portico-attempts"] == "2"
    assert len(dead.requests(CHAT)) == 1 + 2


def test_when_all_fail_their_last_error_is_told_after_so_many_attempts(world: Any) -> None:
    server, upstreams = world(4)
    for upstream in upstreams:
        upstream.script(CHAT, error(503, "busy"), error(503, "busy"))
    reply = ask(server)
    assert reply.status_code == 503 and "busy" in reply.text
    assert sum(seen(upstreams)) == ATTEMPTS and max(seen(upstreams)) == 1


@pytest.mark.parametrize("status", [400, 404, 422, 500])
def test_what_is_the_requests_fault_is_not_tried_again(world: Any, status: int) -> None:
    server, upstreams = world(2)
    for upstream in upstreams:
        upstream.script(CHAT, error(status, "no"))
    assert ask(server).status_code == status
    assert sum(seen(upstreams)) == 1


def test_after_the_first_byte_an_error_is_told_and_nothing_is_tried_again(world: Any) -> None:
    server, upstreams = world(2)
    for upstream in upstreams:
        upstream.script(CHAT, (*chat_stream("one two")[:2], RESET))
    reply = ask(server, stream=True)
    assert reply.status_code == 200 and '"error"' in reply.text and reply.text.count("one") <= 1
    assert sum(seen(upstreams)) == 1
    # Its head said 200; what became of it the figures and the log must tell.
    assert_noted(server, 502, "closed the connection")


def assert_noted(server: LiveServer, status: int, why: str) -> None:
    wait_until(lambda: f'status="{status}"' in server.ask_text("/metrics"), seconds=5, what="it is counted")
    assert f'route="{CHAT}",status="200"' not in server.ask_text("/metrics")
    wait_until(lambda: why in server.log_text(), seconds=5, what="it is in the log")
    (line,) = [line for line in server.log_text().splitlines() if why in line]
    assert f" {status} " in line


def test_a_model_that_stands_in_says_so(world: Any) -> None:
    server, upstreams = world(1, fallback=2)
    upstreams[0].script(CHAT, error(503, "busy"))
    upstreams[1].script(CHAT, [RESET], [RESET])
    reply = ask(server)
    assert reply.status_code == 200
    assert reply.headers["x-portico-fallback"] == "other-1:latest"
    assert seen(upstreams) == [1, 2, 1]
    assert "fallback" in server.log_text() and "other-1" in server.log_text()
    assert reply.json()["model"] == "mock-model", "the caller gets the name he asked for"


def test_nothing_stands_in_for_what_the_caller_did_wrong(world: Any) -> None:
    server, upstreams = world(1, fallback=1)
    upstreams[0].script(CHAT, error(400, "no such parameter"))
    assert ask(server).status_code == 400
    assert seen(upstreams) == [1, 0]


def test_a_server_that_keeps_failing_gets_a_rest(world: Any) -> None:
    server, upstreams = world(2)
    dead, other = home_of(server, upstreams)
    dead.script(CHAT, *[error(503, "busy")] * 50)
    for _ in range(20):
        assert ask(server).status_code == 200
    assert len(dead.requests(CHAT)) == 1 + 5, "after five failures in a row it is left alone"
    assert len(other.requests(CHAT)) == 20


def test_one_that_breaks_its_streams_gets_a_rest_too(world: Any) -> None:
    server, upstreams = world(2)
    broken, other = home_of(server, upstreams)
    broken.script(CHAT, *[(*chat_stream("one two")[:2], RESET)] * 50)
    errors = sum('"error"' in ask(server, stream=True).text for _ in range(20))
    assert errors == len(broken.requests(CHAT)) - 1 == 5
    assert len(other.requests(CHAT)) == 15


def test_a_caller_who_leaves_ends_the_attempt(world: Any) -> None:
    server, upstreams = world(2)
    for upstream in upstreams:
        upstream.script(CHAT, (*chat_stream("one")[:2], HOLD))
    with httpx2.stream(
        "POST", server.url + CHAT, json={"model": "mock-model", "messages": HELLO, "stream": True}
    ):
        pass
    asked = next(upstream for upstream in upstreams if upstream.requests(CHAT))
    asked.wait_for_hangup()
    assert sum(seen(upstreams)) == 1


# ---- a caller who waits


def test_a_stream_that_waits_shows_signs_of_life(world: Any) -> None:
    server, (upstream,) = world(1, heartbeat=0.2)
    upstream.script(CHAT, (1.0, *chat_stream("one two")))
    with httpx2.stream(
        "POST", server.url + CHAT, json={"model": "mock-model", "messages": HELLO, "stream": True}, timeout=30
    ) as reply:
        assert reply.status_code == 200
        lines = [line for line in reply.iter_lines() if line]
    comments = [line for line in lines if line.startswith(":")]
    assert len(comments) >= 2 and "mock-model is reading the prompt" in comments[0]
    assert lines.index(comments[-1]) < lines.index(next(line for line in lines if "one two" in line))
    assert lines[-1] == "data: [DONE]"


def test_what_fails_after_a_sign_of_life_is_told_in_the_stream(world: Any) -> None:
    server, (upstream,) = world(1, heartbeat=0.2)
    upstream.script(CHAT, (0.6, *error(400, "no such parameter")))
    reply = ask(server, stream=True)
    assert reply.status_code == 200 and reply.text.startswith(": waiting")
    told = [line for line in reply.text.splitlines() if line.startswith("data: ")]
    assert len(told) == 1 and "no such parameter" in told[0]
    assert_noted(server, 400, "no such parameter")


def test_a_model_may_stand_in_after_a_sign_of_life(world: Any) -> None:
    server, upstreams = world(1, fallback=1, heartbeat=0.2)
    upstreams[0].script(CHAT, (0.6, *error(503, "busy")))
    reply = ask(server, stream=True)
    assert reply.text.startswith(": waiting") and '"error"' not in reply.text
    assert reply.text.endswith("data: [DONE]\n\n")


def test_others_wait_in_silence(world: Any) -> None:
    """Ollama's clients know no comments, and who wants a whole answer gets its status with it."""
    server, (upstream,) = world(1, heartbeat=0.2)
    for path, body in ((CHAT, {"stream": False}), ("/api/chat", {"stream": True})):
        upstream.script(CHAT, (0.6, *error(503, "busy")))
        body = {"model": "mock-model", "messages": HELLO, **body}
        assert httpx2.post(server.url + path, json=body, timeout=30).status_code == 503

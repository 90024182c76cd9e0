"""What is asked again, and what is told at once: over real sockets, with both drivers."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import Authority
from portico.client.settings import Retry, Timeouts
from portico.errors import (
    ClientError,
    ConfigError,
    CutOff,
    NotRunning,
    NotTrusted,
    OutOfMemory,
    RateLimited,
    Refused,
    ServerFailed,
    TimedOut,
)
from scripted_answers import CHAT
from scripted_upstream import HOLD, ScriptedUpstream
from test_client import QUICK, Both, error


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


@pytest.mark.parametrize("status", [504, 520, 524, 529])
def test_every_failure_that_may_pass_is_tried_again(
    both: Both, upstream: ScriptedUpstream, status: int
) -> None:
    """Those of proxies before a server, too."""
    upstream.script(CHAT, error(status))
    assert [attempt.status for attempt in both.chat().attempts] == [status, 200]


@pytest.mark.parametrize("status", [501, 505, 507, 511])
def test_a_server_that_cannot_is_asked_once(both: Both, upstream: ScriptedUpstream, status: int) -> None:
    upstream.script(CHAT, error(status))
    with pytest.raises(ServerFailed):
        both.chat()
    assert len(upstream.requests(CHAT)) == 1


def test_memory_that_is_too_small_is_not_larger_the_next_time(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(500, "CUDA out of memory"))
    with pytest.raises(OutOfMemory) as caught:
        both.chat()
    assert caught.value.attempts == 1 and len(upstream.requests(CHAT)) == 1


def test_an_answer_that_does_not_begin_is_not_asked_for_twice(both: Both, upstream: ScriptedUpstream) -> None:
    """The server may be at work on it."""
    upstream.script(CHAT, (HOLD,))
    with pytest.raises(TimedOut) as caught:
        both.chat(timeouts=Timeouts(first_token=0.2), told={"model": "mock-model"})
    assert caught.value.which == "first_token" and len(upstream.requests(CHAT)) == 1
    upstream.release()


def test_a_certificate_that_is_refused_stays_so(both: Both, tmp_path: Path) -> None:
    pair = Authority(tmp_path / "ca").issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    with ScriptedUpstream(tls=context) as secure:
        both.url = secure.url
        with pytest.raises(NotTrusted, match=r"A private CA is named by verify=") as caught:
            both.chat()
    assert caught.value.attempts == 1


def test_an_error_tells_every_attempt(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(503, "busy"), error(429, "slow down"), error(500, "broken"))
    with pytest.raises(ServerFailed) as caught:
        both.chat()
    assert [(each.status, each.error) for each in caught.value.tried] == [
        (503, "busy"),
        (429, "slow down"),
        (500, "broken"),
    ]


@pytest.mark.parametrize(
    ("failed", "again"),
    [
        (NotRunning(), True),
        (CutOff(), True),
        (TimedOut(which="connect", seconds=1), True),
        (TimedOut(which="first_token", seconds=1), False),
        (TimedOut(which="total", seconds=1), False),
        (NotTrusted("no"), False),
        (OutOfMemory("no"), False),
        (RateLimited("no"), True),
        (ServerFailed("no", status=503), True),
        (ServerFailed("no", status=501), False),
    ],
)
def test_the_decision(failed: ClientError, again: bool) -> None:
    policy = Retry(first=2.0, most=3.0)
    waits = [policy.again(failed, 1, tried_there=False, drawn=drawn) for drawn in (0.0, 1.0)]
    assert waits == ([1.0, 2.0] if again else [None, None]), "jitter halves the wait at most"
    assert policy.again(failed, 3, tried_there=False) is None
    assert policy.again(failed, 1, tried_there=True) is None


def test_a_wait_is_never_longer_than_the_most() -> None:
    assert (
        Retry(attempts=99, first=1.0, most=4.0).again(NotRunning(), 50, tried_there=False, drawn=1.0) == 4.0
    )
    assert QUICK.again(RateLimited("no", retry_after=0.5), 1, tried_there=True) == 0.5, "it asked for it"
    assert QUICK.again(RateLimited("no", retry_after=5.0), 1, tried_there=False) is None


@pytest.mark.parametrize("status", [429, 503])
def test_what_is_not_to_be_asked_again_is_not_either_where_the_server_says_when(
    both: Both, upstream: ScriptedUpstream, status: int
) -> None:
    upstream.script(CHAT, error(status, retry_after="0"))
    with pytest.raises((RateLimited, ServerFailed)):
        both.chat(retry=Retry(statuses=frozenset({500})))
    assert len(upstream.requests(CHAT)) == 1


def test_a_conflict_is_asked_again_when_the_server_says(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(409, retry_after="60"))
    with pytest.raises(Refused) as caught:
        both.chat()
    assert caught.value.retry_after == 60 and caught.value.attempts == 1, "a minute is longer than is waited"


def test_no_attempt_at_all_is_no_policy() -> None:
    with pytest.raises(ConfigError, match="1 is no retries"):
        Retry(attempts=0)

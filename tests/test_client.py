"""The client against a server that behaves as badly as a test asks, with both drivers: what is sent, what is sent again,
and which error says what."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypedDict

import httpx2
import pytest
from pydantic import BaseModel

from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.outputs import Choice, Regex
from portico.client.servers import Server, candidates
from portico.client.settings import NO_RETRY, Retry, Timeouts
from portico.errors import (
    ClientError,
    ConfigError,
    CutOff,
    InvalidRequest,
    Malformed,
    NoSuchModel,
    NotRunning,
    NotSupported,
    OutOfMemory,
    PromptTooLong,
    RateLimited,
    Refused,
    ServerFailed,
    TimedOut,
    WrongAnswer,
    WrongKey,
)
from portico.messages import TextDelta, Tool
from scripted_answers import CHAT, COMPLETIONS, chat_stream, reply
from scripted_upstream import CLOSE, HOLD, RESET, ScriptedUpstream

QUICK = Retry(first=0.001, most=1.0)


class Both:
    """The same call with either client."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind, self.url = kind, url

    def do(self, call: Callable[[Any], Any], **options: Any) -> Any:
        options = {"retry": QUICK, "timeouts": Timeouts(connect=2.0, first_token=5.0), **options}
        if self.kind == "sync":
            with Client(self.url, **options) as one:
                return call(one)

        async def run() -> Any:
            async with AsyncClient(self.url, **options) as one:
                return await call(one)

        return asyncio.run(run())

    def chat(self, messages: Any = "Hello", *, told: dict[str, Any] | None = None, **options: Any) -> Any:
        return self.do(lambda one: one.chat(messages, **(told or {})), **options)

    def stream(self, read: Callable[[Any], None] = lambda event: None, **options: Any) -> Any:
        """Reads a whole stream; its result."""
        options = {"retry": QUICK, **options}
        if self.kind == "sync":
            with Client(self.url, **options) as one, one.stream("Hello") as events:
                for event in events:
                    read(event)
                return events.result

        async def run() -> Any:
            async with AsyncClient(self.url, **options) as one, one.stream("Hello") as events:
                async for event in events:
                    read(event)
                return events.result

        return asyncio.run(run())


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


def error(status: int, message: str = "no", **headers: str) -> Any:
    told = {"error": {"message": message, "type": "x", "code": status}}
    return reply(status, told, headers={name.replace("_", "-"): value for name, value in headers.items()})


def said(text: str, finish: str = "stop") -> Any:
    """A chat that answers so."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
    return reply(200, {"id": "c1", "model": "mock-model", "choices": [choice], "usage": usage})


# ---- what is sent


def test_what_is_asked_for_is_sent(both: Both, upstream: ScriptedUpstream) -> None:
    told = {
        "system": "Be brief.",
        "temperature": 0,
        "max_tokens": 5,
        "top_k": 3,
        "min_tokens": 1,
        "stop": ["\n"],
        "logprobs": 2,
        "cache_salt": "s",
        "extra": {"newer": True},
    }
    both.chat("Hello", told=told)
    sent = upstream.last(CHAT)
    wanted = {
        "model": "mock-model",
        "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}],
        "temperature": 0,
        "max_tokens": 5,
        "top_k": 3,
        "min_tokens": 1,
        "stop": ["\n"],
        "logprobs": True,
        "top_logprobs": 2,
        "cache_salt": "s",
        "newer": True,
    }
    assert sent == wanted


def test_what_nobody_knows_is_refused_before_it_is_sent(both: Both, upstream: ScriptedUpstream) -> None:
    with pytest.raises(
        InvalidRequest, match=r"There is no parameter 'temprature'\. Did you mean temperature\?"
    ):
        both.chat("Hello", told={"temprature": 0})
    with pytest.raises(InvalidRequest, match=r"no parameter 'quux_xyz'\. If the server has it: extra="):
        both.chat("Hello", told={"quux_xyz": 0})
    assert not upstream.requests(CHAT)


def test_a_result_holds_everything(both: Both) -> None:
    result = both.chat("Hello", told={"model": "mock-model"})
    assert str(result) == result.text == "Hello there"
    assert (
        result.finish_reason == "stop" and result.usage.input_tokens == 7 and result.usage.output_tokens == 3
    )
    assert (result.model, result.url) == ("mock-model", both.url.removesuffix("/v1"))
    assert [attempt.status for attempt in result.attempts] == [200] and result.timing.total > 0


def test_a_key_and_headers(both: Both, upstream: ScriptedUpstream) -> None:
    both.chat(api_key="sesame", headers={"x-team": "red"})
    headers = upstream.requests(CHAT)[-1].headers
    assert headers["authorization"] == "Bearer sesame" and headers["x-team"] == "red"
    both.chat(api_key="EMPTY")
    assert "authorization" not in upstream.requests(CHAT)[-1].headers


def test_a_raw_completion_has_the_rest_of_the_context(both: Both, upstream: ScriptedUpstream) -> None:
    """vLLM's own default would be 16 tokens."""
    both.do(lambda one: one.complete("Once upon a time"))
    assert upstream.last(COMPLETIONS)["max_tokens"] > 8000
    both.do(lambda one: one.complete([1, 2, 3], max_tokens=4, echo=True, logprobs=True))
    sent = upstream.last(COMPLETIONS)
    assert (sent["prompt"], sent["max_tokens"], sent["echo"], sent["logprobs"]) == ([1, 2, 3], 4, True, 0)


def test_a_prompt_that_cannot_fit_is_not_sent(both: Both, upstream: ScriptedUpstream) -> None:
    with pytest.raises(PromptTooLong) as caught:
        both.do(lambda one: one.chat("Hello", max_tokens=8192, check=True))
    assert caught.value.limit == 8192 and caught.value.wanted == 8192 and str(8192) in str(caught.value)
    assert not upstream.requests(CHAT)


# ---- streams


def test_a_stream_is_events_and_a_result(both: Both) -> None:
    events: list[Any] = []
    result = both.stream(events.append)
    assert (
        "".join(event.text for event in events if isinstance(event, TextDelta))
        == result.text
        == "Hello there"
    )
    assert result.usage.output_tokens == 3 and result.timing.first_token <= result.timing.total


def test_leaving_a_stream_ends_the_answer(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (*chat_stream("one")[:3], HOLD))
    with pytest.raises(ZeroDivisionError):
        both.stream(lambda event: 1 // 0)
    assert upstream.wait_for_hangup().path == CHAT


def test_a_stream_that_is_cut_keeps_what_came(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (*chat_stream("one two")[:3], RESET))
    with pytest.raises(CutOff) as caught:
        both.stream()
    assert len(upstream.requests(CHAT)) == 1, "nothing is sent again after the first byte"
    assert caught.value.url == both.url.removesuffix("/v1")


def test_an_error_in_a_stream(both: Both, upstream: ScriptedUpstream) -> None:
    from scripted_answers import END, STREAM_HEAD, event, framed

    told = {"error": {"message": "the engine died", "code": 502}}
    upstream.script(CHAT, (STREAM_HEAD, framed(event(told)), END))
    with pytest.raises(ServerFailed, match="the engine died"):
        both.stream()


# ---- retries


@pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503])
def test_what_may_pass_is_tried_again(both: Both, upstream: ScriptedUpstream, status: int) -> None:
    upstream.script(CHAT, error(status), error(status))
    result = both.chat()
    assert [attempt.status for attempt in result.attempts] == [status, status, 200]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
def test_what_will_not_pass_is_not(both: Both, upstream: ScriptedUpstream, status: int) -> None:
    upstream.script(CHAT, error(status))
    with pytest.raises(ClientError) as caught:
        both.chat()
    assert caught.value.attempts == 1 and len(upstream.requests(CHAT)) == 1


def test_it_ends_after_so_many(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, *[error(503, "busy")] * 9)
    with pytest.raises(
        ServerFailed, match=r"busy\. It is busy.*\(server http://127.0.0.1:\d+, .*3 attempts\)"
    ):
        both.chat()
    assert len(upstream.requests(CHAT)) == 3


def test_a_server_says_when_to_come_again(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(429, "slow down", retry_after_ms="300"))
    began = time.monotonic()
    assert both.chat().text == "Hello there"
    assert time.monotonic() - began >= 0.3
    upstream.script(CHAT, error(429, "slow down", retry_after="60"))
    with pytest.raises(RateLimited, match="can be asked again in 60 s") as caught:
        both.chat()
    assert caught.value.retry_after == 60 and caught.value.attempts == 1, "a minute is longer than is waited"


def test_what_portico_has_retried_is_not_retried(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(502, "gone", x_portico_attempts="3"))
    with pytest.raises(ServerFailed):
        both.chat()
    assert len(upstream.requests(CHAT)) == 1


def test_a_connection_that_breaks_is_made_again(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (RESET,), (CLOSE,))
    assert [attempt.status for attempt in both.chat().attempts][-1] == 200


# ---- errors


def test_nothing_runs_there(both: Both) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        both.url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    with pytest.raises(NotRunning, match=r"Start a server with `portico serve`.*3 attempts"):
        both.chat()


@pytest.mark.parametrize(
    ("status", "message", "kind", "says"),
    [
        (401, "bad key", WrongKey, "api_key="),
        (400, "CUDA out of memory", OutOfMemory, "CUDA out of memory"),
        (
            400,
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            NotSupported,
            "Start the server with --enable-auto-tool-choice --tool-call-parser PARSER",
        ),
        (422, "top_p must be positive", Refused, "top_p must be positive"),
        (
            400,
            "This model's maximum context length is 64 tokens. However, you requested 5 output tokens and your prompt "
            "contains 70 input tokens, for a total of 75 tokens.",
            PromptTooLong,
            "70 tokens.*64 tokens",
        ),
    ],
)
def test_each_refusal_has_its_error(
    both: Both, upstream: ScriptedUpstream, status: int, message: str, kind: type[ClientError], says: str
) -> None:
    upstream.script(CHAT, error(status, message, x_request_id="r7"))
    with pytest.raises(kind, match=says) as caught:
        both.chat()
    assert caught.value.request_id == "r7" and "request r7" in str(caught.value)


def test_a_model_that_is_not_there_names_those_that_are(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, error(404, "The model `nope` does not exist."))
    with pytest.raises(NoSuchModel, match=r"no model 'nope'\. It has: mock-model\.") as caught:
        both.chat(told={"model": "nope"})
    assert caught.value.served == ("mock-model",)


@pytest.mark.parametrize("body", [b"<html>It works!</html>", b"[1]", b'{"choices": 7}'])
def test_a_reply_that_is_none_shows_how_it_begins(
    both: Both, upstream: ScriptedUpstream, body: bytes
) -> None:
    upstream.script(CHAT, reply(200, body))
    with pytest.raises(Malformed, match="it begins: "):
        both.chat(retry=NO_RETRY)


@pytest.mark.parametrize(
    ("which", "answer"),
    [("first_token", (HOLD,)), ("between_tokens", (*chat_stream("one")[:2], HOLD)), ("total", (HOLD,))],
)
def test_each_limit_says_which_it_was(
    both: Both, upstream: ScriptedUpstream, which: str, answer: Any
) -> None:
    upstream.script(CHAT, answer)
    limits = Timeouts(**{"first_token": 5.0, "between_tokens": 5.0, which: 0.3})
    began = time.monotonic()
    with pytest.raises(TimedOut) as caught:
        both.stream(timeouts=limits, retry=NO_RETRY)
    assert caught.value.which == which and f"timeouts={which}" in str(caught.value)
    assert time.monotonic() - began < 5 * 0.3 + 1


def test_cancelling_ends_the_answer(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (HOLD,))

    async def run() -> None:
        async with AsyncClient(upstream.url) as one:
            task = asyncio.create_task(one.chat("Hello"))
            await asyncio.to_thread(upstream.wait_for_request, CHAT)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert upstream.wait_for_hangup().path == CHAT


# ---- output types


@dataclass
class Person:
    name: str
    age: int


class Companies(BaseModel):
    names: list[str]


class Sky(TypedDict):
    colour: str


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Person, '{"name": "Ada", "age": 36}', Person("Ada", 36)),
        (Companies, '{"names": ["a"]}', Companies(names=["a"])),
        (Sky, '{"colour": "blue"}', {"colour": "blue"}),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (Literal["yes", "no"], '{"value": "no"}', "no"),
        (bool, '{"value": true}', True),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": 1}', {"a": 1}),
        (Choice("red", "blue"), "red", "red"),
        (Regex(r"\d+"), "12", "12"),
    ],
)
def test_an_answer_of_a_type(
    both: Both, upstream: ScriptedUpstream, kind: Any, text: str, value: Any
) -> None:
    upstream.script(CHAT, said(text))
    assert both.chat(told={"output": kind}).parsed == value
    sent = upstream.last(CHAT)
    assert ("response_format" in sent) != ("structured_outputs" in sent), "the server is held to it"


@pytest.mark.parametrize(
    ("kind", "text", "says"),
    [
        (Person, '{"name": "Ada", "age": "old"}', "age: "),
        (Person, "Ada", "no JSON"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}}, '{"a": "x"}', "a: 'x' is not of type"),
        (Choice("red", "blue"), "green", "none of red, blue"),
        (Regex(r"\d+"), "x", "does not match"),
    ],
)
def test_an_answer_that_is_not_of_the_type(
    both: Both, upstream: ScriptedUpstream, kind: Any, text: str, says: str
) -> None:
    upstream.script(CHAT, said(text))
    with pytest.raises(WrongAnswer, match=says) as caught:
        both.chat(told={"output": kind})
    assert caught.value.text == text


def test_json_that_was_cut_off_goes_on(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, said('{"name": "Ada", "a', "length"), said('ge": 36}'))
    assert both.chat(told={"output": Person}).parsed == Person("Ada", 36)
    sent = upstream.last(CHAT)
    assert sent["messages"][-1] == {"role": "assistant", "content": '{"name": "Ada", "a'}
    assert sent["continue_final_message"] is True and sent["add_generation_prompt"] is False
    upstream.script(CHAT, said('{"name": "Ada', "length"))
    with pytest.raises(WrongAnswer, match="cut off after 3 tokens: raise max_tokens"):
        both.chat(told={"output": Person, "max_tokens": 3})


# ---- which server


def test_the_order_of_variables_and_whose_key_goes_where() -> None:
    environ = {
        "PORTICO_HOST": "box",
        "PORTICO_API_KEY": "ours,second",
        "VLLM_BASE_URL": "http://gpu:8000/v1",
        "VLLM_ENDPOINT": "http://other:8000",
        "VLLM_API_KEY": "vllms",
        "OLLAMA_HOST": "0.0.0.0",
        "OPENAI_BASE_URL": "https://api.example.com/v1/",
        "OPENAI_API_KEY": "openais",
    }
    found = []
    while environ and (only := candidates(None, None, environ))[0].origin:
        found.append(only)
        del environ[only[0].origin]
    assert found == [
        (Server(url="http://box:11434", key="ours", origin="PORTICO_HOST"),),
        (Server(url="http://gpu:8000", key="vllms", origin="VLLM_BASE_URL"),),
        (Server(url="http://other:8000", key="vllms", origin="VLLM_ENDPOINT"),),
        (Server(url="http://127.0.0.1:11434", key=None, origin="OLLAMA_HOST"),),
        (Server(url="https://api.example.com", key="openais", origin="OPENAI_BASE_URL"),),
    ]
    assert [(server.url, server.key) for server in candidates(None, None, environ)] == [
        ("http://127.0.0.1:11434", "ours"),
        ("http://127.0.0.1:8000", None),
    ]


def test_the_argument_wins_and_brings_its_own_key() -> None:
    environ = {"VLLM_BASE_URL": "http://gpu:8000", "VLLM_API_KEY": "vllms", "OPENAI_API_KEY": "openais"}
    assert candidates("http://gpu:8000/v1", None, environ)[0].key == "vllms"
    assert candidates("http://elsewhere:8000/v1", None, environ)[0].key is None
    assert candidates("https://api.openai.com/v1", None, environ)[0].key == "openais"
    assert candidates("http://elsewhere:8000", "own", environ)[0].key == "own"
    with pytest.raises(ConfigError, match="url: expected host:port or an http URL"):
        candidates("ftp://x", None, environ)


def test_a_client_of_the_users_own(upstream: ScriptedUpstream) -> None:
    with httpx2.Client(headers={"x-own": "1"}, trust_env=False) as own:
        assert Client(upstream.url, http_client=own).chat("Hello").text == "Hello there"

    async def run() -> None:
        async with httpx2.AsyncClient(headers={"x-own": "1"}, trust_env=False) as own:
            one = AsyncClient(upstream.url, http_client=own)
            assert (await one.chat("Hello")).text == "Hello there"
            async with one.stream("Hello") as events:
                assert [piece async for piece in events.text()]

    asyncio.run(run())
    assert all(request.headers["x-own"] == "1" for request in upstream.requests(CHAT))


# ---- threads


def test_threads_share_a_client(upstream: ScriptedUpstream) -> None:
    with Client(upstream.url) as one:
        answers: list[str] = []
        threads = [threading.Thread(target=lambda: answers.append(one.chat("Hello").text)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert answers == ["Hello there"] * 8


def test_an_answer_in_two_parts_says_what_both_took(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, said('{"name": "Ada", "a', "length"), said('ge": 36}'))
    result = both.chat(told={"output": Person})
    assert result.usage.input_tokens == 14 and result.usage.output_tokens == 6
    assert len(result.attempts) == 2 and result.choices[0].text == result.text


def test_a_union_is_an_output_type(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, said('{"value": 3}'), said('{"value": null}'))
    found = both.do(lambda one: one.chat("Hello", output=int | None)).parsed
    assert found == 3 and both.chat(told={"output": int | None}).parsed is None


def test_a_schema_is_called_what_openai_lets_it_be_called(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, said("{}"))
    both.chat(told={"output": {"title": "A person, named!", "type": "object"}})
    assert upstream.last(CHAT)["response_format"]["json_schema"]["name"] == "A_person__named_"


def test_a_turn_that_calls_a_tool_is_no_wrong_answer(both: Both, upstream: ScriptedUpstream) -> None:
    call = {"id": "c", "type": "function", "function": {"name": "go", "arguments": "{}"}}
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls"}
    upstream.script(CHAT, reply(200, {"choices": [choice]}))
    found = both.chat(told={"output": Person, "tools": [Tool(name="go")]})
    assert found.parsed is None and found.tool_calls[0].name == "go"


def test_one_message_need_not_be_a_list(both: Both, upstream: ScriptedUpstream) -> None:
    both.chat({"role": "user", "content": "Hello"})
    assert upstream.last(CHAT)["messages"] == [{"role": "user", "content": "Hello"}]


def test_log_probabilities_of_the_prompt(both: Both, upstream: ScriptedUpstream) -> None:
    told = [
        None,
        {"7": {"logprob": -2.0, "decoded_token": "b"}, "5": {"logprob": -0.5, "decoded_token": "a"}},
    ]
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hi"}, "finish_reason": "stop"}
    upstream.script(CHAT, reply(200, {"choices": [choice], "prompt_logprobs": told}))
    first, second = both.chat(told={"prompt_logprobs": 1}).prompt_logprobs
    assert first is None and (second.token, second.id, second.logprob) == ("b", 7, -2.0)
    assert [each.token for each in second.top] == ["a", "b"]


def test_a_variable_that_does_not_count_may_be_wrong() -> None:
    environ = {"PORTICO_HOST": "http://a", "OPENAI_BASE_URL": "ftp://b"}
    assert candidates(None, None, environ)[0].url == "http://a"
    with pytest.raises(ConfigError, match="OPENAI_BASE_URL"):
        candidates(None, None, {"OPENAI_BASE_URL": "ftp://b"})


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
def test_a_client_in_one_loop_after_the_other(upstream: ScriptedUpstream) -> None:
    one = AsyncClient(upstream.url)

    async def ask() -> str:
        return (await one.chat("Hello")).text

    assert [asyncio.run(ask()) for _ in range(3)] == ["Hello there"] * 3

    async def close() -> None:
        await one.close()

    asyncio.run(close())
    gc.collect()  # here, where what a loop left open may be warned of

"""Both dialects in front of an upstream that misbehaves in every way a test can script."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from asking import Dialect, ask
from live_server import LiveServer
from scripted_answers import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    END,
    STREAM_HEAD,
    chat_events,
    chat_result,
    chat_stream,
    chunk,
    completion_stream,
    either,
    event,
    framed,
    reply,
    stream,
    vector,
)
from scripted_upstream import CLOSE, HOLD, RESET, Answer, ScriptedUpstream, split

both = pytest.mark.parametrize("dialect", ["ollama", "openai"])
streamed_or_not = pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
TEXT = "Grüße, 日本 🙂!"
PIECES = ("Grü", "ße, ", "日本", " 🙂", "!")


def post(server: LiveServer, path: str, **body: Any) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=20) as client:
        return client.post(server.url + path, json={"model": "mock-model"} | body)


# ---- bytes in any grouping


@both
@streamed_or_not
@pytest.mark.parametrize("size", [1, 2, 3, 7, 4096])
def test_packets_of_any_size(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool, size: int
) -> None:
    """Down to one byte: a packet may end inside a character, a line or a chunk's length."""
    whole = reply(200, chat_result(TEXT))
    upstream.script("/v1/chat/completions", either(split(chat_stream(*PIECES), size), split(whole, size)))
    said = ask(gateway.url, dialect, stream=streamed)
    assert (said.text, said.finish, said.ended) == (TEXT, "stop", True)


@both
@pytest.mark.parametrize("cut", [5, 11, 10_000])
def test_chunks_that_are_not_events(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, cut: int
) -> None:
    """Half an event in a chunk, or all of them in one."""
    whole = b"".join((*chat_events(*PIECES), event("[DONE]")))
    frames = [framed(whole[start : start + cut]) for start in range(0, len(whole), cut)]
    upstream.script("/v1/chat/completions", (STREAM_HEAD, *frames, END))
    assert ask(gateway.url, dialect, stream=True).text == TEXT


@both
def test_everything_in_one_packet(gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect) -> None:
    upstream.script(
        "/v1/chat/completions",
        (b"".join(piece for piece in chat_stream(*PIECES) if isinstance(piece, bytes)),),
    )
    assert ask(gateway.url, dialect, stream=True).text == TEXT


@both
def test_comments_other_line_ends_and_null_contents(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    events = chat_events("one", {"content": None}, {}, " two")
    noisy = [b": keep-alive\n\n", *(b"event: message\r\n" + each.replace(b"\n", b"\r\n") for each in events)]
    upstream.script("/v1/chat/completions", stream(noisy))
    said = ask(gateway.url, dialect, stream=True)
    assert said.text == "one two" and said.ended


# ---- an upstream that breaks off


def after_the_head(*rest: Any) -> Answer:
    return (*stream(chat_events("one", " two"), done=False, end=False)[:3], *rest)


@both
@streamed_or_not
@pytest.mark.parametrize("ending", [RESET, CLOSE, END], ids=["reset", "close", "end"])
def test_it_breaks_off_in_the_middle(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool, ending: Any
) -> None:
    """Neither `done: true` nor `[DONE]` may follow: half an answer is not a whole one."""
    (whole,) = reply(200, chat_result(TEXT))
    assert isinstance(whole, bytes)
    half = (whole[:-20], 0.05, RESET if ending == RESET else CLOSE)
    upstream.script("/v1/chat/completions", either(after_the_head(0.05, ending, CLOSE), half))
    said = ask(gateway.url, dialect, stream=streamed)
    if streamed:
        assert said.status == 200 and said.text in ("", "one") and said.error and not said.ended
    else:
        assert said.status == 502 and said.error
        assert "application/json" in said.content_type
    assert ask(gateway.url, dialect, stream=streamed).text == "Hello there"  # nothing is left over


@both
@streamed_or_not
@pytest.mark.parametrize("ending", [RESET, CLOSE], ids=["reset", "close"])
def test_it_breaks_off_before_the_first_byte(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool, ending: Any
) -> None:
    upstream.script("/v1/chat/completions", (ending,), (ending,), (ending,))
    said = ask(gateway.url, dialect, stream=streamed)
    assert said.status == 502 and said.error and "application/json" in said.content_type
    upstream.reset()


@both
def test_a_kept_connection_that_closes_is_tried_again(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    """An engine closes idle connections just as a request arrives; no caller should hear of it."""
    assert ask(gateway.url, dialect, stream=False).text == "Hello there"
    upstream.script("/v1/chat/completions", (CLOSE,))
    assert ask(gateway.url, dialect, stream=False).text == "Hello there"
    assert len(upstream.requests(CHAT)) == 3


@both
@streamed_or_not
def test_an_ending_without_done_after_the_finish(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool
) -> None:
    """Some servers never send [DONE]; a finish_reason is an end all the same."""
    upstream.script(
        "/v1/chat/completions", either(stream(chat_events("one"), done=False), reply(200, chat_result("one")))
    )
    said = ask(gateway.url, dialect, stream=streamed)
    assert (said.text, said.finish, said.ended, said.error) == ("one", "stop", True, None)


@both
def test_an_error_inside_the_stream(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    failure = {"error": {"message": "out of memory on GPU 3", "type": "server_error", "code": 500}}
    upstream.script("/v1/chat/completions", stream([*chat_events("one")[:2], event(failure)], done=True))
    said = ask(gateway.url, dialect, stream=True)
    assert said.text == "one"
    assert "out of memory on GPU 3" in (said.error or "")
    if dialect == "ollama":
        assert not said.ended


@both
def test_nonsense_inside_the_stream(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    upstream.script(
        "/v1/chat/completions", stream([*chat_events("one")[:2], event("{this is not JSON")], done=False)
    )
    said = ask(gateway.url, "ollama", stream=True)
    assert said.error and not said.ended


@both
@streamed_or_not
def test_silence(
    gateway_for: Callable[..., LiveServer], upstream: ScriptedUpstream, dialect: Dialect, streamed: bool
) -> None:
    """Before the first byte it is 504; in the middle the stream ends with an error."""
    limits = {"PORTICO_FIRST_TOKEN_TIMEOUT": "0.4", "PORTICO_TOKEN_TIMEOUT": "0.4"}
    gateway = gateway_for(upstream, **limits)
    upstream.script("/v1/chat/completions", (HOLD,))
    said = ask(gateway.url, dialect, stream=streamed)
    assert said.status == 504 and said.error
    upstream.wait_for_hangup()  # and the engine is not left working for nobody
    if streamed:
        upstream.script("/v1/chat/completions", after_the_head(HOLD))
        said = ask(gateway.url, dialect, stream=True)
        assert said.status == 200 and said.text == "one" and said.error and not said.ended
        upstream.wait_for_hangup(2)


# ---- an upstream that refuses


@both
@streamed_or_not
@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (400, {"error": {"message": "bad thing", "type": "BadRequestError", "code": 400}}, "bad thing"),
        (400, {"object": "error", "message": "older bad thing", "code": 400}, "older bad thing"),
        (429, {"error": {"message": "slow down", "type": "rate_limit", "code": "x"}}, "slow down"),
        (500, {"error": "a plain string"}, "a plain string"),
        (503, {"detail": "not yet"}, "not yet"),
        (503, b"", ""),
        (500, b"\xff\xfe not text", ""),
    ],
    ids=["400", "400-old", "429", "500-string", "503-detail", "503-empty", "500-bytes"],
)
def test_an_error_keeps_its_status_and_says_why(
    gateway: LiveServer,
    upstream: ScriptedUpstream,
    dialect: Dialect,
    streamed: bool,
    status: int,
    body: Any,
    says: str,
) -> None:
    upstream.script("/v1/chat/completions", reply(status, body, headers={"retry-after": "7"}))
    said = ask(gateway.url, dialect, stream=streamed)
    assert said.status == status
    assert says in (said.error or "") and said.error
    assert "application/json" in said.content_type  # also for a stream: clients parse errors only then
    if status == 429:
        assert said.headers["retry-after"] == "7"


@both
def test_an_html_error_page_is_not_passed_on(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect
) -> None:
    page = b"<html><head><title>502 Bad Gateway</title></head><body><h1>nginx</h1></body></html>"
    upstream.script("/v1/chat/completions", reply(502, page, content_type="text/html"))
    said = ask(gateway.url, dialect, stream=False)
    assert said.status == 502 and said.error and "<html>" not in said.error


@both
def test_a_success_that_is_no_json(gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect) -> None:
    upstream.script("/v1/chat/completions", reply(200, b"<html>welcome</html>", content_type="text/html"))
    said = ask(gateway.url, dialect, stream=False)
    assert said.status == 502 and said.error


@both
@streamed_or_not
@pytest.mark.parametrize(
    "body",
    [
        {
            "object": "error",
            "type": "BadRequestError",
            "code": 400,
            "message": "This model's maximum context length is 8192 tokens. However, you requested 9001 tokens "
            "(8001 in the messages, 1000 in the completion). Please reduce the length.",
        },
        {
            "error": {
                "code": 400,
                "message": "the request exceeds the available context size",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 9001,
                "n_ctx": 8192,
            }
        },
    ],
    ids=["vllm", "llama.cpp"],
)
def test_a_context_that_is_too_small_has_its_code(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool, body: Any
) -> None:
    upstream.script("/v1/chat/completions", *(reply(400, body) for _ in range(3)))
    said = ask(gateway.url, dialect, stream=streamed, **({"truncate": False} if dialect == "ollama" else {}))
    assert said.status == 400
    if dialect == "openai":
        assert said.code == "context_length_exceeded" and "8192" in (said.error or "")
    else:
        assert "context" in (said.error or "")


# ---- usage


@streamed_or_not
@pytest.mark.parametrize(
    "usage",
    [None, {}, {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}],
    ids=["none", "empty", "zero"],
)
def test_ollamas_counts_are_never_zero(
    gateway: LiveServer, upstream: ScriptedUpstream, streamed: bool, usage: Any
) -> None:
    streaming = chat_stream("one", " two", usage=usage)
    answer = either(streaming, reply(200, chat_result("one two", usage=usage)))
    upstream.script("/v1/chat/completions", answer)
    final = ask(gateway.url, "ollama", stream=streamed).chunks[-1]
    for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        assert final[name] > 0, name
    for name in ("eval_count", "prompt_eval_count"):
        assert final.get(name) != 0, name


@streamed_or_not
def test_usage_is_the_engines(gateway: LiveServer, upstream: ScriptedUpstream, streamed: bool) -> None:
    usage = {"prompt_tokens": 70, "completion_tokens": 30, "total_tokens": 100}
    usage_with_details = usage | {"prompt_tokens_details": {"cached_tokens": 64}}
    streaming = chat_stream("one", usage=usage_with_details)
    answer = either(streaming, reply(200, chat_result("one", usage=usage_with_details)))
    upstream.script("/v1/chat/completions", answer, answer)
    final = ask(gateway.url, "ollama", stream=streamed).chunks[-1]
    assert (final["prompt_eval_count"], final["eval_count"]) == (70, 30)
    options = {"stream_options": {"include_usage": True}} if streamed else {}
    last = ask(gateway.url, "openai", stream=streamed, **options).chunks[-1]
    assert {name: last["usage"][name] for name in usage} == usage
    assert last["usage"]["prompt_tokens_details"]["cached_tokens"] == 64


def test_usage_is_asked_for_but_shown_only_to_who_asked(
    gateway: LiveServer, upstream: ScriptedUpstream
) -> None:
    said = ask(gateway.url, "openai", stream=True)
    assert upstream.last("/v1/chat/completions")["stream_options"]["include_usage"] is True
    assert all(chunk["choices"] for chunk in said.chunks)
    assert not any(chunk.get("usage") for chunk in said.chunks)


# ---- what models say besides text


@both
@streamed_or_not
def test_tool_calls_in_pieces(
    gateway: LiveServer, upstream: ScriptedUpstream, dialect: Dialect, streamed: bool
) -> None:
    first = '{"city": "Zürich", "days": [1, 2]}'
    calls = [
        {
            "index": 0,
            "id": "call_a",
            "type": "function",
            "function": {"name": "get_weather", "arguments": ""},
        },
        *({"index": 0, "function": {"arguments": first[at : at + 3]}} for at in range(0, len(first), 3)),
        {"index": 1, "id": "call_b", "type": "function", "function": {"name": "ring", "arguments": "{}"}},
    ]
    whole = [
        {"id": "call_a", "type": "function", "function": {"name": "get_weather", "arguments": first}},
        {"id": "call_b", "type": "function", "function": {"name": "ring", "arguments": "{}"}},
    ]
    pieces = chat_stream(*({"tool_calls": [call]} for call in calls), finish="tool_calls")
    upstream.script(
        CHAT, either(pieces, reply(200, chat_result(None, finish="tool_calls", tool_calls=whole)))
    )
    said = ask(gateway.url, dialect, stream=streamed, tools=[_tool("get_weather"), _tool("ring")])
    if dialect == "ollama":
        assert said.calls == [("get_weather", {"city": "Zürich", "days": [1, 2]}), ("ring", {})]
        assert said.finish == "stop"
    else:
        assert said.calls == [("get_weather", first), ("ring", "{}")]
        assert said.finish == "tool_calls"
    assert [tool["function"]["name"] for tool in upstream.last("/v1/chat/completions")["tools"]] == [
        "get_weather",
        "ring",
    ]


@streamed_or_not
def test_arguments_that_are_no_json(gateway: LiveServer, upstream: ScriptedUpstream, streamed: bool) -> None:
    """Ollama's clients insist on an object; a broken call must not break their parser."""
    call = {"id": "call_a", "type": "function", "function": {"name": "ring", "arguments": '{"times": '}}
    pieces = chat_stream({"tool_calls": [call | {"index": 0}]}, finish="tool_calls")
    upstream.script(
        CHAT, either(pieces, reply(200, chat_result(None, finish="tool_calls", tool_calls=[call])))
    )
    said = ask(gateway.url, "ollama", stream=streamed, tools=[_tool("ring")])
    assert all(isinstance(arguments, dict) for _, arguments in said.calls)
    assert said.calls or said.error


def _tool(name: str) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {"name": name, "parameters": {"type": "object", "properties": {}}},
    }


@pytest.mark.parametrize("tool", [{"index": 0}, {}], ids=["index", "no-index"])
def test_a_call_in_one_piece(gateway: LiveServer, upstream: ScriptedUpstream, tool: dict[str, Any]) -> None:
    call = tool | {
        "id": "call_a",
        "type": "function",
        "function": {"name": "ring", "arguments": '{"times":2}'},
    }
    upstream.script("/v1/chat/completions", chat_stream({"tool_calls": [call]}, finish="tool_calls"))
    assert ask(gateway.url, "ollama", stream=True, tools=[_tool("ring")]).calls == [("ring", {"times": 2})]


# ---- what callers send besides text


PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 24
JPEG = b"\xff\xd8\xff\xe0" + b"\0" * 24


def test_images_from_ollama(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    images = [base64.b64encode(each).decode() for each in (PNG, JPEG)]
    messages = [{"role": "user", "content": "What is this?", "images": images}]
    assert ask(gateway.url, "ollama", stream=True, messages=messages).ended
    assert _images(upstream) == [f"data:image/png;base64,{images[0]}", f"data:image/jpeg;base64,{images[1]}"]
    body = {"prompt": "What is this?", "images": images[:1], "stream": False}
    assert post(gateway, "/api/generate", **body).json()["response"] == "Hello there"
    assert _images(upstream) == [f"data:image/png;base64,{images[0]}"]


def _images(upstream: ScriptedUpstream) -> list[str]:
    content = upstream.last("/v1/chat/completions")["messages"][-1]["content"]
    assert "What is this?" in [part.get("text") for part in content]
    return [part["image_url"]["url"] for part in content if part["type"] == "image_url"]


@pytest.mark.parametrize("image", ["https://example.org/cat.png", "not base64!", "", 5])
def test_images_that_are_none_are_refused(
    gateway: LiveServer, upstream: ScriptedUpstream, image: Any
) -> None:
    messages = [{"role": "user", "content": "What is this?", "images": [image]}]
    said = ask(gateway.url, "ollama", stream=False, messages=messages)
    assert said.status == 400 and said.error
    assert not upstream.requests(CHAT)


@pytest.mark.parametrize("plain", [True, False], ids=["string", "object"])
def test_images_from_openai(gateway: LiveServer, upstream: ScriptedUpstream, plain: bool) -> None:
    url = "data:image/png;base64," + base64.b64encode(PNG).decode()
    part = {"type": "image_url", "image_url": url if plain else {"url": url, "detail": "low"}}
    content = [{"type": "text", "text": "What is this?"}, part]
    assert ask(gateway.url, "openai", stream=True, messages=[{"role": "user", "content": content}]).ended
    assert _images(upstream) == [url]


def test_a_suffix_from_both(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    generated = post(gateway, "/api/generate", prompt="def f(", suffix="return 1", stream=False)
    assert generated.json()["response"] == "Hello there"
    assert (upstream.last(COMPLETIONS)["prompt"], upstream.last(COMPLETIONS)["suffix"]) == (
        "def f(",
        "return 1",
    )
    completed = post(gateway, "/v1/completions", prompt="def g(", suffix="return 2")
    assert completed.json()["choices"][0]["text"] == "Hello there"
    assert (upstream.last(COMPLETIONS)["prompt"], upstream.last(COMPLETIONS)["suffix"]) == (
        "def g(",
        "return 2",
    )


def test_raw_goes_to_completions_untouched(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    prompt = "<|im_start|>user\nHello<|im_end|>\n"
    upstream.script(COMPLETIONS, completion_stream("Hel", "lo"))
    answer = post(gateway, "/api/generate", prompt=prompt, raw=True, stream=True)
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(line["response"] for line in lines) == "Hello" and lines[-1]["done"]
    assert "context" not in lines[-1]
    assert upstream.last(COMPLETIONS)["prompt"] == prompt
    assert not upstream.requests(CHAT)


def test_options_become_the_engines_fields(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    options = {
        "num_predict": 9,
        "temperature": 0,
        "top_k": 40.0,
        "top_p": 0.5,
        "min_p": 0.1,
        "seed": 3,
        "stop": ["a", "b"],
        "repeat_penalty": 1.2,
        "presence_penalty": 0.5,
        "frequency_penalty": 9,
        "ignore_eos": True,
        "num_gpu": 1,
    }
    ask(gateway.url, "ollama", stream=True, options=options)
    sent = upstream.last("/v1/chat/completions")
    limit = sent.get("max_tokens", sent.get("max_completion_tokens"))
    assert limit == 9
    assert {name: sent[name] for name in ("temperature", "top_k", "top_p", "min_p", "seed", "stop")} == {
        "temperature": 0,
        "top_k": 40,
        "top_p": 0.5,
        "min_p": 0.1,
        "seed": 3,
        "stop": ["a", "b"],
    }
    assert sent["repetition_penalty"] == 1.2 and sent["presence_penalty"] == 0.5
    assert sent["frequency_penalty"] == 2  # clamped to what engines take
    assert sent["ignore_eos"] is True
    assert not {"num_gpu", "options", "num_predict"} & set(sent)
    ask(gateway.url, "ollama", stream=True, options={"num_predict": -1, "seed": -1, "repeat_last_n": 0})
    assert "seed" not in upstream.last("/v1/chat/completions")


# ---- embeddings


def test_embeddings_from_ollama(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    body = post(gateway, "/api/embed", input=["one", "two"]).json()
    assert body["model"] == "mock-model" and body["prompt_eval_count"] == 10 and body["total_duration"] > 0
    for given, text in zip(body["embeddings"], ("one", "two"), strict=True):
        length = sum(value * value for value in vector(text)) ** 0.5
        assert given == pytest.approx([value / length for value in vector(text)], abs=1e-5)
    assert post(gateway, "/api/embed", input="one").json()["embeddings"][0] == body["embeddings"][0]
    shorter = post(gateway, "/api/embed", input="one", dimensions=2).json()["embeddings"][0]
    assert len(shorter) == 2 and sum(value * value for value in shorter) == pytest.approx(1, abs=1e-5)
    legacy = post(gateway, "/api/embeddings", prompt="one").json()
    assert legacy == {"embedding": pytest.approx(vector("one"))}  # not normalised
    assert post(gateway, "/api/embeddings", prompt="").json() == {"embedding": []}
    assert post(gateway, "/api/embed", input="").json()["embeddings"] == []
    assert post(gateway, "/api/embed", input=[1]).status_code == 400


def test_embeddings_from_openai(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    floats = post(gateway, "/v1/embeddings", input=["one", "two"], encoding_format="float").json()
    assert [row["index"] for row in floats["data"]] == [0, 1]
    assert floats["data"][0]["embedding"] == pytest.approx(vector("one"))
    assert floats["usage"] == {"prompt_tokens": 10, "total_tokens": 10}
    packed = post(gateway, "/v1/embeddings", input="one", encoding_format="base64").json()
    values = struct.unpack("<4f", base64.b64decode(packed["data"][0]["embedding"]))
    assert values == pytest.approx(vector("one"))
    assert post(gateway, "/v1/embeddings", input=[5, 6, 7]).status_code == 200
    assert upstream.last(EMBEDDINGS)["input"] == [5, 6, 7]
    for wrong in ([], None, {}, [[]], [1, "a"]):
        assert post(gateway, "/v1/embeddings", input=wrong).status_code == 400, wrong


# ---- several choices, finish reasons


@both
@streamed_or_not
@pytest.mark.parametrize(("finish", "done_reason"), [("stop", "stop"), ("length", "length")])
def test_finish_reasons(
    gateway: LiveServer,
    upstream: ScriptedUpstream,
    dialect: Dialect,
    streamed: bool,
    finish: str,
    done_reason: str,
) -> None:
    answer = either(chat_stream("one", finish=finish), reply(200, chat_result("one", finish=finish)))
    upstream.script("/v1/chat/completions", answer)
    said = ask(gateway.url, dialect, stream=streamed)
    assert said.finish == (done_reason if dialect == "ollama" else finish)


def test_several_choices_in_one_stream(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    events = []
    for index, text in ((1, "b"), (0, "a"), (1, "B"), (0, "A")):
        one = chunk({"content": text})
        one["choices"][0]["index"] = index
        events.append(event(one))
    for index in (0, 1):
        one = chunk({}, finish="stop")
        one["choices"][0]["index"] = index
        events.append(event(one))
    upstream.script("/v1/chat/completions", stream(events))
    said = ask(gateway.url, "openai", stream=True, n=2)
    texts = {0: "", 1: ""}
    for each in said.chunks:
        for choice in each["choices"]:
            texts[choice["index"]] += choice["delta"].get("content") or ""
    assert texts == {0: "aA", 1: "bB"}
    assert upstream.last("/v1/chat/completions")["n"] == 2


# ---- what only some engines have


def test_reranking_goes_on_to_an_engine_that_has_it(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    ranked = {
        "id": "rerank-1",
        "model": "mock-model",
        "usage": {"total_tokens": 12},
        "results": [{"index": 1, "document": {"text": "b"}, "relevance_score": 0.75}],
    }
    upstream.script("/v1/rerank", reply(200, ranked))
    asked = {"query": "Which?", "documents": ["a", "b"], "top_n": 1, "of_its_own": True}
    answer = post(gateway, "/v1/rerank", model="mock-model:latest", **asked)
    assert (answer.status_code, answer.json()) == (200, ranked)
    assert upstream.last("/v1/rerank") == {"model": "mock-model", **asked}


VIDEO = {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,AA"}}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}
AUDIO = {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "user", "content": [VIDEO, IMAGE]}],
        [{"role": "developer", "content": "Listen."}, {"role": "user", "content": [AUDIO]}],
    ],
)
def test_parts_that_only_the_engine_understands(
    gateway: LiveServer, upstream: ScriptedUpstream, messages: list[Any]
) -> None:
    assert post(gateway, "/v1/chat/completions", messages=messages).status_code == 200
    assert upstream.last("/v1/chat/completions")["messages"] == messages
    upstream.script(
        "/v1/chat/completions",
        reply(400, {"error": {"message": "At most 1 video may be provided.", "code": 400}}),
    )
    refused = post(gateway, "/v1/chat/completions", messages=messages)
    assert refused.status_code == 400 and "At most 1 video" in refused.json()["error"]["message"]


def test_a_word_that_looks_like_such_a_part(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    """Then all is put for the engine as always: here the role that only some know."""
    tool = {"type": "function", "function": {"name": "show", "parameters": {"properties": {"video_url": {}}}}}
    asked = [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "video_url"}]
    assert post(gateway, "/v1/chat/completions", messages=asked, tools=[tool]).status_code == 200
    sent = upstream.last("/v1/chat/completions")["messages"]
    assert [message["role"] for message in sent] == ["system", "user"]


def test_a_prompt_that_fills_the_context_to_the_last_token(
    gateway: LiveServer, upstream: ScriptedUpstream
) -> None:
    """vLLM's own error is about a max_tokens of 0 that nobody asked for."""
    full = reply(400, {"error": {"message": "max_tokens must be at least 1, got 0.", "code": 400}})
    upstream.script("/v1/chat/completions", full)
    error = post(gateway, "/v1/chat/completions", messages=[{"role": "user", "content": "x"}])
    assert error.status_code == 400 and error.json()["error"]["code"] == "context_length_exceeded"
    assert error.json()["error"]["message"].count("8192") == 2
    nothing = post(gateway, "/v1/completions", prompt="x", max_tokens=0)
    assert nothing.status_code == 200 and nothing.json()["usage"]["completion_tokens"] == 0
    two = post(gateway, "/v1/completions", prompt=["x", "y"], max_tokens=0).json()
    assert [choice["index"] for choice in two["choices"]] == [0, 1]
    assert not upstream.requests("/v1/completions")


def test_reranking_with_an_engine_that_has_not(
    gateway: LiveServer, server: LiveServer, upstream: ScriptedUpstream
) -> None:
    asked: dict[str, Any] = {"query": "Which?", "documents": ["a", "b"]}
    upstream.script("/v1/rerank", reply(404, {"detail": "Not Found"}))
    answer = post(gateway, "/v1/rerank", **asked)
    assert answer.status_code == 400 and answer.json()["error"]["code"] == "unsupported"
    embedded = post(server, "/v1/rerank", model=server.model, **asked)
    error = embedded.json()["error"]
    assert embedded.status_code == 400 and error["code"] == "unsupported"
    assert "does not support rerank" in error["message"]
    wrong = post(server, "/v1/rerank", model=server.model, query="Which?")
    assert wrong.status_code == 400 and "documents" in wrong.json()["error"]["message"]

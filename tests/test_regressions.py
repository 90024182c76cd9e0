"""What other servers got wrong for Ollama's and OpenAI's clients; each known bug is one test here.

The numbers are those of the list that these bugs were collected in; 10, 12 and 13 are no matter of this server
or wait for the routes they are about.
"""

from __future__ import annotations

import base64
import json
import re
from datetime import datetime
from typing import Any

import httpx2
import pytest

from asking import HELLO, ask, payloads
from live_server import LiveServer
from scripted_answers import CHAT, STREAM_HEAD, chat_events, chat_result, chat_stream, event, framed, reply
from scripted_upstream import RESET, Answer, Received, ScriptedUpstream


def post(server: LiveServer, path: str, body: Any, **headers: str) -> httpx2.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.post(server.url + path, content=content, headers=headers)


def get(server: LiveServer, path: str) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        return client.get(server.url + path)


# ---- 1: SSE or blank lines on /api/*, streams that never say that they are done


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate"])
def test_1_ollamas_streams_are_lines_of_json_and_end_with_done(server: LiveServer, path: str) -> None:
    body = {"model": server.model, "messages": HELLO, "prompt": "Hello!", "options": {"num_predict": 8}}
    answer = post(server, path, body)
    assert answer.headers["content-type"].split(";")[0] == "application/x-ndjson"
    assert answer.text.endswith("\n")
    lines = answer.text.split("\n")[:-1]
    assert len(lines) > 1 and all(line.startswith("{") for line in lines)  # no blank line, no `data:`
    done = [json.loads(line)["done"] for line in lines]
    assert done == [False] * (len(lines) - 1) + [True]


def test_1_an_ollama_stream_that_breaks_ends_with_an_error(
    gateway: LiveServer, upstream: ScriptedUpstream
) -> None:
    events = [framed(each) for each in chat_events("one", "two")[:2]]
    upstream.script(CHAT, (STREAM_HEAD, *events, 0.05, RESET))
    lines = post(gateway, "/api/chat", {"model": "mock-model", "messages": HELLO}).text.splitlines()
    assert isinstance(json.loads(lines[-1])["error"], str)
    assert not any(json.loads(line).get("done") for line in lines)


def test_1_an_openai_stream_ends_with_done(server: LiveServer) -> None:
    body = {"model": server.model, "messages": HELLO, "stream": True, "max_tokens": 8}
    answer = post(server, "/v1/chat/completions", body)
    assert answer.headers["content-type"].split(";")[0] == "text/event-stream"
    events = list(payloads(answer.content))
    assert events[-1] == "[DONE]" and events.count("[DONE]") == 1


# ---- 2: arguments as a string, pieces of calls, no index


def test_2_ollamas_calls_are_whole_with_an_object_and_an_index(
    gateway: LiveServer, upstream: ScriptedUpstream
) -> None:
    pieces = [{"index": 0, "id": "c1", "type": "function", "function": {"name": "f", "arguments": ""}}]
    pieces += [{"index": 0, "function": {"arguments": text}} for text in ('{"a"', ': {"b": [1', "]}}")]
    pieces += [{"index": 1, "id": "c2", "type": "function", "function": {"name": "g", "arguments": "{}"}}]
    upstream.script(CHAT, chat_stream(*({"tool_calls": [piece]} for piece in pieces), finish="tool_calls"))
    lines = post(gateway, "/api/chat", {"model": "mock-model", "messages": HELLO}).text.splitlines()
    calls = [call for line in lines for call in json.loads(line)["message"].get("tool_calls", ())]
    functions = [call["function"] for call in calls]
    assert functions == [
        {"index": 0, "name": "f", "arguments": {"a": {"b": [1]}}},
        {"index": 1, "name": "g", "arguments": {}},
    ]
    assert all(call["id"] and "type" not in call for call in calls)
    assert json.loads(lines[-1])["message"] == {"role": "assistant", "content": ""}


def test_2_the_order_of_an_objects_keys_is_kept(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    call = {
        "index": 0,
        "id": "c",
        "type": "function",
        "function": {"name": "f", "arguments": '{"z": 1, "a": 2}'},
    }
    upstream.script(CHAT, chat_stream({"tool_calls": [call]}, finish="tool_calls"))
    said = ask(gateway.url, "ollama", stream=True)
    assert list(said.calls[0][1]) == ["z", "a"]


# ---- 3: listings without what clients read


def test_3_listings_are_complete(server: LiveServer) -> None:
    (first, *_) = get(server, "/api/tags").json()["models"]
    assert first["name"] == first["model"] and first["name"].endswith(":latest")
    assert re.fullmatch(r"[0-9a-f]{64}", first["digest"])
    assert datetime.fromisoformat(first["modified_at"]).tzinfo is not None
    assert first["size"] > 0
    assert {"completion", "tools"} <= set(first["capabilities"])
    details = first["details"]
    assert set(details) >= {
        "parent_model",
        "format",
        "family",
        "families",
        "parameter_size",
        "quantization_level",
    }
    assert isinstance(details["families"], list)


def test_3_ps_is_complete(server: LiveServer) -> None:
    post(server, "/api/generate", {"model": server.model, "keep_alive": -1})
    (first, *_) = get(server, "/api/ps").json()["models"]
    assert first["name"] == first["model"]
    assert re.fullmatch(r"[0-9a-f]{64}", first["digest"])
    assert datetime.fromisoformat(first["expires_at"]).year > 2200  # what "for ever" looks like
    assert first["context_length"] > 0 and first["size"] > 0 and first["size_vram"] >= 0
    assert first["details"]["format"] == "gguf"
    post(server, "/api/generate", {"model": server.model, "keep_alive": "5m"})


# ---- 4: names that are listed and then not known


@pytest.mark.parametrize("path", ["/api/chat", "/api/generate", "/v1/chat/completions", "/v1/completions"])
def test_4_every_listed_name_is_accepted_in_every_way_it_is_written(server: LiveServer, path: str) -> None:
    tagged = get(server, "/api/tags").json()["models"][0]["name"]
    bare = tagged.removesuffix(":latest")
    listed = {each["id"] for each in get(server, "/v1/models").json()["data"]}
    for name in (tagged, bare, bare.upper(), tagged.title(), "default", "auto", *listed):
        body = {
            "model": name,
            "messages": HELLO,
            "prompt": "Hello",
            "stream": False,
            "max_tokens": 2,
            "options": {"num_predict": 2},
        }
        answer = post(server, path, body)
        assert answer.status_code == 200, (name, answer.text)
        if path.startswith("/api/"):
            assert answer.json()["model"] == name  # clients compare it with what they sent


def test_4_show_and_models_accept_them_too(server: LiveServer) -> None:
    for name in (
        server.model,
        f"{server.model.removesuffix(':latest')}:latest",
        server.model.upper(),
        "default",
    ):
        assert post(server, "/api/show", {"model": name}).status_code == 200
        assert post(server, "/api/show", {"name": name}).status_code == 200  # what LiteLLM sends
        assert get(server, f"/v1/models/{name}").status_code == 200


# ---- 5: lengths and encodings that are the engine's, not ours; bodies with images


def test_5_a_large_body_with_images_arrives_whole(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    image = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 24_000).decode()  # 8 MB
    messages = [{"role": "user", "content": "What is this?", "images": [image]}]
    assert ask(gateway.url, "ollama", stream=True, messages=messages).ended
    sent = upstream.last(CHAT)["messages"][-1]["content"]
    assert [part["image_url"]["url"] for part in sent if part["type"] == "image_url"] == [
        f"data:image/png;base64,{image}"
    ]


def test_5_a_chunked_body_is_a_body(server: LiveServer) -> None:
    body = json.dumps(
        {"model": server.model, "messages": HELLO, "stream": False, "options": {"num_predict": 2}}
    )
    with httpx2.Client(trust_env=False, timeout=30) as client:
        pieces = (body[start : start + 7].encode() for start in range(0, len(body), 7))
        answer = client.post(server.url + "/api/chat", content=pieces)
    assert answer.request.headers.get("transfer-encoding") == "chunked"
    assert answer.status_code == 200 and answer.json()["done"]


@pytest.mark.parametrize("path", ["/api/chat", "/v1/chat/completions"])
def test_5_the_engines_own_headers_are_not_copied(
    gateway: LiveServer, upstream: ScriptedUpstream, path: str
) -> None:
    headers = {"server": "mock", "x-internal": "secret", "set-cookie": "a=b", "connection": "keep-alive"}
    upstream.script(CHAT, reply(200, chat_result("Grüße"), headers=headers))
    answer = post(gateway, path, {"model": "mock-model", "messages": HELLO, "stream": False})
    said = answer.json()
    assert "Grüße" in (said["message"] if path == "/api/chat" else said["choices"][0]["message"])["content"]
    assert "x-internal" not in answer.headers and "set-cookie" not in answer.headers
    assert answer.headers.get("server") != "mock"
    assert int(answer.headers["content-length"]) == len(answer.content)


@pytest.mark.parametrize(
    "content_type", ["application/x-www-form-urlencoded", "application/octet-stream", "text/plain", ""]
)
def test_5_a_body_is_json_whatever_its_content_type(server: LiveServer, content_type: str) -> None:
    body = {"model": server.model, "messages": HELLO, "stream": False, "options": {"num_predict": 2}}
    assert post(server, "/api/chat", body, **{"content-type": content_type}).json()["done"]


# ---- 6: versions that clients cannot parse


def test_6_the_version_is_three_numbers_that_clients_accept(server: LiveServer) -> None:
    version = get(server, "/api/version").json()["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)
    assert tuple(map(int, version.split("."))) >= (0, 13, 4)  # what the most demanding client wants
    root = get(server, "/")
    assert (root.status_code, root.text) == (200, "Ollama is running")


# ---- 7: empty prompts that reach the engine, options that are refused


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": ""}),
        ("/api/generate", {}),
        ("/api/chat", {"messages": []}),
        ("/api/chat", {}),
        ("/api/embed", {"input": ""}),
    ],
)
def test_7_an_empty_prompt_loads_and_reaches_no_engine(
    gateway: LiveServer, upstream: ScriptedUpstream, path: str, body: dict[str, Any]
) -> None:
    answer = post(gateway, path, {"model": "mock-model"} | body)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("application/json")
    if path != "/api/embed":
        assert answer.json()["done"] is True and answer.json()["done_reason"] == "load"
    posted = [request.path for request in upstream.received if request.method == "POST"]
    assert posted == []


def test_7_unknown_options_and_fields_are_ignored(server: LiveServer) -> None:
    body = {
        "model": server.model,
        "messages": HELLO,
        "stream": False,
        "options": {"num_predict": 2, "no_such_option": {"a": 1}, "num_thread": 4, "numa": True},
        "no_such_field": [1, 2],
        "format": "",
        "tools": [],
    }
    assert post(server, "/api/chat", body).json()["done"] is True


# ---- 8: errors of another framework's shape


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/api/chat", b"", 400),
        ("/api/chat", b"{", 400),
        ("/api/chat", b"[]", 400),
        ("/api/chat", b'{"model": 5}', 400),
        ("/api/chat", b'{"messages": []}', 400),
        ("/api/generate", b'{"model": "no-such-model", "prompt": "x"}', 404),
        ("/api/generate", b'{"model": "default", "prompt": "x", "options": {"temperature": "hot"}}', 400),
        ("/api/generate", b'{"model": "default", "prompt": "x", "keep_alive": "soon"}', 400),
        ("/api/show", b"{}", 400),
        ("/api/embed", b'{"model": "no-such-model", "input": "x"}', 404),
        ("/api/no-such-route", b"{}", 404),
    ],
)
def test_8_ollamas_errors_are_a_string_in_json(
    server: LiveServer, path: str, body: bytes, status: int
) -> None:
    answer = post(server, path, body)
    assert answer.status_code == status
    if path == "/api/no-such-route":
        assert "404" in answer.text or "error" in answer.text
        return
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()
    assert isinstance(error["error"], str) and error["error"] and "detail" not in error


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"", 400),
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b'{"model": "default"}', 400),
        ("POST", "/v1/completions", b'{"model": "default", "prompt": {}}', 400),
        ("POST", "/v1/embeddings", b'{"model": "default", "input": []}', 400),
        ("POST", "/v1/no-such-route", b"{}", 404),
        ("POST", "/v1/responses", b'{"model": "default", "input": "x"}', 404),
        ("POST", "/v1/audio/transcriptions", b"{}", 404),
        ("GET", "/v1/models/no-such-model", b"", 404),
        ("GET", "/v1/chat/completions", b"", 405),
        ("DELETE", "/v1/models", b"", 405),
    ],
)
def test_8_openais_errors_have_openais_shape(
    server: LiveServer, method: str, path: str, body: bytes, status: int
) -> None:
    with httpx2.Client(trust_env=False, timeout=30) as client:
        answer = client.request(method, server.url + path, content=body)
    assert answer.status_code == status
    assert answer.headers["content-type"].startswith("application/json")
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"] and isinstance(error["type"], str)


def test_8_a_route_of_anthropics_has_anthropics_shape(server: LiveServer) -> None:
    answer = post(server, "/v1/messages", {"model": "default", "messages": HELLO})
    assert answer.status_code == 404
    assert answer.json()["type"] == "error" and answer.json()["error"]["type"] == "not_found_error"


# ---- 9: prompts that lose their head in silence


def test_9_a_long_prompt_is_not_cut_at_two_or_four_thousand_tokens(server: LiveServer) -> None:
    limit = get(server, f"/v1/models/{server.model}").json()["max_model_len"]
    counted = post(server, "/tokenize", {"model": server.model, "prompt": "hello there "}).json()["count"]
    repeats = (limit - 200) // counted
    body = {"model": server.model, "prompt": "hello there " * repeats, "stream": False, "raw": True}
    answer = post(server, "/api/generate", body | {"options": {"num_predict": 2}}).json()
    assert answer["prompt_eval_count"] > limit * 0.7
    body["options"] = {"num_predict": 2}
    chat = {"model": server.model, "messages": [{"role": "user", "content": body["prompt"]}], "stream": False}
    assert (
        post(server, "/api/chat", chat | {"options": {"num_predict": 2}}).json()["prompt_eval_count"]
        > limit * 0.7
    )


def test_9_the_context_is_reported(server: LiveServer) -> None:
    shown = post(server, "/api/show", {"model": server.model}).json()["model_info"]
    context = shown[f"{shown['general.architecture']}.context_length"]
    post(server, "/api/generate", {"model": server.model})
    assert get(server, "/api/ps").json()["models"][0]["context_length"] == context


def test_9_what_does_not_fit_is_an_error_where_truncation_is_off(server: LiveServer) -> None:
    long = [{"role": "user", "content": "hello there " * 9000}]
    answer = post(server, "/api/chat", {"model": server.model, "messages": long, "truncate": False})
    assert answer.status_code == 400 and "context" in answer.json()["error"]


def test_9_the_oldest_messages_are_dropped_and_never_the_last_or_the_systems(
    gateway: LiveServer, upstream: ScriptedUpstream
) -> None:
    """The mock's tokens are characters; its context is 8192."""
    turns = [
        {"role": "user" if n % 2 == 0 else "assistant", "content": f"{n:03d} " + "x" * 400} for n in range(61)
    ]
    messages = [{"role": "system", "content": "Be brief."}, *turns]

    def refuse_what_is_too_long(request: Received) -> Answer:
        if len(json.dumps(request.json["messages"])) <= 8192:
            return chat_stream("Hello")
        message = "This model's maximum context length is 8192 tokens. However, you requested 26000 tokens."
        return reply(400, {"object": "error", "type": "BadRequestError", "code": 400, "message": message})

    upstream.script(CHAT, *(refuse_what_is_too_long for _ in range(20)))
    assert ask(gateway.url, "ollama", stream=True, messages=messages).ended
    sent = upstream.last(CHAT)["messages"]
    assert sent[0] == {"role": "system", "content": "Be brief."}
    assert sent[-1]["content"] == turns[-1]["content"]
    kept = [message["content"] for message in sent[1:]]
    assert kept == [turn["content"] for turn in turns][-len(kept) :]
    assert 5 < len(kept) < len(turns)


# ---- 11: reasoning under two names


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
@pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
def test_11_reasoning_is_read_under_both_names_and_written_under_both(
    gateway: LiveServer, upstream: ScriptedUpstream, name: str, streamed: bool
) -> None:
    def script() -> None:
        streaming = chat_stream({name: "Let me "}, {name: "think."}, "Yes", ".")
        whole = reply(200, chat_result("Yes.", **{name: "Let me think."}))
        upstream.script(CHAT, lambda request: streaming if request.json.get("stream") else whole)

    script()
    said = ask(gateway.url, "openai", stream=streamed)
    assert (said.text, said.reasoning) == ("Yes.", "Let me think.")
    for each in said.chunks:
        for choice in each["choices"]:
            part = choice.get("delta") or choice.get("message") or {}
            assert part.get("reasoning") == part.get("reasoning_content")
    script()
    said = ask(gateway.url, "ollama", stream=streamed)
    assert (said.text, said.reasoning) == ("Yes.", "Let me think.")


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_11_reasoning_of_earlier_turns_is_accepted(
    gateway: LiveServer, upstream: ScriptedUpstream, name: str
) -> None:
    turns = [*HELLO, {"role": "assistant", "content": "Hi", name: "They greet me."}, *HELLO]
    assert ask(gateway.url, "openai", stream=True, messages=turns).ended
    assert upstream.last(CHAT)["messages"][1]["content"] == "Hi"
    turns[1] = {"role": "assistant", "content": "Hi", "thinking": "They greet me."}
    assert ask(gateway.url, "ollama", stream=True, messages=turns).ended


def test_11_an_empty_event_is_no_answer(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    """A chunk with reasoning alone must not show up as an empty piece of text in Ollama's `response`."""
    events = chat_events({"reasoning": "hm"}, "Yes")
    upstream.script(CHAT, (STREAM_HEAD, *map(framed, events), framed(event("[DONE]")), framed(b"")))
    answer = post(gateway, "/api/generate", {"model": "mock-model", "prompt": "Well?"})
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert "".join(line.get("thinking", "") for line in lines) == "hm"
    assert "".join(line["response"] for line in lines) == "Yes"
    assert not any("thinking" in line and line["thinking"] == "" for line in lines)

"""Models on servers elsewhere, as the config names them: each kind of server with its documented manners, and the
ways to reach it, through the whole gateway."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from openai.types import completion_create_params, embedding_create_params
from openai.types.chat import completion_create_params as chat_create_params

from asking import HELLO, Dialect, ask
from certificates import Authority
from live_server import LiveServer, plain_environment, serve
from scripted_answers import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    chat_events,
    chat_result,
    chat_stream,
    event,
    reply,
    stream,
    usual_answer,
)
from scripted_proxy import ScriptedProxy
from scripted_upstream import Answer, Received, ScriptedUpstream

both = pytest.mark.parametrize("dialect", ["ollama", "openai"])
streamed_or_not = pytest.mark.parametrize("streamed", [True, False], ids=["stream", "whole"])
Start = Callable[..., LiveServer]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server whose models are these tables."""
    with ExitStack() as stack:

        def started(*tables: dict[str, Any]) -> LiveServer:
            config = tmp_path / "portico.toml"
            config.write_text(toml(*tables))
            return stack.enter_context(serve(tmp_path / "server", "--config", str(config)))

        yield started


def toml(*tables: dict[str, Any]) -> str:
    lines = []
    for table in tables:
        lines += ["[[model]]", *(f"{name} = {json.dumps(value)}" for name, value in table.items())]
    return "\n".join(lines)


def post(server: LiveServer, path: str, **body: Any) -> httpx2.Response:
    with httpx2.Client(trust_env=False, timeout=20) as client:
        return client.post(server.url + path, json={"model": "mock-model"} | body)


# ---- how it is reached


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "ours")


@pytest.fixture
def secure(authority: Authority) -> Iterator[ScriptedUpstream]:
    """A server with a private CA, which wants its callers' certificates, below a prefix."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*authority.issue("server"))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(authority.file)
    with ScriptedUpstream(tls=context, prefix="/team/a") as server:
        yield server


def reach(server: ScriptedUpstream, authority: Authority) -> dict[str, Any]:
    own = authority.issue("portico")
    return {
        "name": "mock-model",
        "engine": server.url,
        "api_key": "far-key",
        "ca_file": str(authority.file),
        "client_cert": str(own.cert),
        "client_key": str(own.key),
    }


@pytest.mark.parametrize("proxied", [False, True], ids=["straight", "proxy"])
def test_every_route_is_asked_below_the_prefix_with_tls_and_through_the_proxy(
    start: Start, secure: ScriptedUpstream, authority: Authority, proxied: bool
) -> None:
    with ScriptedProxy(password="me:sesame") as proxy:
        model = reach(secure, authority) | ({"proxy": proxy.url} if proxied else {})
        server = start(model)
        for dialect in ("ollama", "openai"):
            for streamed in (True, False):
                assert ask(server.url, dialect, stream=streamed).text == "Hello there"  # type: ignore[arg-type]
        assert post(server, "/v1/completions", prompt="a").json()["choices"][0]["text"] == "Hello there"
        assert post(server, "/api/generate", prompt="a", raw=True, stream=False).status_code == 200
        assert post(server, "/v1/embeddings", input="a").json()["data"][0]["embedding"]
        assert post(server, "/api/embed", input="a").json()["embeddings"]
        assert post(server, "/tokenize", prompt="ab").json()["tokens"] == [97, 98]
        assert post(server, "/detokenize", tokens=[97, 98]).json()["prompt"] == "ab"
        assert server.ask("GET", "/v1/models")["data"][0]["max_model_len"] == 8192
        paths = {each.path for each in secure.received}
        assert paths == {"/v1/models", CHAT, COMPLETIONS, EMBEDDINGS, "/tokenize", "/detokenize"}
        assert {each.headers["authorization"] for each in secure.received} == {"Bearer far-key"}
        assert {first.split()[0] for first in proxy.requests} == ({"CONNECT"} if proxied else set())
        assert "sesame" not in server.log_text() + server.ask_text("/metrics")


def test_http_below_a_prefix_through_a_proxy(start: Start) -> None:
    with ScriptedUpstream(prefix="/team/a") as upstream, ScriptedProxy() as proxy:
        server = start({"name": "mock-model", "engine": upstream.url, "proxy": proxy.address})
        for streamed in (True, False):
            assert ask(server.url, "openai", stream=streamed).text == "Hello there"
        assert post(server, "/tokenize", prompt="ab").json()["tokens"] == [97, 98]
        assert all(" http://127.0.0.1:" in first for first in proxy.requests)
        assert {each.path for each in upstream.received} == {"/v1/models", CHAT, "/tokenize"}


def test_endpoints_are_reached_as_the_engine_is(
    start: Start, secure: ScriptedUpstream, authority: Authority
) -> None:
    model = reach(secure, authority)
    dead = model["engine"].replace("127.0.0.1", "me:sesame@localhost")
    server = start(model | {"engine": "http://127.0.0.1:9", "endpoints": [dead]})
    said = ask(server.url, "openai", stream=False)
    assert said.text == "Hello there"
    assert said.headers["x-portico-replica"] == f"mock-model@{dead.replace('me:sesame@', '')}"


@both
@streamed_or_not
def test_what_keeps_it_from_being_reached_is_told(
    start: Start, secure: ScriptedUpstream, dialect: Dialect, streamed: bool
) -> None:
    with ScriptedProxy(password="me:sesame") as proxy:
        shut = proxy.url.replace("sesame", "open-sesame")
        server = start(
            {"name": "mock-model", "engine": secure.url},
            {"name": "shut", "engine": secure.url, "proxy": shut},
        )
        said = ask(server.url, dialect, stream=streamed)
        assert said.status == 502 and "ca_file" in (said.error or "")
        said = ask(server.url, dialect, stream=streamed, model="shut")
        assert said.status == 502
        assert f"The proxy {proxy.address} before {secure.url.removesuffix('/v1')} refused: 407" in (
            said.error or ""
        )
        assert "sesame" not in (said.error or "") + server.log_text()


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"ca_file": "none.pem"}, "none.pem: cannot be read: No such file or directory (model 'm')"),
        ({"ca_file": "portico.toml"}, "portico.toml: expected certificates in PEM form (model 'm')"),
        ({"client_key": "portico.toml"}, "client_key is given without client_cert (model 'm')"),
        ({"proxy": "socks5://me:sesame@h:1"}, "http://user:password@host:port, not socks5:// (model 'm')"),
        (
            {"engine": "http://h", "ca_file": "x"},
            "ca_file of model 'm' has no effect: no URL of it begins with",
        ),
        ({"engine": "llamacpp", "proxy": "http://h:1"}, "proxy of model 'm' has no effect: it runs here"),
        ({"engine": "https://me:sesame@h", "dtype": "half"}, "its engine is https://h,"),
    ],
    ids=["missing", "no PEM", "no cert", "socks", "http", "here", "password"],
)
def test_a_wrong_setting_is_told_at_the_start(tmp_path: Path, table: dict[str, str], says: str) -> None:
    (tmp_path / "portico.toml").write_text(toml({"name": "m", "engine": "https://127.0.0.1:9"} | table))
    done = subprocess.run(
        [sys.executable, "-m", "portico", "serve", "--port", "0"],
        cwd=tmp_path,
        env=plain_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode != 0 and says in done.stderr.replace(str(tmp_path) + "/", "")
    assert "sesame" not in done.stderr


def test_a_model_that_is_to_stand_in_and_is_not_there(tmp_path: Path) -> None:
    """Told before anything is loaded, as a wrong setting: a service manager must not try it again and again."""
    table = {"name": "m", "engine": "http://127.0.0.1:9", "fallback": ["gpt-4o-minni"]}
    other = {"name": "gpt-4o-mini", "engine": "http://127.0.0.1:9"}
    (tmp_path / "portico.toml").write_text(toml(table) + "\n" + toml(other))
    done = subprocess.run(
        [sys.executable, "-m", "portico", "serve", "--port", "0"],
        cwd=tmp_path,
        env=plain_environment(tmp_path),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 2
    assert "fallback of model 'm' names 'gpt-4o-minni'" in done.stderr and "gpt-4o-mini" in done.stderr


def test_from_the_command_line(tmp_path: Path, secure: ScriptedUpstream, authority: Authority) -> None:
    own = authority.issue("portico")
    flags = [
        "--engine-ca-file",
        authority.file,
        "--engine-client-cert",
        own.cert,
        "--engine-client-key",
        own.key,
    ]
    with ScriptedProxy(password="me:sesame") as proxy:
        proxied = {"PORTICO_ENGINE_PROXY": proxy.url}
        with serve(tmp_path / "server", "--engine", secure.url, *map(str, flags), environ=proxied) as server:
            assert server.model == "mock-model", "asked for what it has"
            assert ask(server.url, "ollama", stream=True).text == "Hello there"
            assert len(proxy.requests) > 1


# ---- OpenAI itself


SPOKEN = {
    CHAT: {*chat_create_params.CompletionCreateParamsBase.__annotations__, "stream"},
    COMPLETIONS: {*completion_create_params.CompletionCreateParamsBase.__annotations__, "stream"},
    EMBEDDINGS: set(embedding_create_params.EmbeddingCreateParams.__annotations__),
}
"""The fields that OpenAI's own client knows."""
MESSAGE = {
    "system": {"role", "content", "name"},
    "user": {"role", "content", "name"},
    "assistant": {"role", "content", "name", "refusal", "tool_calls", "function_call", "audio"},
    "tool": {"role", "content", "tool_call_id"},
}


def strict(upstream: ScriptedUpstream, request: Received) -> Answer:
    """As OpenAI: a key is needed, and a field that it does not know is 400."""
    if request.headers.get("authorization") != "Bearer sk-1":
        return reply(401, {"error": {"message": "Incorrect API key provided.", "code": "invalid_api_key"}})
    if request.path not in (*SPOKEN, "/v1/models"):
        return reply(404, {"error": {"message": f"Invalid URL (POST {request.path})", "code": None}})
    body = request.json if request.body else {}
    if unknown := sorted(set(body) - SPOKEN.get(request.path, set())):
        message = f"Unrecognized request argument supplied: {unknown[0]}"
        return reply(400, {"error": {"message": message, "type": "invalid_request_error", "code": None}})
    for place, message in enumerate(body.get("messages", ())):
        if unknown := sorted(set(message) - MESSAGE[message["role"]]):
            text = (
                f"Additional properties are not allowed ({unknown[0]!r} was unexpected) - 'messages.{place}'"
            )
            return reply(400, {"error": {"message": text, "type": "invalid_request_error", "code": None}})
    return usual_answer(upstream, request)


@pytest.fixture
def hosted() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(manners=strict) as upstream:
        yield upstream


def openais(upstream: ScriptedUpstream, **more: Any) -> dict[str, Any]:
    return {"name": "mock-model", "engine": upstream.url, "api_key": "sk-1", "strict": True} | more


OPTIONS = {
    "top_k": 40,
    "min_p": 0.1,
    "repeat_penalty": 1.1,
    "typical_p": 0.9,
    "mirostat": 1,
    "num_ctx": 2048,
    "temperature": 0.5,
    "seed": 1,
    "num_predict": 9,
    "stop": ["x"],
    "ignore_eos": True,
}
TURNS = [
    {"role": "user", "content": "Weather?"},
    {
        "role": "assistant",
        "content": "",
        "thinking": "I should look.",
        "tool_calls": [{"function": {"name": "look", "arguments": {"at": "Oslo"}}}],
    },
    {"role": "tool", "tool_name": "look", "content": "Rain"},
]


@streamed_or_not
def test_ollamas_callers_do_not_make_openai_refuse(
    start: Start, hosted: ScriptedUpstream, streamed: bool
) -> None:
    server = start(openais(hosted))
    for fields in (
        {"options": OPTIONS},
        {"options": OPTIONS, "think": True},
        {"think": "high"},
        {"messages": TURNS},
        {"format": "json"},
        {"format": {"type": "object", "properties": {"a": {"type": "integer"}}}},
    ):
        said = ask(server.url, "ollama", stream=streamed, **fields)
        assert (said.status, said.text) == (200, "Hello there"), said.error
    assert post(server, "/api/embed", input=["a", "b"]).status_code == 200
    assert post(server, "/api/embeddings", prompt="a").status_code == 200
    assert post(server, "/api/generate", prompt="a", stream=streamed, options=OPTIONS).status_code == 200
    first = hosted.requests(CHAT)[0].json
    assert first["temperature"] == 0.5 and first["seed"] == 1 and first["stop"] == ["x"]
    assert hosted.requests(CHAT)[2].json["reasoning_effort"] == "high"
    assert len(hosted.requests("/tokenize")) == 1, (
        "a route that is not there is not asked for with every num_ctx"
    )


@streamed_or_not
def test_what_openais_callers_send_goes_on_and_nothing_is_added(
    start: Start, hosted: ScriptedUpstream, streamed: bool
) -> None:
    server = start(openais(hosted))
    fields: dict[str, Any] = {"temperature": 0, "max_completion_tokens": 5, "store": False}
    if streamed:
        fields["stream_options"] = {"include_usage": True}
    for messages in (HELLO, [{"role": "developer", "content": "Be brief."}, *HELLO]):
        said = ask(server.url, "openai", stream=streamed, messages=messages, **fields)
        assert said.text == "Hello there"
    sent = hosted.requests(CHAT)[0].json
    assert sent == {"model": "mock-model", "messages": HELLO, "stream": streamed} | fields
    said = ask(server.url, "openai", stream=streamed, top_k=40)
    assert said.status == 400 and "Unrecognized request argument supplied: top_k" in (said.error or "")


@streamed_or_not
def test_openai_stands_in_for_an_engine_that_knows_more(
    start: Start, hosted: ScriptedUpstream, streamed: bool
) -> None:
    """Its callers did not choose it: what they sent to the other one is left out."""
    server = start(
        {"name": "local", "engine": "http://127.0.0.1:9", "fallback": ["mock-model"]}, openais(hosted)
    )
    fields = {"top_k": 40, "repetition_penalty": 1.1, "chat_template_kwargs": {"enable_thinking": False}}
    for dialect in ("openai", "ollama"):
        more = fields if dialect == "openai" else {"options": OPTIONS}
        said = ask(server.url, dialect, stream=streamed, model="local", **more)  # type: ignore[arg-type]
        assert (said.status, said.text) == (200, "Hello there"), said.error
        assert said.headers["x-portico-fallback"] == "mock-model:latest"
    done = post(server, "/v1/completions", model="local", prompt="a", top_k=40, min_p=0.1)
    assert done.status_code == 200


def test_openais_errors(start: Start, hosted: ScriptedUpstream) -> None:
    server = start(openais(hosted), openais(hosted, name="wrong", source="mock-model", api_key="sk-2"))
    quota = {
        "message": "You exceeded your current quota",
        "type": "insufficient_quota",
        "code": "insufficient_quota",
    }
    hosted.script(CHAT, reply(429, {"error": quota}, headers={"retry-after": "7"}))
    said = ask(server.url, "openai", stream=False)
    assert (said.status, said.code, said.headers["retry-after"]) == (429, "insufficient_quota", "7")
    said = ask(server.url, "openai", stream=False, model="wrong")
    assert said.status == 502 and "refused its key" in (said.error or "") and "sk-2" not in (said.error or "")
    long = (
        "This model's maximum context length is 8192 tokens. However, you requested 9001 tokens (8001 in the "
        "messages, 1000 in the completion)."
    )
    hosted.script(CHAT, reply(400, {"error": {"message": long, "code": "context_length_exceeded"}}))
    said = ask(server.url, "ollama", stream=False, options={"num_predict": 1000})
    assert said.text == "Hello there" and hosted.last(CHAT)["max_tokens"] == 191, (
        "what fits beside the prompt"
    )


# ---- others


def tgi(upstream: ScriptedUpstream, request: Received) -> Answer:
    """As text-generation-inference: its Messages API, a /tokenize of its own, no list of models in older ones."""
    if request.path == "/tokenize":
        return reply(
            422, b"Failed to deserialize the JSON body: missing field `inputs`", content_type="text/plain"
        )
    if request.path == CHAT:
        body = request.json
        if not body.get("stream"):
            return reply(200, chat_result())
        asked = (body.get("stream_options") or {}).get("include_usage")
        return stream(chat_events("Hello", " there", **{} if asked else {"usage": None}))
    return reply(404, b"", content_type="text/plain")


def ollama(upstream: ScriptedUpstream, request: Received) -> Answer:
    """As Ollama's /v1: a list of models without a context, nothing to tokenize with, `reasoning` for thoughts."""
    if request.path == "/v1/models":
        return reply(200, {"object": "list", "data": [{"id": "mock-model", "owned_by": "library"}]})
    if request.path not in (CHAT, COMPLETIONS, EMBEDDINGS):
        return reply(404, b"404 page not found", content_type="text/plain")
    if request.path == CHAT and request.json["model"] != "mock-model":
        message = 'model "other" not found, try pulling it first'
        error = {"message": message, "type": "not_found_error", "param": None, "code": None}
        return reply(404, {"error": error})
    if request.path == CHAT and request.json.get("stream"):
        return chat_stream({"reasoning": "Hm."}, "Hello", " there")
    return usual_answer(upstream, request)


MANNERS = {"vllm": usual_answer, "tgi": tgi, "ollama": ollama}


@both
@streamed_or_not
@pytest.mark.parametrize("kind", MANNERS)
def test_servers_of_other_makes(start: Start, dialect: Dialect, streamed: bool, kind: str) -> None:
    with ScriptedUpstream(manners=MANNERS[kind]) as upstream:
        server = start({"name": "mock-model", "engine": upstream.url})
        plenty = {"options": OPTIONS} if dialect == "ollama" else {"top_k": 4, "repetition_penalty": 1.1}
        for _ in range(3):
            said = ask(server.url, dialect, stream=streamed, **plenty)
            assert (said.text, said.finish, said.ended) == ("Hello there", "stop", True), said.error
        assert upstream.last(CHAT)["top_k"] in (4, 40)
        if kind == "ollama" and streamed:
            assert said.reasoning == "Hm."
        if kind != "vllm":
            assert len(upstream.requests("/tokenize")) <= 1
            told = post(server, "/tokenize", prompt="a")
            assert told.status_code == 400 and "has no route for that" in told.text


@both
def test_what_tgi_says_in_a_stream(start: Start, dialect: Dialect) -> None:
    """Its errors come after a 200, as a text with a word beside it."""
    with ScriptedUpstream(manners=tgi) as upstream:
        server = start({"name": "mock-model", "engine": upstream.url})
        long = (
            "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. Given: 6 `inputs` tokens "
            "and 4091 `max_new_tokens`"
        )
        upstream.script(CHAT, *[stream([event({"error": long, "error_type": "validation"})], done=False)] * 2)
        said = ask(server.url, dialect, stream=True)
        assert said.status == 400 and "4096" in (said.error or "")
        upstream.reset()
        full = {"error": "Model is overloaded", "error_type": "overloaded"}
        upstream.script(CHAT, stream([event(full)], done=False), reply(429, full))
        for streamed in (True, False):
            said = ask(server.url, dialect, stream=streamed)
            assert (said.status, said.error) == (429, "Model is overloaded")


def test_what_ollama_does_not_have_is_told_in_its_words(start: Start) -> None:
    with ScriptedUpstream(manners=ollama) as upstream:
        server = start({"name": "mine", "source": "other", "engine": upstream.url})
        said = ask(server.url, "openai", stream=False, model="mine")
        assert (said.status, said.error) == (404, 'model "other" not found, try pulling it first')
        busy = {
            "message": "server busy, please try again.  maximum pending requests exceeded",
            "type": "api_error",
        }
        upstream.script(CHAT, reply(503, {"error": busy}))
        said = ask(server.url, "ollama", stream=True, model="mine")
        assert (said.status, said.error) == (503, busy["message"])


def test_another_portico(start: Start, tmp_path: Path) -> None:
    key = {"PORTICO_API_KEY": "far-key"}
    with serve(tmp_path / "far", "--parallel", "1", environ=key) as far:
        model = {"name": "near", "source": far.model, "engine": far.openai_url}
        server = start(model | {"api_key": "far-key"}, model | {"name": "shut"})
        for dialect in ("ollama", "openai"):
            for streamed in (True, False):
                limit = {"options": {"num_predict": 5}} if dialect == "ollama" else {"max_tokens": 5}
                said = ask(server.url, dialect, stream=streamed, model="near", **limit)  # type: ignore[arg-type]
                assert said.ended and said.text, said.error
        there = far.ask("POST", "/tokenize", {"model": far.model, "messages": HELLO})
        here = server.ask("POST", "/tokenize", {"model": "near", "messages": HELLO})
        assert here["tokens"] == there["tokens"] and here["max_model_len"] == there["max_model_len"]
        said = ask(server.url, "openai", stream=False, model="shut")
        assert said.status == 502 and "refused its key" in (said.error or "")
        with openai.OpenAI(base_url=server.openai_url, api_key="k", max_retries=0) as client:
            assert client.completions.create(model="near", prompt="a", max_tokens=3).choices[0].text

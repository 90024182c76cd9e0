"""What a server supports: asked of it in ways that make it generate nothing, kept for a day, and told in an error that names
feature, server and flag."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_server import LiveServer
from portico import recording
from portico.client import gbnf
from portico.client.abilities import FEATURES, OLLAMA, PORTICO, VLLM, Ability, Probe, Software
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.outputs import Choice, Grammar, Regex
from portico.client.remembered import MOST_SECONDS, Remembered
from portico.errors import NotRunning, NotSupported, WrongKey
from scripted_answers import CHAT, chat_stream, reply, usual_answer
from scripted_upstream import Answer, Received, ScriptedUpstream
from test_client import QUICK, Both, error, said

RENDER = "/v1/chat/completions/render"
NO_PARSER = '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PORTICO_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def described(*fields: str, paths: tuple[str, ...] = ()) -> dict[str, Any]:
    """An /openapi.json as FastAPI writes it."""
    schema = {"$ref": "#/components/schemas/ChatCompletionRequest"}
    chat = {"post": {"requestBody": {"content": {"application/json": {"schema": schema}}}}}
    request = {"properties": {name: {} for name in fields}}
    found = {"paths": {CHAT: chat, **{path: {} for path in paths}}}
    return {**found, "components": {"schemas": {"ChatCompletionRequest": request}}}


class World:
    """A server of some kind. `answers`: path -> what it says, else 404; what it is asked is in `upstream`."""

    def __init__(self) -> None:
        self.answers: dict[str, Callable[[Received], Answer]] = {}
        self.owner = "vllm"
        self.upstream = ScriptedUpstream(manners=self._manners)

    def says(self, path: str, body: Any, status: int = 200) -> None:
        self.answers[path] = lambda request: reply(status, body)

    def _manners(self, upstream: ScriptedUpstream, request: Received) -> Answer:
        if request.path in self.answers:
            return self.answers[request.path](request)
        if request.path == "/v1/models":
            return reply(200, {"data": [{"id": "m", "owned_by": self.owner, "max_model_len": 4096}]})
        if request.path in (CHAT, "/v1/completions"):
            return usual_answer(upstream, request)
        return reply(404, {"detail": "Not Found"})

    def vllm(self, *, tools: bool = True, version: str = "0.32.0", documents: bool = True) -> World:
        self.owner = "vllm"
        self.says("/version", {"version": version})
        self.says("/tokenize", {"count": 1, "tokens": [1], "max_model_len": 4096})
        self.says("/detokenize", {"prompt": "a"})
        self.says(
            RENDER,
            {"token_ids": [1]} if tools else {"error": {"message": NO_PARSER, "code": 400}},
            200 if tools else 400,
        )
        if documents:
            fields = (
                "structured_outputs",
                "return_token_ids",
                "use_beam_search",
                "response_format",
                "logprobs",
                "min_tokens",
            )
            self.says("/openapi.json", described(*fields, paths=("/v1/completions", "/tokenize")))
        return self


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    with made.upstream:
        yield made


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, world: World) -> Both:
    return Both(request.param, world.upstream.url)


def probe(both: Both, **options: Any) -> Probe:
    found = both.do(lambda one: one.probe(), **options)
    assert isinstance(found, Probe)
    return found


def states(found: Probe) -> dict[str, str]:
    return {each.feature: each.state for each in found.abilities}


# ---- who it is and what it has


def test_a_vllm(both: Both, world: World) -> None:
    found = probe(world.vllm() and both)
    assert found.software == Software(name=VLLM, version="0.32.0") and found.context == 4096
    assert found.models == ("m",) and found.model == "m"
    wrong = {"embeddings"}
    assert states(found) == {name: "no" if name in wrong else "yes" for name in FEATURES}
    assert {each.feature: each.how for each in found.abilities if each.estimate} == {"logprobs": "documented"}
    assert not world.upstream.requests(CHAT), "nothing is generated"


def test_a_vllm_without_a_parser(both: Both, world: World) -> None:
    world.vllm(tools=False)
    found = probe(both)
    assert found["tools"].state == "no" and found["tools"].how == "asked"
    assert "--enable-auto-tool-choice --tool-call-parser PARSER" in str(found)
    assert not world.upstream.requests(CHAT)


def test_an_older_vllm_is_asked_with_what_it_must_refuse(both: Both, world: World) -> None:
    """It looks at the tools before it looks at the temperature."""
    world.vllm(version="0.10.0")
    del world.answers[RENDER]
    world.says("/openapi.json", described("guided_regex", "response_format", "use_beam_search"))

    def chat(request: Received) -> Answer:
        assert request.json["temperature"] == -1.0
        return error(400, "temperature must be non-negative, got -1.0.")

    world.answers[CHAT] = chat
    found = probe(both)
    assert found["tools"].state == "yes" and found["regex"].state == "no" and found["token_ids"].state == "no"
    world.answers[CHAT] = lambda request: error(400, NO_PARSER)
    assert probe(both, model="other")["tools"].state == "no"


@pytest.mark.parametrize("tools", [True, False])
def test_a_vllm_that_renders_for_nobody_is_asked_so_too(both: Both, world: World, tools: bool) -> None:
    """0.32, unless it is started with --enable-scale-out."""
    world.vllm()
    off = "Scale-out endpoints are disabled. Restart vllm serve with --enable-scale-out to enable them."
    world.answers[RENDER] = lambda request: error(403, off)
    refusal = "temperature must be non-negative, got -1.0." if tools else NO_PARSER
    world.answers[CHAT] = lambda request: error(400, refusal)
    found = probe(both)["tools"]
    assert (found.state, found.how) == ("yes" if tools else "no", "asked")


def test_a_vllm_without_documents_is_judged_by_its_version(both: Both, world: World) -> None:
    world.vllm(documents=False)
    found = probe(both)
    assert found["regex"].state == "yes" and found["regex"].estimate
    assert "estimate: by its version" in str(found)
    world.vllm(documents=False, version="0.9.1")
    found = probe(both)
    assert (found["regex"].state, found["regex"].why) == ("no", "vLLM has it since 0.11.0")
    world.vllm(documents=False, version="dev")
    assert probe(both)["regex"].state == "unknown"


def test_an_ollama(both: Both, world: World) -> None:
    world.owner = "library"
    world.says("/api/version", {"version": "0.13.1"})
    world.says("/api/show", {"capabilities": ["completion", "tools"], "details": {"format": "gguf"}})
    found = probe(both)
    assert found.software == Software(name=OLLAMA, version="0.13.1")
    told = states(found)
    assert told["tools"] == told["json_schema"] == told["regex"] == "yes"
    assert told["tokenize"] == told["token_ids"] == told["grammar"] == told["embeddings"] == "no"
    assert found["regex"].via == "json_schema" and found["regex"].estimate and not found["tools"].estimate


def test_a_stranger(both: Both, world: World) -> None:
    world.owner = "somebody"
    assert set(states(probe(both)).values()) == {"unknown", "no"}


def test_a_portico(server: LiveServer) -> None:
    with Client(server.url) as one:
        found = one.probe()
    assert found.software.name == PORTICO and found.context
    assert found["tokenize"].how == found["tools"].how == "asked"
    assert (found["regex"].state, found["regex"].via) == ("yes", "grammar")


def test_a_server_that_is_not_there(both: Both) -> None:
    both.url = "http://127.0.0.1:9"
    with pytest.raises(NotRunning):
        probe(both)


def test_a_server_that_wants_a_key(both: Both, world: World) -> None:
    world.says("/v1/models", {"error": {"message": "no key"}}, 401)
    with pytest.raises(WrongKey):
        probe(both)


# ---- what is remembered


def test_what_it_has_is_asked_once(both: Both, world: World, home: Path) -> None:
    world.vllm(tools=False)
    probe(both)
    first = len(world.upstream.received)
    probe(both)
    again = [request.path for request in world.upstream.received[first:]]
    # Who it is is asked by each client; and what it lacks, since it may have been started anew.
    assert set(again) == {"/api/version", "/openapi.json", "/v1/models", RENDER, "/version"}
    kept = json.loads((home / "client" / "abilities.json").read_text())
    (page,) = kept.values()
    assert "tools" not in page["abilities"] and page["abilities"]["regex"]["state"] == "yes"


def test_another_version_is_asked_again(both: Both, world: World) -> None:
    world.vllm()
    probe(both)
    first = len(world.upstream.received)
    world.vllm(version="0.33.0")
    probe(both)
    assert RENDER in [request.path for request in world.upstream.received[first:]]


def test_a_parser_that_was_switched_on_is_seen(both: Both, world: World) -> None:
    def twice(one: Any) -> Any:
        if both.kind == "sync":
            before = one.probe()["tools"].state
            world.vllm()
            return before, one.probe()["tools"].state

        async def run() -> Any:
            before = (await one.probe())["tools"].state
            world.vllm()
            return before, (await one.probe())["tools"].state

        return run()

    world.vllm(tools=False)
    assert both.do(twice) == ("no", "yes")


def test_it_is_forgotten_after_a_day(tmp_path: Path) -> None:
    clock = [1000.0]
    kept = Remembered(lambda: tmp_path, now=lambda: clock[0])
    software, found = Software(name=VLLM, version="1"), Ability(feature="tools", state="yes")
    kept.write("http://x", software, "m", found)
    assert kept.read("http://x", software, "m") == {"tools": found}
    assert kept.read("http://x", Software(name=VLLM, version="2"), "m") == {}
    assert kept.read("http://x", software, "other") == {}
    clock[0] += MOST_SECONDS
    assert kept.read("http://x", software, "m") == {}


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b'{"a": {"at": "x"}}'])
def test_a_file_that_is_none_is_made_anew(tmp_path: Path, damage: bytes) -> None:
    kept = Remembered(lambda: tmp_path)
    kept.path.parent.mkdir()
    kept.path.write_bytes(damage)
    found = Ability(feature="tools", state="yes")
    kept.write("http://x", Software(), "m", found)
    assert kept.read("http://x", Software(), "m") == {"tools": found}


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "client").write_text("a file")
    kept = Remembered(lambda: tmp_path)
    kept.write("http://x", Software(), "m", Ability(feature="tools", state="yes"))
    assert kept.read("http://x", Software(), "m") == {}


# ---- what a call needs


def test_a_plain_call_asks_nothing(both: Both, world: World) -> None:
    world.vllm()
    both.chat("Hello", told={"model": "m"})
    assert [request.path for request in world.upstream.received] == [CHAT]


@pytest.mark.parametrize("output", [Choice("a", "b"), Regex("a|b"), Grammar('root ::= "a"')])
def test_a_vllm_is_told_in_its_words(both: Both, world: World, output: Any) -> None:
    world.vllm()
    world.answers[CHAT] = lambda request: said("a")
    assert both.chat(told={"output": output}).parsed == "a"
    assert "structured_outputs" in world.upstream.last(CHAT)


def test_a_vllm_that_would_overlook_it(both: Both, world: World) -> None:
    world.vllm(version="0.10.0")
    world.says("/openapi.json", described("guided_regex"))
    with pytest.raises(NotSupported, match=r"vLLM 0\.10\.0 does not offer regex") as caught:
        both.chat(told={"output": Regex("a")})
    assert caught.value.feature == "regex" and caught.value.url == both.url.removesuffix("/v1")
    assert not world.upstream.requests(CHAT)


def test_an_ollama_is_given_a_schema(both: Both, world: World) -> None:
    world.owner = "library"
    world.says("/api/version", {"version": "0.13.1"})
    world.answers[CHAT] = lambda request: said('{"value": "blue"}')
    result = both.chat(told={"output": Choice("red", "blue")})
    assert result.parsed == result.text == result.choices[0].text == "blue"
    sent = world.upstream.last(CHAT)
    schema = sent["response_format"]["json_schema"]["schema"]
    assert schema["properties"]["value"] == {"type": "string", "enum": ["red", "blue"]}
    assert "structured_outputs" not in sent
    with pytest.raises(NotSupported, match=r"Ollama 0\.13\.1 does not offer grammar: JSON schemas only"):
        both.chat(told={"output": Grammar("x")})


def test_a_llama_cpp_is_given_a_grammar(both: Both, world: World) -> None:
    world.owner = "llamacpp"
    world.answers[CHAT] = lambda request: said("blue")
    assert both.chat(told={"output": Choice("red", "blue")}).parsed == "blue"
    assert world.upstream.last(CHAT)["grammar"] == "root ::= ([r] [e] [d] | [b] [l] [u] [e])"
    with pytest.raises(NotSupported, match="a backreference cannot be enforced by this server"):
        both.chat(told={"output": Regex(r"(a)\1")})


def test_token_ids(both: Both, world: World) -> None:
    world.vllm()
    both.chat(told={"return_token_ids": True})
    assert world.upstream.last(CHAT)["return_token_ids"] is True
    world.owner = "llamacpp"
    with pytest.raises(NotSupported, match=r"does not offer token_ids"):
        both.chat(told={"return_token_ids": True})


def test_the_embedded_engine_keeps_to_them(server: LiveServer) -> None:
    with Client(server.url) as one:
        for pattern in (r"\d{3}-\d{4}", r"(yes|no)!?", r"(?i)abc|def", r"[\w\-]{2,4} é\."):
            parsed = one.chat("What is 2+3?", output=Regex(pattern), max_tokens=40).parsed
            assert re.fullmatch(pattern, parsed)
        assert one.chat("Is it good?", output=Choice("very good", "bad")).parsed in ("very good", "bad")
        assert one.chat("Is it good?", output=Grammar('root ::= "yes" | "no"')).text in ("yes", "no")


# ---- in a recording


def test_a_replay_knows_what_the_recorded_run_knew(world: World, tmp_path: Path) -> None:
    world.owner = "llamacpp"
    world.answers[CHAT] = lambda request: said("blue")

    def run(url: str) -> str:
        with Client(url) as one:
            return one.chat("Colour?", model="m", output=Choice("red", "blue")).text

    run(world.upstream.url)  # what it has is on the disk now, and is not asked in the recording
    with recording.record(tmp_path / "run.jsonl"):
        first = run(world.upstream.url)
    with recording.replay(tmp_path / "run.jsonl"):
        assert run("http://127.0.0.1:9") == first


def test_those_who_ask_at_once_ask_once(world: World) -> None:
    world.vllm()
    world.answers[CHAT] = lambda request: said("a")

    async def run() -> None:
        async with AsyncClient(world.upstream.url, retry=QUICK) as one:
            await asyncio.gather(*(one.chat("x", model="m", output=Choice("a", "b")) for _ in range(20)))

    asyncio.run(run())
    assert len(world.upstream.requests("/openapi.json")) == 1


# ---- patterns as grammars


@given(st.text(max_size=8))
def test_a_text_is_written_so_that_nothing_in_it_is_a_sign(text: str) -> None:
    grammar = gbnf.of_choice([text])
    rest = re.sub(r"\[(?:\\x[0-9A-F]{2}|\\u[0-9A-F]{4}|\\U[0-9A-F]{8}|[\w ,.:;])\]", "", grammar)
    assert rest.replace(" ", "") in ("root::=", 'root::=""')


@pytest.mark.parametrize(
    ("pattern", "grammar"),
    [
        (r"a+b?", "([a]){1,} ([b]){0,1}"),
        (r"^x{2,3}$", "([x]){2,3}"),
        (r"[^a-c\d]", "[^a-c0-9]"),
        (r"[\D_]", "([^0-9] | [_])"),
        (r"[^\W]", "[a-zA-Z0-9_]"),
        (r"(?i:a1)b", "([aA] [1]) [b]"),
        (r"(?i)[a-f]", "[a-fA-F]"),
        (r"a.", "[a] [^\\n]"),
        (r"[^x]", "[^x]"),
        (r"", '""'),
        (r"(?P<n>a)|", '(([a]) | "")'),
    ],
)
def test_a_pattern(pattern: str, grammar: str) -> None:
    assert gbnf.of_regex(pattern) == f"root ::= {grammar}"


@pytest.mark.parametrize("pattern", [r"(a)\1", r"(?=a)a", r"\bword\b", r"[^\W_]", r"(?<!a)b"])
def test_what_has_no_counterpart(pattern: str) -> None:
    with pytest.raises(ValueError, match="cannot be enforced by this server"):
        gbnf.of_regex(pattern)


def test_a_stream_of_a_choice(both: Both, world: World) -> None:
    """Where the server answers in JSON, its events are JSON, and the result is what was asked for."""
    world.owner = "library"
    world.says("/api/version", {"version": "0.13.1"})
    world.answers[CHAT] = lambda request: chat_stream('{"value":', '"blue"}')
    wanted = Choice("red", "blue")
    if both.kind == "sync":
        with Client(both.url) as one, one.stream("Colour?", output=wanted) as events:
            list(events)
    else:

        async def run() -> Any:
            async with AsyncClient(both.url) as one, one.stream("Colour?", output=wanted) as events:
                _ = [event async for event in events]
                return events

        events = asyncio.run(run())
    assert events.result.text == events.result.parsed == "blue"

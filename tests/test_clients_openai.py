"""The `openai` package against the real server with the real embedded engine, its answers checked strictly.

With _strict_response_validation an answer that is not exactly of the documented shape raises. What the bundled
model says is never looked at, except where a schema or a grammar forces it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from live_server import LiveServer, serve

HELLO: Any = [{"role": "user", "content": "Hello!"}]
SMALL_TALK: Any = [{"role": "user", "content": "How are you?"}]
EXACTLY: Any = {"ignore_eos": True}  # with max_tokens: that many tokens, whatever the model would like
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Get the weather in a city",
            "parameters": {
                "type": "object",
                "properties": {
                    "city": {"type": "string", "enum": ["Paris", "Oslo"]},
                    "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                },
                "required": ["city", "unit"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "ring",
            "description": "Ring the bell",
            "parameters": {
                "type": "object",
                "properties": {"times": {"type": "integer", "enum": [1, 2, 3]}},
                "required": ["times"],
                "additionalProperties": False,
            },
        },
    },
]


def strict_client(server: LiveServer, api_key: str = "unused", *, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=server.openai_url, api_key=api_key, max_retries=0, _strict_response_validation=strict
    )


@pytest.fixture(scope="module", params=["llamacpp", "vllm"])
def server(request: pytest.FixtureRequest) -> LiveServer:
    """The same model on both engines."""
    found: LiveServer = request.getfixturevalue(
        {"llamacpp": "embedded", "vllm": "vllm_server"}[request.param]
    )
    return found


@pytest.fixture
def on_vllm(request: pytest.FixtureRequest) -> bool:
    """Where vLLM differs; docs/compatibility.md lists it."""
    return bool(request.node.callspec.params["server"] == "vllm")


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with strict_client(server) as client:
        yield client


@pytest.fixture
def lenient_client(server: LiveServer) -> Iterator[openai.OpenAI]:
    """For streamed completions: OpenAI's own chunks carry `finish_reason: null`, which its types refuse."""
    with strict_client(server, strict=False) as client:
        yield client


@pytest.fixture
async def async_client(server: LiveServer) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        base_url=server.openai_url, api_key="unused", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture
def model(server: LiveServer) -> str:
    return server.model


# ---- models


def test_models(client: openai.OpenAI, model: str) -> None:
    listed = client.models.list().data
    assert model in [each.id for each in listed]
    for each in listed:
        assert each.object == "model" and each.created > 0 and each.owned_by
        assert each.to_dict()["max_model_len"] > 0
    bare = model.removesuffix(":latest")
    for name in (bare, f"{bare}:latest", bare.upper()):
        assert client.models.retrieve(name).object == "model"


def test_an_unknown_model_is_404_with_its_code(client: openai.OpenAI) -> None:
    for ask in (
        lambda: client.models.retrieve("no-such-model"),
        lambda: client.chat.completions.create(model="no-such-model", messages=HELLO),
        lambda: client.completions.create(model="no-such-model", prompt="Hello"),
        lambda: client.embeddings.create(model="no-such-model", input="Hello"),
        lambda: client.chat.completions.create(model="no-such-model", messages=HELLO, stream=True),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert caught.value.code == "model_not_found"
        assert caught.value.type == "invalid_request_error"
        assert "no-such-model" in caught.value.message


# ---- chat


def test_chat(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, max_tokens=5, extra_body=EXACTLY)
    assert answer.object == "chat.completion" and answer.id.startswith("chatcmpl-") and answer.created > 0
    (choice,) = answer.choices
    assert choice.message.role == "assistant" and choice.message.content
    assert choice.finish_reason == "length" and choice.index == 0
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 5 > 5


def test_chat_ends_by_itself(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=400)
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("include_usage", [True, False])
def test_chat_streams(client: openai.OpenAI, model: str, include_usage: bool, on_vllm: bool) -> None:
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}
    chunks = list(
        client.chat.completions.create(
            model=model, messages=HELLO, max_completion_tokens=12, stream=True, extra_body=EXACTLY, **options
        )
    )
    assert len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}) == 1
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    roles = [choice.delta.role for chunk in chunks for choice in chunk.choices]
    assert roles[0] == "assistant" and set(roles[1:]) == {None}
    finishes = [choice.finish_reason for chunk in chunks for choice in chunk.choices]
    assert finishes[-1] == "length" and set(finishes[:-1]) == {None}
    assert sum(bool(choice.delta.content) for chunk in chunks for choice in chunk.choices) > 3
    if include_usage:
        assert chunks[-1].choices == [] and chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 12
        assert all(chunk.usage is None for chunk in chunks[:-1])
        assert all(on_vllm or "usage" in chunk.model_fields_set for chunk in chunks[:-1])
    else:
        assert all(chunk.usage is None and chunk.choices for chunk in chunks)


def test_a_limit_beyond_the_context_is_no_error(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(model=model, messages=HELLO, temperature=0, max_tokens=10_000_000)
    assert answer.choices[0].message.content is not None


def test_a_prompt_that_does_not_fit_is_400_with_its_code(client: openai.OpenAI, model: str) -> None:
    limit = client.models.retrieve(model).to_dict()["max_model_len"]
    assert isinstance(limit, int)
    long: Any = [{"role": "user", "content": "hello there " * limit}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=model, messages=long, stream=stream)
        assert caught.value.code == "context_length_exceeded"
        assert str(limit) in caught.value.message


def test_a_conversation_with_parts_and_a_developer(client: openai.OpenAI, model: str) -> None:
    messages: Any = [
        {"role": "developer", "content": "You are brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "text", "text": " there"}]},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "Bye", "name": "ada"},
    ]
    alone = client.chat.completions.create(model=model, messages=messages[-1:], max_tokens=2)
    whole = client.chat.completions.create(model=model, messages=messages, max_tokens=2)
    assert alone.usage and whole.usage and whole.usage.prompt_tokens > alone.usage.prompt_tokens + 5


def test_what_only_a_hosted_api_knows_is_ignored(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=HELLO,
        max_tokens=3,
        store=True,
        metadata={"a": "b"},
        service_tier="auto",
        prompt_cache_key="x",
        safety_identifier="y",
        user="z",
        verbosity="low",
        modalities=["text"],
        prediction={"type": "content", "content": "Hi"},
        extra_body={**EXACTLY, "no_such_field": {"a": 1}, "top_k": 5, "min_p": 0.05, "min_tokens": 1},
    )
    assert answer.usage and answer.usage.completion_tokens == 3


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices(client: openai.OpenAI, model: str, stream: bool) -> None:
    asked: Any = {
        "model": model,
        "messages": HELLO,
        "n": 2,
        "max_tokens": 4,
        "temperature": 1,
        "extra_body": EXACTLY,
    }
    if not stream:
        answer = client.chat.completions.create(**asked)
        assert [choice.index for choice in answer.choices] == [0, 1]
        assert all(choice.message.content for choice in answer.choices)
        assert answer.usage and answer.usage.completion_tokens == 8
        return
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    ended = [choice.index for chunk in chunks for choice in chunk.choices if choice.finish_reason]
    assert sorted(ended) == [0, 1]
    started = [choice.index for chunk in chunks for choice in chunk.choices if choice.delta.role]
    assert sorted(started) == [0, 1]
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 8


def test_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=6, logprobs=True, top_logprobs=3, extra_body=EXACTLY
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None and len(logprobs.content) == 6
    for each in logprobs.content:
        assert each.logprob <= 0 and len(each.top_logprobs) == 3
        assert max(top.logprob for top in each.top_logprobs) >= each.logprob - 1e-4
    assert b"".join(bytes(each.bytes or ()) for each in logprobs.content).decode(errors="replace").strip()
    chunks = client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=6, logprobs=True, stream=True, extra_body=EXACTLY
    )
    streamed = [
        token
        for chunk in chunks
        for choice in chunk.choices
        if choice.logprobs
        for token in choice.logprobs.content or ()
    ]
    assert len(streamed) == 6


def test_logit_bias_forbids_a_token(client: openai.OpenAI, server: LiveServer, model: str) -> None:
    asked: Any = {"model": model, "messages": HELLO, "temperature": 0, "max_tokens": 1}
    first = client.chat.completions.create(**asked, logprobs=True).choices[0].logprobs
    assert first and first.content
    (token, *_) = server.ask("POST", "/tokenize", {"model": model, "prompt": first.content[0].token})[
        "tokens"
    ]
    biased = client.chat.completions.create(**asked, logprobs=True, logit_bias={str(token): -100})
    assert biased.choices[0].logprobs and biased.choices[0].logprobs.content
    assert biased.choices[0].logprobs.content[0].token != first.content[0].token


# ---- shapes of answers


class Report(BaseModel):
    verdict: Literal["good", "bad"]
    certain: bool


def test_a_parsed_answer(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.parse(model=model, messages=HELLO, response_format=Report)
    assert isinstance(answer.choices[0].message.parsed, Report)


def test_a_parsed_stream(client: openai.OpenAI, model: str) -> None:
    with client.chat.completions.stream(model=model, messages=HELLO, response_format=Report) as stream:
        for _ in stream:
            pass
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Report)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "no-such-type"},
        {"type": "object", "properties": {"a": {"$ref": "#/$defs/missing"}}, "required": ["a"]},
        {"type": "object", "properties": {"a": "not a schema"}, "required": ["a"]},
    ],
)
def test_a_schema_nobody_can_follow_is_400(client: openai.OpenAI, model: str, schema: Any) -> None:
    shape: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=HELLO, response_format=shape, max_tokens=20)
    assert client.chat.completions.create(model=model, messages=HELLO, max_tokens=2).choices


# ---- tools


def checked(name: str, arguments: str) -> dict[str, Any]:
    """The arguments, after checking them against the tool's schema."""
    values = json.loads(arguments)
    (schema,) = (tool["function"]["parameters"] for tool in TOOLS if tool["function"]["name"] == name)
    assert set(values) == set(schema["required"])
    assert all(value in schema["properties"][key]["enum"] for key, value in values.items())
    return dict(values)


def test_a_required_call_comes_though_the_model_would_rather_talk(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model, messages=SMALL_TALK, tools=TOOLS, tool_choice="required", temperature=0
    )
    (choice,) = answer.choices
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    assert choice.message.tool_calls
    for call in choice.message.tool_calls:
        assert call.type == "function" and call.id
        checked(call.function.name, call.function.arguments)


@pytest.mark.parametrize("name", ["get_weather", "ring"])
def test_a_named_call(client: openai.OpenAI, model: str, name: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=SMALL_TALK,
        tools=TOOLS,
        tool_choice={"type": "function", "function": {"name": name}},
        temperature=0,
    )
    (call,) = answer.choices[0].message.tool_calls or ()
    assert call.type == "function" and call.function.name == name
    checked(name, call.function.arguments)


def test_a_forced_call_is_not_lost_in_white_space(client: openai.OpenAI, model: str, on_vllm: bool) -> None:
    """A grammar that allows white space anywhere lets a small model write nothing else until its limit: one
    call in twelve, at its usual temperature."""
    if on_vllm:
        pytest.skip("the grammar of a forced call is vLLM's own, and has no bound for white space")
    for _ in range(50):
        answer = client.chat.completions.create(
            model=model,
            messages=SMALL_TALK,
            tools=TOOLS[:1],
            tool_choice={"type": "function", "function": {"name": "get_weather"}},
            max_tokens=100,
        )
        assert answer.choices[0].finish_reason == "tool_calls"


def test_a_schema_is_not_lost_in_white_space(client: openai.OpenAI, model: str) -> None:
    """Without a bound vLLM's grammars let one answer in four go on to its limit."""
    schema = {
        "type": "object",
        "properties": {"sky": {"enum": ["clear", "cloudy"]}, "cold": {"type": "boolean"}},
        "required": ["sky", "cold"],
    }
    for seed in range(20):
        answer = client.chat.completions.create(
            model=model,
            messages=SMALL_TALK,
            response_format={"type": "json_schema", "json_schema": {"name": "weather", "schema": schema}},
            max_tokens=100,
            seed=seed,
        )
        assert answer.choices[0].finish_reason == "stop"
        assert set(json.loads(answer.choices[0].message.content or "")) == {"sky", "cold"}


def test_a_required_call_streams(client: openai.OpenAI, model: str) -> None:
    chunks: list[ChatCompletionChunk] = list(
        client.chat.completions.create(
            model=model, messages=SMALL_TALK, tools=TOOLS, tool_choice="required", stream=True, temperature=0
        )
    )
    deltas = [
        delta for chunk in chunks for choice in chunk.choices for delta in choice.delta.tool_calls or ()
    ]
    assert deltas and {delta.index for delta in deltas} == {0}
    assert deltas[0].id and deltas[0].function and deltas[0].function.name
    assert all(delta.id is None for delta in deltas[1:])
    arguments = "".join(delta.function.arguments or "" for delta in deltas if delta.function)
    checked(deltas[0].function.name, arguments)
    assert [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason] == ["tool_calls"]
    assert not any(choice.delta.content for chunk in chunks for choice in chunk.choices)


def test_auto_and_a_round_trip(client: openai.OpenAI, model: str) -> None:
    """Whatever the model decides, the answer is well-formed and can be sent back with the tool's result."""
    question: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = client.chat.completions.create(
        model=model, messages=question, tools=TOOLS, tool_choice="auto", temperature=0, max_tokens=80
    )
    message = answer.choices[0].message
    calls = message.tool_calls or []
    assert (answer.choices[0].finish_reason == "tool_calls") == bool(calls)
    results = [{"role": "tool", "tool_call_id": call.id, "content": "17 degrees"} for call in calls]
    history: Any = [*question, message.to_dict(), *results, {"role": "user", "content": "Thanks"}]
    assert client.chat.completions.create(model=model, messages=history, tools=TOOLS, max_tokens=5).choices


def test_none_calls_nothing(client: openai.OpenAI, model: str) -> None:
    answer = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": "What is the weather in Paris?"}],
        tools=TOOLS,
        tool_choice="none",
        max_tokens=60,
        temperature=0,
    )
    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].finish_reason in ("stop", "length")


def test_a_choice_that_names_no_tool_is_400(client: openai.OpenAI, model: str) -> None:
    choice: Any = {"type": "function", "function": {"name": "no_such_tool"}}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model=model, messages=HELLO, tools=TOOLS, tool_choice=choice)
    assert "tool_choice" in f"{caught.value.param} {caught.value.message}"
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(model=model, messages=HELLO, tool_choice="required")


# ---- completions


def test_completions(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(model=model, prompt="Hello", max_tokens=5, extra_body=EXACTLY)
    assert answer.object == "text_completion" and answer.id.startswith("cmpl-")
    assert answer.choices[0].text and answer.choices[0].finish_reason == "length"
    assert answer.usage and answer.usage.completion_tokens == 5


def test_completions_stream(lenient_client: openai.OpenAI, model: str) -> None:
    chunks = list(
        lenient_client.completions.create(
            model=model,
            prompt="Hello",
            max_tokens=8,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=EXACTLY,
        )
    )
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage and chunks[-1].usage.completion_tokens == 8 and chunks[-1].choices == []


def test_several_prompts(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt=["Hello", "What is", "Good"], max_tokens=4, n=2, echo=True, extra_body=EXACTLY
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3, 4, 5]
    starts = ["Hello", "Hello", "What is", "What is", "Good", "Good"]
    assert all(c.text.startswith(start) for c, start in zip(answer.choices, starts, strict=True))
    assert answer.usage and answer.usage.completion_tokens == 24


@pytest.mark.parametrize("stream", [False, True])
def test_echo(client: openai.OpenAI, lenient_client: openai.OpenAI, model: str, stream: bool) -> None:
    asked: Any = {
        "model": model,
        "prompt": "Hello there",
        "max_tokens": 3,
        "echo": True,
        "extra_body": EXACTLY,
    }
    if stream:
        chunks = lenient_client.completions.create(**asked, stream=True)
        text = "".join(choice.text for chunk in chunks for choice in chunk.choices)
    else:
        text = client.completions.create(**asked).choices[0].text
    assert text.startswith("Hello there") and len(text) > len("Hello there")


def test_legacy_logprobs(client: openai.OpenAI, model: str) -> None:
    answer = client.completions.create(
        model=model, prompt="Hello", max_tokens=4, logprobs=2, extra_body=EXACTLY
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs and logprobs.tokens and logprobs.token_logprobs and logprobs.top_logprobs
    assert len(logprobs.tokens) == len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 4
    assert logprobs.text_offset and logprobs.text_offset == sorted(logprobs.text_offset)
    assert all(len(top) >= 2 for top in logprobs.top_logprobs)


def test_a_prompt_of_tokens(client: openai.OpenAI, server: LiveServer, model: str) -> None:
    tokens = server.ask("POST", "/tokenize", {"model": model, "prompt": "Hello there"})["tokens"]
    assert len(tokens) > 1
    answer = client.completions.create(
        model=model, prompt=tokens, max_tokens=3, echo=True, extra_body=EXACTLY
    )
    assert answer.choices[0].text.startswith("Hello there")
    assert answer.usage and answer.usage.prompt_tokens == len(tokens)


def test_a_suffix_is_refused_where_the_model_cannot(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model=model, prompt="def f(", suffix="return 1", max_tokens=3)
    assert "suffix" in caught.value.message or caught.value.param == "suffix"


# ---- what is refused


def test_embeddings_are_refused_by_a_model_without(client: openai.OpenAI, model: str) -> None:
    with pytest.raises(openai.BadRequestError, match="embed"):
        client.embeddings.create(model=model, input="Hello")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": "many"}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"top_logprobs": 50, "logprobs": True}, "top_logprobs"),
        ({"messages": "hello"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "wizard", "content": "x"}]}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages"),
        ({"tools": "none"}, "tools"),
        ({"response_format": {"type": "no-such-format"}}, "response_format"),
        ({"stop": 5}, "stop"),
    ],
)
def test_a_wrong_field_is_400_and_named(
    client: openai.OpenAI, model: str, body: Any, param: str, on_vllm: bool
) -> None:
    if on_vllm and "wizard" in str(body):
        pytest.skip("vLLM takes any role and leaves it to the chat template")
    with pytest.raises(openai.BadRequestError) as caught:
        client.post(
            "/chat/completions",
            body={"model": model, "messages": HELLO, "max_tokens": 2} | body,
            cast_to=object,
        )
    assert caught.value.type == "invalid_request_error"
    assert (caught.value.param or "").startswith(param)


def test_unknown_paths_are_404_in_openais_shape(client: openai.OpenAI, model: str) -> None:
    for ask in (
        lambda: client.responses.create(model=model, input="Hello"),
        lambda: client.audio.speech.create(model=model, voice="a", input="Hello"),
        lambda: client.post("/messages", body={"model": model}, cast_to=object),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            ask()
        assert isinstance(caught.value.body, dict) and caught.value.body["message"]


def test_keys(tmp_path: Path) -> None:
    with serve(tmp_path, environ={"PORTICO_API_KEY": "first,second"}) as server_with_keys:
        assert server_with_keys.health()["status"]  # open, for those who only watch
        for key in ("wrong", "first,second", "fir"):
            with (
                strict_client(server_with_keys, key) as client,
                pytest.raises(openai.AuthenticationError) as no,
            ):
                client.models.list()
            assert no.value.code == "invalid_api_key"
        for key in ("first", "second"):
            with strict_client(server_with_keys, key) as client:
                assert client.models.list().data
        log = server_with_keys.log_text()
        assert "first" not in log and "second" not in log


# ---- the asynchronous client


async def test_async_stream(async_client: openai.AsyncOpenAI, model: str) -> None:
    stream = await async_client.chat.completions.create(
        model=model, messages=HELLO, max_tokens=6, stream=True, extra_body=EXACTLY
    )
    texts = [
        choice.delta.content async for chunk in stream for choice in chunk.choices if choice.delta.content
    ]
    assert "".join(texts)
    answer = await async_client.chat.completions.create(model=model, messages=HELLO, max_tokens=2)
    assert answer.choices[0].message.content is not None

"""The `ollama` package against the real server with the real embedded engine: every method it has.

The client parses answers into its own pydantic types, so an answer of another shape fails by itself. What the
bundled model says is never looked at, except where a schema forces it.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import ollama
import pytest
from pydantic import BaseModel

from live_server import LiveServer

FIVE_TOKENS = {"num_predict": 5, "ignore_eos": True, "temperature": 0}
HELLO = [{"role": "user", "content": "Hello!"}]


@pytest.fixture(scope="module", params=["llamacpp", "vllm"])
def server(request: pytest.FixtureRequest) -> LiveServer:
    """The same model on both engines."""
    found: LiveServer = request.getfixturevalue(
        {"llamacpp": "embedded", "vllm": "vllm_server"}[request.param]
    )
    return found


@pytest.fixture
def client(server: LiveServer) -> Iterator[ollama.Client]:
    client = ollama.Client(host=server.url)
    yield client
    client.close()


@pytest.fixture
async def async_client(server: LiveServer) -> AsyncIterator[ollama.AsyncClient]:
    client = ollama.AsyncClient(host=server.url)
    yield client
    await client.close()


@pytest.fixture
def model(server: LiveServer) -> str:
    return server.model


def assert_metrics(
    final: ollama.ChatResponse | ollama.GenerateResponse, *, tokens: int | None = None
) -> None:
    """Durations and counts stand in the last object, none of them zero: clients divide by them."""
    assert final.done is True
    for name in ("total_duration", "load_duration", "prompt_eval_duration", "eval_duration"):
        value = getattr(final, name)
        assert isinstance(value, int) and value > 0, name
    assert final.prompt_eval_count and final.eval_count
    assert final.total_duration >= final.eval_duration
    if tokens is not None:
        assert final.eval_count == tokens


# ---- what there is


def test_list(client: ollama.Client, model: str) -> None:
    models = client.list().models
    assert any((each.model or "").startswith(model.removesuffix(":latest")) for each in models)
    for each in models:
        assert each.model and ":" in each.model
        assert re.fullmatch(r"[0-9a-f]{64}", each.digest or "")
        assert each.size and each.size > 1_000_000
        assert each.modified_at is not None and each.modified_at.tzinfo is not None
        assert each.details and each.details.family and each.details.format == "gguf"
        assert each.details.parameter_size and each.details.quantization_level


def test_show(client: ollama.Client, model: str) -> None:
    shown = client.show(model)
    assert shown.modelinfo
    architecture = shown.modelinfo["general.architecture"]
    assert shown.modelinfo[f"{architecture}.context_length"] > 0
    assert shown.modelinfo["general.parameter_count"] > 1_000_000
    assert {"completion", "tools"} <= set(shown.capabilities or ())
    assert "embedding" not in (shown.capabilities or ())
    assert ".Tools" in (shown.template or "")  # editors look for it before they offer tools
    assert shown.details and shown.details.quantization_level


def test_ps_lists_what_is_loaded(client: ollama.Client, model: str) -> None:
    client.generate(model, "Hello", options=FIVE_TOKENS, keep_alive="10m")
    (running,) = (each for each in client.ps().models if each.model)
    assert running.name == running.model and running.size and running.context_length
    assert running.expires_at is not None
    left = (running.expires_at - datetime.now(UTC)).total_seconds()
    assert 500 < left <= 601


def test_an_unknown_model_is_404_on_every_route(client: ollama.Client) -> None:
    for ask in (
        lambda: client.show("no-such-model"),
        lambda: client.chat("no-such-model", HELLO),
        lambda: client.generate("no-such-model", "Hello"),
        lambda: client.embed("no-such-model", "Hello"),
        lambda: client.copy("no-such-model", "other"),
        lambda: client.delete("no-such-model"),
        lambda: list(client.chat("no-such-model", HELLO, stream=True)),
    ):
        with pytest.raises(ollama.ResponseError, match="not found") as caught:
            ask()
        assert caught.value.status_code == 404


# ---- chat


def test_chat(client: ollama.Client, model: str) -> None:
    before = datetime.now(UTC)
    answer = client.chat(model, HELLO, options=FIVE_TOKENS)
    assert answer.model == model
    assert answer.message.role == "assistant" and answer.message.content
    assert answer.done_reason == "length"
    assert abs((datetime.fromisoformat(answer.created_at or "") - before).total_seconds()) < 60
    assert_metrics(answer, tokens=5)


def test_chat_ends_by_itself(client: ollama.Client, model: str) -> None:
    answer = client.chat(model, HELLO, options={"num_predict": 400, "temperature": 0})
    assert answer.done_reason == "stop"
    assert (answer.eval_count or 0) < 400


def test_chat_streams(client: ollama.Client, model: str) -> None:
    chunks = list(client.chat(model, HELLO, stream=True, options=FIVE_TOKENS | {"num_predict": 12}))
    *deltas, final = chunks
    assert len(deltas) > 3
    assert not any(chunk.done for chunk in deltas)
    assert "".join(chunk.message.content or "" for chunk in deltas)
    assert final.done_reason == "length" and final.message.content == ""
    assert_metrics(final, tokens=12)
    assert {chunk.model for chunk in chunks} == {model}


def test_chat_with_a_conversation(client: ollama.Client, model: str) -> None:
    messages = [
        {"role": "system", "content": "You are brief."},
        {"role": "user", "content": "My name is Bo."},
        ollama.Message(role="assistant", content="Noted."),
        {"role": "user", "content": "What is my name?"},
    ]
    short = client.chat(model, messages[-1:], options=FIVE_TOKENS)
    long = client.chat(model, messages, options=FIVE_TOKENS)
    assert (long.prompt_eval_count or 0) > (short.prompt_eval_count or 0) + 10


def test_a_schema_shapes_the_answer(client: ollama.Client, model: str) -> None:
    class Weather(BaseModel):
        sky: Literal["clear", "cloudy"]
        cold: bool

    def check(text: str, done_reason: str | None) -> None:
        assert Weather.model_validate_json(text) and done_reason == "stop"

    options = {"temperature": 0, "num_predict": 200}
    answer = client.chat(model, HELLO, format=Weather.model_json_schema(), options=options)
    check(answer.message.content or "", answer.done_reason)
    chunks = list(
        client.generate(model, "Hello", format=Weather.model_json_schema(), options=options, stream=True)
    )
    check("".join(chunk.response or "" for chunk in chunks), chunks[-1].done_reason)


def test_format_json_gives_json(client: ollama.Client, model: str) -> None:
    options = {"temperature": 0, "num_predict": 200, "stop": ["\n\n"]}
    answer = client.generate(
        model, "Give the name and age of Ada, 36, as JSON.", format="json", options=options
    )
    if answer.done_reason == "stop":
        assert isinstance(json.loads(answer.response), dict)
    else:  # a small model may not find the end, but it began an object and nothing else
        assert answer.response.lstrip().startswith("{")


def test_an_empty_format_means_none(client: ollama.Client, model: str) -> None:
    assert client.chat(model, HELLO, format="", options=FIVE_TOKENS).message.content


def get_weather(city: str, unit: str = "celsius") -> str:
    """Get the weather in a city.

    Args:
        city: the city's name
        unit: the unit of the temperature
    """
    return f"17 degrees {unit} in {city}"


def test_a_function_as_a_tool(client: ollama.Client, model: str) -> None:
    answer = client.chat(
        model,
        [{"role": "user", "content": "What is the weather in Paris?"}],
        tools=[get_weather],
        options={"num_predict": 60, "temperature": 0},
    )
    assert answer.message.tool_calls or answer.message.content
    assert answer.done_reason in ("stop", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_is_forced_whole_and_with_an_object(client: ollama.Client, model: str, stream: bool) -> None:
    """tool_choice is an extension of ours; with it a model that only wants to chat must call all the same."""
    cities = {"type": "string", "enum": ["Paris", "Oslo"]}
    schema = {"type": "object", "properties": {"city": cities}, "required": ["city"]}
    tool = {"type": "function", "function": {"name": "get_weather", "description": "x", "parameters": schema}}
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": "How are you?"}],
        "tools": [tool],
        "tool_choice": "required",
        "stream": stream,
        "options": {"num_predict": 200},
    }
    answers = client._request(ollama.ChatResponse, "POST", "/api/chat", json=body, stream=stream)
    chunks = list(answers) if stream else [answers]
    calls = [call for chunk in chunks for call in chunk.message.tool_calls or ()]
    assert [call.function.name for call in calls] == ["get_weather"]
    arguments = dict(calls[0].function.arguments)
    assert arguments in ({"city": "Paris"}, {"city": "Oslo"})
    assert chunks[-1].done and chunks[-1].done_reason == "stop"
    history = [
        *body["messages"],
        {"role": "assistant", "tool_calls": [call.model_dump() for call in calls]},
        {"role": "tool", "tool_name": "get_weather", "content": get_weather(**arguments)},
    ]
    assert client.chat(model, history, tools=[get_weather], options=FIVE_TOKENS).done


def test_logprobs(client: ollama.Client, model: str) -> None:
    schema = {"enum": ["yes", "no"]}  # plain letters, so that no token is half a character
    answer = client.chat(
        model, HELLO, format=schema, logprobs=True, top_logprobs=3, options={"temperature": 0}
    )
    assert answer.logprobs
    said = "".join(each.token for each in answer.logprobs)
    assert said.strip() == (answer.message.content or "").strip() != ""
    for each in answer.logprobs:
        assert each.logprob <= 0 and len(each.top_logprobs or ()) == 3
    assert client.chat(model, HELLO, options=FIVE_TOKENS).logprobs is None


def test_thinking_is_refused_by_a_model_that_cannot(client: ollama.Client, model: str) -> None:
    if "thinking" in (client.show(model).capabilities or ()):
        assert client.chat(model, HELLO, think=True, options=FIVE_TOKENS).done
        return
    with pytest.raises(ollama.ResponseError, match="does not support thinking") as caught:
        client.chat(model, HELLO, think=True)
    assert caught.value.status_code == 400
    assert client.chat(model, HELLO, think=False, options=FIVE_TOKENS).done


def test_images_are_refused_by_a_model_that_cannot_see(client: ollama.Client, model: str) -> None:
    pixel = b"\x89PNG\r\n\x1a\n" + b"\0" * 32
    with pytest.raises(ollama.ResponseError) as caught:
        client.chat(model, [{"role": "user", "content": "What is this?", "images": [pixel]}])
    assert caught.value.status_code == 400
    assert "image" in caught.value.error or "vision" in caught.value.error


# ---- generate


def test_generate(client: ollama.Client, model: str) -> None:
    first = client.generate(model, "Hello!", system="You are brief.", options=FIVE_TOKENS)
    assert first.response and first.done_reason == "length"
    assert_metrics(first, tokens=5)
    assert first.context and all(isinstance(token, int) for token in first.context)
    second = client.generate(model, "And now?", context=first.context, options=FIVE_TOKENS)
    assert (second.prompt_eval_count or 0) > len(first.context)


def test_generate_streams(client: ollama.Client, model: str) -> None:
    *deltas, final = client.generate(model, "Hello!", stream=True, options=FIVE_TOKENS)
    assert "".join(chunk.response or "" for chunk in deltas) and final.response == ""
    assert final.context
    assert_metrics(final, tokens=5)


def test_generate_raw_has_no_template(client: ollama.Client, model: str) -> None:
    templated = client.generate(model, "Hello", options=FIVE_TOKENS)
    raw = client.generate(model, "Hello", raw=True, options=FIVE_TOKENS)
    assert (raw.prompt_eval_count or 0) < (templated.prompt_eval_count or 0)
    assert raw.context is None
    with pytest.raises(ollama.ResponseError, match="raw mode does not support"):
        client.generate(model, "Hello", raw=True, system="You are brief.")


def test_stop_ends_before_the_word(client: ollama.Client, model: str) -> None:
    options = {"temperature": 0, "num_predict": 40, "ignore_eos": True}
    whole = client.generate(model, "Hello!", options=options).response
    word = whole.split()[-1]
    stopped = client.generate(model, "Hello!", options=options | {"stop": [word]})
    assert word not in stopped.response and stopped.done_reason == "stop"


def test_the_same_seed_says_the_same(client: ollama.Client, model: str) -> None:
    options = {"seed": 7, "temperature": 1.5, "num_predict": 16, "ignore_eos": True}
    answers = {client.generate(model, "Hello!", options=options).response for _ in range(3)}
    others = {
        client.generate(model, "Hello!", options=options | {"seed": seed}).response for seed in range(4)
    }
    assert len(others | answers) > len(answers)
    # The first one may differ: the prompt was not in the engine's cache, and rounding depends on that.
    assert len(answers) <= 2


def test_a_suffix_is_refused_where_the_model_cannot(client: ollama.Client, model: str) -> None:
    with pytest.raises(ollama.ResponseError, match=r"insert|suffix") as caught:
        client.generate(model, "def f(", suffix="return 1")
    assert caught.value.status_code == 400


def test_unknown_options_are_ignored(client: ollama.Client, model: str) -> None:
    options = FIVE_TOKENS | {"mirostat": 2, "num_gpu": 99, "num_ctx": 131072, "no_such_option": [1]}
    assert_metrics(client.generate(model, "Hello", options=options), tokens=5)


def test_max_tokens_is_another_name_of_num_predict(client: ollama.Client, model: str) -> None:
    options = {"max_tokens": 4, "ignore_eos": True}
    assert_metrics(client.generate(model, "Hello", options=options), tokens=4)


def test_load_and_unload(client: ollama.Client, model: str) -> None:
    loaded = client.generate(model, "", keep_alive="5m")
    assert (loaded.response, loaded.done, loaded.done_reason) == ("", True, "load")
    assert client.ps().models
    unloaded = client.chat(model, [], keep_alive=0)
    assert (unloaded.message.content, unloaded.done, unloaded.done_reason) == ("", True, "unload")
    assert not client.ps().models
    assert client.chat(model, HELLO, options=FIVE_TOKENS).done  # and it loads again by itself


# ---- embeddings: the bundled model has none


def test_embeddings_are_refused_by_a_model_without(client: ollama.Client, model: str) -> None:
    for ask in (lambda: client.embed(model, ["a", "b"]), lambda: client.embeddings(model, "a")):
        with pytest.raises(ollama.ResponseError, match="embed") as caught:
            ask()
        assert caught.value.status_code == 400


# ---- what changes what there is


def test_create_copy_and_delete(client: ollama.Client, model: str) -> None:
    before = {each.model for each in client.list().models}
    created = client.create(
        "sailor",
        from_=model,
        system="You are a sailor.",
        parameters={"temperature": 0.1, "num_predict": 5},
        messages=[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ahoy"}],
    )
    assert created.status == "success"
    try:
        statuses = [each.status for each in client.create("sailor2", from_="sailor", stream=True)]
        assert statuses[-1] == "success"
        client.copy("sailor", "seaman")
        names = {each.model for each in client.list().models}
        assert names - before == {"sailor:latest", "sailor2:latest", "seaman:latest"}
        shown = client.show("seaman")
        assert "You are a sailor." in (shown.modelfile or "") and "num_predict" in (shown.parameters or "")
        plain = client.chat(model, HELLO, options={"num_predict": 5, "ignore_eos": True})
        answer = client.chat("seaman", HELLO, options={"ignore_eos": True})
        assert answer.model == "seaman" and answer.eval_count == 5
        assert (answer.prompt_eval_count or 0) > (plain.prompt_eval_count or 0)
    finally:
        for name in ("sailor", "sailor2:latest", "seaman"):
            client.delete(name)
    assert {each.model for each in client.list().models} == before
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.delete("sailor")


def test_blobs(client: ollama.Client, server: LiveServer, tmp_path: Path) -> None:
    file = tmp_path / "piece.bin"
    file.write_bytes(b"some bytes")
    digest = client.create_blob(file)
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert server.ask("HEAD", f"/api/blobs/{digest}") is None
    assert client.create_blob(file) == digest


def test_pull_of_what_is_there_succeeds_at_once(client: ollama.Client, model: str) -> None:
    assert client.pull(model).status == "success"
    assert [each.status for each in client.pull(model, stream=True)][-1] == "success"


def test_pull_of_what_is_nowhere_fails_with_a_reason(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.pull("no-such-model-anywhere")
    assert "no-such-model-anywhere" in caught.value.error
    with pytest.raises(ollama.ResponseError):
        list(client.pull("no-such-model-anywhere", stream=True))


def test_push_says_that_it_is_not_there(client: ollama.Client, model: str) -> None:
    with pytest.raises(ollama.ResponseError):
        list(client.push(model, stream=True))


def test_what_the_server_has_not_is_404(client: ollama.Client, model: str) -> None:
    with pytest.raises(ollama.ResponseError) as caught:
        client.systemone(model, "state", {})
    assert caught.value.status_code == 404


# ---- the asynchronous client


async def test_async_chat(async_client: ollama.AsyncClient, model: str) -> None:
    answer = await async_client.chat(model, HELLO, options=FIVE_TOKENS)
    assert_metrics(answer, tokens=5)
    chunks = [
        chunk async for chunk in await async_client.chat(model, HELLO, stream=True, options=FIVE_TOKENS)
    ]
    assert "".join(chunk.message.content or "" for chunk in chunks)
    assert_metrics(chunks[-1], tokens=5)


async def test_async_generate_list_show_and_ps(async_client: ollama.AsyncClient, model: str) -> None:
    assert_metrics(await async_client.generate(model, "Hello", options=FIVE_TOKENS), tokens=5)
    assert (await async_client.list()).models and (await async_client.ps()).models
    assert (await async_client.show(model)).modelinfo
    with pytest.raises(ollama.ResponseError):
        await async_client.embed(model, "a")

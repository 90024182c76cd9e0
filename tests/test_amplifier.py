"""The provider for Amplifier against a server that behaves as badly as a test asks: what is sent, what comes back, what
is asked again, and which of Amplifier's errors says what. Mounted by Amplifier's real loader."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from amplifier_core import llm_errors
from amplifier_core.message_models import (
    ChatRequest,
    ImageBlock,
    Message,
    ReasoningBlock,
    ResponseFormatJson,
    ResponseFormatJsonSchema,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    ToolSpec,
)
from amplifier_core.validation.behavioral import ProviderBehaviorTests
from amplifier_core.validation.structural import ProviderStructuralTests
from hypothesis import given
from hypothesis import strategies as st

from amplifier_fixtures import PROVIDER, modules, provider_of, session
from live_server import plain_environment, wait_until
from portico import amplifier, errors, record, replay
from portico import messages as ours
from scripted_answers import (
    CHAT,
    COMPLETIONS,
    chat_events,
    chat_result,
    chat_stream,
    completion_stream,
    either,
    event,
    reply,
    stream,
)
from scripted_upstream import CLOSE, HOLD, RESET, ScriptedUpstream

__all__ = ["modules"]
pytestmark = pytest.mark.usefixtures("modules")
QUICK = {"min_retry_delay": 0.001, "max_retry_delay": 0.5}


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


def user(text: str = "Hello", **fields: Any) -> ChatRequest:
    return ChatRequest(messages=[Message(role="user", content=text)], **fields)


def conversation(*messages: Message, **fields: Any) -> ChatRequest:
    return ChatRequest(messages=list(messages), **fields)


async def ask(
    upstream: ScriptedUpstream,
    request: ChatRequest | None = None,
    config: dict[str, Any] | None = None,
    **given: Any,
) -> Any:
    async with session({"base_url": upstream.url, **QUICK, **(config or {})}) as (one, _):
        return await provider_of(one).complete(request or user(), **given)


WEATHER = ToolSpec(
    name="get_weather",
    description="The weather in a city",
    parameters={"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "array"}}},
)


def calls(*wanted: tuple[str, str, str], finish: str = "tool_calls") -> Any:
    """A streamed answer that calls tools: (id, name, arguments), the arguments in two pieces."""
    deltas: list[Any] = []
    for place, (id, name, arguments) in enumerate(wanted):
        half = len(arguments) // 2
        begins = {
            "index": place,
            "id": id,
            "type": "function",
            "function": {"name": name, "arguments": arguments[:half]},
        }
        goes_on = {"index": place, "function": {"arguments": arguments[half:]}}
        deltas += [{"tool_calls": [begins]}, {"tool_calls": [goes_on]}]
    return chat_stream(*deltas, finish=finish)


# ---- Amplifier's own tests of a provider


class TestBehavior(ProviderBehaviorTests):
    @pytest.fixture
    def module_path(self) -> Path:
        return PROVIDER


class TestStructure(ProviderStructuralTests):
    @pytest.fixture
    def module_path(self) -> Path:
        return PROVIDER


@pytest.mark.parametrize("path", [PROVIDER, PROVIDER.parent.parent / "amplifier_module_provider_portico"])
def test_amplifiers_own_command_finds_nothing_wrong(path: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "amplifier-core"), "validate", "provider", str(path)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, env=plain_environment(tmp_path)
    )
    assert re.search(r"PASSED: (\d+)/\1 checks passed \(0 errors, 0 warnings\)", done.stdout), done.stdout


def test_its_import_loads_no_client() -> None:
    code = "import sys, amplifier_core\nbefore = set(sys.modules)\nimport portico.amplifier\nprint(*(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=50, cwd=PROVIDER.parent.parent
    )
    loaded = set(done.stdout.split())
    assert "portico.dialects.openai" in loaded
    assert (
        loaded & {"httpx2", "ssl", "huggingface_hub", "portico.web", "portico.client.async_client"} == set()
    )


# ---- the configuration

SEEDS = [
    {
        "base_url": "http://localhost:8000",
        "default_model": "openai/gpt-oss-20b",
        "max_tokens": 1024,
        "temperature": 0.7,
    },
    {
        "base_url": "http://localhost:8000",
        "default_model": "openai/gpt-oss-20b",
        "max_tokens": 2048,
        "temperature": 0.5,
        "use_completions": True,
        "api_key": "your-api-key",
        "debug": True,
        "raw_debug": True,
        "debug_truncate_length": 180,
        "timeout": 300.0,
        "priority": 100,
    },
    {"base_url": "http://localhost:8000", "default_model": "openai/gpt-oss-20b", "use_completions": True},
    {"base_url": "http://localhost:8000", "default_model": "openai/gpt-oss-20b", "use_completions": False},
    {"debug": True, "raw_debug": True},
    {"base_url": "http://localhost:8000"},
    {"timeout": 600.0},
]
"""Every `config:` block of amplifier-module-provider-vllm's README, in its order."""
SOURCE = "git+https://github.com/microsoft/amplifier-module-provider-vllm@main"


@pytest.mark.parametrize("block", SEEDS)
async def test_each_block_of_the_seed_is_accepted_as_it_is(
    block: dict[str, Any], upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    async with session(block, module="provider-vllm", source=SOURCE) as (one, heard):
        provider = provider_of(one)
        assert provider.name == "vllm" and provider.priority == 100
        assert provider.default_model == block.get("default_model", "")
    assert "module:load_failed" not in heard.names()
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
    async with session({**block, "base_url": upstream.url}, module="provider-vllm") as (one, _):
        await one.execute("What is 2+2?")
    completes = block.get("use_completions", False)
    sent = upstream.last(COMPLETIONS if completes else CHAT)
    for name, key in (
        ("max_tokens", "max_tokens"),
        ("temperature", "temperature"),
        ("model", "default_model"),
    ):
        assert key not in block or sent[name] == block[key]
    assert sent["prompt" if completes else "messages"]


PAGE = (PROVIDER.parent.parent.parent / "docs" / "amplifier.md").read_text(encoding="utf-8")


def test_every_setting_is_in_the_table_with_its_default() -> None:
    table = PAGE.partition("| key | default |")[2].partition("\n\n")[0]
    rows = [row.split("|")[1:3] for row in table.splitlines() if row.startswith("| `")]
    listed = {name: default.strip("` ") for names, default in rows for name in re.findall(r"`(\w+)`", names)}
    read = {field.name: field.default for field in msgspec.structs.fields(amplifier.Config)}
    assert set(listed) == {*read, "use_completions", "reasoning", *amplifier._WITHOUT_EFFECT}
    for name, default in read.items():
        if default not in (None, "", ()):
            assert listed[name] == (
                str(default).lower() if isinstance(default, bool | str) else f"{default:g}"
            ), name


async def test_each_configuration_of_the_page_mounts(caplog: pytest.LogCaptureFixture) -> None:
    found = [
        yaml.safe_load(text) for text in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    ]
    assert found
    for block in found:
        (entry,) = block["providers"]
        async with session(entry["config"], module=entry["module"]) as (one, _):
            assert provider_of(one).name == entry["module"].removeprefix("provider-")
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []


def test_every_error_is_in_the_table() -> None:
    table = PAGE.partition("## Errors")[2]
    kinds = {name for name in dir(llm_errors) if name.endswith("Error")} - {"LLMError"}
    assert kinds - set(re.findall(r"\| (\w+Error) \|", table)) == set()


def test_what_a_setup_stores_as_text_is_read_as_what_it_is() -> None:
    block = {
        "timeout": "300",
        "max_tokens": "5",
        "use_completions": "false",
        "raw": "on",
        "stop": "END",
        "logprobs": True,
    }
    config = amplifier.read_config(block, {})
    assert (config.timeout, config.max_tokens, config.endpoint, config.raw) == (300.0, 5, "chat", True)
    assert config.stop == ("END",) and config.logprobs == 0


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"timeout": "soon"}, "timeout is to be a number of at least 0, and is 'soon'"),
        ({"max_tokens": 1.5}, "max_tokens is to be a whole number"),
        ({"debug": "perhaps"}, "debug is to be true or false"),
        ({"endpoint": "responses"}, "endpoint is to be auto, chat or completions"),
        ({"stop": [1]}, "stop is to be a text or a list of texts"),
        ({"base_url": 8000}, "base_url is to be a text"),
    ],
)
def test_a_wrong_setting_is_named(block: dict[str, Any], said: str) -> None:
    with pytest.raises(llm_errors.ConfigurationError, match=re.escape(said)):
        amplifier.read_config(block, {})


def test_an_unknown_setting_is_told_with_the_nearest(caplog: pytest.LogCaptureFixture) -> None:
    amplifier.read_config({"temprature": 1, "reasoning_summary": "detailed", "truncation": "disabled"}, {})
    assert [each.getMessage() for each in caplog.records] == [
        "There is no setting 'temprature'. Nearest: temperature"
    ]


def test_the_environment_says_what_the_block_does_not() -> None:
    environ = {"VLLM_MODEL": "m", "VLLM_CONTEXT_WINDOW": "4096", "VLLM_STREAM_IDLE_TIMEOUT": "7"}
    config = amplifier.read_config({"stream_idle_timeout": 9}, environ)
    assert (config.default_model, config.context_window, config.stream_idle_timeout) == ("m", 4096, 9)


@pytest.mark.parametrize(
    "given", ["http://gpu:8000", "http://gpu:8000/v1", "http://gpu:8000/v1/", "gpu:8000"]
)
def test_a_base_url_with_or_without_v1(given: str) -> None:
    assert amplifier.server(amplifier.read_config({"base_url": given}, {}), {}).url == "http://gpu:8000"


def test_which_server_and_whose_key() -> None:
    def found(block: dict[str, Any], **environ: str) -> tuple[str, str | None]:
        server = amplifier.server(amplifier.read_config(block, {}), environ)
        return server.url, server.key

    here = {"base_url": "http://here:1"}
    assert found({}, VLLM_BASE_URL="http://there:2/v1", VLLM_API_KEY="k") == ("http://there:2", "k")
    assert found(here, VLLM_BASE_URL="http://there:2", VLLM_API_KEY="k") == ("http://here:1", None)
    assert found(here, VLLM_BASE_URL="http://here:1/v1", VLLM_API_KEY="k") == ("http://here:1", "k")
    assert found(here, VLLM_API_KEY="k") == ("http://here:1", "k")
    assert found({**here, "api_key": "own"}, VLLM_API_KEY="k") == ("http://here:1", "own")
    assert found({**here, "api_key": "EMPTY"}, VLLM_API_KEY="k") == ("http://here:1", None)
    assert found(here, OPENAI_API_KEY="k", OPENAI_BASE_URL="http://there:2") == ("http://here:1", None)
    with pytest.raises(llm_errors.ConfigurationError, match="No base_url found"):
        found({}, OPENAI_BASE_URL="https://api.openai.com/v1")
    with pytest.raises(llm_errors.ConfigurationError, match="port"):
        found({"base_url": "http://gpu:port"})


async def test_without_a_base_url_it_mounts_and_the_first_call_says_what_to_do() -> None:
    async with session({}, module="provider-vllm") as (one, heard):
        provider = provider_of(one)
        assert await provider.list_models() == []
        with pytest.raises(llm_errors.ConfigurationError, match="No base_url found") as caught:
            await provider.complete(user())
    assert caught.value.provider == "vllm" and not caught.value.retryable
    assert [each["error_type"] for each in heard.all("llm:response")] == ["ConfigurationError"]


def test_what_it_says_of_itself() -> None:
    provider = amplifier.Provider(
        "vllm", {"base_url": "https://far.example/v1", "context_window": 4096}, None, {}
    )
    told = provider.get_info()
    assert (told.id, told.display_name, told.credential_env_vars) == ("vllm", "vLLM", ["VLLM_API_KEY"])
    assert "local" not in told.capabilities and {"streaming", "tools", "thinking"} <= set(told.capabilities)
    assert (told.defaults["context_window"], told.defaults["max_output_tokens"]) == (4096, 2048)
    assert [each.id for each in told.config_fields][:3] == ["base_url", "api_key", "endpoint"]
    assert (
        "local"
        in amplifier.Provider("portico", {"base_url": "http://localhost:1"}, None, {}).get_info().capabilities
    )


async def test_limits_are_within_what_the_server_has(
    upstream: ScriptedUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    config = {"base_url": upstream.url, "context_window": 100_000, "max_output_tokens": 1000}
    async with session(config) as (one, _):
        for _ in range(2):
            (listed,) = await provider_of(one).list_models()
    assert (listed.id, listed.context_window, listed.max_output_tokens) == ("mock-model", 8192, 1000)
    warned = [each.getMessage() for each in caplog.records if each.name == "portico.amplifier"]
    assert warned == ["context_window is 100000, and the model 'mock-model' has 8192"]


# ---- what is sent


async def test_nothing_is_sent_that_nobody_asked_for(upstream: ScriptedUpstream) -> None:
    answer = await ask(upstream)
    sent = upstream.last(CHAT)
    assert sent.keys() == {"model", "messages", "stream", "stream_options"}
    assert (sent["model"], sent["messages"]) == ("mock-model", [{"role": "user", "content": "Hello"}])
    assert answer.text == "Hello there" and answer.content == [TextBlock(text="Hello there")]
    assert answer.usage.model_dump(exclude_none=True) == {
        "input_tokens": 7,
        "output_tokens": 3,
        "total_tokens": 10,
    }
    assert answer.finish_reason == "stop" and answer.degradation is None and answer.tool_calls is None
    assert (
        answer.metadata["url"] == upstream.url.removesuffix("/v1") and answer.metadata["endpoint"] == "chat"
    )
    assert answer.content_blocks[0].to_dict() == {"type": "text", "text": "Hello there"}


async def test_the_request_is_honoured(upstream: ScriptedUpstream) -> None:
    request = user(
        model="other",
        temperature=0.0,
        top_p=0.5,
        stop=["END"],
        max_output_tokens=9,
        reasoning_effort="high",
        tools=[WEATHER],
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
        seed=7,
        metadata={"logprobs": 2},
    )
    await ask(upstream, request, {"temperature": 0.9, "max_tokens": 5, "default_model": "mine"})
    sent = upstream.last(CHAT)
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["stop"]) == ("other", 0.0, 0.5, ["END"])
    assert (sent["max_tokens"], sent["seed"], sent["reasoning_effort"]) == (9, 7, "high")
    assert (sent["logprobs"], sent["top_logprobs"]) == (True, 2)
    assert sent["tool_choice"] == {"type": "function", "function": {"name": "get_weather"}}
    assert sent["tools"][0]["function"] == {
        "name": "get_weather",
        "description": "The weather in a city",
        "parameters": WEATHER.parameters,
    }


async def test_the_calls_arguments_win_over_the_request_and_that_over_the_configuration(
    upstream: ScriptedUpstream,
) -> None:
    config = {"temperature": 0.1, "max_tokens": 1, "reasoning": {"effort": "low", "summary": "detailed"}}
    await ask(
        upstream, user(temperature=0.2), config, temperature=0.3, max_output_tokens=3, reasoning_effort="none"
    )
    sent = upstream.last(CHAT)
    assert (sent["temperature"], sent["max_tokens"]) == (0.3, 3)
    assert sent["chat_template_kwargs"] == {"enable_thinking": False, "thinking": False}
    await ask(upstream, user(temperature=0.2), config)
    sent = upstream.last(CHAT)
    assert (sent["temperature"], sent["max_tokens"], sent["reasoning_effort"]) == (0.2, 1, "low")


async def test_thinking_that_is_switched_on_and_its_budget(upstream: ScriptedUpstream) -> None:
    await ask(upstream, None, {"max_tokens": 100, "thinking_budget_tokens": 500}, extended_thinking=True)
    sent = upstream.last(CHAT)
    assert sent["chat_template_kwargs"] == {"enable_thinking": True, "thinking": True}
    assert (sent["thinking_token_budget"], sent["max_tokens"]) == (500, 500 + 1024)


@pytest.mark.parametrize(
    ("choice", "sent"),
    [
        ("auto", "auto"),
        ("required", "required"),
        ("any", "required"),
        ({"type": "any"}, "required"),
        ("get_weather", {"type": "function", "function": {"name": "get_weather"}}),
        ({"type": "tool", "name": "get_weather"}, {"type": "function", "function": {"name": "get_weather"}}),
    ],
)
async def test_a_choice_of_tools_in_every_spelling(
    upstream: ScriptedUpstream, choice: Any, sent: Any
) -> None:
    await ask(upstream, user(tools=[WEATHER], tool_choice=choice))
    assert upstream.last(CHAT)["tool_choice"] == sent


async def test_no_tools_are_offered_where_none_may_be_called(upstream: ScriptedUpstream) -> None:
    await ask(upstream, user(tools=[WEATHER], tool_choice="none"))
    assert upstream.last(CHAT).keys() & {"tools", "tool_choice"} == set()


SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}


@pytest.mark.parametrize(
    ("wanted", "sent"),
    [
        (ResponseFormatJson(), {"type": "json_object"}),
        (
            ResponseFormatJsonSchema(json_schema=SCHEMA, strict=True),
            {"type": "json_schema", "json_schema": {"name": "response", "schema": SCHEMA, "strict": True}},
        ),
        (
            ResponseFormatJsonSchema(json_schema={"name": "count", "schema": SCHEMA}),
            {"type": "json_schema", "json_schema": {"name": "count", "schema": SCHEMA}},
        ),
    ],
)
async def test_a_response_format(upstream: ScriptedUpstream, wanted: Any, sent: Any) -> None:
    await ask(upstream, user(response_format=wanted))
    assert upstream.last(CHAT)["response_format"] == sent


@pytest.mark.parametrize(
    "given",
    [
        {"timeout": "soon"},
        {"stop": 5},
        {"logprobs": "x"},
        {"response_format": 7},
        {"thinking_budget_tokens": "many"},
        {"max_output_tokens": "many"},
        {"temperature": "hot"},
        {"model": 5},
        {"chat_template_kwargs": "x"},
        {"logit_bias": 3},
        {"endpoint": "nowhere"},
    ],
)
async def test_a_wrong_value_of_a_request_is_its_own_error(
    upstream: ScriptedUpstream, given: dict[str, Any]
) -> None:
    """Never one that only Python has a name for."""
    with pytest.raises(llm_errors.InvalidRequestError, match=list(given)[-1]):
        await ask(upstream, **given)
    assert not upstream.requests(CHAT)


async def test_calls_that_are_none_are_an_error_that_says_so(upstream: ScriptedUpstream) -> None:
    with pytest.raises(llm_errors.InvalidRequestError, match="tool_calls"):
        await ask(upstream, conversation(Message(role="assistant", content="x", tool_calls=["a"])))


async def test_a_response_format_by_its_type_alone(upstream: ScriptedUpstream) -> None:
    await ask(upstream, response_format="text")
    assert "response_format" not in upstream.last(CHAT)
    await ask(upstream, response_format="json")
    assert upstream.last(CHAT)["response_format"] == {"type": "json_object"}


@pytest.mark.parametrize("late", [False, True])
async def test_a_schema_that_the_server_cannot_keep_is_told_in_degradation(
    upstream: ScriptedUpstream, late: bool
) -> None:
    told = {"error": {"message": "Unimplemented keys: 'uniqueItems'", "code": 400}}
    upstream.script(CHAT, stream([event(told)]) if late else reply(400, told))
    answer = await ask(upstream, user(response_format=ResponseFormatJsonSchema(json_schema=SCHEMA)))
    assert "response_format" not in upstream.last(CHAT) and answer.text == "Hello there"
    assert answer.degradation.model_dump() == {
        "requested": "response_format json_schema",
        "actual": "text",
        "reason": "Unimplemented keys: 'uniqueItems'",
    }


async def test_tools_come_before_the_schema(upstream: ScriptedUpstream) -> None:
    """Held to a schema, a model can call nothing: what is not called is asked for again, and both are counted."""
    upstream.script(CHAT, chat_stream("I need no tool."), chat_stream('{"n": 1}'))
    request = user(tools=[WEATHER], response_format=ResponseFormatJsonSchema(json_schema=SCHEMA))
    async with session({"base_url": upstream.url}) as (one, heard):
        answer = await provider_of(one).complete(request)
    first, second = (each.json for each in upstream.requests(CHAT))
    assert "tools" in first and "response_format" not in first
    assert "tools" not in second and second["response_format"]["type"] == "json_schema"
    assert answer.text == '{"n": 1}' and answer.usage.input_tokens == 14 and answer.usage.output_tokens == 6
    assert "".join(each["text"] for each in heard.all("llm:stream_block_delta")) == '{"n": 1}'
    assert len(heard.all("llm:request")) == len(heard.all("llm:response")) == 1


async def test_a_tool_that_is_called_beside_a_schema_is_the_answer(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, calls(("c1", "get_weather", '{"city": "Oslo"}')))
    request = user(tools=[WEATHER], response_format=ResponseFormatJsonSchema(json_schema=SCHEMA))
    async with session({"base_url": upstream.url}) as (one, heard):
        answer = await provider_of(one).complete(request)
    assert [call.name for call in answer.tool_calls] == ["get_weather"] and len(upstream.requests(CHAT)) == 1
    assert heard.all("llm:stream_block_start")[0]["name"] == "get_weather"


@pytest.mark.parametrize(
    ("source", "url"),
    [
        ({"type": "base64", "media_type": "image/jpeg", "data": "QUJD"}, "data:image/jpeg;base64,QUJD"),
        ({"type": "url", "url": "https://example.com/a.png"}, "https://example.com/a.png"),
        (
            {"type": "image_url", "image_url": {"url": "https://example.com/b.png"}},
            "https://example.com/b.png",
        ),
    ],
)
async def test_images(upstream: ScriptedUpstream, source: dict[str, Any], url: str) -> None:
    message = Message(role="user", content=[TextBlock(text="What is this?"), ImageBlock(source=source)])
    await ask(upstream, conversation(message))
    assert upstream.last(CHAT)["messages"][0]["content"] == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": url}},
    ]


async def test_an_image_without_a_source_is_an_error_that_says_so(upstream: ScriptedUpstream) -> None:
    message = Message(role="user", content=[ImageBlock(source={"file_id": "f"})])
    with pytest.raises(llm_errors.InvalidRequestError, match="it has \\['file_id'\\]"):
        await ask(upstream, conversation(message))


async def test_every_role_and_block_of_a_conversation(upstream: ScriptedUpstream) -> None:
    request = conversation(
        Message(role="system", content="Be brief."),
        Message(role="developer", content=[TextBlock(text="The project is in Go.")]),
        Message(role="user", content="Weather?"),
        Message(
            role="assistant",
            content=[
                ThinkingBlock(thinking="Let me look."),
                TextBlock(text="I look."),
                ToolCallBlock(id="c1", name="get_weather", input={"city": "Oslo"}),
            ],
        ),
        Message(role="tool", tool_call_id="c1", content="sunny"),
        Message(
            role="assistant",
            content="",
            tool_calls=[{"id": "c2", "tool": "get_weather", "arguments": {"city": "Bonn"}}],
        ),
        Message(role="user", content=[ToolResultBlock(tool_call_id="c2", output={"sky": "grey"})]),
        Message(
            role="assistant",
            content=[ReasoningBlock(content=[], summary=[{"text": "Done."}]), TextBlock(text="Ok.")],
        ),
        Message(role="system", content="The user is in a hurry."),
        Message(role="user", content="And?"),
    )
    before = request.model_dump()
    await ask(upstream, request)
    assert request.model_dump() == before
    sent = upstream.last(CHAT)["messages"]
    call = {
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
        "id": "c1",
    }
    assert sent[0] == {"role": "system", "content": "Be brief.\n\nThe project is in Go."}
    assert (
        sent[2]["tool_calls"] == [call]
        and sent[2]["content"] == "I look."
        and sent[2]["reasoning"] == "Let me look."
    )
    assert sent[3]["content"] == "sunny" and sent[3]["tool_call_id"] == "c1"
    assert sent[4]["tool_calls"][0]["id"] == "c2" and sent[5]["tool_call_id"] == "c2"
    assert json.loads(sent[5]["content"]) == {"sky": "grey"}
    assert sent[6]["content"] == "Ok." and sent[6]["reasoning"] == "Done."
    assert sent[7] == {"role": "user", "content": "<system>\nThe user is in a hurry.\n</system>"}
    assert [each["role"] for each in sent].count("system") == 1 and len(sent) == 9


# ---- broken sequences of tools


async def test_a_missing_result_is_put_there_each_time_and_told(upstream: ScriptedUpstream) -> None:
    request = conversation(
        Message(role="user", content="Weather?"),
        Message(role="assistant", content=[ToolCallBlock(id="c1", name="get_weather", input={})]),
        Message(role="user", content="Hello?"),
    )
    async with session({"base_url": upstream.url}) as (one, heard):
        for _ in range(3):
            await provider_of(one).complete(request)
    first, second, third = (each.json["messages"] for each in upstream.requests(CHAT))
    assert first == second == third
    assert [each["role"] for each in first] == ["user", "assistant", "tool", "assistant", "user"]
    assert first[2]["tool_call_id"] == "c1" and "no result" in first[2]["content"]
    assert len(request.messages) == 3
    told = heard.all("provider:tool_sequence_repaired")
    assert len(told) == 3 and told[0]["repair_count"] == 1
    assert told[0]["repairs"] == [{"tool_call_id": "c1", "tool_name": "get_weather"}]


def spoken(*parts: Any, role: Any = "assistant") -> ours.Message:
    return ours.Message(role=role, parts=tuple(parts))


def call(id: str) -> ours.ToolCall:
    return ours.ToolCall(id=id, name="f", arguments="{}")


def result(id: str, text: str = "ok") -> ours.Message:
    return spoken(ours.ToolResult(id=id, text=text), role="tool")


def test_a_result_that_comes_late_is_moved_to_its_call() -> None:
    hello = spoken(ours.Text(text="hello"), role="user")
    broken = [spoken(call("a"), call("b")), hello, result("b"), result("a")]
    mended, missing = amplifier.repaired(broken)
    assert mended == (broken[0], result("a"), result("b"), hello) and missing == []


def test_ids_that_begin_anew_each_turn_are_told_apart() -> None:
    whole = [spoken(call("0")), result("0", "one"), spoken(call("0")), result("0", "two")]
    assert amplifier.repaired(whole) == (tuple(whole), [])
    mended, missing = amplifier.repaired([whole[0], whole[2], whole[3]])
    assert (
        [each.id for each in missing] == ["0"]
        and mended[-1] == whole[3]
        and "no result" in mended[1].parts[0].text
    )  # type: ignore[union-attr]


def test_a_result_of_no_call_is_kept_as_a_text() -> None:
    mended, missing = amplifier.repaired([result("x", "lost and found")])
    assert missing == [] and mended[0].role == "user" and mended[0].text.endswith("lost and found")


turns = st.one_of(
    st.lists(st.sampled_from("abc"), max_size=3, unique=True).map(
        lambda ids: spoken(ours.Text(text="said"), *map(call, ids))
    ),
    st.sampled_from("abcd").map(result),
    st.just(spoken(ours.Text(text="hello"), role="user")),
)


@given(st.lists(turns, max_size=10))
def test_whatever_was_broken_every_call_has_its_result_after_it(broken: list[ours.Message]) -> None:
    mended, _ = amplifier.repaired(broken)
    open_calls: list[str] = []
    for message in mended:
        if message.role == "tool":
            (part,) = message.parts
            assert isinstance(part, ours.ToolResult) and part.id == open_calls.pop(0)
        else:
            assert open_calls == []
            open_calls = [part.id for part in message.parts if isinstance(part, ours.ToolCall)]
    assert open_calls == []
    assert amplifier.repaired(mended) == (mended, []), "what is whole stays as it is"


# ---- raw completions


async def test_a_message_alone_is_the_prompt(upstream: ScriptedUpstream) -> None:
    answer = await ask(upstream, user("The capital of France is"), {"use_completions": True})
    sent = upstream.last(COMPLETIONS)
    assert sent["prompt"] == "The capital of France is" and "stop" not in sent
    assert sent["max_tokens"] == 8192 - len("The capital of France is"), (
        "the rest of the context, not 16 tokens"
    )
    assert answer.text == "Hello there" and answer.metadata["endpoint"] == "completions"


async def test_a_conversation_becomes_a_transcript(upstream: ScriptedUpstream) -> None:
    request = conversation(
        Message(role="system", content="Be brief."),
        Message(role="user", content="Weather?"),
        Message(
            role="assistant", content=[ToolCallBlock(id="c", name="get_weather", input={"city": "Oslo"})]
        ),
        Message(role="tool", tool_call_id="c", content="sunny"),
        Message(role="user", content="And?"),
        tools=[WEATHER],
        reasoning_effort="low",
    )
    upstream.script(COMPLETIONS, completion_stream(" It is", " sunny."))
    answer = await ask(upstream, request, {"endpoint": "completions", "max_tokens": 8})
    sent = upstream.last(COMPLETIONS)
    assert sent["prompt"] == (
        'Be brief.\n\nUser: Weather?\nAssistant: [get_weather {"city": "Oslo"}]\nTool: sunny\nUser: And?\nAssistant:'
    )
    assert sent["stop"] == ["\nUser:"] and sent["max_tokens"] == 8
    assert answer.text == "It is sunny."
    assert answer.degradation.requested == "tools; reasoning_effort"


async def test_an_assistants_last_message_is_gone_on_with(upstream: ScriptedUpstream) -> None:
    request = conversation(
        Message(role="user", content="Count."), Message(role="assistant", content="One, two,")
    )
    await ask(upstream, request, {"endpoint": "completions"}, stop=["six"])
    assert upstream.last(COMPLETIONS)["prompt"] == "User: Count.\nAssistant: One, two,"
    assert upstream.last(COMPLETIONS)["stop"] == ["six"]


async def test_auto_asks_a_model_without_a_template_for_a_completion_and_remembers_it(
    upstream: ScriptedUpstream,
) -> None:
    told = {"message": "As of transformers v4.44, default chat template is no longer allowed", "code": 400}
    upstream.script(CHAT, reply(400, {"error": told}))
    async with session({"base_url": upstream.url}) as (one, _):
        for _ in range(2):
            answer = await provider_of(one).complete(user())
    assert answer.metadata["endpoint"] == "completions"
    assert (len(upstream.requests(CHAT)), len(upstream.requests(COMPLETIONS))) == (1, 2)


async def test_a_server_that_is_still_starting_is_not_taken_for_one_without_chats(
    upstream: ScriptedUpstream,
) -> None:
    upstream.script(CHAT, failing(404, body=b"The service is starting up"), failing(503))
    async with session({"base_url": upstream.url, **QUICK}) as (one, heard):
        answer = await provider_of(one).complete(user())
    assert answer.metadata["endpoint"] == "chat" and len(upstream.requests(CHAT)) == 3
    assert [each["error_type"] for each in heard.all("provider:retry")] == ["ProviderUnavailableError"] * 2


async def test_a_server_without_chats_is_asked_for_completions(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, reply(404, {"detail": "Not Found"}))
    assert (await ask(upstream)).metadata["endpoint"] == "completions"


async def test_a_chat_is_a_chat_where_it_is_asked_for(upstream: ScriptedUpstream) -> None:
    told = {"message": "This model has no chat template", "code": 400}
    upstream.script(CHAT, reply(400, {"error": told}))
    with pytest.raises(llm_errors.InvalidRequestError, match="no chat template"):
        await ask(upstream, None, {"endpoint": "chat"})


async def test_an_echo_is_asked_of_the_endpoint_that_has_it(upstream: ScriptedUpstream) -> None:
    answer = await ask(upstream, user(metadata={"echo": True}))
    assert upstream.last(COMPLETIONS)["echo"] is True and answer.degradation is None
    answer = await ask(upstream, user(metadata={"echo": True}), {"endpoint": "chat"})
    assert answer.degradation.requested == "echo" and "echo" not in upstream.last(CHAT)


async def test_an_image_in_a_completion_is_an_error(upstream: ScriptedUpstream) -> None:
    message = Message(role="user", content=[ImageBlock(source={"url": "https://example.com/a.png"})])
    with pytest.raises(llm_errors.InvalidRequestError, match="no images"):
        await ask(upstream, conversation(message), {"endpoint": "completions"})


# ---- what comes back


@pytest.mark.parametrize("streaming", [True, False])
async def test_thoughts_text_and_calls(upstream: ScriptedUpstream, streaming: bool) -> None:
    call = {
        "index": 0,
        "id": "c9",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    usage = {
        "prompt_tokens": 20,
        "completion_tokens": 9,
        "total_tokens": 29,
        "prompt_tokens_details": {"cached_tokens": 16},
        "completion_tokens_details": {"reasoning_tokens": 4},
    }
    streamed = chat_stream(
        {"reasoning": "Hm."}, "I look.", {"tool_calls": [call]}, finish="tool_calls", usage=usage
    )
    whole = chat_result("I look.", finish="tool_calls", usage=usage, reasoning="Hm.", tool_calls=[call])
    upstream.script(CHAT, either(streamed, reply(200, whole)))
    async with session({"base_url": upstream.url, "use_streaming": streaming}) as (one, heard):
        provider = provider_of(one)
        answer = await provider.complete(user(tools=[WEATHER]))
    thought, said, called = answer.content
    assert (thought.thinking, thought.visibility, said.text) == ("Hm.", "internal", "I look.")
    assert (called.id, called.name, called.input) == ("c9", "get_weather", {"city": "Oslo"})
    (parsed,) = provider.parse_tool_calls(answer)
    assert (parsed.id, parsed.name, parsed.arguments) == ("c9", "get_weather", {"city": "Oslo"})
    assert answer.finish_reason == "tool_calls"
    counted = answer.usage
    assert (counted.input_tokens, counted.output_tokens, counted.total_tokens) == (20, 9, 29)
    assert (counted.reasoning_tokens, counted.cache_read_tokens, counted.cost_usd) == (4, 16, None)
    assert [each.to_dict()["type"] for each in answer.content_blocks] == ["thinking", "text", "tool_call"]
    told = [
        (name.removeprefix("llm:stream_block_"), data)
        for name, data in heard.events
        if "stream_block" in name
    ]
    seen = [(name, data["block_index"], data["block_type"]) for name, data in told]
    expected = [("start", 0, "thinking"), ("delta", 0, "thinking"), ("end", 0, "thinking")]
    expected += [("start", 1, "text"), ("delta", 1, "text"), ("end", 1, "text")]
    expected += [("start", 2, "tool_use"), ("end", 2, "tool_use")]
    assert seen == (expected if streaming else [])
    assert json.dumps(answer.model_dump(mode="json"))


async def test_a_request_that_must_not_be_shown_is_not(upstream: ScriptedUpstream) -> None:
    async with session({"base_url": upstream.url}) as (one, heard):
        answer = await provider_of(one).complete(user(metadata={"stream": False}))
    assert answer.text == "Hello there" and heard.names() == ["llm:request", "llm:response"]


async def test_log_probabilities_are_in_the_metadata(upstream: ScriptedUpstream) -> None:
    token = {
        "token": "Hi",
        "logprob": -0.5,
        "bytes": [72, 105],
        "top_logprobs": [{"token": "Ho", "logprob": -1.5}],
    }
    events = chat_events("Hi")
    events[1] = events[1].replace(
        b'"logprobs": null', b'"logprobs": ' + json.dumps({"content": [token]}).encode()
    )
    upstream.script(CHAT, stream(events))
    answer = await ask(upstream, None, {"logprobs": 1})
    top = [{"token": "Ho", "logprob": -1.5, "bytes": None}]
    assert answer.metadata["logprobs"] == [
        {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": top}
    ]


async def test_parallel_calls_keep_their_ids_and_one_without_gets_one(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, calls(("a", "get_weather", '{"city": "A"}'), ("", "get_weather", "")))
    answer = await ask(upstream, user(tools=[WEATHER]))
    first, second = answer.tool_calls
    assert (first.id, first.arguments, second.arguments) == ("a", {"city": "A"}, {}) and second.id.startswith(
        "call_"
    )


async def test_a_list_that_was_written_as_a_text_is_read_where_the_schema_wants_one(
    upstream: ScriptedUpstream,
) -> None:
    upstream.script(CHAT, calls(("a", "get_weather", '{"city": "[1]", "days": "[1, 2]"}')))
    answer = await ask(upstream, user(tools=[WEATHER]))
    assert answer.tool_calls[0].arguments == {"city": "[1]", "days": [1, 2]}


@pytest.mark.parametrize("arguments", ['{"city": "Os', "Oslo", "[1]"])
async def test_malformed_arguments_stay_an_error(upstream: ScriptedUpstream, arguments: str) -> None:
    upstream.script(CHAT, calls(("a", "get_weather", arguments), finish="length"))
    with pytest.raises(llm_errors.InvalidToolCallError, match="raise max_tokens") as caught:
        await ask(upstream, user(tools=[WEATHER]))
    assert (caught.value.tool_name, caught.value.raw_arguments) == ("get_weather", arguments)
    assert len(upstream.requests(CHAT)) == 1 and not caught.value.retryable


async def test_a_cut_answer_says_so_and_unknown_usage_is_none(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, chat_stream("Hel", finish="length", usage=None))
    answer = await ask(upstream)
    assert (answer.text, answer.finish_reason, answer.usage) == ("Hel", "length", None)


# ---- errors


def failing(status: int, message: str = "no", body: bytes | None = None, **headers: str) -> Any:
    told = {"error": {"message": message, "type": "x", "code": headers.pop("code", None)}}
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return reply(status, body if body is not None else told, headers=sent)


@pytest.mark.parametrize(
    ("answer", "error", "retryable"),
    [
        (failing(401, "bad key"), llm_errors.AuthenticationError, False),
        (failing(403, "not yours"), llm_errors.AccessDeniedError, False),
        (failing(403, body=b"<html>Cloudflare</html>"), llm_errors.ProviderUnavailableError, True),
        (
            failing(404, "The model `m` does not exist", code="model_not_found"),
            llm_errors.NotFoundError,
            False,
        ),
        (failing(404, body=b"The service is starting up"), llm_errors.ProviderUnavailableError, True),
        (failing(425, body=b"waiting for service to respond"), llm_errors.ProviderUnavailableError, True),
        (
            failing(400, "maximum context length is 10 tokens, you requested 12 tokens"),
            llm_errors.ContextLengthError,
            False,
        ),
        (failing(413, "too large"), llm_errors.ContextLengthError, False),
        (failing(400, "filtered", code="content_filter"), llm_errors.ContentFilterError, False),
        (failing(400, "a wrong field"), llm_errors.InvalidRequestError, False),
        (failing(422, "a wrong field"), llm_errors.InvalidRequestError, False),
        (
            failing(400, "auto tool choice requires --enable-auto-tool-choice"),
            llm_errors.ConfigurationError,
            False,
        ),
        (failing(402, "pay"), llm_errors.QuotaExceededError, False),
        (failing(408, "slow"), llm_errors.LLMTimeoutError, True),
        (failing(409, "conflict"), llm_errors.ProviderUnavailableError, True),
        (failing(429, "slow down", retry_after="0.2"), llm_errors.RateLimitError, True),
        (failing(429, "slow down", retry_after="99"), llm_errors.RateLimitError, False),
        (
            failing(429, "You exceeded your quota", code="insufficient_quota"),
            llm_errors.QuotaExceededError,
            False,
        ),
        (failing(500, "boom"), llm_errors.ProviderUnavailableError, True),
        (failing(500, "CUDA out of memory"), llm_errors.ProviderUnavailableError, False),
        (failing(503, "busy"), llm_errors.ProviderUnavailableError, True),
        ((RESET,), llm_errors.NetworkError, True),
        (reply(200, b"<html>", content_type="text/html"), llm_errors.StreamError, True),
    ],
)
async def test_each_error_is_amplifiers(
    upstream: ScriptedUpstream, answer: Any, error: Any, retryable: bool
) -> None:
    upstream.script(CHAT, answer, answer)  # a kept connection that breaks is tried once more on a new one
    with pytest.raises(llm_errors.LLMError) as caught:
        await ask(upstream, None, {"max_retries": 0, "endpoint": "chat", "default_model": "m"})
    assert type(caught.value) is error and caught.value.retryable is retryable
    assert (caught.value.provider, caught.value.model) == ("portico", "m")
    assert caught.value.__cause__ is not None and str(caught.value)


def every(kind: type[Any]) -> set[type[Any]]:
    return {kind}.union(*(every(each) for each in kind.__subclasses__()))


def test_no_error_of_ours_is_left_without_one_of_amplifiers() -> None:
    """Whatever a client may raise, with the attributes that it is made with."""
    given: dict[str, Any] = {
        "message": "m",
        "status": 500,
        "which": "total",
        "seconds": 1.0,
        "tokens": 1,
        "limit": 1,
    }
    given |= {"model": "m", "feature": "f", "body": b"", "expected": "e", "text": "t", "needed": 1, "left": 0}
    kinds = every(errors.ClientError) - {errors.ClientError}
    assert len(kinds) >= 16
    for kind in kinds:
        wanted = inspect.signature(kind.__init__).parameters
        made = kind(**{name: value for name, value in given.items() if name in wanted})
        found = amplifier.translated(made, amplifier.Seen(), provider="p", model="m", longest=60.0)
        assert type(found) is not llm_errors.LLMError, kind
        assert str(found) == str(made).replace("(url=)", "(base_url)").replace(": url=,", ": base_url,")


async def test_the_status_and_the_waiting_time_stay_facts(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, failing(429, "slow down", retry_after="7"))
    with pytest.raises(llm_errors.RateLimitError, match=r"slow down .*7 s") as caught:
        await ask(upstream, None, {"max_retries": 0, "max_retry_delay": 60})
    assert (caught.value.status_code, caught.value.retry_after, caught.value.retryable) == (429, 7.0, True)


async def test_nothing_that_answers_there_is_a_network_error_with_what_to_do() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    async with session({"base_url": url, "max_retries": 0}) as (one, _):
        with pytest.raises(llm_errors.NetworkError, match="Start a server with `portico serve`") as caught:
            await provider_of(one).complete(user())
        with pytest.raises(RuntimeError, match="NetworkError: Nothing answers there"):
            await one.execute("Hello")  # the kernel's session tells errors so
        with pytest.raises(llm_errors.NetworkError):
            await provider_of(one).list_models()
    assert caught.value.retryable


async def test_a_model_that_is_not_there_is_told_with_those_that_are(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, failing(404, "The model `m` does not exist", code="model_not_found"))
    with pytest.raises(llm_errors.NotFoundError, match=r"no model 'm'\. It has: mock-model"):
        await ask(upstream, user(model="m"))


async def test_a_stream_that_breaks_is_told_to_those_who_saw_its_beginning(
    upstream: ScriptedUpstream,
) -> None:
    events = chat_events("Hel")[:2]
    upstream.script(CHAT, (*stream(events, done=False, end=False), CLOSE))
    async with session({"base_url": upstream.url}) as (one, heard):
        with pytest.raises(llm_errors.StreamError) as caught:
            await provider_of(one).complete(user())
    assert caught.value.retryable and len(upstream.requests(CHAT)) == 1, "never again after the first byte"
    (aborted,) = heard.all("llm:stream_aborted")
    assert aborted["error"]["type"] == "StreamError"
    assert aborted["request_id"] == heard.all("llm:stream_block_start")[0]["request_id"]
    assert heard.all("llm:response")[0]["status"] == "error"


async def test_an_error_in_the_middle_of_a_stream(upstream: ScriptedUpstream) -> None:
    events = chat_events("Hel")[:2]
    told = b'data: {"error": {"message": "The engine died", "code": 500}}\n\n'
    upstream.script(CHAT, stream([*events, told]))
    with pytest.raises(llm_errors.ProviderUnavailableError, match="The engine died"):
        await ask(upstream)


async def test_a_server_that_falls_silent_is_given_up(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (*stream(chat_events("Hel")[:2], done=False, end=False), HOLD))
    with pytest.raises(llm_errors.LLMTimeoutError, match=r"within 0\.2 s \(stream_idle_timeout\)") as caught:
        await ask(upstream, None, {"stream_idle_timeout": 0.2})
    assert caught.value.retryable
    upstream.wait_for_hangup()


async def test_the_requests_own_time_is_kept(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (HOLD,))
    with pytest.raises(llm_errors.LLMTimeoutError, match=r"within 0\.2 s"):
        await ask(upstream, user(timeout=0.2))
    upstream.wait_for_hangup()


async def test_a_session_that_is_cancelled_at_once_aborts_the_answer(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, (*stream(chat_events("Hel")[:2], done=False, end=False), HOLD))
    async with session({"base_url": upstream.url}) as (one, heard):
        asking = asyncio.ensure_future(provider_of(one).complete(user()))
        await asyncio.to_thread(upstream.wait_for_request, CHAT)
        await one.coordinator.request_cancel(True)
        with pytest.raises(llm_errors.AbortError, match="cancelled"):
            await asking
    await asyncio.to_thread(upstream.wait_for_hangup)
    assert heard.all("llm:response")[0]["error_type"] == "AbortError"


async def test_a_task_that_is_cancelled_stays_cancelled_and_the_server_stops(
    upstream: ScriptedUpstream,
) -> None:
    upstream.script(CHAT, (*stream(chat_events("Hel")[:2], done=False, end=False), HOLD))
    async with session({"base_url": upstream.url}) as (one, _):
        asking = asyncio.ensure_future(provider_of(one).complete(user()))
        await asyncio.to_thread(upstream.wait_for_request, CHAT)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await asyncio.to_thread(upstream.wait_for_hangup)


async def test_calls_beside_each_other_keep_their_blocks_apart(upstream: ScriptedUpstream) -> None:
    said = [f"answer {number}" for number in range(10)]
    upstream.script(CHAT, *(chat_stream(*text) for text in said))
    async with session({"base_url": upstream.url}) as (one, heard):
        answers = await asyncio.gather(*(provider_of(one).complete(user()) for _ in said))
    told: dict[str, str] = {}
    for each in heard.all("llm:stream_block_delta"):
        told[each["request_id"]] = told.get(each["request_id"], "") + each["text"]
    assert sorted(told.values()) == sorted(answer.text for answer in answers) == sorted(said)


async def test_a_recorded_session_is_replayed_without_a_server(tmp_path: Path) -> None:
    with ScriptedUpstream() as upstream:
        upstream.script(
            CHAT, calls(("c1", "get_weather", '{"city": "Oslo"}')), chat_stream("It is", " sunny.")
        )
        config = {"base_url": upstream.url}
        with record(tmp_path / "run.jsonl"):
            async with session(config, tools=("tool-weather",)) as (one, first):
                said = await one.execute("Weather?")
    with replay(tmp_path / "run.jsonl"):
        async with session(config, tools=("tool-weather",)) as (one, again):
            assert await one.execute("Weather?") == said == "It is sunny."
            with pytest.raises(llm_errors.InvalidRequestError):
                await provider_of(one).complete(user("Something else"))
    assert again.names()[: len(first.names())] == first.names()


async def test_a_session_that_ends_ends_its_connections() -> None:
    with ScriptedUpstream() as upstream:
        async with session({"base_url": upstream.url}) as (one, _):
            await one.execute("Hello")
            assert upstream.open
        await asyncio.to_thread(
            wait_until, lambda: not upstream.open, seconds=5, what="no connection is left"
        )


# ---- asked again


async def test_what_may_pass_is_asked_again_and_told(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, failing(503, "busy"), failing(429, "slow", retry_after="0.01"))
    upstream.script(CHAT, (RESET,), (RESET,))  # as above
    async with session({"base_url": upstream.url, **QUICK}) as (one, heard):
        assert await one.execute("Hello") == "Hello there"
    assert len(upstream.requests(CHAT)) == 5
    told = heard.all("provider:retry")
    assert [each["error_type"] for each in told] == [
        "ProviderUnavailableError",
        "RateLimitError",
        "NetworkError",
    ]
    assert [each["attempt"] for each in told] == [1, 2, 3] and told[1]["delay"] == 0.01
    assert told[0]["max_retries"] == 5 and "busy" in told[0]["error_message"]
    assert len(heard.all("llm:request")) == len(heard.all("llm:response")) == 1


async def test_without_jitter_each_wait_is_twice_the_last(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, *(failing(500) for _ in range(3)))
    config = {"base_url": upstream.url, "min_retry_delay": 0.01, "max_retries": 2, "retry_jitter": False}
    async with session(config) as (one, heard):
        with pytest.raises(llm_errors.ProviderUnavailableError):
            await provider_of(one).complete(user())
    assert [each["delay"] for each in heard.all("provider:retry")] == [0.01, 0.02]
    assert len(upstream.requests(CHAT)) == 3


async def test_what_asking_again_does_not_mend_is_asked_once(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, failing(400, "a wrong field"))
    with pytest.raises(llm_errors.InvalidRequestError):
        await ask(upstream)
    assert len(upstream.requests(CHAT)) == 1


async def test_a_portico_servers_own_retries_are_not_multiplied(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, failing(502, "the engine is gone", x_portico_attempts="3"))
    with pytest.raises(llm_errors.ProviderUnavailableError):
        await ask(upstream)
    assert len(upstream.requests(CHAT)) == 1


# ---- what the log is told


async def test_debug_shows_a_little_and_raw_debug_all_without_secrets(upstream: ScriptedUpstream) -> None:
    config = {"base_url": upstream.url, "api_key": "secret-key", "debug": True, "raw_debug": True}
    long = "a" * 500
    async with session({**config, "debug_truncate_length": 20, "raw": True}) as (one, heard):
        await one.execute(long)
    (shown,), (whole,) = heard.all("llm:request:debug"), heard.all("llm:request:raw")
    assert shown["request"]["messages"][0]["content"] == "a" * 20 + "... (truncated 480 chars)"
    assert whole["params"] == upstream.last(CHAT)
    assert heard.all("llm:request")[0]["raw"] == upstream.last(CHAT)
    assert heard.all("llm:response:raw")[0]["response"]["text"] == "Hello there"
    assert heard.all("llm:response")[0]["raw"]["content"][0]["text"] == "Hello there"
    assert "secret-key" not in repr(heard.events)
    assert upstream.requests(CHAT)[0].headers["authorization"] == "Bearer secret-key"


async def test_without_debug_there_is_one_line_a_request_and_one_a_response(
    upstream: ScriptedUpstream,
) -> None:
    async with session({"base_url": upstream.url}, system="Be brief.") as (one, heard):
        await one.execute("Hello")
    (request,), (response,) = heard.all("llm:request"), heard.all("llm:response")
    assert (request["provider"], request["model"], request["message_count"]) == ("portico", "mock-model", 2)
    assert (
        request["has_instructions"] is True and request["thinking_enabled"] is False and "raw" not in request
    )
    assert response["usage"] == {"input_tokens": 7, "output_tokens": 3, "total_tokens": 10, "cost_usd": None}
    assert response["status"] == "ok" and response["duration_ms"] >= 0 and "raw" not in response
    assert [name for name in heard.names() if name.endswith(("debug", "raw"))] == []


async def test_its_own_events_are_announced(upstream: ScriptedUpstream) -> None:
    async with session({"base_url": upstream.url}) as (one, _):
        told: Sequence[Any] = await one.coordinator.collect_contributions("observability.events")
    flat = {name for each in told for name in (each if isinstance(each, list) else [each])}
    assert {"llm:stream_block_delta", "llm:stream_aborted", "llm:request:raw"} <= flat

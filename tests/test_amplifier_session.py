"""The provider in a real AmplifierSession: a chat, a tool round and a stream, on the embedded engine and on vLLM."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from amplifier_core.message_models import ChatRequest, Message

from amplifier_fixtures import MODULES, modules, paths, provider_of, session
from live_server import LiveServer, plain_environment

__all__ = ["modules"]
pytestmark = pytest.mark.usefixtures("modules")


@pytest.fixture(scope="module", params=["llamacpp", "vllm"])
def server(request: pytest.FixtureRequest) -> LiveServer:
    found = request.getfixturevalue({"llamacpp": "embedded", "vllm": "vllm_server"}[request.param])
    assert isinstance(found, LiveServer)
    return found


async def test_a_chat(server: LiveServer) -> None:
    config = {"base_url": server.url, "temperature": 0, "max_tokens": 40}
    async with session(config, system="You are a helpful assistant.") as (one, heard):
        said = await one.execute("Hello, how are you?")
        (answer,) = one.coordinator.get("orchestrator").responses
    assert said == answer.content[-1].text != ""
    assert answer.finish_reason == "stop" and answer.metadata["model"] == server.model
    assert answer.usage.input_tokens > 10 and 0 < answer.usage.output_tokens <= 40
    (response,) = heard.all("llm:response")
    assert response["status"] == "ok" and response["usage"]["output_tokens"] == answer.usage.output_tokens
    assert "module:load_failed" not in heard.names()


async def test_a_stream_tells_its_blocks_as_they_come(server: LiveServer) -> None:
    async with session({"base_url": f"{server.url}/v1", "temperature": 0, "max_tokens": 40}) as (one, heard):
        said = await one.execute("Hello, how are you?")
    names = [name for name in heard.names() if name.startswith("llm:stream")]
    assert names[0] == "llm:stream_block_start" and names[-1] == "llm:stream_block_end"
    deltas = heard.all("llm:stream_block_delta")
    assert "".join(each["text"] for each in deltas) == said
    assert [each["sequence"] for each in deltas] == list(range(len(deltas))) and len(deltas) > 2
    assert len({each["request_id"] for each in deltas}) == 1
    assert heard.names().index("llm:request") < heard.names().index("llm:stream_block_start")


async def test_a_tool_round(server: LiveServer) -> None:
    config = {"base_url": server.url, "temperature": 0, "max_tokens": 100}
    async with session(config, tools=("tool-weather",)) as (one, heard):
        said = await one.execute("What is the weather in Oslo?")
        asked = one.coordinator.get("tools")["get_weather"].asked
        first, *rest = one.coordinator.get("orchestrator").responses
        kept = await one.coordinator.get("context").get_messages()
    assert asked == [{"city": "Oslo"}] and rest and said
    (call,) = first.tool_calls
    assert first.finish_reason == "tool_calls" and call.id
    assert [each["tool_call_id"] for each in kept if each["role"] == "tool"] == [call.id]
    assert {"block_type": "tool_use", "name": "get_weather"}.items() <= heard.all("llm:stream_block_start")[
        0
    ].items()
    assert "provider:tool_sequence_repaired" not in heard.names()


async def test_a_forced_call(server: LiveServer) -> None:
    config = {"base_url": server.url, "temperature": 0, "max_tokens": 100}
    async with session(config, request={"tool_choice": "required"}, tools=("tool-weather",)) as (one, _):
        # It ends: the demand is made of the first answer only. A model that greets nobody may ask once more by itself.
        await one.execute("Hello there.")
        assert one.coordinator.get("tools")["get_weather"].asked


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("tools", [(), ("tool-weather",)])
async def test_a_schema_is_kept_with_and_without_tools(server: LiveServer, tools: tuple[str, ...]) -> None:
    wanted = {"type": "json_schema", "json_schema": SCHEMA}
    config = {"base_url": server.url, "temperature": 0, "max_tokens": 100}
    async with session(config, request={"response_format": wanted}, tools=tools) as (one, _):
        said = json.loads(await one.execute("Extract name and age: Ada is 36 years old."))
        answer = one.coordinator.get("orchestrator").responses[-1]
    assert set(said) == {"name", "age"} and isinstance(said["age"], int)
    assert answer.degradation is None


async def test_a_raw_completion_with_log_probabilities_and_an_echo(server: LiveServer) -> None:
    config = {"base_url": server.url, "use_completions": True, "temperature": 0, "max_tokens": 5}
    async with session({**config, "logprobs": 1}) as (one, heard):
        await one.execute("The capital of France is")
        (answer,) = one.coordinator.get("orchestrator").responses
        request = ChatRequest(
            messages=[Message(role="user", content="The capital of France is")],
            metadata={"logprobs": False, "echo": True},
        )
        echoed = await provider_of(one).complete(request)
    tokens = answer.metadata["logprobs"]
    assert answer.metadata["endpoint"] == "completions"
    assert len(tokens) == answer.usage.output_tokens <= 5 and all(each["logprob"] <= 0 for each in tokens)
    assert all(len(each["top_logprobs"]) >= 1 for each in tokens)
    assert heard.all("llm:response")[0]["logprobs"][0]["token"] == tokens[0]["token"]
    assert echoed.text.startswith("The capital of France is") and "logprobs" not in echoed.metadata


async def test_log_probabilities_of_a_chat(server: LiveServer) -> None:
    config = {"base_url": server.url, "temperature": 0, "max_tokens": 4}
    async with session(config, request={"metadata": {"logprobs": 2}}) as (one, _):
        await one.execute("Hello, how are you?")
        with pytest.raises(TypeError):  # as amplifier-module-provider-vllm's README has it
            await one.execute("Hello, how are you?", logprobs=2)
        (answer,) = one.coordinator.get("orchestrator").responses
    assert all(len(each["top_logprobs"]) == 2 for each in answer.metadata["logprobs"])


async def test_the_limits_are_the_servers_after_the_first_call(server: LiveServer) -> None:
    async with session({"base_url": server.url, "max_tokens": 2}) as (one, _):
        provider = provider_of(one)
        assert provider.get_model_info().context_window == 128_000
        await one.execute("Hello")
        (listed,) = [each for each in await provider.list_models() if each.id == server.model]
        assert provider.get_model_info().context_window == listed.context_window == 5120
        assert listed.max_output_tokens == 2560


async def test_a_prompt_that_is_too_long_is_an_error(server: LiveServer) -> None:
    from amplifier_core.llm_errors import ContextLengthError

    async with session({"base_url": server.url}) as (one, heard):
        request = ChatRequest(messages=[Message(role="user", content="red box " * 6000)])
        with pytest.raises(ContextLengthError, match="context is 5120 tokens"):
            await provider_of(one).complete(request)
    assert heard.all("llm:response")[0]["status"] == "error" and "provider:retry" not in heard.names()


SAYS = {"chat.py": "[calls get_weather]\n", "completions.py": "\n"}


@pytest.mark.parametrize("name", sorted(SAYS))
def test_an_example(embedded: LiveServer, name: str, tmp_path: Path) -> None:
    environ = plain_environment(tmp_path, VLLM_BASE_URL=embedded.url)
    found = map(str, paths(tmp_path / "declared"))
    environ["PYTHONPATH"] = os.pathsep.join([*found, environ.get("PYTHONPATH", "")])
    command = [sys.executable, str(MODULES.parent / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50, cwd=tmp_path, env=environ)
    assert done.returncode == 0, done.stderr
    assert SAYS[name] in done.stdout and done.stdout.strip()


async def test_two_instances_beside_each_other(server: LiveServer) -> None:
    config: dict[str, Any] = {
        "session": {"orchestrator": "loop-basic", "context": "context-simple"},
        "providers": [
            {"module": "provider-vllm", "config": {"base_url": server.url, "priority": 2}},
            {
                "module": "provider-vllm",
                "instance_id": "small",
                "config": {"base_url": server.url, "priority": 1},
            },
            {"module": "provider-portico", "config": {"base_url": server.url, "priority": 3}},
        ],
    }
    from amplifier_core import AmplifierSession

    async with AmplifierSession(config=config) as one:
        found = one.coordinator.get("providers")
        assert {name: each.priority for name, each in found.items()} == {"vllm": 2, "small": 1, "portico": 3}
        assert await one.execute("Hello")


async def test_by_its_source_where_a_resolver_says_the_folder(server: LiveServer, modules: Path) -> None:
    """As Amplifier's own resolver finds a `source:`; the others are found without one."""
    from amplifier_core import AmplifierSession
    from amplifier_core.module_sources import ModuleNotFoundError

    class Folder:
        def resolve(self) -> Path:
            return Path(__file__).parent.parent / "src"

    class Resolver:
        def resolve(self, module_id: str, **_: Any) -> Folder:
            if module_id != "provider-portico":
                raise ModuleNotFoundError(module_id)
            return Folder()

    config = {
        "session": {"orchestrator": "loop-basic", "context": "context-simple"},
        "providers": [{"module": "provider-portico", "source": "here", "config": {"base_url": server.url}}],
    }
    one = AmplifierSession(config=config)
    await one.coordinator.mount("module-source-resolver", Resolver())
    async with one:
        assert await one.execute("Hello")

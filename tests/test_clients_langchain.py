"""`langchain-ollama` against the real server: it always streams, sends `tools: []`, and reads listings."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_ollama import ChatOllama, OllamaEmbeddings, OllamaLLM
from ollama import ResponseError
from pydantic import BaseModel

from live_server import LiveServer
from scripted_answers import CHAT, EMBEDDINGS, chat_stream, vector
from scripted_upstream import ScriptedUpstream

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """langchain leaves its HTTP clients to the garbage collector: they go here, and trouble no later test."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def chat_model(server: LiveServer, **options: Any) -> ChatOllama:
    return ChatOllama(
        model=server.model, base_url=server.url, num_predict=8, validate_model_on_init=True, **options
    )


@tool
def get_weather(city: str) -> str:
    """Get the weather in a city."""
    return f"17 degrees in {city}"


def test_invoke(server: LiveServer) -> None:
    answer = chat_model(server).invoke([SystemMessage("You are brief."), HumanMessage("Hello!")])
    assert isinstance(answer, AIMessage) and answer.content
    assert answer.usage_metadata and answer.usage_metadata["output_tokens"] > 0
    assert answer.response_metadata["done_reason"] in ("stop", "length")


def test_stream(server: LiveServer) -> None:
    chunks = list(chat_model(server).stream("Hello!"))
    assert len(chunks) > 1
    assert chunks[-1].chunk_position == "last" or chunks[-1].response_metadata.get("done_reason")


async def test_async_stream(server: LiveServer) -> None:
    assert "".join([str(chunk.content) async for chunk in chat_model(server).astream("Hello!")])


def test_structured_output(server: LiveServer) -> None:
    class Report(BaseModel):
        """A verdict."""

        verdict: Literal["good", "bad"]

    model = ChatOllama(model=server.model, base_url=server.url, temperature=0)
    assert isinstance(model.with_structured_output(Report).invoke("Is it good?"), Report)


def test_the_plain_model(server: LiveServer) -> None:
    assert OllamaLLM(model=server.model, base_url=server.url, num_predict=5).invoke("Hello")


def test_embeddings_of_a_model_without(server: LiveServer) -> None:
    with pytest.raises(ResponseError, match="embed"):
        OllamaEmbeddings(model=server.model, base_url=server.url).embed_query("Hello")


def test_embeddings(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    vectors = OllamaEmbeddings(model="mock-model", base_url=gateway.url).embed_documents(["a", "b"])
    assert [len(each) for each in vectors] == [4, 4]
    for given, text in zip(vectors, "ab", strict=True):
        raw = vector(text)
        length = sum(value * value for value in raw) ** 0.5
        assert given == pytest.approx([value / length for value in raw], abs=1e-5)
    assert upstream.last(EMBEDDINGS)["input"] == ["a", "b"]


def test_a_tool_round(gateway: LiveServer, upstream: ScriptedUpstream) -> None:
    """The call arrives whole with an object, and its result goes back under the id it had upstream."""
    pieces = [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "get_weather"}}]
    pieces += [{"index": 0, "function": {"arguments": text}} for text in ('{"ci', 'ty": "Par', 'is"}')]
    upstream.script(CHAT, chat_stream(*({"tool_calls": [piece]} for piece in pieces), finish="tool_calls"))
    model = ChatOllama(model="mock-model", base_url=gateway.url).bind_tools([get_weather])
    question = HumanMessage("What is the weather in Paris?")

    answer = model.invoke([question])

    assert [(call["name"], call["args"]) for call in answer.tool_calls] == [
        ("get_weather", {"city": "Paris"})
    ]
    assert upstream.last(CHAT)["tools"][0]["function"]["name"] == "get_weather"
    result = ToolMessage(
        get_weather.invoke(answer.tool_calls[0]["args"]), tool_call_id=answer.tool_calls[0]["id"]
    )
    assert model.invoke([question, answer, result]).content == "Hello there"
    *_, call, sent = upstream.last(CHAT)["messages"]
    assert sent["role"] == "tool" and sent["content"] == "17 degrees in Paris"
    assert sent["tool_call_id"] == call["tool_calls"][0]["id"]
    assert call["tool_calls"][0]["function"]["arguments"] in ('{"city":"Paris"}', '{"city": "Paris"}')

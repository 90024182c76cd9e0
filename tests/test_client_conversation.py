"""Conversations: what joins them, what is cut from them, what is kept of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.conversation import AsyncConversation, Conversation, History
from portico.client.settings import NO_RETRY
from portico.errors import InvalidRequest, PromptTooLong, ServerFailed, WrongAnswer
from portico.messages import Message, Text, Tool, ToolCall, ToolResult
from scripted_answers import CHAT, reply
from scripted_upstream import ScriptedUpstream
from test_client import said


@pytest.fixture
def upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


def counted(tokens: Callable[[int], int]) -> Any:
    """/tokenize: so many tokens for so many messages."""

    def answer(request: Any) -> Any:
        return reply(
            200, {"count": tokens(len(request.json["messages"])), "max_model_len": 1000, "tokens": []}
        )

    return answer


def test_what_is_said_and_answered_joins_it(upstream: ScriptedUpstream) -> None:
    with Client(upstream.url) as client:
        talk = Conversation(client, system="Be brief.")
        talk.ask("One")
        talk.ask("Two", temperature=0)
    sent = upstream.last(CHAT)
    assert [message["role"] for message in sent["messages"]] == ["system", "user", "assistant", "user"]
    assert sent["temperature"] == 0 and len(talk.messages) == 4


def test_what_is_not_answered_was_not_said(upstream: ScriptedUpstream) -> None:
    upstream.script(CHAT, reply(500, {"error": {"message": "no"}}))
    with Client(upstream.url, retry=NO_RETRY) as client:
        talk = Conversation(client)
        with pytest.raises(ServerFailed):
            talk.ask("One")
        assert talk.messages == []
        talk.ask("Two")
    assert len(upstream.last(CHAT)["messages"]) == 1


def test_an_error_leaves_a_conversation_as_it_was(upstream: ScriptedUpstream) -> None:
    """Neither what was cut to make room is lost, nor is a part of what was said kept."""
    upstream.script("/tokenize", *[counted(lambda messages: 300 * messages)] * 50)
    with Client(upstream.url, retry=NO_RETRY) as client:
        talk = Conversation(client)
        talk.ask("One")
        upstream.script(CHAT, reply(500, {"error": {"message": "no"}}))
        said = [{"role": "user", "content": "Two"}, {"role": "user", "content": "Three"}]
        with pytest.raises(ServerFailed):
            talk.ask(said)
        assert [message.text for message in talk.messages] == ["One", "Hello there"] and talk.dropped == 0


def test_the_oldest_turns_are_cut_until_it_fits(upstream: ScriptedUpstream) -> None:
    upstream.script("/tokenize", *[counted(lambda messages: 300 * messages)] * 50)

    async def run() -> None:
        async with AsyncClient(upstream.url) as client:
            talk = AsyncConversation(client)
            for at in range(4):
                await talk.ask(f"Turn {at}", max_tokens=50)
            sent = upstream.last(CHAT)["messages"]
            assert [message["content"] for message in sent] == ["Turn 2", "Hello there", "Turn 3"]
            assert talk.dropped == 4

    asyncio.run(run())


def test_a_last_turn_that_does_not_fit_is_an_error(upstream: ScriptedUpstream) -> None:
    upstream.script("/tokenize", counted(lambda messages: 990))
    with (
        Client(upstream.url) as client,
        pytest.raises(PromptTooLong, match="990 tokens and max_tokens asks for 50"),
    ):
        Conversation(client).ask("Much", max_tokens=50)


def test_a_tools_result_is_never_cut_from_its_call() -> None:
    def said(role: Any, *parts: Any) -> Message:
        return Message(role=role, parts=parts or (Text(text="x"),))

    call = said("assistant", ToolCall(id="c", name="f", arguments="{}"))
    result = said("tool", ToolResult(id="c", name="f", text="1"))
    history = History(None, [said("user"), call, result, said("assistant"), said("user")])
    assert [len(turn) for turn in history.turns()] == [4, 1]


def test_it_is_saved_and_loaded(upstream: ScriptedUpstream, tmp_path: Path) -> None:
    with Client(upstream.url) as client:
        talk = Conversation(client, system="Be brief.")
        talk.ask("One")
        talk.save(tmp_path / "talk.json")
        again = Conversation.load(tmp_path / "talk.json", client)
        again.ask("Two")
    assert [message["role"] for message in upstream.last(CHAT)["messages"]] == [
        "system",
        "user",
        "assistant",
        "user",
    ]
    assert again.messages[:2] == talk.messages
    (tmp_path / "talk.json").write_text("[]")
    with pytest.raises(InvalidRequest, match=r"talk\.json is no saved conversation"):
        History.read(tmp_path / "talk.json")


def test_a_summary_takes_the_place_of_the_oldest_turns(upstream: ScriptedUpstream) -> None:
    with Client(upstream.url) as client:
        talk = Conversation(client)
        for at in range(4):
            talk.ask(f"Turn {at}")
        assert talk.summarise(keep=1) == "Hello there"
        assert "Summarise" in upstream.last(CHAT)["messages"][-1]["content"]
        assert [len(turn) for turn in talk.turns()] == [2, 2]
        assert talk.turns()[-1][0].text == "Turn 3"


def test_what_a_chat_takes_a_conversation_takes(upstream: ScriptedUpstream) -> None:
    """And its tools are counted."""
    tool = Tool(name="go")
    upstream.script("/tokenize", counted(lambda messages: 10))
    with Client(upstream.url) as client:
        Conversation(client).ask("One", tools=[tool], think=False, extra={"new": 1}, temperature=0)
    sent = upstream.last(CHAT)
    assert sent["tools"][0]["function"]["name"] == "go" and sent["new"] == 1 and sent["temperature"] == 0
    assert upstream.last("/tokenize")["tools"]


def test_more_turns_are_kept_than_there_are(upstream: ScriptedUpstream) -> None:
    with Client(upstream.url) as client:
        talk = Conversation(client)
        talk.ask("One")
        talk.ask("Two")
        before = list(talk.messages)
        assert talk.summarise(keep=3) == "" and talk.messages == before


def test_an_empty_summary_replaces_nothing(upstream: ScriptedUpstream) -> None:
    with Client(upstream.url) as client:
        talk = Conversation(client)
        talk.ask("One")
        before = list(talk.messages)
        upstream.script(CHAT, said(" "))
        with pytest.raises(WrongAnswer, match="stays as it is"):
            talk.summarise(keep=0)
        assert talk.messages == before

"""A conversation that is kept: what was said, cut to what fits by exact counts, saved and loaded as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from portico.client import options
from portico.client.asks import Asks, answered
from portico.client.async_client import AsyncClient
from portico.client.client import Client
from portico.client.flows import Flows
from portico.client.options import Messages
from portico.client.results import Result
from portico.client.wishes import Flow
from portico.errors import InvalidRequest, PromptTooLong, WrongAnswer
from portico.messages import Message, Text

ROOM = 256
"""Tokens that are left for an answer whose max_tokens nobody gave."""
_ABOUT = ("tools", "tool_choice", "parallel_tool_calls", "think", "extra")
"""Arguments of a chat that are no parameters of sampling."""
SUMMARISE = (
    "Summarise the conversation so far in a few sentences, so that somebody who reads only them can go on with it. "
    "Keep names, numbers and decisions."
)


class _Saved(msgspec.Struct):
    system: str | None = None
    messages: list[Message] = []


class History:
    """The turns. Owns them; both kinds of conversation go through it."""

    def __init__(self, system: str | None = None, messages: Sequence[Message] = ()) -> None:
        self.system, self.messages = system, list(messages)
        self.dropped = 0
        """Messages that were cut because they did not fit any more."""

    def save(self, path: str | Path) -> None:
        """Whole, or as it was before: a program that is killed meanwhile leaves no half of it."""
        part = Path(f"{path}.part")
        part.write_bytes(msgspec.json.encode(_Saved(system=self.system, messages=self.messages)))
        part.replace(path)

    @staticmethod
    def read(path: str | Path) -> tuple[str | None, list[Message]]:
        """The system message and the messages of a saved conversation. Raises InvalidRequest for a file that is none."""
        try:
            saved = msgspec.json.decode(Path(path).read_bytes(), type=_Saved)
        except msgspec.DecodeError as error:
            raise InvalidRequest(f"{path} is no saved conversation: {error}") from error
        return saved.system, saved.messages

    def turns(self) -> list[list[Message]]:
        """Each from a message of the user's to the next: what is cut is cut whole, a tool's result never without its call."""
        found: list[list[Message]] = []
        for message in self.messages:
            if message.role == "user" or not found:
                found.append([])
            found[-1].append(message)
        return found


def ask(
    flows: Flows,
    history: History,
    said: Messages,
    *,
    output: Any,
    given: Mapping[str, Any],
    model: str | None,
) -> Flow[Result[Any]]:
    """The answer to `said`, which joins the history together with it. The oldest turns are cut until all fits. What was
    not answered was not said: an error leaves the history as it was."""
    after = History(history.system, [*history.messages, *options.conversation(said)])
    about = {"system": after.system, **{name: given[name] for name in _ABOUT if name in given}}
    given = {name: value for name, value in given.items() if name not in _ABOUT}
    yield from _cut(flows, after, about, given, model)
    asks = Asks(flows)
    result = yield from asks.chat(
        tuple(after.messages), model=model, output_type=output, check=False, about=about, given=given
    )
    history.messages = [*after.messages, answered(result)]
    history.dropped += after.dropped
    return result


def _cut(
    flows: Flows, history: History, about: Mapping[str, Any], given: Mapping[str, Any], model: str | None
) -> Flow[None]:
    name = yield from flows.model(model)
    wanted = int(given.get("max_tokens") or ROOM)
    while True:
        tools = about.get("tools") or ()
        request = options.chat(name, tuple(history.messages), system=history.system, tools=tools, options={})
        count = yield from flows.tokens.count(request)
        if count.limit is None or count.tokens + wanted <= count.limit:
            return
        turns = history.turns()
        if len(turns) < 2:
            raise PromptTooLong(tokens=count.tokens, limit=count.limit, wanted=wanted)
        history.dropped += len(turns[0])
        history.messages = [message for turn in turns[1:] for message in turn]


def summarise(flows: Flows, history: History, *, keep: int, model: str | None) -> Flow[str]:
    """The oldest turns, all but the last `keep`, are replaced by the model's own summary of them."""
    turns = history.turns()
    there = max(0, len(turns) - keep)
    old, rest = turns[:there], turns[there:]
    if not old:
        return ""
    name = yield from flows.model(model)
    asked = Message(role="user", parts=(Text(text=SUMMARISE),))
    told = (*(message for turn in old for message in turn), asked)
    request = options.chat(name, told, system=history.system, options={"temperature": 0})
    result = yield from flows.chat(request)
    if not result.text.strip():
        empty = WrongAnswer("The summary is empty; the conversation stays as it is.", text=result.text)
        empty.url, empty.request_id = result.url, result.request_id
        raise empty
    summary = (
        Message(role="user", parts=(Text(text="What was said before, in short?"),)),
        Message(role="assistant", parts=(Text(text=result.text),)),
    )
    history.messages = [*summary, *(message for turn in rest for message in turn)]
    return result.text


class Conversation(History):
    """With a Client: `talk = Conversation(client, system="Be brief.")`, `print(talk.ask("Hello"))`."""

    def __init__(
        self,
        client: Client,
        system: str | None = None,
        messages: Sequence[Message] = (),
        *,
        model: str | None = None,
    ) -> None:
        super().__init__(system, messages)
        self._client, self._model = client, model

    @classmethod
    def load(cls, path: str | Path, client: Client, *, model: str | None = None) -> Conversation:
        """Goes on with a saved one. Raises InvalidRequest for a file that is none."""
        return cls(client, *cls.read(path), model=model)

    def ask(self, said: Messages, *, output: Any = None, **given: Any) -> Result[Any]:
        """Raises ClientError; then what was said is not part of the conversation."""
        return self._client.carry_out(
            lambda flows: ask(flows, self, said, output=output, given=given, model=self._model)
        )

    def summarise(self, *, keep: int = 2) -> str:
        """Replaces all turns but the last `keep` by a summary, which it returns."""
        return self._client.carry_out(lambda flows: summarise(flows, self, keep=keep, model=self._model))


class AsyncConversation(History):
    """The same with an AsyncClient."""

    def __init__(
        self,
        client: AsyncClient,
        system: str | None = None,
        messages: Sequence[Message] = (),
        *,
        model: str | None = None,
    ) -> None:
        super().__init__(system, messages)
        self._client, self._model = client, model

    @classmethod
    def load(cls, path: str | Path, client: AsyncClient, *, model: str | None = None) -> AsyncConversation:
        """Goes on with a saved one. Raises InvalidRequest for a file that is none."""
        return cls(client, *cls.read(path), model=model)

    async def ask(self, said: Messages, *, output: Any = None, **given: Any) -> Result[Any]:
        return await self._client.carry_out(
            lambda flows: ask(flows, self, said, output=output, given=given, model=self._model)
        )

    async def summarise(self, *, keep: int = 2) -> str:
        return await self._client.carry_out(
            lambda flows: summarise(flows, self, keep=keep, model=self._model)
        )

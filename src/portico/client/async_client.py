"""The client in an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, overload

import httpx2
from typing_extensions import Unpack

from portico import recording
from portico.client.abilities import Probe
from portico.client.arranged import QUICK, arranged, nobody_answers
from portico.client.arranged import about as _about
from portico.client.asks import Asks, Embeddings
from portico.client.batch import AT_ONCE, Batch, Done, Progress, arun, done
from portico.client.beam_search import By, Wanted, search
from portico.client.beams import Beams, EarlyStopping
from portico.client.budget import Budget
from portico.client.drive_async import Given, Pool, Sending, Sendings, drive
from portico.client.fallback import Fallbacks
from portico.client.flows import Flows, ModelCard, standing_in
from portico.client.journal import Journal
from portico.client.mcp import aopened
from portico.client.options import Messages, Options
from portico.client.outputs import output as output_of
from portico.client.prices import Price
from portico.client.results import Result
from portico.client.rounds import LIMITS, Limits, Loop, Mode, Run
from portico.client.servers import Server
from portico.client.settings import RETRY, TIMEOUTS, Retry, Settings, Timeouts
from portico.client.streaming import AsyncEventStream
from portico.client.tokens import Count
from portico.client.watch import CUT
from portico.client.watched import AsyncWatched
from portico.client.wishes import Flow
from portico.errors import ClientError, NotRunning
from portico.messages import Tool, ToolChoice

P = TypeVar("P")
T = TypeVar("T")


class AsyncClient:
    """Talks to Portico, vLLM, Ollama's /v1, OpenAI, or anything else that speaks OpenAI's API. Its server is found at the
    first call; it never starts one (portico.local does). Close it, or use it in an `async with`. It belongs to one event loop at
    a time, in which tasks may share it; in another one it makes new connections.

    url, api_key: the server and its key; else PORTICO_HOST, VLLM_BASE_URL or VLLM_ENDPOINT, OLLAMA_HOST, OPENAI_BASE_URL,
    each with the key of its own variable; else whoever answers on loopback's ports 11434 and 8000.
    model: else VLLM_MODEL, VLLM_MODEL_NAME; else the first that the server lists.
    fallback: places (url, model) that are asked in order when the server cannot answer, each with a key of its own; or a
        Fallback, which also says when. `headers` and `http_client` are not for them.
    budget: what all its calls together may take. prices: of models, where the file of prices does not know better.
    logger, debug, raw_debug, debug_truncate_length, events: what is told of its requests. To the logger, else to the one named
        "portico.client", at DEBUG: a line each; with debug (or VLLM_DEBUG=1) the bodies too, their texts cut to
        debug_truncate_length characters; with raw_debug whole. `events` is a file of JSON lines, one a request and one a
        response. Keys are never told.
    Raises ConfigError for a URL that is none.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        model: str | None = None,
        api_key: str | None = None,
        fallback: Fallbacks = None,
        budget: Budget | None = None,
        prices: Mapping[str, Price] = {},
        timeouts: Timeouts = TIMEOUTS,
        retry: Retry = RETRY,
        headers: Mapping[str, str] = {},
        verify: Any = True,
        proxy: str | None = None,
        http_client: httpx2.AsyncClient | None = None,
        logger: logging.Logger | None = None,
        debug: bool = False,
        raw_debug: bool = False,
        debug_truncate_length: int = CUT,
        events: str | Path | None = None,
    ) -> None:
        self._settings, self._candidates, self._others, self._watch = arranged(
            os.environ,
            url,
            model=model,
            api_key=api_key,
            fallback=fallback,
            budget=budget,
            prices=prices,
            timeouts=timeouts,
            retry=retry,
            headers=headers,
            logger=logger,
            debug=debug,
            raw_debug=raw_debug,
            debug_truncate_length=debug_truncate_length,
            events=events,
        )
        self._connection: dict[str, Any] = {"verify": verify, "proxy": proxy, "http_client": http_client}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._finding = asyncio.Lock()
        self._sender: AsyncWatched | None = None
        self._flows: Flows | None = None

    # ---- its life

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Ends its connections. A client that is used again opens new ones."""
        self._in_this_loop()
        if self._sender is not None:
            await self._sender.close()
            self._sender = self._flows = None

    async def url(self) -> str:
        """The server it talks to. Raises NotRunning where none is named and none answers on loopback."""
        return (await self._found())[1].server.url

    # ---- answers

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        output: type[P],
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice | None = None,
        parallel_tool_calls: bool | None = None,
        think: bool | str | None = None,
        check: bool = False,
        extra: Mapping[str, Any] | None = None,
        **given: Unpack[Options],
    ) -> Result[P]: ...

    @overload
    async def chat(
        self,
        messages: Messages,
        *,
        output: Any = None,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice | None = None,
        parallel_tool_calls: bool | None = None,
        think: bool | str | None = None,
        check: bool = False,
        extra: Mapping[str, Any] | None = None,
        **given: Unpack[Options],
    ) -> Result[Any]: ...

    async def chat(
        self,
        messages: Messages,
        *,
        output: Any = None,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice | None = None,
        parallel_tool_calls: bool | None = None,
        think: bool | str | None = None,
        check: bool = False,
        extra: Mapping[str, Any] | None = None,
        **given: Unpack[Options],
    ) -> Result[Any]:
        """The model's answer to a conversation, whole.

        output: a pydantic model, dataclass, TypedDict or other type, a JSON schema, Choice, Regex or Grammar: the server is
            held to it, the answer is checked, and `result.parsed` is the value.
        think: reasoning on, off, or its effort; None: the model's default.
        check: the prompt's tokens are counted first, and one that cannot fit is not sent.
        extra: fields of the request that this version does not know.
        Raises ClientError; WrongAnswer for one that does not keep to `output`.
        """
        about = _about(system, tools, tool_choice, parallel_tool_calls, think, extra)
        return await self._drive(
            lambda asks: asks.chat(
                messages, model=model, output_type=output, check=check, about=about, given=given
            )
        )

    async def generate(self, prompt: str, *, output: Any = None, **more: Any) -> Result[Any]:
        """`chat` with one message of the user's."""
        return await self.chat(prompt, output=output, **more)

    @contextlib.asynccontextmanager
    async def stream(
        self,
        messages: Messages,
        *,
        output: Any = None,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Tool] = (),
        tool_choice: ToolChoice | None = None,
        parallel_tool_calls: bool | None = None,
        think: bool | str | None = None,
        extra: Mapping[str, Any] | None = None,
        **given: Unpack[Options],
    ) -> AsyncIterator[AsyncEventStream]:
        """The events of an answer as they come. Leaving the block ends it, and the engine stops.

        output: as in `chat`. The value comes too as it grows: events of the kind `Parsed`, the last of which is `whole`,
            of the type and checked; then it is in `result.parsed`. Raises WrongAnswer at the end for one that is not.
        """
        about = _about(system, tools, tool_choice, parallel_tool_calls, think, extra)
        exchanged, reader, began, wanted = await self._drive(
            lambda asks: asks.chat_stream(messages, model=model, output_type=output, about=about, given=given)
        )
        events = AsyncEventStream(exchanged, reader, began=began, wanted=wanted)
        try:
            yield events
        finally:
            await events.close()

    async def complete(
        self,
        prompt: str | Sequence[int] | Sequence[str],
        *,
        model: str | None = None,
        echo: bool = False,
        suffix: str | None = None,
        extra: Mapping[str, Any] | None = None,
        **given: Unpack[Options],
    ) -> Result[Any]:
        """A raw completion of a text or of token ids, without a chat template."""
        about = {"echo": echo, "suffix": suffix, "extra": extra}
        return await self._drive(lambda asks: asks.complete(prompt, model=model, about=about, given=given))

    async def embed(
        self, texts: str | Sequence[str], *, model: str | None = None, dimensions: int | None = None
    ) -> Embeddings:
        """A vector for each text. Raises NotSupported for a model that has none."""
        return await self._drive(lambda asks: asks.embed(texts, model=model, dimensions=dimensions))

    async def run(
        self,
        messages: Messages,
        *,
        tools: Sequence[Any],
        output: Any = None,
        model: str | None = None,
        system: str | None = None,
        mode: Mode = "auto",
        limits: Limits = LIMITS,
        allow: Callable[..., Any] | None = None,
        on_step: Callable[..., Any] | None = None,
        think: bool | str | None = None,
        extra: Mapping[str, Any] | None = None,
        **given: Unpack[Options],
    ) -> Run[Any]:
        """Asks, makes the calls that the model asks for, tells it what came of them, and so on until it answers.

        tools: functions, sync or async, whose type hints and docstrings are what the model is told; McpServer.
        output: the type of the answer, as in `chat`.
        mode: native (the server's tools), schema (one JSON schema over "call a tool or finish"), or auto; `run.why` says.
        allow: called with `name` and `arguments` before each call; False or a text refuses it, and the model is told.
        on_step: called with each `step` when it is made.
        Raises ClientError; what a tool raises is told to the model.
        """
        told = {"system": system, "think": think, "extra": extra}

        def ask(flows: Flows) -> Flow[Run[Any]]:
            loop = Loop(flows, ready, wanted=output, mode=mode, limits=limits, allow=allow, on_step=on_step)
            return loop.run(messages, model=model, about=told, given=given)

        async with aopened(tools) as ready:
            return await self.carry_out(ask)

    async def batch(
        self,
        requests: Iterable[Any],
        *,
        journal: str | Path | None = None,
        output: Any = None,
        model: str | None = None,
        system: str | None = None,
        think: bool | str | None = None,
        extra: Mapping[str, Any] | None = None,
        at_once: int = AT_ONCE,
        again: bool = False,
        on_progress: Callable[[Progress], None] | None = None,
        **given: Unpack[Options],
    ) -> AsyncGenerator[Done[Any], None]:
        """Many requests, each answered once: results as they come, in no order; each names its row by `custom_id`.

        requests: what `chat` takes, or rows of OpenAI's batch format; a request's place in the list is its id.
        journal: a file in which every answer is kept before the next request takes its place: the same call again goes on
            where it was, whatever ended the program. What it holds already is given too. None: nothing is kept.
        at_once: requests in flight at most; fewer as long as the server is busy.
        again: what failed in an earlier run of this journal is asked again.
        A request that fails fails alone: its `error` says why. Raises NotRunning, NotTrusted and WrongKey, which all would
        meet; InUse where another run writes to the journal.
        """
        wanted = output_of(output) if output is not None else None
        told = {"system": system, "think": think, "extra": extra}
        rows = await self._drive(
            lambda asks: asks.rows(requests, model=model, wanted=wanted, about=told, given=given)
        )
        sender, flows = await self._found()
        with contextlib.closing(Journal(Path(journal) if journal is not None else None)) as kept:
            batch = Batch(
                rows,
                kept,
                flows=flows,
                at_once=at_once,
                again=again,
                on_progress=on_progress,
            )
            for outcome in batch.earlier():
                yield done(outcome, batch.rows[outcome.custom_id], wanted)
            async with contextlib.aclosing(arun(batch, sender)) as outcomes:
                async for outcome in outcomes:
                    yield done(outcome, batch.rows[outcome.custom_id], wanted)

    async def beam_search(
        self,
        prompt: str | Sequence[int] | Messages,
        width: int = 4,
        *,
        model: str | None = None,
        max_tokens: int = 64,
        length_penalty: float = 1.0,
        early_stopping: EarlyStopping = True,
        ends: Sequence[int] | None = None,
        by: By = "auto",
        at_once: int = 16,
        extra: Mapping[str, Any] | None = None,
    ) -> Beams:
        """The likeliest answers to a prompt, the best first: `width` beams are followed token by token.

        prompt: a text or token ids, without a chat template, or messages, with it.
        By transformers' rules, whose sequences these are: of the `width` likeliest continuations of a step, those at an
        end of the model's (or at `max_tokens`) are finished, and the `width` likeliest others go on. A finished one's
        score is the sum of its log probabilities / its tokens, the end included, ** `length_penalty`: above 0 favours
        long answers, 0 the sum alone.
        early_stopping: True ends when `width` are finished, False when what runs can no longer be better at its
            present length, "never" when it could not be at any.
        ends: the tokens that end an answer. Without it the server is asked, once for each token that comes up.
        by: client, over token ids and log probabilities; server, vLLM's use_beam_search in one request, which never
            stops early, knows one end only and does not count it as a token; auto: the client, but the server for
            early_stopping="never" where it can.
        at_once: requests side by side at most. Servers give 20 alternatives with a token, so `width` goes up to that.
        Raises NotSupported for a server that gives no token ids or log probabilities, or too few of them.
        """
        wanted = Wanted(
            width, max_tokens, length_penalty, early_stopping, ends, by, max(1, at_once), dict(extra or {})
        )
        return await self.carry_out(lambda flows: search(flows, prompt, model=model, wanted=wanted))

    # ---- what there is

    async def models(self) -> tuple[ModelCard, ...]:
        """What the server lists."""
        return await self.carry_out(lambda flows: flows.models())

    async def probe(self, *, model: str | None = None) -> Probe:
        """What the server supports, found out without making it generate; printed, it is a table. What a server says that it
        has is kept for a day (by its address and version), what it lacks is asked each time."""
        return await self.carry_out(lambda flows: flows.probe(model))

    async def tokenize(self, text: str, *, model: str | None = None) -> list[int]:
        return await self.carry_out(lambda flows: flows.tokens.tokenize(text, model=model))

    async def detokenize(self, tokens: Sequence[int], *, model: str | None = None) -> str:
        return await self.carry_out(lambda flows: flows.tokens.detokenize(tokens, model=model))

    async def count(
        self,
        messages: Messages,
        *,
        model: str | None = None,
        system: str | None = None,
        tools: Sequence[Tool] = (),
    ) -> Count:
        """Tokens of the prompt that the server makes of a conversation; `exact` says whether it counted them."""
        return await self._drive(lambda asks: asks.count(messages, model=model, system=system, tools=tools))

    # ---- inside

    async def _drive(self, ask: Callable[[Asks], Flow[T]]) -> T:
        sender, flows = await self._found()
        return await drive(ask(Asks(flows)), sender)

    async def carry_out(self, ask: Callable[[Flows], Flow[T]]) -> T:
        """What a flow of this client returns: for what is built on it."""
        sender, flows = await self._found()
        return await drive(ask(flows), sender)

    async def _found(self) -> tuple[AsyncWatched, Flows]:
        self._in_this_loop()
        async with self._finding:
            if self._sender is None or self._flows is None:
                self._sender, self._flows = await self._first_that_answers()
            return self._sender, self._flows

    def _in_this_loop(self) -> None:
        """After a second asyncio.run, say: the connections went with the loop that they belonged to."""
        if (loop := asyncio.get_running_loop()) is not self._loop:
            self._loop, self._finding, self._sender, self._flows = loop, asyncio.Lock(), None, None

    async def _first_that_answers(self) -> tuple[AsyncWatched, Flows]:
        if len(self._candidates) == 1 or isinstance(recording.current(), recording.Player):
            return self._at(self._candidates[0], self._settings)
        for server in self._candidates:
            sender, flows = self._at(server, QUICK)
            try:
                with recording.apart():  # a replay looks for no server
                    await drive(flows.models(), sender)
            except NotRunning:
                continue
            except ClientError:
                pass  # something is there, and its error is worth more than ours
            finally:
                await sender.close()
            return self._at(server, self._settings)
        if self._others:  # the first is asked again at each call, and then they are
            return self._at(self._candidates[0], self._settings)
        raise nobody_answers(self._candidates)

    def _at(self, server: Server, settings: Settings) -> tuple[AsyncWatched, Flows]:
        sender: Sending
        verify, proxy = self._connection["verify"], self._connection["proxy"]
        if (client := self._connection["http_client"]) is not None:
            sender = Given(server, settings.timeouts, client, headers=settings.headers)
        else:
            sender = Pool(server, settings.timeouts, headers=settings.headers, verify=verify, proxy=proxy)
        others = {
            other: Pool(other, settings.timeouts, headers=place.headers, verify=verify, proxy=proxy)
            for place, other in self._others
            if other != server
        }
        return AsyncWatched(Sendings(sender, list(others.values())), self._watch), Flows(
            server, settings, standing_in(self._others, settings)
        )


__all__ = ["AsyncClient"]

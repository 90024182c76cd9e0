"""A budget is never exceeded: by calls one after the other, in parallel, in runs, in streams, with retries and failures; and
what a call cost is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_server import LiveServer
from portico.client.async_client import AsyncClient
from portico.client.budget import Budget, Hold, Need, hold, in_force
from portico.client.client import Client
from portico.client.prices import FREE, Cost, Price, Tariff, cost, openai_prices, tariff, total
from portico.client.servers import Server
from portico.client.settings import NO_RETRY, Timeouts
from portico.errors import (
    ConfigError,
    CutOff,
    InvalidRequest,
    OverBudget,
    PriceUnknown,
    PromptTooLong,
    ServerFailed,
    TimedOut,
)
from portico.messages import Usage
from scripted_answers import CHAT, COMPLETIONS, EMBEDDINGS, chat_stream, reply
from scripted_upstream import HOLD, RESET, Received, ScriptedUpstream
from test_client import QUICK, Both, error

PROMPT = 38
"""Tokens of `Hello`, as the scripted upstream counts them."""
USED = 10
"""Tokens that each of its answers says it took."""


LATER = 1.2
"""Seconds after which a server that ends a kept connection had not merely closed it before."""


@pytest.fixture(scope="module")
def _upstream() -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream() as running:
        yield running


@pytest.fixture
def upstream(_upstream: ScriptedUpstream) -> ScriptedUpstream:
    _upstream.reset()
    return _upstream


@pytest.fixture(params=["sync", "async"])
def both(request: pytest.FixtureRequest, upstream: ScriptedUpstream) -> Both:
    return Both(request.param, upstream.url)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORTICO_HOME", str(tmp_path / "home"))


def test_the_prompt_is_what_the_server_counts(upstream: ScriptedUpstream) -> None:
    with Client(upstream.url) as one:
        count = one.count("Hello")
    assert (count.tokens, count.exact) == (PROMPT, True)


# ---- one call


def test_what_a_call_took_is_taken(both: Both) -> None:
    budget = Budget(tokens=1000)
    both.chat(budget=budget, told={"max_tokens": 20})
    assert (budget.used_tokens, budget.held_tokens, budget.left_tokens) == (USED, 0, 1000 - USED)
    assert not budget.estimated and str(budget) == "10 of 1000 tokens"


def test_what_cannot_fit_is_not_sent(both: Both, upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=100)
    with pytest.raises(
        OverBudget, match=r"may take 138 tokens, and the budget of 100 has 100 left"
    ) as caught:
        both.chat(budget=budget, told={"max_tokens": 100})
    assert (caught.value.needed, caught.value.left) == (138, 100)
    assert not upstream.requests(CHAT) and budget.left_tokens == 100


def test_without_max_tokens_a_call_has_what_is_left(both: Both, upstream: ScriptedUpstream) -> None:
    both.chat(budget=Budget(tokens=100))
    assert upstream.last(CHAT)["max_tokens"] == 100 - PROMPT
    both.chat(budget=Budget(tokens=10**9))
    assert upstream.last(CHAT)["max_tokens"] == 8192 - PROMPT, "the rest of the context is less"
    with pytest.raises(OverBudget):
        both.chat(budget=Budget(tokens=PROMPT))


def test_a_server_that_does_not_tell_its_context(both: Both, upstream: ScriptedUpstream) -> None:
    """A budget may be more than a model takes in one answer."""
    upstream.script("/v1/models", reply(200, {"data": [{"id": "m"}]}))
    upstream.script("/tokenize", reply(404, {}))
    both.chat(budget=Budget(cost=50), prices={"m": Price(input=1, output=1)})  # type: ignore[arg-type]
    assert upstream.last(CHAT)["max_tokens"] == 4096


def test_several_answers_count_each(both: Both, upstream: ScriptedUpstream) -> None:
    with pytest.raises(OverBudget) as caught:
        both.chat(budget=Budget(tokens=100), told={"max_tokens": 20, "n": 4})
    assert caught.value.needed == PROMPT + 80
    both.chat(budget=Budget(tokens=100), told={"n": 2})
    assert upstream.last(CHAT)["max_tokens"] == (100 - PROMPT) // 2


def test_raw_completions_and_vectors(both: Both, upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=100)
    both.do(lambda one: one.complete("four"), budget=budget)
    assert upstream.last(COMPLETIONS)["max_tokens"] == 96 and budget.used_tokens == USED
    both.do(lambda one: one.embed(["one", "two"]), budget=budget)
    assert budget.used_tokens == USED + 10
    with pytest.raises(OverBudget):
        both.do(lambda one: one.embed(["x" * 81]), budget=budget)
    assert len(upstream.requests(EMBEDDINGS)) == 1


def test_a_prompt_that_fills_the_context(both: Both) -> None:
    with pytest.raises(PromptTooLong):
        both.chat("x" * 9000, budget=Budget(tokens=10**6))


def test_a_server_that_cannot_count(both: Both, upstream: ScriptedUpstream) -> None:
    upstream.script("/tokenize", reply(404, {}))
    budget = Budget(tokens=1000)
    both.chat(budget=budget, told={"max_tokens": 20})
    assert budget.estimated and str(budget).endswith("(estimated)")


def test_a_server_that_does_not_say_what_it_took(both: Both, upstream: ScriptedUpstream) -> None:
    choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "stop"}
    upstream.script(CHAT, reply(200, {"id": "1", "choices": [choice]}))
    budget = Budget(tokens=1000)
    both.chat(budget=budget, told={"max_tokens": 20})
    assert budget.used_tokens == PROMPT + 20, "all that was set aside"


def test_a_budget_of_nothing_is_none() -> None:
    for wrong in ({}, {"tokens": -1}, {"cost": -0.1}):
        with pytest.raises(ConfigError):
            Budget(**wrong)  # type: ignore[arg-type]


# ---- failures


def test_what_was_turned_away_took_nothing(both: Both, upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=100)
    upstream.script(CHAT, error(503), error(429))
    both.chat(budget=budget, told={"max_tokens": 20})
    assert budget.used_tokens == USED
    upstream.script(CHAT, error(422))
    with pytest.raises(Exception, match="no"):
        both.chat(budget=budget, told={"max_tokens": 20})
    assert (budget.used_tokens, budget.held_tokens) == (USED, 0)


def test_what_broke_off_counts_in_full(both: Both, upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=200)
    upstream.script(CHAT, (LATER, RESET))
    both.chat(budget=budget, told={"max_tokens": 20, "model": "mock-model"})
    assert budget.used_tokens == PROMPT + 20 + USED
    upstream.script(CHAT, *[(LATER, RESET)] * 3)
    with pytest.raises(OverBudget):  # two attempts do not fit any more
        both.chat(budget=budget, told={"max_tokens": 20})
    assert budget.used_tokens <= 200 and budget.held_tokens == 0
    assert len(upstream.requests(CHAT)) <= 4


def test_a_call_that_is_cancelled_counts_in_full(upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=200)
    upstream.script(CHAT, (HOLD,))

    async def run() -> None:
        async with AsyncClient(upstream.url, budget=budget) as one:
            task = asyncio.create_task(one.chat("Hello", max_tokens=20))
            await asyncio.to_thread(upstream.wait_for_request, CHAT)
            assert budget.held_tokens == PROMPT + 20
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(run())
    assert (budget.used_tokens, budget.held_tokens) == (PROMPT + 20, 0)


# ---- streams


def test_a_stream_is_settled_at_its_end(both: Both) -> None:
    budget = Budget(tokens=100)
    result = both.stream(budget=budget)
    assert budget.used_tokens == USED and budget.held_tokens == 0
    assert result.cost.usd == 0 and result.cost.why.startswith("local")


def test_a_stream_that_is_left_or_cut_counts_in_full(both: Both, upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=8192)
    with pytest.raises(ZeroDivisionError):
        both.stream(lambda event: 1 // 0, budget=budget)
    assert budget.used_tokens == 8192 and budget.held_tokens == 0
    budget = Budget(tokens=100)
    upstream.script(CHAT, (*chat_stream("one two")[:3], RESET))
    with pytest.raises(CutOff):
        both.stream(budget=budget)
    assert budget.used_tokens == 100


def test_a_call_does_not_wait_for_a_stream(upstream: ScriptedUpstream) -> None:
    """Its reader may be the one who waits."""
    budget = Budget(tokens=100)
    with Client(upstream.url, budget=budget) as one, one.stream("Hello") as events:
        with pytest.raises(OverBudget, match="calls in flight hold 100"):
            one.chat("Hello", max_tokens=5)
        list(events)
        assert one.chat("Hello", max_tokens=5).text == "Hello there"


# ---- in parallel


class Watched:
    """What the server was asked for and has not answered yet, and what it has answered: their sum is what it may take."""

    def __init__(self, upstream: ScriptedUpstream) -> None:
        self.taken, self.worst, self._lock = 0, 0, threading.Lock()
        self.upstream = upstream

    def answer(self, request: Received) -> Any:
        """`max_tokens` are really used."""
        with self._lock:
            self.taken += PROMPT + request.json["max_tokens"]
            self.worst = max(self.worst, self.taken)
        tokens = request.json["max_tokens"]
        usage = {"prompt_tokens": PROMPT, "completion_tokens": tokens, "total_tokens": PROMPT + tokens}
        choice = {"index": 0, "message": {"role": "assistant", "content": "x"}, "finish_reason": "length"}
        return (0.005, *reply(200, {"id": "1", "choices": [choice], "usage": usage}))


@pytest.mark.parametrize("max_tokens", [16, None])
def test_tasks_never_exceed_it(upstream: ScriptedUpstream, max_tokens: int | None) -> None:
    watched, budget = Watched(upstream), Budget(tokens=1000)
    upstream.script(CHAT, *[watched.answer] * 64)
    told = {} if max_tokens is None else {"max_tokens": max_tokens}

    async def run() -> list[Any]:
        async with AsyncClient(upstream.url, budget=budget) as one:
            calls = [one.chat("Hello", **told) for _ in range(40)]  # type: ignore[arg-type]
            return await asyncio.gather(*calls, return_exceptions=True)

    ended = asyncio.run(run())
    assert watched.worst <= 1000 and budget.used_tokens == watched.taken and budget.held_tokens == 0
    assert {type(each) for each in ended if isinstance(each, BaseException)} == {OverBudget}
    answered = sum(not isinstance(each, BaseException) for each in ended)
    assert answered == (1000 // (PROMPT + 16) if max_tokens else 1)


def test_threads_never_exceed_it(upstream: ScriptedUpstream) -> None:
    watched, budget = Watched(upstream), Budget(tokens=500)
    upstream.script(CHAT, *[watched.answer] * 16)
    refused: list[OverBudget] = []

    def ask() -> None:
        try:
            one.chat("Hello", max_tokens=16)
        except OverBudget as error:
            refused.append(error)

    with Client(upstream.url, budget=budget) as one:
        threads = [threading.Thread(target=ask) for _ in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert watched.worst <= 500 and len(refused) == 16 - 500 // (PROMPT + 16)


def test_a_call_waits_for_what_others_leave(upstream: ScriptedUpstream) -> None:
    """Ten calls may take 60 tokens each and take 10: 100 are enough for all."""
    budget = Budget(tokens=150)

    async def run() -> list[str]:
        async with AsyncClient(upstream.url, budget=budget) as one:
            results = await asyncio.gather(*(one.chat("Hello", max_tokens=16) for _ in range(10)))
            return [result.text for result in results]

    assert len(asyncio.run(run())) == 10 and budget.used_tokens == 100


def test_waiting_has_the_calls_own_limit(upstream: ScriptedUpstream) -> None:
    budget = Budget(tokens=100)
    upstream.script(CHAT, (HOLD,))

    async def run() -> None:
        async with AsyncClient(upstream.url, budget=budget, retry=NO_RETRY) as one:
            first = asyncio.create_task(one.chat("Hello", max_tokens=50))
            await asyncio.to_thread(upstream.wait_for_request, CHAT)
            async with AsyncClient(upstream.url, budget=budget, timeouts=Timeouts(total=0.2)) as other:
                with pytest.raises(TimedOut) as caught:
                    await other.chat("Hello", max_tokens=50)
            assert caught.value.which == "total"
            first.cancel()

    asyncio.run(run())
    assert len(upstream.requests(CHAT)) == 1


# ---- of a block


def test_a_block_holds_every_client_in_it(both: Both, upstream: ScriptedUpstream) -> None:
    with Budget(tokens=1000) as budget:
        both.chat(told={"max_tokens": 20})
        with Budget(tokens=50) as inner, pytest.raises(OverBudget):
            both.chat(told={"max_tokens": 20})
        both.chat(told={"max_tokens": 20})
    assert budget.used_tokens == 2 * USED and inner.used_tokens == 0
    both.chat(told={"max_tokens": 20})
    assert budget.used_tokens == 2 * USED and in_force(None) == ()


def test_a_run_ends_where_its_budget_does(both: Both, upstream: ScriptedUpstream) -> None:
    def turn(at: int) -> Any:
        call = {"id": "c", "type": "function", "function": {"name": "look", "arguments": f'{{"at": {at}}}'}}
        said = {"role": "assistant", "tool_calls": [call]}
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        choice = {"index": 0, "message": said, "finish_reason": "tool_calls"}
        return reply(200, {"id": "1", "choices": [choice], "usage": usage})

    upstream.script(CHAT, *map(turn, range(9)))
    looked: list[int] = []

    def look(at: int) -> int:
        looked.append(at)
        return at

    with Budget(tokens=1000) as budget, pytest.raises(OverBudget):
        both.do(lambda one: one.run("Look", tools=[look], max_tokens=200))
    assert budget.used_tokens <= 1000 and 1 <= len(upstream.requests(CHAT)) == len(looked)


@pytest.mark.parametrize("kind", ["sync", "async"])
def test_a_batch_ends_where_its_budget_does_and_goes_on_with_another(
    upstream: ScriptedUpstream, tmp_path: Path, kind: str
) -> None:
    watched = Watched(upstream)
    upstream.script(CHAT, *[watched.answer] * 30)
    journal = tmp_path / "out.jsonl"
    rows = [f"Row {at}" for at in range(20)]
    each = len('[{"role": "user", "content": "Row 1"}]') + 1 + 16

    def run(budget: Budget) -> int:
        if kind == "sync":
            with Client(upstream.url, retry=QUICK) as one, budget:
                return len(list(one.batch(rows, journal=journal, max_tokens=16)))

        async def arun() -> int:
            async with AsyncClient(upstream.url, retry=QUICK) as one:
                with budget:
                    return len([done async for done in one.batch(rows, journal=journal, max_tokens=16)])

        return asyncio.run(arun())

    with pytest.raises(OverBudget):
        run(small := Budget(tokens=5 * each))
    assert 4 <= len(upstream.requests(CHAT)) <= 5 and small.used_tokens <= 5 * each and small.held_tokens == 0
    assert run(Budget(tokens=10**6)) == 20 and len(upstream.requests(CHAT)) == 20


def test_a_beam_search_ends_where_its_budget_does(server: LiveServer) -> None:
    with Client(server.url) as one, Budget(tokens=200) as budget:
        with pytest.raises(OverBudget):
            one.beam_search([5, 6, 7], 4, max_tokens=60)
        assert 100 <= budget.used_tokens <= 200


# ---- money


def test_a_token_here_costs_nothing(both: Both) -> None:
    result = both.chat(budget=Budget(cost=0))
    assert result.cost == Cost(usd=Decimal(0), why="local: its tokens cost nothing")
    assert str(result.cost) == "$0 (local: its tokens cost nothing)"


def test_a_price_that_is_given(both: Both, upstream: ScriptedUpstream) -> None:
    prices = {"mock-model": Price(input=1000, output=10_000)}  # type: ignore[arg-type]
    budget = Budget(cost=1)
    result = both.chat(budget=budget, prices=prices, told={"max_tokens": 20})
    assert result.cost.usd == budget.used_cost == Decimal("0.037")
    both.chat(budget=budget, prices=prices)
    assert upstream.last(CHAT)["max_tokens"] == (1_000_000 - 37_000 - PROMPT * 1000) // 10_000
    with pytest.raises(OverBudget, match=r"may take 1\.038 dollars, and the budget of 1 has 0\.926 left"):
        both.chat(budget=budget, prices=prices, told={"max_tokens": 100})


def test_a_price_that_nobody_knows() -> None:
    found = tariff(Server(url="https://api.example.com"), "m", {})
    assert found.price is None and "no price is known for m at https://api.example.com" in found.why
    assert tariff(Server(url="https://api.openai.com"), "gpt-none", {}).price is None
    assert tariff(Server(url="http://192.168.1.5:8000"), "m", {}).price == FREE
    far = Client("https://api.example.com", model="m", budget=Budget(cost=1))
    with far, pytest.raises(PriceUnknown, match=r"prices=\{'m': Price\(...\)\}") as caught:
        far.chat("Hello")
    assert caught.value.url == "https://api.example.com"


def test_the_file_of_prices_says_when_and_whence() -> None:
    listed = openai_prices()
    assert listed.currency == "USD" and listed.sources and listed.read.year >= 2026
    assert all(price.input > 0 and price.output >= 0 for price in listed.models.values())
    assert all(price.cached is None or price.cached < price.input for price in listed.models.values())
    openai = Server(url="https://api.openai.com")
    dated = tariff(openai, "gpt-4o-mini-2024-07-18", {})
    assert dated.price == listed.models["gpt-4o-mini"] and str(listed.read) in dated.why


def test_cached_tokens_have_their_own_price() -> None:
    price = Price(input=Decimal(10), output=Decimal(20), cached=Decimal(1))
    usage = Usage(input_tokens=1_000_000, output_tokens=500_000, cached_tokens=400_000)
    assert price.of(usage) == Decimal("6") + Decimal("0.4") + Decimal("10")


def test_a_sum_of_costs() -> None:
    known, unknown = Cost(usd=Decimal("0.1"), why="a"), Cost(usd=None, why="b")
    assert total([known, known]) == Cost(usd=Decimal("0.2"), why="a")
    assert total([known, unknown]) == Cost(usd=None, why="a; b")


def test_a_server_that_stands_in_has_its_own_price(both: Both, upstream: ScriptedUpstream) -> None:
    with ScriptedUpstream(model="dear") as second:
        upstream.script(CHAT, error(500))
        budget, prices = Budget(cost=1), {"dear": Price(input=1, output=1)}  # type: ignore[arg-type]
        result = both.chat(
            budget=budget, prices=prices, fallback=[second.url], retry=NO_RETRY, told={"max_tokens": 9}
        )
    assert result.cost.usd == budget.used_cost == Decimal("0.00001")
    assert budget.held_cost == 0


# ---- laws


@given(
    st.integers(0, 300),
    st.lists(
        st.tuples(
            st.integers(0, 80),  # prompt
            st.one_of(st.none(), st.integers(1, 80)),  # max_tokens
            st.one_of(st.none(), st.integers(1, 100)),  # room
            st.integers(1, 3),
            st.sampled_from(["settle", "unknown", "failed", "again", "open"]),
        ),
        max_size=20,
    ),
)
def test_used_and_held_are_never_more_than_there_is(most: int, calls: list[Any]) -> None:
    budget = Budget(tokens=most)
    for prompt, answer, room, answers, end in calls:
        need = Need(prompt=prompt, answer=answer, room=room, answers=answers)
        try:
            held = hold([budget], need, whole=True)
        except OverBudget as error:
            assert error.needed > error.left
            continue
        if not isinstance(held, Hold):
            assert budget.held_tokens > 0, "whoever waits, waits for somebody"
            continue
        assert held.answer == answer or (answer is None and held.answer >= 1)
        assert room is None or answer is not None or held.answer <= room
        if end == "again":
            try:
                held.again(ServerFailed("x", status=500))
            except OverBudget:
                end = "failed"
        if end == "settle":
            held.settle(Usage(input_tokens=prompt, output_tokens=held.answer))
        elif end == "unknown":
            held.settle(None)
        elif end == "failed":
            held.failed(CutOff())
        assert 0 <= budget.used_tokens + budget.held_tokens <= most


# ---- a real server


def test_on_the_embedded_engine(server: LiveServer) -> None:
    """What the server counts before is what it says it has read."""
    budget = Budget(tokens=300)
    with Client(server.url, budget=budget, retry=QUICK) as one:
        count = one.count("What is the capital of France?")
        result = one.chat("What is the capital of France?", max_tokens=20)
        assert count.exact and result.usage.input_tokens == count.tokens
        assert budget.used_tokens == result.usage.input_tokens + result.usage.output_tokens
        with pytest.raises(OverBudget):
            for _ in range(30):
                one.chat("What is the capital of France?", max_tokens=20)
    assert 300 - (count.tokens + 20) <= budget.used_tokens <= 300 and not budget.estimated


def test_a_request_that_cannot_be_written_leaves_a_budget_as_it_was(both: Both) -> None:
    budget = Budget(tokens=1000)
    with pytest.raises(InvalidRequest, match="cannot be written"):
        both.do(lambda one: one.complete("Hello", max_tokens=3, extra={"new": object()}), budget=budget)
    assert (budget.used_tokens, budget.held_tokens) == (0, 0)


def test_no_limit_in_llamacpps_words_is_what_is_left(both: Both, upstream: ScriptedUpstream) -> None:
    both.chat(budget=Budget(tokens=PROMPT + 100), told={"max_tokens": -1})
    assert upstream.last(CHAT)["max_tokens"] == 100


def test_what_nobody_told_costs_nobody_knows_what() -> None:
    paid = Tariff(price=Price(input=1, output=1), why="told")  # type: ignore[arg-type]
    assert cost(paid, Usage()).usd is None and "did not tell" in cost(paid, Usage()).why
    assert cost(paid, Usage(output_tokens=1)).usd and cost(Tariff(price=FREE, why="local"), Usage()).usd == 0

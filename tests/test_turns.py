"""Turns at an engine."""

from __future__ import annotations

import asyncio

import pytest

from portico.engines.turns import Turns
from portico.errors import Busy, WaitedTooLong


async def test_first_come_first_served_and_no_more_than_may_wait() -> None:
    turns = Turns(1, max_waiting=2)
    order: list[int] = []

    async def caller(number: int) -> None:
        async with turns:
            order.append(number)

    await turns.acquire()
    tasks = [asyncio.create_task(caller(number)) for number in range(2)]
    await asyncio.sleep(0)
    assert turns.waiting == 2
    with pytest.raises(Busy):
        await turns.acquire()
    turns.release()
    await asyncio.gather(*tasks)
    assert (order, turns.waiting) == ([0, 1], 0)


async def test_who_leaves_is_dropped_and_takes_no_turn() -> None:
    turns = Turns(1, max_waiting=5)
    await turns.acquire()
    leaving = asyncio.create_task(turns.acquire())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert turns.waiting == 0
    turns.release()
    await asyncio.wait_for(turns.acquire(), 1)


async def test_who_waits_too_long_is_turned_away_and_takes_no_turn() -> None:
    turns = Turns(1, max_waiting=5, patience=0.05)
    await turns.acquire()
    for _ in range(3):
        with pytest.raises(WaitedTooLong, match=r"0\.05 s for its turn \(queue_timeout\)"):
            await turns.acquire()
    assert turns.waiting == 0
    turns.release()
    await asyncio.wait_for(turns.acquire(), 1)

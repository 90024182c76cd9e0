"""Names, and a library that other programs change and whose folder may hang."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from portico.engines import Facts, ModelSpec
from portico.engines.supervisor import Supervisor
from portico.errors import ModelNotFound, PorticoError
from portico.gateway import models as module
from portico.gateway.models import Models, Served
from portico.gateway.openai_routes import OpenAIRoutes
from portico.gateway.serving import Serving
from portico.testing import FakeEngine
from test_gateway import call, gateway


def on_shelf(name: str, source: str) -> Served:
    return Served(name=f"{name}:latest", spec=ModelSpec(name=name, engine="llamacpp", source=source))


class Shelf:
    """What a listing finds, changed by the test as by another program."""

    def __init__(self, *served: Served) -> None:
        self.served = served
        self.listings = self.under_way = self.most_under_way = 0
        self.threads: set[int] = set()
        self.may_end = threading.Event()
        self.may_end.set()
        self.began = threading.Event()

    def __call__(self) -> tuple[Served, ...]:
        found = self.served
        self.listings += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.threads.add(threading.get_ident())
        self.began.set()
        assert self.may_end.wait(20)
        self.under_way -= 1
        return found

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.began.clear()
        self.may_end.clear()
        try:
            yield
        finally:
            self.may_end.set()


@pytest.fixture
def aged(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Every listing is an old one at once."""
    monkeypatch.setattr(module, "_FRESH", -1.0)
    monkeypatch.setattr(module, "_STALE", -1.0)
    return monkeypatch


async def source(models: Models, name: str = "a") -> str:
    return (await models.resolve(name)).spec.source


async def test_a_tag_that_another_program_pulled_anew_is_served_from_its_new_file(
    aged: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf(on_shelf("a", "/old"))
    models = Models([], shelf)
    assert await source(models) == "/old"
    shelf.served = (on_shelf("a", "/new"),)
    assert await source(models) == "/new"
    shelf.served = ()
    with pytest.raises(ModelNotFound):
        await models.resolve("a")


async def test_a_listing_a_little_old_is_used_and_made_anew_behind_the_caller(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shelf = Shelf(on_shelf("a", "/old"))
    models = Models([], shelf)
    assert await source(models) == "/old"
    monkeypatch.setattr(module, "_FRESH", -1.0)
    with shelf.hanging():
        shelf.served = (on_shelf("a", "/new"),)
        assert await source(models) == "/old"
    await models.current()
    assert await source(models) == "/new"


async def test_a_fresh_listing_is_not_made_again() -> None:
    shelf = Shelf(on_shelf("a", "/a"), on_shelf("b", "/b"))
    models = Models([], shelf)
    assert [await source(models, name) for name in ("a", "b", "A", "a")] == ["/a", "/b", "/a", "/a"]
    await models.current()
    assert shelf.listings == 1


async def test_a_library_that_hangs_stops_nobody_who_needs_nothing_of_it(aged: pytest.MonkeyPatch) -> None:
    aged.setattr(module, "_SHORT", 0.02)
    shelf = Shelf(on_shelf("a", "/a"))
    models = Models([ModelSpec(name="own", engine="remote", source="http://x")], shelf)
    await models.current()
    assert await source(models) == "/a"
    with shelf.hanging():
        assert [await source(models) for _ in range(3)] == ["/a"] * 3
        assert models.names() == ["own", "a"]
        asking = [asyncio.ensure_future(models.resolve("b")) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(each.done() for each in asking)
        shelf.served = ()
    for outcome in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(outcome, ModelNotFound)
    assert shelf.most_under_way == 1 and threading.get_ident() not in shelf.threads


async def test_what_changed_during_a_listing_is_not_missed() -> None:
    shelf = Shelf()
    models = Models([], shelf)
    with shelf.hanging():
        asking = asyncio.ensure_future(models.current())
        await asyncio.to_thread(shelf.began.wait, 10)
        shelf.served = (on_shelf("a", "/a"),)
        models.refresh()
    await asking
    assert models.names() == ["a"] and await source(models) == "/a"
    shelf.served = (on_shelf("a", "/new"),)
    models.refresh()
    assert await source(models) == "/new"


async def test_the_last_listing_is_told_from_memory() -> None:
    shelf = Shelf(on_shelf("a", "/a"))
    models = Models([], shelf)
    await models.current()
    models.refresh()
    assert models.names() == ["a"] and shelf.listings == 1


async def test_a_library_that_fails_stops_nobody_whose_model_is_known(
    aged: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    def shelf() -> tuple[Served, ...]:
        if broken:
            raise OSError(116, "Stale file handle")
        return (on_shelf("a", "/a"),)

    models = Models([ModelSpec(name="own", engine="remote", source="http://x")], shelf)
    await models.current()
    broken = True
    for _ in range(3):
        await models.current()
        assert [await source(models, name) for name in ("own", "a")] == ["http://x", "/a"]
    assert models.names() == ["own", "a"]
    with pytest.raises(PorticoError, match=r"cannot be listed.*Stale file handle"):
        await models.resolve("b")
    assert [record.message for record in caplog.records].count(
        "The models cannot be listed: [Errno 116] Stale file handle"
    ) == 1
    broken = False
    with pytest.raises(ModelNotFound):
        await models.resolve("b")


def test_a_library_that_hangs_does_not_keep_the_program_from_ending() -> None:
    code = """
import asyncio, threading
from portico.gateway.models import Models

async def main():
    models = Models([], lambda: threading.Event().wait())
    asking = asyncio.ensure_future(models.current())
    await asyncio.sleep(0.1)
    asking.cancel()
    models.close()

asyncio.run(main())
"""
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=20)


async def test_a_change_is_listed_though_nobody_asks() -> None:
    shelf = Shelf(on_shelf("a", "/a"))
    models = Models([], shelf)
    await models.current()
    shelf.served = (on_shelf("b", "/b"),)
    models.refresh()
    async with asyncio.timeout(10):
        while models.names() != ["b"]:  # noqa: ASYNC110 /health reads it like this, and waits for nothing
            await asyncio.sleep(0.005)


async def test_the_context_told_is_what_a_request_may_have() -> None:
    def spec(name: str, **more: Any) -> ModelSpec:
        return ModelSpec(name=name, engine="llamacpp", source=f"/{name}", **more)

    small = spec("small", context=100_000, facts=Facts(context=4096))
    specs = [
        small,
        spec("short", context=2048, facts=Facts(context=4096)),
        spec("plain", facts=Facts(context=4096)),
        spec("asked", context=2048),
        spec("unknown"),
    ]
    engine = FakeEngine()
    supervisor = Supervisor({"llamacpp": engine})
    app = gateway(*OpenAIRoutes(Serving(Models(specs), supervisor)).rows())

    async def told() -> list[int | None]:
        answer = json.loads((await call(app, "/v1/models", "GET")).body)
        return [each["max_model_len"] for each in answer["data"]]

    assert await told() == [4096, 2048, 4096, 2048, None]
    await supervisor.load(small)
    engine.replicas[0].context = 1024  # there was no memory for more
    assert await told() == [1024, 2048, 4096, 2048, None]
    one = json.loads((await call(app, "/v1/models/small", "GET")).body)
    assert one["max_model_len"] == 1024
    await supervisor.stop()

"""/health: what it says, to whom, and that one failure does not take the server from a load balancer."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from portico import __version__
from portico.engines import ModelSpec
from portico.engines.supervisor import Supervisor
from portico.errors import EngineStartFailed
from portico.gateway.beside import BesideRoutes
from portico.gateway.meters import Meters
from portico.gateway.models import Models, Served
from portico.testing import FakeEngine
from portico.web import Access
from test_gateway import Exchange, call, gateway
from test_supervisor import in_virtual_time, settled, spec


def looks_at_the_disk() -> tuple[Served, ...]:
    raise AssertionError("/health waits for no disk")


class World:
    """A server with the model `own` from the start; `strange` is one of its library."""

    def __init__(self, *keys: str) -> None:
        self.own, self.strange = spec("own", keep_alive=-1), spec("strange")
        self.engine = FakeEngine()
        self.supervisor = Supervisor({"llamacpp": self.engine})
        access = Access(keys=keys)
        models = Models([self.own], looks_at_the_disk)
        self.beside = BesideRoutes(models, self.supervisor, Meters(), lambda: 1, access)
        self.app = gateway(*self.beside.rows(), access=access)

    async def health(self, **headers: str) -> Exchange:
        return await call(self.app, "/health", "GET", headers=headers)

    async def states(self) -> tuple[int, str, dict[str, str]]:
        answer = await self.health()
        health: dict[str, Any] = json.loads(answer.body)
        return answer.status, health["status"], {each["model"]: each["state"] for each in health["engines"]}


async def fails(supervisor: Supervisor, model: ModelSpec) -> None:
    with pytest.raises(EngineStartFailed):
        await supervisor.load(model)


@in_virtual_time
async def test_it_says_who_it_is_and_how_it_is() -> None:
    world = World()
    await world.supervisor.load(world.own)
    answer = await world.health()
    health = json.loads(answer.body)
    assert answer.status == 200
    assert (health["name"], health["version"], health["status"]) == ("portico", __version__, "ok")
    assert health["models"] == ["own"] and health["engines"][0]["state"] == "ready"


@in_virtual_time
async def test_the_text_ok() -> None:
    world = World()
    well = await world.health(accept="text/plain")
    assert (well.status, well.body, well.headers["content-type"]) == (200, b"OK", "text/plain")
    world.beside.stopping = True
    stopping = await world.health(accept="text/plain")
    assert (stopping.status, stopping.body) == (503, b"STOPPING")


@in_virtual_time
async def test_without_a_key_it_tells_only_whether_it_is_well() -> None:
    world = World("secret")
    assert json.loads((await world.health()).body) == {"status": "ok"}
    assert "engines" in json.loads((await world.health(authorization="Bearer secret")).body)


@in_virtual_time
async def test_a_model_of_the_library_that_cannot_be_loaded_is_told_of_and_nothing_else() -> None:
    world = World()
    world.engine.fail("unknown model architecture: 'x'")
    await fails(world.supervisor, world.strange)
    assert await world.states() == (200, "ok", {"strange": "failed"})


@in_virtual_time
async def test_a_death_is_no_503_as_it_is_started_again_at_once() -> None:
    world = World()
    await world.supervisor.load(world.own)
    world.engine.replicas[0].crash()
    assert await world.states() == (200, "ok", {"own": "failed"})
    await settled()
    assert await world.states() == (200, "ok", {"own": "ready"})


@in_virtual_time
async def test_503_while_a_model_it_was_started_with_does_not_come_back_and_200_when_it_does() -> None:
    world = World()
    await world.supervisor.load(world.own)
    world.engine.fail("no memory", times=6)
    world.engine.replicas[0].crash()
    await asyncio.sleep(5)
    assert await world.states() == (503, "failed", {"own": "failed"})
    assert (await world.health(accept="text/plain")).body == b"FAILED"
    await asyncio.sleep(100)  # nobody asks: a load balancer sends nobody here
    assert await world.states() == (200, "ok", {"own": "ready"})


@in_virtual_time
async def test_what_does_not_come_back_is_idle_once_it_would_have_been_unloaded() -> None:
    """Or nobody would be sent here any more, and nobody would try again."""
    world = World()
    await world.supervisor.load(spec("own", keep_alive=30))
    world.engine.fail("no memory", times=100)
    world.engine.replicas[0].crash()
    await asyncio.sleep(20)
    assert await world.states() == (503, "failed", {"own": "failed"})
    await asyncio.sleep(80)
    assert await world.states() == (200, "ok", {"own": "stopped"})

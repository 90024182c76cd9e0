"""Doubles of engines: no process, no network, no waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from portico.engines import HOST, Abilities, Account, Claim, ModelSpec, Progressed, unheard
from portico.engines.turns import Turns
from portico.errors import EngineStartFailed, UpstreamClosed
from portico.messages import ChatRequest
from portico.web import Upstream


class FakeReplica:
    """A replica without an engine. One token is one word; the prompt is one line a message.

    Raise `serving` while a test uses it: the engine then sees if it is stopped meanwhile.
    """

    abilities = Abilities()

    def __init__(self, spec: ModelSpec, *, number: int, url: str) -> None:
        self.spec, self.number = spec, number
        self.served_name = spec.served_name or spec.name
        self.upstream = Upstream(url)
        self.context = spec.context or spec.facts.context
        self.pid: int | None = number
        self.turns: Turns | None = None
        self.serving = 0
        self.stopped = False
        self.last_words: str | None = None
        self.gpus: frozenset[str] = frozenset()
        self._told: list[Callable[[], None]] = []

    def crash(self, last_words: str = "Segmentation fault") -> None:
        """From now on it is dead."""
        self.last_words = last_words
        for tell in self._told:
            tell()

    def died(self) -> str | None:
        return self.last_words

    def condemn(self, reason: str) -> None:
        self.crash(reason)

    def when_ended(self, tell: Callable[[], None]) -> None:
        self._told.append(tell)

    async def tokenize(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        return tuple(range(len(text.split()) + special))

    async def pieces(self, text: str) -> tuple[str, ...]:
        return tuple(text.split())

    async def detokenize(self, tokens: Sequence[int]) -> str:
        return " ".join(str(token) for token in tokens)

    async def render(self, request: ChatRequest) -> str:
        return "".join(f"{message.role}: {message.text}\n" for message in request.messages)

    async def count(self, request: ChatRequest) -> int:
        return len(await self.tokenize(await self.render(request), special=True))


class FakeEngine:
    """An engine whose starts and stops a test holds and watches.

        engine = FakeEngine()
        supervisor = Supervisor({"llamacpp": engine})
        engine.starts_may_end.clear()                       # hold every start ...
        asking = asyncio.ensure_future(supervisor.ensure_ready(spec))
        await engine.start_began.wait()
        engine.starts_may_end.set()                         # ... and let it end
        lease = await asking
        assert not engine.stopped_while_serving             # seen by the engine, not inferred from timing

    `claims` says by name what models take and whether they sleep; `memory` is what they take together now, of the host
    and of each GPU, and `most_memory` the most of it there was; `gpus` says by name which GPUs they use, where they are
    given none. `fail(...)` lets the next starts fail. `replicas` are all that were ever started, the newest last;
    `running` those that live. `most_running` is how many there were at once. `url` is what their upstreams connect to.
    `progressed()` says that the latest start goes on.
    """

    occupies = True

    def __init__(self, *, url: str = "http://127.0.0.1:9") -> None:
        self.url = url
        self.replicas: list[FakeReplica] = []
        self.starting = 0
        self.most_running = 0
        self.stopped_while_serving: list[FakeReplica] = []
        self.start_began, self.stop_began = asyncio.Event(), asyncio.Event()
        self.starts_may_end, self.stops_may_end = asyncio.Event(), asyncio.Event()
        self.starts_may_end.set()
        self.stops_may_end.set()
        self.progressed: Progressed = unheard
        self._failures: list[Exception] = []
        self.claims: dict[str, Claim] = {}
        self.gpus: dict[str, frozenset[str]] = {}
        self.most_memory: dict[Account, int] = {}
        self.asleep: dict[FakeReplica, int] = {}
        self.slept_while_serving: list[FakeReplica] = []
        self.fails_to_wake = False
        self._begun: list[tuple[ModelSpec, frozenset[str]]] = []

    @property
    def running(self) -> list[FakeReplica]:
        return [replica for replica in self.replicas if not replica.stopped]

    def fail(self, error: Exception | str, *, times: int = 1) -> None:
        """The next starts raise this error; a text makes it an EngineStartFailed."""
        if isinstance(error, str):
            error = EngineStartFailed(model="fake", reason=error)
        self._failures += [error] * times

    @property
    def memory(self) -> dict[Account, int]:
        """Bytes that its models take now, those that are being started included. Of one that uses no GPU it could name
        they are those of "gpu"."""
        awake = [one for one in self.running if one.last_words is None and one not in self.asleep]
        taken: dict[Account, int] = {}
        for spec, gpus in [*((one.spec, one.gpus) for one in awake), *self._begun]:
            claim = self.claim(spec)
            for account in (HOST,) if claim.device == "host" else gpus or ("gpu",):
                taken[account] = taken.get(account, 0) + claim.by_gpu.get(account, claim.memory)
        return taken

    def claim(self, spec: ModelSpec) -> Claim:
        return self.claims.get(spec.name, Claim())

    async def sleep(self, replica: FakeReplica, level: int) -> None:
        if replica.serving:
            self.slept_while_serving.append(replica)
        if self.asleep.pop(replica, None):  # as vLLM: it goes deeper only from above, with all its memory
            self._count()
        await self.stops_may_end.wait()
        if replica.last_words is not None:
            raise UpstreamClosed(url=self.url)
        self.asleep[replica] = level

    async def wake(self, replica: FakeReplica) -> None:
        await self.starts_may_end.wait()
        if self.fails_to_wake or replica.last_words is not None:
            raise UpstreamClosed(url=self.url)
        del self.asleep[replica]
        self._count()

    async def start(
        self, spec: ModelSpec, progressed: Progressed = unheard, *, gpus: Sequence[Account] = ()
    ) -> FakeReplica:
        self.progressed = progressed
        self.starting += 1
        begun = (spec, frozenset(gpus) or self.gpus.get(spec.name, frozenset()))
        self._begun.append(begun)
        self._count()
        try:
            self.start_began.set()
            await self.starts_may_end.wait()
            if self._failures:
                raise self._failures.pop(0)
            replica = FakeReplica(spec, number=len(self.replicas) + 1, url=self.url)
            _, replica.gpus = begun
            self.replicas.append(replica)
            return replica
        finally:
            self.starting -= 1
            self._begun.remove(begun)

    async def stop(self, replica: FakeReplica) -> None:
        if replica.serving and replica.last_words is None:
            self.stopped_while_serving.append(replica)
        self.stop_began.set()
        await self.stops_may_end.wait()
        replica.upstream.close()
        replica.stopped = True

    def _count(self) -> None:
        alive = [replica for replica in self.running if replica.last_words is None]
        alive = [replica for replica in alive if replica not in self.asleep]
        self.most_running = max(self.most_running, self.starting + len(alive))
        for account, taken in self.memory.items():
            self.most_memory[account] = max(self.most_memory.get(account, 0), taken)

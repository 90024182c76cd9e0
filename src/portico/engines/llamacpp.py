"""The embedded engine: llama.cpp's own HTTP server in a child process, one process for each loaded model.

A child process because native code that meets a damaged file or a bug of its own ends the process it runs
in. Everything that is particular to llama.cpp is here and in llamacpp_child.py, which runs over there.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from portico.dialects import openai
from portico.engines import (
    Abilities,
    Account,
    Facts,
    Hold,
    ModelSpec,
    Progressed,
    Sleepless,
    hardware,
    sockets,
    unheard,
    unheld,
)
from portico.engines.thinking import thinks_unasked
from portico.engines.tokens import TokenRoutes
from portico.engines.turns import Turns
from portico.errors import (
    EngineStartFailed,
    InvalidRequest,
    UpstreamClosed,
    UpstreamFailed,
    UpstreamUnreachable,
)
from portico.messages import Value
from portico.process import Child, Log, launch
from portico.web import Upstream

ABILITIES = Abilities(
    relays=False,
    sees_hangup=False,
    forces_tools=False,
    multiple=False,
    echo=False,
    logprobs_with_tools=False,
    suffix=False,
    spelling=openai.LLAMACPP,
)
"""Measured, see docs/compatibility.md: it looks at a silent connection only once a second, its grammar for
tools lets a model talk instead, `n` above its slots is refused and usage counts one choice only."""

LOOK_SECONDS = 1.0
"""Seconds between two looks at whether a load goes on."""
CONNECTIONS = 512
CACHE_MIB = 256
"""Memory for the state of prompts that lost their slot; llama.cpp's default is 8 GB."""
SMALLEST_CONTEXT = 512
LARGEST_CONTEXT = 1 << 24
"""Tokens. No model has more than ten million; a file that claims it is damaged or wants to fill the memory."""
FEW_WEIGHTS = 16 << 20
"""Bytes. Below, a token takes less time than the cores need to wait for each other at every layer: measured
with 2.3 million weights, 3,300 tokens/s on one core against 400 to 3,800 on two."""
_AHEAD = 2
"""Requests that wait inside the engine, so that a slot that becomes free is never empty. Not more: it looks for
callers who left only when nobody's answer has moved for a second, so on a busy engine it worked through a queue
of the dead (measured: 24 long prompts to their end, 7 s, with every caller gone)."""
_SPLITS_INPUTS = 3  # LLAMA_POOLING_TYPE_LAST: an input may be computed in several batches
_CHILD = Path(__file__).with_name("llamacpp_child.py")


class Slots(Value, frozen=True, kw_only=True):
    """How a model's memory is laid out: `parallel` requests at once, each with `context` tokens.
    `context` 0: what the file says, shared by all of them, because nothing is known about it."""

    context: int
    parallel: int


class Start(Value, frozen=True, kw_only=True, omit_defaults=False):
    """What the child is told, as one line of JSON."""

    path: str
    served_name: str
    socket: str | None
    key: str
    cells: int
    parallel: int
    unified: bool
    threads: int
    batch_threads: int
    chat_template: str | None
    thinks_unasked: bool
    mmproj: str | None
    embedding: bool
    batch: int
    pooling: str | None
    connections: int = CONNECTIONS
    cache_mib: int = CACHE_MIB


class _Announced(msgspec.Struct):
    address: str


class _Generation(msgspec.Struct):
    n_ctx: int


class _Props(msgspec.Struct):
    default_generation_settings: _Generation


class LlamaReplica(TokenRoutes):
    """A loaded model. `context` is what each request may use."""

    abilities = ABILITIES
    gpus: frozenset[str] = frozenset()

    def __init__(
        self, spec: ModelSpec, upstream: Upstream, context: int, child: Child, socket: str | None, key: str
    ) -> None:
        self.spec, self.upstream, self.child, self.socket, self.key = spec, upstream, child, socket, key
        self.context: int | None = context
        self.served_name = spec.served_name or spec.name
        self.pid: int | None = child.pid
        self.turns: Turns | None = None
        self.let_go: Callable[[], None] = unheld("")
        """Its files may be deleted from then on."""

    async def detokenize(self, tokens: Sequence[int]) -> str:
        try:
            return await super().detokenize(tokens)
        except UpstreamFailed as error:
            if "range_check" not in str(error):
                raise
            raise InvalidRequest("A token id is beyond the model's vocabulary.", param="tokens") from None

    def died(self) -> str | None:
        code = self.child.exit_code
        return None if code is None else last_words(self.child.log, code)

    def condemn(self, reason: str) -> None: ...

    def when_ended(self, tell: Callable[[], None]) -> None:
        self.child.when_ended(tell)


class LlamaCpp(Sleepless):
    """Starts and stops embedded engines. `logs` is the folder for their logs; without one they stay in memory.
    `first_byte` and `between` are the seconds a reply may take to begin, and be silent afterwards; `max_waiting`
    requests may wait for a turn at one of them, further ones get Busy, and `patience` is how many seconds each of
    them waits; 0: as long as it takes."""

    occupies = True

    def __init__(
        self,
        *,
        logs: Path | None = None,
        first_byte: float = 600.0,
        between: float = 300.0,
        max_waiting: int = 512,
        patience: float = 0.0,
        hold: Hold = unheld,
    ) -> None:
        """`hold` keeps a model's files while it runs."""
        self._hold = hold
        self._logs, self._first_byte, self._between = logs, first_byte, between
        self._max_waiting, self._patience = max_waiting, patience

    async def start(
        self, spec: ModelSpec, progressed: Progressed = unheard, *, gpus: Sequence[Account] = ()
    ) -> LlamaReplica:
        """Loads the model and returns when it answers. Raises EngineStartFailed with llama.cpp's own reason.
        Progress is what the process takes into memory, where the system tells that (Linux)."""
        slots = plan_slots(spec, hardware.free_memory())
        socket, key = sockets.new(), secrets.token_urlsafe(24)
        start = describe(spec, slots, cores=hardware.cores(), socket=socket, key=key)
        let_go = self._hold(spec.source) or unheld("")  # of a file that is gone, the child says so best
        try:
            child = self._launch(spec, start)
        except BaseException:
            let_go()
            raise
        try:
            announced = await announcement(child, progressed)
            if announced is None:
                raise start_failed(spec, child.log, await child.wait())
            address = msgspec.json.decode(announced, type=_Announced).address
            upstream, context = await self._connect(spec, address, key)
        except BaseException:
            # Also when the caller is cancelled: a process that nobody holds would stay for ever.
            child.abandon()
            sockets.remove(socket)
            let_go()
            raise
        replica = LlamaReplica(spec, upstream, context, child, socket, key)
        turns = Turns(slots.parallel + _AHEAD, max_waiting=self._max_waiting, patience=self._patience)
        replica.turns, replica.let_go = turns, let_go
        return replica

    def _launch(self, spec: ModelSpec, start: Start) -> Child:
        name = re.sub(r"[^\w.-]+", "_", spec.name)[:100]
        log = Log(self._logs / f"{name}.log" if self._logs is not None else None)
        command = [sys.executable, "-P", str(_CHILD)]
        try:
            return launch(command, log=log, greeting=msgspec.json.encode(start) + b"\n")
        except OSError as error:
            reason = f"no process could be started: {error.strerror}."
            raise EngineStartFailed(model=spec.name, reason=reason) from error

    async def _connect(self, spec: ModelSpec, address: str, key: str) -> tuple[Upstream, int]:
        headers = [(b"authorization", b"Bearer " + key.encode())]
        upstream = Upstream(address, headers=headers, first_byte=self._first_byte, between=self._between)
        try:
            answer = await upstream.fetch("GET", "/props")
            props = msgspec.json.decode(answer.body, type=_Props)
        except (UpstreamClosed, UpstreamUnreachable) as error:
            upstream.close()
            reason = f"it stopped answering as soon as it was ready. {error}"
            raise EngineStartFailed(model=spec.name, reason=reason) from error
        except BaseException:
            upstream.close()
            raise
        return upstream, props.default_generation_settings.n_ctx

    async def stop(self, replica: LlamaReplica) -> None:
        replica.upstream.close()
        await replica.child.end()
        sockets.remove(replica.socket)
        await asyncio.to_thread(replica.let_go)


async def announcement(child: Child, progressed: Progressed) -> str | None:
    """What the child announces; `progressed` is called as long as its memory changes meanwhile."""
    held = None
    while True:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                return await child.announcement()
        except TimeoutError:
            # Any change: where memory is short, pages that were read are dropped again while others come.
            before, held = held, hardware.resident(child.pid)
            if held != before:
                progressed()


# ---- decisions


def plan_slots(spec: ModelSpec, free: int | None) -> Slots:
    """How many requests at once, with how much context each. `free`: bytes of memory; None: unknown.

    1. Every slot gets the whole context; slots that share one fail together when it is full.
    2. The context's memory may take half of what is free beside the weights: fewer slots where it does not.
    3. Not even one: a smaller context, unless one was asked for. Raises EngineStartFailed if too little is left.
    """
    trained = spec.facts.context
    context = min(spec.context or sys.maxsize, trained) if trained else spec.context  # it does not go beyond
    if not context or context < 0:
        return Slots(context=0, parallel=spec.parallel)
    if context > LARGEST_CONTEXT:
        raise EngineStartFailed(model=spec.name, reason=f"a context of {context} tokens is not possible.")
    cell = cell_bytes(spec.facts)
    if free is None or not cell:
        return Slots(context=context, parallel=spec.parallel)
    cells = max(free - (spec.facts.size or 0), 0) // 2 // cell
    if context <= cells:  # (1) and (2)
        return Slots(context=context, parallel=min(spec.parallel, cells // context))
    if spec.context is None and cells >= SMALLEST_CONTEXT:  # (3)
        return Slots(context=cells // 256 * 256, parallel=1)
    least = context if spec.context else SMALLEST_CONTEXT
    reason = (
        f"it needs {_gigabytes(spec.facts.size or 0)} for its weights and {_gigabytes(2 * cell * least)} for a "
        f"context of {least} tokens with room to work, and {_gigabytes(free)} of memory are free. "
        "Take a smaller context, a smaller quantization or a smaller model, or unload another one."
    )
    raise EngineStartFailed(model=spec.name, reason=reason)


def cell_bytes(facts: Facts) -> int:
    """Bytes of memory one token of context takes, keys and values as 16 bit; 0 if the metadata do not tell."""

    def number(key: str) -> int:
        value = facts.metadata.get(f"{facts.architecture}.{key}")
        return value if isinstance(value, int) else 0

    heads = number("attention.head_count")
    kv_heads = number("attention.head_count_kv") or heads
    width = ((number("embedding_length") or facts.embedding or 0) // heads) if heads else 0
    keys, values = number("attention.key_length") or width, number("attention.value_length") or width
    return 2 * number("block_count") * kv_heads * (keys + values)


def describe(spec: ModelSpec, slots: Slots, *, cores: int, socket: str | None, key: str) -> Start:
    """What the child is told. Pure."""
    facts = spec.facts
    threads = spec.threads or cores
    few = facts.size is not None and facts.size < FEW_WEIGHTS
    embedding = "embedding" in facts.capabilities
    pooling = facts.metadata.get(f"{facts.architecture}.pooling_type") or 0
    return Start(
        path=str(Path(spec.source).absolute()),
        served_name=spec.served_name or spec.name,
        socket=socket,
        key=key,
        cells=slots.context * slots.parallel,
        parallel=slots.parallel,
        # Each slot has its own part of the memory: then attention looks at its own tokens only (four prompts of
        # 4,000 tokens took 10 to 20 s, with shared memory 12 to 38 s) and none can take another's place.
        unified=slots.context == 0,
        threads=1 if few and not spec.threads else threads,
        batch_threads=threads,
        chat_template=spec.chat_template,
        thinks_unasked=thinks_unasked(spec),
        mmproj=spec.mmproj,
        embedding=embedding,
        # An input that looks both ways has to fit into one batch, or it is refused at 512 tokens.
        batch=min(slots.context or 2048, 8192) if embedding and pooling != _SPLITS_INPUTS else 0,
        pooling="MEAN" if embedding and not pooling else None,
    )


def _gigabytes(size: int) -> str:
    return f"{size / 2**30:.1f} GB"


# ---- what the log says

_LINE = re.compile(r"\d+\.\d\d\.\d{3}\.\d{3} (?P<level>[A-Z]) +(?P<text>.*)")
_SPEAKER = re.compile(r"^(?:\w+ +)?\w+: +(?:error loading model: )?")
_ASSERTION = "GGML_ASSERT("
_PYTHONS_OWN = ("Current thread 0x", "Thread 0x", "  File ", "Extension modules:")
"""Lines of a crash report about the interpreter, in which nothing of the engine can be seen."""


def complaints(lines: Sequence[str]) -> list[str]:
    """The errors in llama.cpp's log, in order, each once, without timestamps and names of functions."""
    found: dict[str, None] = {}
    for line in lines:
        match = _LINE.match(line)
        if match and match["level"] == "E":
            found[_SPEAKER.sub("", match["text"])] = None
        elif _ASSERTION in line:
            found[line[line.index(_ASSERTION) :]] = None
    return list(found)


def start_failed(spec: ModelSpec, log: Log, code: int) -> EngineStartFailed:
    """The first error is the cause; those after it are its consequences."""
    first, *others = complaints(log.lines()) or [""]
    reason = first or (log.tail(1) or "it said nothing")
    if code == -signal.SIGTERM or code == -getattr(signal, "SIGKILL", 9):
        reason = "it was killed; if nobody did that, memory ran out"
    return EngineStartFailed(
        model=spec.name, reason=_sentence(reason), exit_code=code, log_tail="; ".join(others[:3])
    )


def last_words(log: Log, code: int) -> str:
    """The last lines of a process that ended while it was needed, and what ended it."""
    try:
        cause = signal.Signals(-code).name
    except ValueError:
        cause = f"exit code {code}"
    said = [line for line in log.lines() if line and not line.startswith(_PYTHONS_OWN)]
    return "\n".join([*said[-6:], f"({cause})"])


def _sentence(reason: str) -> str:
    return reason if reason.endswith((".", "!", "?")) else f"{reason}."

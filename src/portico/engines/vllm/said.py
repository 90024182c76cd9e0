"""What a starting vLLM writes to its log, read: how far it is, what it found out, and why it did not start.

Nothing here does I/O. The texts are those of vLLM 0.32 and of what it stands on; tests/test_vllm_said.py says
whether the installed ones still say them. A line may come from any of vLLM's processes:

    (EngineCore pid=212) INFO 11-26 01:58:27 [core.py:402] init engine (...) took 0.98 s      its own log
    Loading safetensors checkpoint shards:  50% Completed | 1/2 [00:01<00:01,  1.05s/it]      a bar, with \\r
    INFO:     Application startup complete.                                                   uvicorn
    Traceback (most recent call last):                                                        anybody

A traceback comes up to three times: logged by the process that failed, raw when that process ends, and then
another from each process that waited for it ("See root cause above"), which names no cause.
"""

from __future__ import annotations

import re
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from portico.messages import Value

# ---- lines -------------------------------------------------------------------------------------

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MARK = re.compile(
    r"(?:\([\w.= -]+ pid=\d+\) ?)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?"
)
BAR = re.compile(
    r"(?P<title>[^%|]+): +(?P<percent>\d{1,3})%(?: Completed)? ?\|(?:[^|]*\|)? *(?P<count>\S+) \["
)


class Line(NamedTuple):
    """`mark` is what vLLM puts before every line of a message: equal marks, one message. Empty: not vLLM's."""

    mark: str
    level: str
    text: str


def read(line: str) -> Line:
    line = _COLOUR.sub("", line).rstrip()
    found = _MARK.match(line)
    mark = found[0] if found else ""
    return Line(mark, (found and found["level"]) or "", line[len(mark) :])


# ---- stages ------------------------------------------------------------------------------------

StageName = Literal[
    "starting",
    "downloading",
    "loading weights",
    "compiling",
    "profiling memory",
    "tuning kernels",
    "capturing graphs",
    "warming up",
    "ready",
]
STAGES: tuple[StageName, ...] = get_args(StageName)
"""In the order in which a start goes through them; it may leave some out."""


class Stage(Value, frozen=True, kw_only=True):
    """`fraction`: how much of it is done, 0 to 1; None: nobody knows. `detail`: of what, in a few words."""

    name: StageName
    fraction: float | None = None
    detail: str = ""


def _signs(*rows: tuple[StageName, str]) -> tuple[tuple[StageName, re.Pattern[str]], ...]:
    return tuple((name, re.compile(rf"(?:\[[\w ]+\] )?(?:{sign})")) for name, sign in rows)


# fmt: off
_SIGNS = _signs(
    ("ready", r"(?:INFO: +)?Application startup complete"),
    ("warming up", r"init engine \(|Supported tasks: |Starting vLLM server on "),
    ("capturing graphs", r"Capturing .*CUDA graphs"),
    ("tuning kernels", r"JIT kernel warmup|Compile and warming up model for size|Running FlashInfer autotune|"
     r"Warming up FlashInfer|DeepGEMM warmup|Compiling CuTeDSL kernels"),
    ("profiling memory", r"Initial profiling/warmup run took|Profiling CUDA graph memory|Estimated CUDA graph memory|"
     r"Available KV cache memory|Initial free memory|(?:Explicitly|Auto) set \(|\w+(?: \+ host)? KV cache size: "),
    ("compiling", r"Starting torch\.compile|torch\.compile (?:took|takes)|Dynamo bytecode transform|Directly load|"
     r"Using cache directory: .* for vLLM's torch\.compile|Compiling a graph|Cache the graph|saved AOT compiled|"
     r"Warming up model for the compilation"),
    ("loading weights", r"Starting to load model|Initializing model took|Time spent downloading weights|Filesystem "
     r"type for checkpoints|Loading (?:weights took|\w+ checkpoint shards|\w+ using)|Multi-thread loading|Model "
     r"loading took"),
    ("starting", r"non-default args: |Resolved architecture: |Initializing a V1 LLM engine"),
)
# fmt: on
_BEFORE_THE_WEIGHTS = ("Starting to load model", "Initializing model took")
_ON_THE_HUB = re.compile(r"[\w.-]+/[\w.-]+")
_GRAPH_GROUPS = re.compile(r"\w+=\d+ \(largest=")


class Sign(NamedTuple):
    stage: Stage
    bar: str


def sign_of(text: str) -> Sign | None:
    for name, sign in _SIGNS:
        if sign.match(text):
            bar = BAR.match(text)
            if bar is None:
                return Sign(Stage(name=name), "")
            fraction = min(int(bar["percent"]), 100) / 100
            detail = bar["count"].replace("/", " of ")
            return Sign(Stage(name=name, fraction=fraction, detail=detail), bar["title"])
    return None


def stage(line: str) -> Stage | None:
    """The stage that a line belongs to; None if it tells nothing of that."""
    for piece in reversed(line.split("\r")):
        if found := sign_of(read(piece).text):
            return found.stage
    return None


class Stages:
    """Where a start is, in `now`, and what it told of itself, in `heard`. It is fed every line, in order.

    It only goes forward: several processes write at once, and a second bar of a stage begins at 0 again. What one
    line cannot tell: weights of a model on the hub are fetched before they are loaded, if they are not in the
    cache, and nothing is written meanwhile; and CUDA graphs are captured twice, first to measure how much memory
    they take: that is profiling, until the size of the KV cache is known.
    """

    def __init__(self) -> None:
        self.now = Stage(name="starting")
        self.heard = Heard()
        self._bars: list[str] = []
        self._graphs: set[str] = set()
        self._groups = 0

    def feed(self, line: str) -> Stage | None:
        """The stage, if this line changed it: another one, or more of it done."""
        before = self.now
        for piece in line.split("\r"):
            text = read(piece).text
            self.heard = self.heard.with_all_of(heard(text))
            if found := sign_of(text):
                self._go(self._in_context(found, text), found.bar)
        return self.now if self.now != before else None

    def _in_context(self, found: Sign, text: str) -> Stage:
        if text.startswith(_BEFORE_THE_WEIGHTS) and _ON_THE_HUB.fullmatch(self.heard.model or ""):
            return Stage(name="downloading", detail=self.heard.model or "")
        if text.startswith("Profiling CUDA graph memory"):
            self._groups = len(_GRAPH_GROUPS.findall(text))
        if found.stage.name == "capturing graphs" and self.heard.kv_cache_tokens is None:
            self._graphs.add(found.bar)
            return Stage(name="profiling memory")
        return found.stage

    def _go(self, new: Stage, bar: str) -> None:
        ahead = STAGES.index(new.name) - STAGES.index(self.now.name)
        if ahead > 0:
            self._bars = []
        if ahead < 0:
            return
        if new.fraction is not None:
            new = msgspec.structs.replace(new, fraction=self._of_all_bars(bar, new.fraction))
        if ahead > 0 or (
            new.fraction is not None
            and new.fraction > (self.now.fraction if self.now.fraction is not None else -1.0)
        ):
            self.now = new

    def _of_all_bars(self, bar: str, fraction: float) -> float:
        """How much of a stage is done whose bars come one after the other; how many is known of graphs only."""
        if bar not in self._bars:
            self._bars.append(bar)
        expected = max(self._groups, len(self._graphs)) if "CUDA graphs" in bar else 1
        return (self._bars.index(bar) + fraction) / max(expected, len(self._bars))


# ---- what it tells of itself -------------------------------------------------------------------


class Heard(Value, frozen=True, kw_only=True):
    """What a start says of itself. None: not said (yet). Memory of one device, in GiB."""

    version: str | None = None
    model: str | None = None
    context: int | None = None
    """Tokens a request may have (max_model_len)."""
    checkpoint_gib: float | None = None
    weights_gib: float | None = None
    kv_cache_gib: float | None = None
    kv_cache_tokens: int | None = None
    concurrency: float | None = None
    """Requests of the whole context that fit into the KV cache at once."""
    graphs_gib: float | None = None
    download_seconds: float | None = None
    load_seconds: float | None = None
    compile_seconds: float | None = None
    graphs_seconds: float | None = None
    engine_seconds: float | None = None
    """From the loaded weights to an engine that could answer."""

    def with_all_of(self, other: Heard) -> Heard:
        said = {name: value for name in self.__struct_fields__ if (value := getattr(other, name)) is not None}
        return msgspec.structs.replace(self, **said) if said else self


NUMBER = r"\d{1,9}(?:\.\d{1,6})?"
_TOKENS = r"\d[\d,]{0,14}"
_FACTS = tuple(
    re.compile(fact)
    for fact in (
        r"Initializing a V1 LLM engine \(v(?P<version>[^)\s]+)\)(?: with config: model='(?P<model>[^']+)')?",
        r"Using max model len (?P<context>\d{1,12})",
        r"Auto-fit max_model_len: reduced from \d+ to (?P<context>\d{1,12}) ",
        rf"Filesystem type for checkpoints: .* Checkpoint size: (?P<checkpoint_gib>{NUMBER}) GiB",
        rf"Time spent downloading weights for .*: (?P<download_seconds>{NUMBER}) seconds",
        rf"Loading weights took (?P<load_seconds>{NUMBER}) seconds",
        rf"Model loading took (?P<weights_gib>{NUMBER}) GiB(?: memory)? and (?P<load_seconds>{NUMBER}) seconds",
        rf"(?:\[[\w ]+\] )?torch\.compile (?:took|takes) (?P<compile_seconds>{NUMBER}) s",
        rf"Available KV cache memory: (?P<kv_cache_gib>{NUMBER}) GiB",
        rf"Initial free memory {NUMBER} GiB, reserved (?P<kv_cache_gib>{NUMBER}) GiB",
        rf"(?:Explicitly|Auto) set \((?P<kv_cache_gib>{NUMBER})/{NUMBER}\) GiB for KV cache",
        rf"\w+(?: \+ host)? KV cache size: (?P<kv_cache_tokens>{_TOKENS}) tokens(?:, Maximum concurrency for "
        rf"(?P<context>{_TOKENS}) tokens per request: (?P<concurrency>{NUMBER})x)?",
        rf"Maximum concurrency for (?P<context>{_TOKENS}) tokens per request: (?P<concurrency>{NUMBER})x",
        rf"Graph capturing finished in (?P<graphs_seconds>{NUMBER}) secs, took (?P<graphs_gib>{NUMBER}) GiB",
        rf"init engine \([^)]*\) took (?P<engine_seconds>{NUMBER}) s",
    )
)


def heard(line: str) -> Heard:
    """The facts that a line tells; an empty Heard if it tells none."""
    text = read(line).text
    for fact in _FACTS:
        if found := fact.match(text):
            return Heard(**{name: _number(name, value) for name, value in found.groupdict().items() if value})
    return Heard()


def _number(name: str, value: str) -> Any:
    if name in ("version", "model"):
        return value
    return int(value.replace(",", "")) if name in ("context", "kv_cache_tokens") else float(value)

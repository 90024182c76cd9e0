"""What runs models. Every engine ends as a URL that speaks OpenAI's HTTP.

The values and the one protocol that all engines share stand here; an engine is one file beside this one,
and the supervisor owns them all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

from portico.dialects.spelling import ANY, Spelling
from portico.engines.vllm.options import VllmOptions
from portico.messages import ChatRequest, Value

if TYPE_CHECKING:  # only named here; who reads Facts of a file should not pay for the import of asyncio
    from portico.engines.turns import Turns
    from portico.web import Upstream


class Progress(Value, frozen=True, kw_only=True):
    """How far a start is. `fraction`: of this stage, 0 to 1; None: nobody knows."""

    stage: str
    fraction: float | None = None
    detail: str = ""

    def facts(self) -> dict[str, object]:
        """What is known of it, by name."""
        found = {"stage": self.stage, "fraction": self.fraction, "detail": self.detail}
        return {name: value for name, value in found.items() if value not in (None, "")}


class Progressed(Protocol):
    """Told whenever a start is seen to go on, and of its stages where it has some."""

    def __call__(self, progress: Progress | None = None) -> None: ...


def unheard(progress: Progress | None = None) -> None:
    """For a start whose progress nobody follows."""


State = Literal["stopped", "starting", "ready", "dozing", "sleeping", "waking", "stopping", "failed"]
"""dozing: on its way to sleep."""
Device = Literal["host", "gpu"]
"""Whose memory a model takes."""
Account = str
"""Memory that is counted for itself: `HOST`, or that of one GPU, by the GPU's number."""
HOST: Account = "host"


class Facts(Value, frozen=True, kw_only=True):
    """What is known about a model from its files or from the server that has it. Unknown is None."""

    architecture: str | None = None
    class_name: str | None = None
    """What implements it in transformers and vLLM, such as Qwen3ForCausalLM."""
    family: str | None = None
    parameters: int | None = None
    """Number of weights."""
    quantization: str | None = None
    """llama.cpp's or Hugging Face's name: F16, Q4_K_M, BF16, ..."""
    format: str | None = None
    """gguf or safetensors; None for a model somewhere else."""
    context: int | None = None
    """Tokens the model was trained with."""
    embedding: int | None = None
    """Width of its hidden state."""
    capabilities: tuple[str, ...] = ("completion",)
    """Ollama's words: completion, tools, insert, vision, embedding, thinking."""
    chat_template: str | None = None
    license: str | None = None
    size: int | None = None
    """Bytes on disk."""
    digest: str | None = None
    """64 hex digits, without `sha256:`."""
    modified: float | None = None
    """Seconds since the epoch."""
    metadata: dict[str, object] = {}
    """Further keys for Ollama's model_info, such as `general.basename` or `tokenizer.ggml.model`."""


class Reach(Value, frozen=True, kw_only=True):
    """What it takes to reach a server elsewhere, beside its URL and its key. The first three are files."""

    ca_file: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    proxy: str | None = None


class ModelSpec(Value, frozen=True, kw_only=True):
    """A model that can be run: what it is called and everything its engine needs to start."""

    name: str
    """Its one canonical name, as listed."""
    copy_of: str = ""
    """The name of the model, where this is a further replica of it: `name` is then its own."""
    engine: str
    """llamacpp, vllm or remote."""
    source: str
    """llamacpp: path of the GGUF file. vllm: folder or hub id. remote: URL of the server, with or without /v1."""
    served_name: str = ""
    """What its engine calls it; empty: the same as `name`."""
    api_key: str | None = None
    """remote: the key that server wants."""
    reach: Reach = Reach()
    strict: bool | None = None
    """remote: its server refuses fields that OpenAI's API does not have. None: it does if it is OpenAI's."""
    aliases: tuple[str, ...] = ()
    context: int | None = None
    parallel: int = 4
    """Requests its engine is given at once; remote: 0 for as many as there are."""
    threads: int | None = None
    keep_alive: float = 300.0
    """Seconds; negative: for ever."""
    chat_template: str | None = None
    """Jinja text used instead of the model's own."""
    chat_fallback: Literal["error", "prompt"] = "error"
    mmproj: str | None = None
    """Path of the projector that lets a GGUF model see images."""
    vllm: VllmOptions = VllmOptions()
    facts: Facts = Facts()

    @property
    def most_context(self) -> int | None:
        """Tokens a request may have at most: what was asked for, and not more than the model was trained with.
        Where memory is short its replica has less."""
        wanted = self.context if self.context and self.context > 0 else None
        return min((each for each in (wanted, self.facts.context) if each), default=None)


class Abilities(Value, frozen=True, kw_only=True):
    """What an engine's HTTP does by itself; what it does not, the gateway makes right."""

    relays: bool = True
    """Its replies are OpenAI's to the letter and may be passed on as they are."""
    sees_hangup: bool = True
    """A closed connection stops a request that is not streamed; otherwise it is always asked to stream."""
    forces_tools: bool = True
    """tool_choice required and named are enforced."""
    forces_arguments: bool = True
    """... and so is the schema of the arguments; otherwise only of tools that are marked strict."""
    multiple: bool = True
    """n > 1 and several prompts work in one request, with the usage summed."""
    echo: bool = True
    """Completions repeat the prompt when asked."""
    logprobs_with_tools: bool = True
    """A streamed chat with tools may have log probabilities; otherwise only one that is not streamed."""
    suffix: bool = True
    """Completions fill in between prompt and suffix, with a model that can; else /infill does."""
    spelling: Spelling = ANY
    """What it calls the things that engines spell differently."""


class Replica(Protocol):
    """A running copy of a model. Ready when it is handed out; it may die at any time after."""

    spec: ModelSpec
    served_name: str
    upstream: Upstream
    context: int | None
    abilities: Abilities
    pid: int | None
    gpus: frozenset[str]
    """The GPUs it uses, as its engine names them; empty: none, or nobody knows."""
    turns: Turns | None
    """How many requests it is given at once; further ones wait here, where a caller who leaves is noticed at
    once. None: as many as there are."""

    async def tokenize(self, text: str, *, special: bool = False) -> tuple[int, ...]:
        """Token ids of `text`. `special`: with the tokens the model puts before a prompt.
        Raises Unsupported where the server has no tokenizer route."""
        ...

    async def pieces(self, text: str) -> tuple[str, ...]: ...

    async def detokenize(self, tokens: Sequence[int]) -> str: ...

    async def render(self, request: ChatRequest) -> str:
        """The prompt that the model's chat template makes of these messages and tools."""
        ...

    async def count(self, request: ChatRequest) -> int:
        """Tokens of that prompt."""
        ...

    def died(self) -> str | None:
        """None while the engine lives; else the last lines of its log."""
        ...

    def condemn(self, reason: str) -> None:
        """It has said itself that it is dead: from now on it is, whatever still lives of it."""
        ...

    def when_ended(self, tell: Callable[[], None]) -> None:
        """`tell` is called in the event loop once the engine has ended, by itself or stopped."""
        ...


class Claim(Value, frozen=True, kw_only=True):
    """What a model takes of this machine while it is loaded."""

    device: Device = "host"
    memory: int = 0
    """Bytes of the host, or of each of its GPUs; 0: unknown."""
    by_gpu: dict[Account, int] = {}
    """... where that depends on which GPU it gets."""
    count: int = 1
    """GPUs that it needs."""
    deepest: int = 0
    """How deep it can sleep: 1 keeps its weights in the host's memory, 2 drops them; 0: it cannot."""


Hold = Callable[[str], Callable[[], None] | None]
"""Keeps the files at a path from being deleted until what it returns is called, which may take a moment. None: they
are gone."""


def unheld(path: str) -> Callable[[], None]:
    """For files that nobody else deletes."""
    return _nothing


def _nothing() -> None: ...


class Engine(Protocol):
    """Starts and stops replicas of one kind. Only the supervisor calls it."""

    occupies: bool
    """Its replicas take this machine's memory, so that `max_loaded` counts them."""

    def claim(self, spec: ModelSpec) -> Claim:
        """What this model will take, from its files and from what was measured before."""
        ...

    async def start(
        self, spec: ModelSpec, progressed: Progressed = ..., *, gpus: Sequence[Account] = ()
    ) -> Replica:
        """A replica that answers. `progressed` is called, while it is awaited and not later, whenever the start
        is seen to go on. `gpus`: those it gets, by number; none: nobody knows any, its engine chooses. Raises
        EngineStartFailed, UpstreamUnreachable."""
        ...

    async def stop(self, replica: Any) -> None:
        """Ends a replica that `start` gave and everything it started; returns when it is gone."""
        ...

    async def sleep(self, replica: Any, level: int) -> None:
        """An idle replica gives its memory back and stays. Raises EngineError; it is then of no use any more."""
        ...

    async def wake(self, replica: Any) -> None:
        """A sleeping replica answers again. Raises EngineError; it is then of no use any more."""
        ...


class Sleepless:
    """The part of an engine whose models do not sleep, and of which nobody knows what they take."""

    def claim(self, spec: ModelSpec) -> Claim:
        return Claim()

    async def sleep(self, replica: Any, level: int) -> None:
        raise NotImplementedError

    async def wake(self, replica: Any) -> None:
        raise NotImplementedError

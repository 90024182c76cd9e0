"""What the config says is to be served, as what engines need to serve it."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from portico import names
from portico.config import Config, ModelEntry
from portico.dialects import ollama
from portico.engines import Facts, ModelSpec, Reach, remote
from portico.engines.vllm.options import VllmOptions
from portico.errors import ConfigError, DamagedFile, EngineError, ModelNotFound
from portico.gateway.ollama_shapes import stand_in
from portico.library import Library, ModelFile, bundled_folder
from portico.web.dial import read_proxy, tls_context
from portico.web.upstream import shown

BUNDLED = "portico-tiny"
EMBEDDED_PARALLEL = 4
"""Requests an embedded engine answers at once, where nobody says otherwise; each has the whole context."""
_ASKED_SECONDS = 2.0
_EMBEDDED_ONLY = ("keep_alive", "chat_template", "chat_fallback")
"""Fields of a [[model]] that a server elsewhere cannot be told."""
_TLS_ONLY = ("ca_file", "client_cert", "client_key")
_ELSEWHERE_ONLY = (*_TLS_ONLY, "proxy", "strict")
"""Fields that are about a server elsewhere."""
_VLLM_ONLY = (
    *("dtype", "quantization", "gpu_memory_utilization", "kv_cache_memory_bytes", "max_num_seqs"),
    *("max_num_batched_tokens", "tensor_parallel_size", "pipeline_parallel_size", "lora_modules"),
    *("tool_call_parser", "reasoning_parser", "vllm_port", "sleep", "vllm_args"),
)
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SECURE = "https://"
_REMOTE = ("http://", "https://", "unix://")


async def configured(config: Config, library: Library, *, vllm_is_there: bool = False) -> list[ModelSpec]:
    """The models named in the config; none named: those of the engine's URL, else the bundled one."""
    configure_one = partial(configure, config=config, library=library, vllm_is_there=vllm_is_there)
    if config.models:
        specs = [await asyncio.to_thread(configure_one, entry) for entry in config.models]
        specs = [await with_context(spec) if spec.engine == "remote" else spec for spec in specs]
    elif config.engine and config.engine.startswith(_REMOTE):
        reach = reach_of(ModelEntry(name=""), config, config.engine)
        key, within = _key(ModelEntry(name=""), config, config.engine), config.connect_timeout
        offered = await remote.models(config.engine, key, reach, within=within)
        if not offered:
            raise ConfigError(
                f"{shown(config.engine)} serves no model; name one: portico serve MODEL --engine URL"
            )
        entries = [ModelEntry(name=model.id, context=model.context) for model in offered]
        specs = [configure_one(entry) for entry in entries]
    else:
        specs = [configure_one(ModelEntry(name=BUNDLED))]
    if config.served_model_names:
        first = specs[0]
        specs[0] = msgspec.structs.replace(first, aliases=(*first.aliases, *config.served_model_names))
    _check_names(specs, config)
    _check_ports(specs)
    return specs


def _check_names(specs: Sequence[ModelSpec], config: Config) -> None:
    """An adapter is asked for by its name alone. Raises ConfigError for one that would hide something else."""
    aliases = (*config.aliases, *(alias for spec in specs for alias in spec.aliases))
    taken = {names.canonical(name).casefold() for name in (*(spec.name for spec in specs), *aliases)}
    for spec in specs:
        for adapter, _ in spec.vllm.lora_modules:
            name = names.canonical(adapter).casefold()
            if name in taken:
                raise ConfigError(
                    f"lora_modules of model {spec.name!r}: the name {adapter!r} is taken by another model, alias or "
                    "adapter"
                )
            taken.add(name)


def _check_ports(specs: Sequence[ModelSpec]) -> None:
    """Raises ConfigError for a port that two engines would have to listen to."""
    taken: dict[int, str] = {}
    for spec in specs:
        port = spec.vllm.port
        if port is not None and port in taken:
            raise ConfigError(
                f"vllm_port {port} is that of model {spec.name!r} and of {taken[port]!r}, and only one engine can "
                "listen there. Give each its own, in a [[model]], or none: then they listen on sockets"
            )
        if port is not None:
            taken[port] = spec.name


def copies(
    specs: Sequence[ModelSpec], entries: Sequence[ModelEntry], config: Config
) -> dict[str, tuple[ModelSpec, ...]]:
    """The further replicas of each model that has some, here and on other servers. Raises ConfigError."""
    found = {}
    for spec, entry in zip(specs, entries, strict=False):
        if entry.replicas < 1:
            raise ConfigError(f"replicas of model {entry.name!r} is {entry.replicas}; one is the least")
        if entry.replicas > 1 and spec.engine == "remote":
            raise ConfigError(
                f"replicas of model {entry.name!r} has no effect: it runs on another server. List several servers "
                "as endpoints"
            )
        if entry.replicas > 1 and spec.vllm.port is not None:
            raise ConfigError(
                f"vllm_port of model {entry.name!r} is one port, and each of its {entry.replicas} replicas would have "
                "to listen there. Remove it: then they listen on sockets"
            )
        more = [
            msgspec.structs.replace(spec, name=f"{spec.name}#{number}", copy_of=spec.name)
            for number in range(2, entry.replicas + 1)
        ]
        for url in entry.endpoints:
            if not url.startswith(_REMOTE):
                raise ConfigError(f"endpoint {url!r} of model {entry.name!r} is not a URL")
            there = ModelEntry(
                name=spec.served_name or spec.name,
                context=entry.context,
                **{field: getattr(entry, field) for field in ("api_key", "parallel", *_ELSEWHERE_ONLY)},
            )
            elsewhere = _on_a_server(there, config, url)
            name = f"{spec.name}@{shown(url)}"
            more.append(msgspec.structs.replace(elsewhere, name=name, copy_of=spec.name))
        if more:
            found[spec.name] = tuple(more)
    return found


async def with_context(spec: ModelSpec) -> ModelSpec:
    """What the other server says of its model's context, so that listings can. One that does not answer now may
    do so later: it is asked again when the model is."""
    if spec.facts.context is not None:
        return spec
    try:
        async with asyncio.timeout(_ASKED_SECONDS):
            offered = await remote.models(spec.source, spec.api_key, spec.reach)
    except (EngineError, TimeoutError):
        return spec
    context = next((model.context for model in offered if model.id == spec.served_name), None)
    return msgspec.structs.replace(spec, facts=msgspec.structs.replace(spec.facts, context=context))


def configure(
    entry: ModelEntry, config: Config, library: Library, *, vllm_is_there: bool = False
) -> ModelSpec:
    """One model of the config as what its engine needs. Raises ConfigError, ModelNotFound, DamagedFile.

    Of a model without an engine its files decide: GGUF is llama.cpp's, safetensors are vLLM's. A hub id that is not
    here is left to vLLM, where that is asked for or installed: it fetches what it needs.
    """
    engine = entry.engine or config.engine
    servers = [url for url in (engine, *entry.endpoints) if url is not None and url.startswith(_REMOTE)]
    if not servers:
        _refuse(entry, _ELSEWHERE_ONLY, "it runs here. Remove it, or name a server as its engine or endpoint")
    if not any(url.startswith(_SECURE) for url in servers):
        _refuse(entry, _TLS_ONLY, "no URL of it begins with https://")
    if engine is not None and engine.startswith(_REMOTE):
        return _on_a_server(entry, config, engine)
    if engine not in (None, "llamacpp", "vllm"):
        raise ConfigError(f"engine {engine!r} of model {entry.name!r} is neither llamacpp nor vllm nor a URL")
    try:
        model = _found(entry, library)
    except ModelNotFound:
        meant = engine == "vllm" or (engine is None and (vllm_is_there or any(_set(entry, _VLLM_ONLY))))
        if meant and _HUB_ID.fullmatch(entry.source or entry.name):
            return _on_vllm(entry, config, None)
        raise
    if engine == "vllm" or (engine is None and model.facts.format == "safetensors"):
        return _on_vllm(entry, config, model)
    _refuse(entry, _VLLM_ONLY, "its engine is llamacpp. Remove it, or serve the model with engine vllm")
    return specify(
        model,
        config,
        name=entry.name if entry.source else model.runs,
        aliases=entry.served_names,
        context=entry.context,
        parallel=entry.parallel,
        keep_alive=entry.keep_alive,
        chat_template=entry.chat_template or config.chat_template,
        chat_fallback=entry.chat_fallback,
    )


def _found(entry: ModelEntry, library: Library) -> ModelFile:
    target = entry.source or entry.name
    path = Path(target).expanduser()
    if target.endswith(".gguf") or target.startswith((".", "/", "~")) or (os.sep in target and path.exists()):
        if not path.exists():
            raise ConfigError(f"there is no file {target}")
        return library.at(path, name=entry.name if entry.source else path.stem)
    return library.find(target)


def _on_a_server(entry: ModelEntry, config: Config, url: str) -> ModelSpec:
    others = "and whoever runs that server decides it. Remove it, or serve the model with"
    _refuse(entry, _EMBEDDED_ONLY, f"its engine is {shown(url)}, {others} engine llamacpp")
    _refuse(entry, _VLLM_ONLY, f"its engine is {shown(url)}, {others} engine vllm")
    return ModelSpec(
        name=entry.name,
        engine="remote",
        source=url,
        served_name=entry.source or entry.name,
        api_key=_key(entry, config, url),
        reach=reach_of(entry, config, url),
        strict=entry.strict,
        aliases=entry.served_names,
        context=entry.context or config.context,
        parallel=entry.parallel or 0,
        keep_alive=-1.0,
        facts=Facts(context=entry.context, capabilities=("completion", "tools")),
    )


def _key(entry: ModelEntry, config: Config, url: str) -> str | None:
    """The key of a server. That of the config is for the server which the config's `engine` names: another one must
    not see it, nor one whose URL has a user of its own."""
    if entry.api_key is not None:
        return entry.api_key or None
    return config.engine_api_key if url == config.engine and "@" not in urlsplit(url).netloc else None


def reach_of(entry: ModelEntry, config: Config, url: str) -> Reach:
    """How the server at `url` is reached. Files are read and the proxy's address too, so that a wrong one is told at the
    start and not to whoever asks first. Raises ConfigError, without the proxy's password."""
    ca_file = entry.ca_file or config.engine_ca_file
    cert, key = entry.client_cert, entry.client_key
    if cert is None and key is None:
        cert, key = config.engine_client_cert, config.engine_client_key
    proxy = (config.engine_proxy if entry.proxy is None else entry.proxy) or None
    where = f" (model {entry.name!r})" if entry.name else ""
    if url.startswith("unix://"):
        proxy = None
    if not url.startswith(_SECURE):
        ca_file = cert = key = None
    try:
        if ca_file or cert or key:
            tls_context(ca_file, cert, key)
        if proxy is not None:
            read_proxy(proxy)
    except ConfigError as error:
        raise ConfigError(f"{error}{where}") from None
    return Reach(ca_file=_text(ca_file), client_cert=_text(cert), client_key=_text(key), proxy=proxy)


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _on_vllm(entry: ModelEntry, config: Config, model: ModelFile | None) -> ModelSpec:
    """`model` None: vLLM fetches it from the hub, and what it is shows when it is there."""
    source, facts = entry.source or entry.name, Facts(capabilities=("completion", "tools"))
    name = entry.name
    if model is not None:
        bundled = bundled_folder() if model.origin == "bundled" else None
        source, facts = str(bundled or model.path), model.weights
        name = entry.name if entry.source else model.runs
        if bundled is None and facts.format != "safetensors":
            raise ConfigError(
                f"{model.name} is a GGUF file and vLLM runs safetensors. Serve it with engine llamacpp, or pull the "
                "model that it was made of"
            )
    template = entry.chat_template or (None if facts.chat_template else config.chat_template)
    seconds = ollama.read_duration(config.keep_alive if entry.keep_alive is None else entry.keep_alive)
    return ModelSpec(
        name=name,
        engine="vllm",
        source=source,
        aliases=entry.served_names,
        context=entry.context or config.context,
        parallel=0,
        keep_alive=300.0 if seconds is None else seconds,
        chat_template=_read(template) if template else None,
        chat_fallback=entry.chat_fallback or config.chat_fallback,
        vllm=VllmOptions(
            dtype=entry.dtype,
            quantization=entry.quantization,
            gpu_memory_utilization=entry.gpu_memory_utilization,
            kv_cache_memory_bytes=entry.kv_cache_memory_bytes,
            max_num_seqs=entry.max_num_seqs or entry.parallel or config.parallel,
            max_num_batched_tokens=entry.max_num_batched_tokens,
            tensor_parallel_size=entry.tensor_parallel_size,
            pipeline_parallel_size=entry.pipeline_parallel_size,
            lora_modules=tuple(entry.lora_modules.items()),
            tool_call_parser=entry.tool_call_parser,
            reasoning_parser=entry.reasoning_parser,
            port=entry.vllm_port,
            sleep=entry.sleep,
            args=entry.vllm_args,
        ),
        facts=facts,
    )


def _refuse(entry: ModelEntry, fields: Sequence[str], why: str) -> None:
    """A setting that would be ignored is told, before somebody relies on it."""
    for field in _set(entry, fields):
        raise ConfigError(f"{field} of model {entry.name!r} has no effect: {why}")


def _set(entry: ModelEntry, fields: Sequence[str]) -> Iterator[str]:
    default = ModelEntry(name=entry.name)
    return (field for field in fields if getattr(entry, field) != getattr(default, field))


def specify(
    model: ModelFile,
    config: Config,
    *,
    name: str | None = None,
    aliases: tuple[str, ...] = (),
    context: int | None = None,
    parallel: int | None = None,
    keep_alive: str | float | None = None,
    chat_template: Path | None = None,
    chat_fallback: str | None = None,
) -> ModelSpec:
    """A model of the library with the config's settings; those given here win over them. The config's chat
    template is meant for the models named at the start: any other has it only if it has none of its own."""
    template = chat_template or (None if model.weights.chat_template else config.chat_template)
    keep = config.keep_alive if keep_alive is None else keep_alive
    seconds = ollama.read_duration(keep)
    return msgspec.structs.replace(
        model.spec(),
        name=name or model.runs,
        aliases=aliases,
        context=context or config.context,
        parallel=parallel or config.parallel or EMBEDDED_PARALLEL,
        threads=config.threads,
        keep_alive=300.0 if seconds is None else seconds,
        chat_template=_read(template) if template else None,
        chat_fallback=chat_fallback or config.chat_fallback,
    )


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"chat template {path} cannot be read: {error}") from error


def kept_as(specs: Sequence[ModelSpec], entries: Sequence[ModelEntry], library: Library) -> list[str | None]:
    """The name under which the library keeps each model named at the start, None for those it does not: on another
    server, in a file of the user's own, under another name than there."""
    asked = [entry.name for entry in entries] or [spec.name for spec in specs]
    found: list[str | None] = []
    for name, spec in zip(asked, specs, strict=True):
        try:
            model = library.find(name)
        except (ModelNotFound, DamagedFile):
            found.append(None)
        else:
            found.append(model.name if (model.runs, model.path) == (spec.name, spec.source) else None)
    return found


def elsewhere(spec: ModelSpec) -> ModelFile:
    """A model named at the start, for the library: presets and copies can be made of it, though its weights
    are on another server or in a file of the user's own."""
    facts = msgspec.structs.replace(spec.facts, digest=spec.facts.digest or stand_in(spec))
    name = names.canonical(spec.name)
    return ModelFile(
        name=name, origin="elsewhere", path=spec.source, runs=spec.name, facts=facts, weights=facts
    )

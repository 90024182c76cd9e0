"""Config: every setting, frozen, read once from file, environment and flags, then passed on.

A field, its default and its meaning stand in one line of sight. `portico.example.toml` shows all of them;
a test holds it against these types.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

_KEYS = ("api_key", "api_keys", "engine_api_key", "proxy", "engine_proxy")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Printed with what differs from the defaults, and with keys only as set: configurations end up in logs."""

    def __repr__(self) -> str:
        set_here = {
            field.name: value
            for field in msgspec.structs.fields(type(self))
            if (value := getattr(self, field.name)) != field.default and value != {}
        }
        shown = (f"{name}={'***' if name in _KEYS else repr(value)}" for name, value in set_here.items())
        return f"{type(self).__name__}({', '.join(shown)})"


class ModelEntry(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One `[[model]]` of the file: a model to serve from the start."""

    name: str
    source: str | None = None  # hub id, GGUF path or URL of a server; default: looked up by `name`
    served_names: tuple[str, ...] = ()  # further names clients may use
    engine: str | None = (
        None  # llamacpp, vllm, or the URL of a server that speaks OpenAI; default: by its files
    )
    api_key: str | None = None  # sent to that server
    ca_file: Path | None = (
        None  # PEM file of the CA that its https is checked against; default: the system's CAs
    )
    client_cert: Path | None = None  # PEM file of the certificate that it is shown; its key is in it, or in
    client_key: Path | None = None  # a PEM file of its own, without a password
    proxy: str | None = None  # HTTP proxy before it, http://user:password@host:port; "" for none
    strict: bool | None = (
        None  # it refuses fields that OpenAI's API does not have; default: OpenAI's own does
    )
    context: int | None = None  # tokens; default: what the model was trained with
    parallel: int | None = None  # requests at once; default: the server's `parallel`; a URL: no limit
    keep_alive: str | float | None = None  # default: the server's `keep_alive`; not for a URL
    chat_template: Path | None = None  # Jinja file used instead of the model's own; not for a URL
    chat_fallback: Literal["error", "prompt"] | None = None  # chat without a template; not for a URL
    replicas: int = 1  # how many of it run here, each with memory of its own
    endpoints: tuple[str, ...] = ()  # URLs of further servers that have it, under the same name
    fallback: tuple[str, ...] = ()  # models that stand in when none of its replicas answers, in this order

    # ---- vLLM only, with vLLM's own names and meanings; what is not given is vLLM's default
    dtype: str | None = None  # auto, bfloat16, float16, float32
    quantization: str | None = None  # awq, gptq, fp8, ...; default: what the files say
    gpu_memory_utilization: float | None = None  # share of a GPU's memory, 0 to 1
    kv_cache_memory_bytes: int | None = None  # bytes for the KV cache, in place of a share; on a CPU 1 GiB
    max_num_seqs: int | None = None  # requests computed at once
    max_num_batched_tokens: int | None = None  # tokens computed in one step
    tensor_parallel_size: int | None = None  # GPUs that share each layer
    pipeline_parallel_size: int | None = None  # groups of GPUs that share the layers
    lora_modules: dict[str, str] = {}  # name of an adapter -> its folder; callers ask for it by that name
    tool_call_parser: str | None = None  # default: by the model's family; "" for none
    reasoning_parser: str | None = None  # default: by the model's family; "" for none
    vllm_port: int | None = None  # a port of loopback for vLLM; default: a socket nobody else can enter
    sleep: bool = False  # gives its memory back when idle and stays; on GPUs
    vllm_args: tuple[str, ...] = ()  # further arguments of vLLM, verbatim


class Config(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    # ---- where it listens
    host: str = "127.0.0.1"  # address to listen on; 0.0.0.0 for every interface
    port: int = 11434  # 0 takes a free port
    origins: tuple[str, ...] = ()  # browser origins allowed besides local ones; `*` matches anything
    api_keys: tuple[str, ...] = ()  # keys that callers may send; none: no key is asked for
    api_key_file: Path | None = None  # one key a line, added to `api_keys`

    # ---- what it serves
    models: tuple[ModelEntry, ...] = ()  # `[[model]]` tables; none: portico-tiny
    aliases: dict[str, str] = {}  # name a client sends -> model that answers
    engine: str | None = None  # engine for models named without one: llamacpp, vllm or a URL
    engine_api_key: str | None = None  # key sent to the server that `engine` names; to no other one
    engine_ca_file: Path | None = None  # `ca_file` of models that name none
    engine_client_cert: Path | None = None  # `client_cert` of models that name none
    engine_client_key: Path | None = None  # `client_key` of models that name no `client_cert`
    engine_proxy: str | None = None  # `proxy` of models that name none; that of the environment is not used
    served_model_names: tuple[str, ...] = ()  # further names of the first model
    chat_template: Path | None = None  # Jinja file for models served by name, and others without one
    chat_fallback: Literal["error", "prompt"] = "error"  # "prompt": chat without a template as plain text
    context: int | None = None  # tokens of context; default: what each model was trained with
    parallel: int | None = (
        None  # requests one engine answers at once; default: 4 of the embedded one, vLLM's own of vLLM
    )
    threads: int | None = None  # CPU threads of an embedded engine; default: one a core
    keep_alive: str | float = "5m"  # how long an idle model stays loaded; 0 unloads at once, negative never
    max_loaded_models: int = 0  # models loaded here at once, on other servers not counted; 0: no limit
    max_queue: int = 512  # requests that may wait for a model before others are turned away
    queue_timeout: float = 0.0  # seconds a request may wait for its turn, loading not counted; 0: no limit
    load_timeout: float = 300.0  # seconds without progress before a load counts as failed
    drain_timeout: float = 300.0  # seconds running requests get when another model needs their model's place
    sleep_after: float = 60.0  # seconds of idleness until a model that can sleep does: weights in main memory
    deep_sleep_after: float = 120.0  # further seconds until it sleeps deeper: weights dropped

    # ---- where things are kept
    home: Path | None = None  # data folder; default PORTICO_HOME, else XDG_DATA_HOME/portico
    ollama_models: Path | None = None  # Ollama's own model folder; default: where Ollama keeps its models
    prune: bool = True  # a start removes uploads of which nothing was made within a day

    # ---- limits against bad callers
    max_body_bytes: int = 128 * 1024 * 1024  # larger request bodies get 413
    max_header_bytes: int = 64 * 1024  # larger request headers get 431
    max_connections: int = 4096  # further connections get 503
    header_timeout: float = 20.0  # seconds for a request's headers to arrive
    body_timeout: float = 60.0  # seconds a request's body may make no progress
    idle_timeout: float = 75.0  # seconds a connection may stay silent between requests
    connect_timeout: float = 10.0  # seconds for a connection to a server elsewhere, TLS and proxy included
    first_token_timeout: float = 600.0  # seconds an engine may think before its first byte, once it is asked
    token_timeout: float = 300.0  # seconds between two bytes of an engine
    heartbeat: float = 5.0  # seconds until who waits for an OpenAI stream sees a comment; then every two such
    request_timeout: float = 0.0  # seconds a request may take from its arrival to its end; 0: no limit
    shutdown_timeout: float = 30.0  # seconds running requests get to finish at SIGTERM

    # ---- what it says
    log_format: Literal["text", "json"] = "text"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_prompts: bool = False  # write prompts and answers to the log
    ollama_version: str = "0.33.0"  # what /api/version answers; clients refuse versions they think too old

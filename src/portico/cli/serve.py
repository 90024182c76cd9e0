"""`portico serve`: flags into settings, and the lines somebody reads while a server starts."""

from __future__ import annotations

import functools
import ipaddress
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from portico import __version__
from portico.cli import options, units
from portico.cli.choices import Command
from portico.cli.events import Events
from portico.cli.failure import usage
from portico.cli.live import Waiting
from portico.cli.screen import Screen, bold, dim
from portico.ollama_env import read_address

if TYPE_CHECKING:
    from portico.config import Config
    from portico.inprocess import Ready

FILE = click.Path(path_type=Path)
WORD: Any = str
FLAGS: tuple[tuple[str, str, Any, str], ...] = (
    # setting, how its value is called, type, help
    ("host", "ADDRESS", WORD, "Address to listen on; 0.0.0.0 for every interface.  [127.0.0.1]"),
    ("port", "N", int, "Port; 0 takes a free one.  [11434]"),
    ("engine", "ENGINE", WORD, "llamacpp, vllm, or the URL of a server that speaks OpenAI's API."),
    ("engine_api_key", "KEY", WORD, "Key sent to an engine given by URL."),
    ("engine_ca_file", "FILE", FILE, "CA that an engine's https is checked against, not the system's."),
    ("engine_client_cert", "FILE", FILE, "Certificate shown to an engine given by URL."),
    ("engine_client_key", "FILE", FILE, "Its key, where it is in a file of its own."),
    ("engine_proxy", "URL", WORD, "HTTP proxy before engines given by URL."),
    ("api_key_file", "FILE", FILE, "File with one caller's key a line."),
    ("chat_template", "FILE", FILE, "Jinja chat template instead of MODEL's own."),
    (
        "chat_fallback",
        "HOW",
        click.Choice(["error", "prompt"]),
        "What chat does without a template: error or prompt.",
    ),
    ("context", "TOKENS", int, "Context; default: what the model was trained with."),
    (
        "parallel",
        "N",
        int,
        "Requests an engine answers at once.  [4 of the embedded engine; vLLM decides by itself]",
    ),
    ("threads", "N", int, "CPU threads of an embedded engine."),
    ("keep_alive", "TIME", WORD, "How long an idle model stays loaded: 5m, 0, -1.  [5m]"),
    ("max_loaded_models", "N", int, "Models loaded at once; 0: no limit."),
    ("max_queue", "N", int, "Requests that may wait before others are turned away.  [512]"),
    ("queue_timeout", "SECONDS", float, "Waiting for a turn for so long is turned away; 0: no limit."),
    ("max_body_bytes", "BYTES", int, "Larger request bodies get 413."),
    ("load_timeout", "SECONDS", float, "Loading without progress for so long has failed.  [300]"),
    ("connect_timeout", "SECONDS", float, "For a connection to an engine given by URL.  [10]"),
    ("first_token_timeout", "SECONDS", float, "An engine may think so long before its first byte.  [600]"),
    ("token_timeout", "SECONDS", float, "Between two bytes of an engine.  [300]"),
    ("request_timeout", "SECONDS", float, "A request may take so long in all; 0: no limit."),
    ("shutdown_timeout", "SECONDS", float, "What running requests get to finish at the end.  [30]"),
    ("home", "FOLDER", FILE, "Data folder for models, logs and engines."),
    ("log_format", "HOW", click.Choice(["text", "json"]), "Log: text or json."),
    (
        "log_level",
        "LEVEL",
        click.Choice(["debug", "info", "warning", "error"]),
        "debug, info, warning or error.",
    ),
)
LISTS: tuple[tuple[str, str, str, str], ...] = (
    # flag, setting, how one value is called, help; each may be given several times
    ("--served-model-name", "served_model_names", "NAME", "A further name of the first model."),
    ("--api-key", "api_keys", "KEY", "A key that callers may send."),
    (
        "--origins",
        "origins",
        "ORIGIN",
        "A browser origin that may call, besides local pages; * matches anything.",
    ),
)


VLLM: tuple[tuple[str, str, Any, str], ...] = (
    # as above; they are settings of each model named here, and have vLLM's own names
    ("dtype", "TYPE", WORD, "auto, bfloat16, float16, float32."),
    ("quantization", "METHOD", WORD, "awq, gptq, fp8, ...; default: what the files say."),
    ("gpu_memory_utilization", "SHARE", float, "Share of a GPU's memory, 0 to 1."),
    ("kv_cache_memory_bytes", "BYTES", int, "For the KV cache, in place of a share."),
    ("max_num_seqs", "N", int, "Requests computed at once."),
    ("max_num_batched_tokens", "N", int, "Tokens computed in one step."),
    ("tensor_parallel_size", "N", int, "GPUs that share each layer."),
    ("pipeline_parallel_size", "N", int, "Groups of GPUs that share the layers."),
    ("tool_call_parser", "NAME", WORD, "Default: by the model's family."),
    ("reasoning_parser", "NAME", WORD, "Default: by the model's family."),
    ("vllm_port", "N", int, "A port of loopback for vLLM; default: a socket."),
)
VLLM_SWITCHES = (
    *("--trust-remote-code", "--enforce-eager", "--enable-chunked-prefill", "--enable-prefix-caching"),
    *("--enable-auto-tool-choice", "--enable-lora"),
)
"""Passed on as they are."""


def _flags(command: Command) -> Command:
    """Adds every flag and passes those that were given: `flags`, settings of Config by name, and `vllm`, settings of
    each model."""

    @functools.wraps(command)
    def with_flags(
        *arguments: Any, alias: tuple[str, ...], lora_modules: tuple[str, ...], **named: Any
    ) -> Any:
        vllm = {name: named.pop(name) for name, *_ in VLLM}
        vllm["lora_modules"] = _pairs(lora_modules, "--lora-modules", "sql=/srv/adapters/sql")
        switches = [flag for flag in VLLM_SWITCHES if named.pop(flag[2:].replace("-", "_"))]
        vllm["vllm_args"] = tuple(switches) or None
        named["vllm"] = {name: value for name, value in vllm.items() if value is not None}
        flags = {name: named.pop(name) for name, *_ in FLAGS}
        flags |= {name: named.pop(name) or None for _, name, *_ in LISTS}
        flags |= {
            "aliases": _pairs(alias, "--alias", "gpt-4o-mini=default"),
            "log_prompts": named.pop("log_prompts") or None,
        }
        given = {name: value for name, value in flags.items() if value is not None}
        return command(*arguments, flags=given, **named)

    added: list[Any] = [
        click.option(f"--{name.replace('_', '-')}", name, metavar=metavar, type=kind, help=text)
        for name, metavar, kind, text in FLAGS
    ]
    added += [
        click.option(flag, name, metavar=metavar, multiple=True, help=text)
        for flag, name, metavar, text in LISTS
    ]
    added += [
        click.option(f"--{name.replace('_', '-')}", name, metavar=metavar, type=kind, help=f"vLLM: {text}")
        for name, metavar, kind, text in VLLM
    ]
    added += [click.option(flag, is_flag=True, help="vLLM: as it is.") for flag in VLLM_SWITCHES]
    added += [
        click.option(
            "--lora-modules",
            metavar="NAME=FOLDER",
            multiple=True,
            help="vLLM: an adapter, a model to callers.",
        ),
        click.option(
            "--alias", metavar="NAME=MODEL", multiple=True, help="A name clients send, and who answers."
        ),
        click.option("--log-prompts", is_flag=True, help="Write prompts and answers to the log."),
    ]
    wrapped: Any = with_flags
    for option in reversed(added):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def _pairs(texts: tuple[str, ...], flag: str, example: str) -> dict[str, str] | None:
    pairs = [text.partition("=") for text in texts]
    if wrong := next((name for name, _, value in pairs if not value), None):
        raise usage(f"{flag} takes NAME=VALUE, got {wrong!r}", attempt=f"{flag} {example}")
    return {name: value for name, _, value in pairs} or None


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL]...", shell_complete=options.complete_models)
@click.option("--model", "--model-id", "named", metavar="MODEL", multiple=True, help="The same as MODEL.")
@click.option("--max-model-len", metavar="TOKENS", type=int, help="The same as --context.")
@click.option(
    "--vllm-arg", "verbatim", metavar="ARG", multiple=True, help="vLLM: a further argument, verbatim."
)
@click.option(
    "--config", "file", metavar="FILE", type=FILE, help="Settings from this file and from no other."
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object a line for each thing that happens."
)
@click.option("--end-with-stdin", is_flag=True, hidden=True, help="Stop when stdin ends.")
@_flags
@options.screen
@options.environ
def serve(
    models: tuple[str, ...],
    named: tuple[str, ...],
    max_model_len: int | None,
    verbatim: tuple[str, ...],
    file: Path | None,
    as_json: bool,
    end_with_stdin: bool,
    flags: dict[str, object],
    vllm: dict[str, Any],
    screen: Screen,
    environ: options.Environ,
) -> int:
    """Answer Ollama's and OpenAI's clients with MODEL; without a name, with the model that is bundled.

    Every flag is also a setting of portico.toml and a variable (--max-queue: PORTICO_MAX_QUEUE).

    \b
    portico serve
    portico serve qwen3:4b --context 8192
    portico serve Qwen/Qwen3-8B --gpu-memory-utilization 0.8
    portico serve my-model --engine http://gpu-box:8000/v1 --alias gpt-4o-mini=my-model
    """
    from portico import config_file, inprocess

    began = time.monotonic()
    models += named
    if max_model_len is not None:
        flags["context"] = max_model_len
    if verbatim:
        vllm["vllm_args"] = (*vllm.get("vllm_args", ()), *verbatim)
    if vllm and not models:
        _refuse_flags_of_no_model(config_file.load(file, environ, flags), vllm)
        models = (inprocess.BUNDLED,)
    if models:
        flags["models"] = [{"name": model, **vllm} for model in models]
    config = config_file.load(file, environ, flags)
    sources = config_file.sources(file, environ)
    told: _Start
    if as_json or config.log_format == "json":
        options.fail_as_json()  # the reason of a failed start would be the one line that no collector can read
        told = _Events(Events(to_stderr=not as_json))
    else:
        told = _Lines(screen, began, sources, environ)
    told.begin(config)
    if end_with_stdin:
        _end_with_stdin()
    try:
        inprocess.serve(config, on_ready=told.ready, on_stopping=told.stopping, on_event=told.event)
        told.stopped()
    finally:
        told.end()
    return 0


def _refuse_flags_of_no_model(config: Config, vllm: Mapping[str, Any]) -> None:
    """Flags are about the models on the command line, and those take the place of the file's."""
    if not config.models:
        return
    flags = ", ".join("--vllm-arg" if name == "vllm_args" else f"--{name.replace('_', '-')}" for name in vllm)
    known = ", ".join(entry.name for entry in config.models)
    raise usage(
        f"{flags}: of which model? The config has {known}, each with settings of its own there. Set it there, or name "
        "the model to serve it alone"
    )


def _end_with_stdin() -> None:
    """Whoever started us holds our stdin open and does nothing else with it. When it ends they are gone,
    however they went, and nobody would ever stop this server."""

    def watch() -> None:
        # Past Python's buffer: whoever reads it holds its lock, and an interpreter that ends wants the lock.
        while os.read(stdin, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    stdin = sys.stdin.fileno()
    threading.Thread(target=watch, name="lifeline", daemon=True).start()


class _Start:
    """What is told of a server's life."""

    def begin(self, config: Config) -> None: ...

    def event(self, event: str, **facts: Any) -> None:
        """Something happened to a model while the server starts."""

    def ready(self, ready: Ready) -> None: ...

    def stopping(self, grace: float, running: int) -> None: ...

    def stopped(self) -> None:
        """In order: a start that fails is an error instead."""

    def end(self) -> None: ...


class _Events(_Start):
    """A JSON object a line: on stdout for --json, on stderr as part of a log that is JSON."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._ready = False

    def begin(self, config: Config) -> None:
        if _is_open(config):
            self._events.tell("warning", code="no_api_key", message=_open_to_all(config), do=_DO_SET_A_KEY)

    def event(self, event: str, **facts: Any) -> None:
        self._events.tell(event.replace(" ", "_"), **facts)

    def ready(self, ready: Ready) -> None:
        self._ready = True
        url = _reached_at(ready)
        self._events.tell(
            "server_started",
            host=ready.host,
            port=ready.port,
            url=url,
            endpoints={"ollama": url, "openai": f"{url}/v1"},
            models=list(ready.models),
        )

    def stopping(self, grace: float, running: int) -> None:
        self._events.tell("server_stopping", grace_s=grace, requests_in_flight=running)

    def end(self) -> None:
        if self._ready:
            self._events.tell("server_stopped")


class _Lines(_Start):
    """What a person reads; the addresses come last. On stderr, where the log is too."""

    def __init__(
        self, screen: Screen, began: float, sources: tuple[Path, ...], environ: Mapping[str, str]
    ) -> None:
        self._screen, self._began, self._sources, self._environ = screen, began, sources, environ
        self._wait = Waiting(screen, "starting")
        self._shown: tuple[str, str] | None = None
        self._ready = False

    def begin(self, config: Config) -> None:
        files = "   ".join(f"config {_tidy(path, self._environ)}" for path in self._sources)
        self._screen.say(f"{bold('Portico')} {__version__}" + (f"   {dim(files)}" if files else ""))
        if _is_open(config):
            self._screen.warn(_open_to_all(config))
            self._screen.say(f"  do       {_DO_SET_A_KEY}")
        self._wait.begin()

    def event(self, event: str, **facts: Any) -> None:
        """The stages of a start; in a log, where nothing can be drawn again, a line for each of them."""
        if event == "leftovers ended":
            return self._screen.warn(
                f"{facts['model']}: an engine of a server that was killed was still there; ended"
            )
        if event != "model loading":
            return
        model, stage, fraction = facts["model"], facts["stage"], facts.get("fraction")
        if self._screen.live:
            bar = (
                f"{units.bar(round(100 * fraction), 100, 20)} {fraction:.0%}" if fraction is not None else ""
            )
            self._wait.what = "  ".join(filter(None, (model, stage, bar, facts.get("detail"))))
        elif (model, stage) != self._shown:
            self._shown = model, stage
            self._screen.say(f"{self._screen.sign('running')} {model}  {stage}")

    def ready(self, ready: Ready) -> None:
        self._wait.over()
        self._ready = True
        took = units.duration(time.monotonic() - self._began)
        names = ", ".join(ready.models)
        self._screen.say(f"{self._screen.sign('done')} {bold(names)}  ready in {took}")
        url = _reached_at(ready)
        reach = "this machine only" if _is_loopback(ready.host) else "every machine that reaches this one"
        self._screen.say(f"Ready.  OpenAI {url}/v1   Ollama {url}   {reach}")
        elsewhere = "" if url == "http://127.0.0.1:11434" else f" --host {url.removeprefix('http://')}"
        self._screen.say(dim(f"Try: portico chat{elsewhere}     Stop: Ctrl-C"))

    def stopping(self, grace: float, running: int) -> None:
        if self._screen.err_is_terminal:
            self._screen.say()  # past the ^C that the terminal has echoed
        if running:
            what = "request" if running == 1 else "requests"
            self._screen.say(
                f"Stopping: {running} {what} may take {units.duration(grace)} to finish.  Again: stop now"
            )

    def stopped(self) -> None:
        self._wait.over()
        if self._ready:
            return self._screen.say("Stopped.")
        if self._screen.err_is_terminal:
            self._screen.say()  # past the ^C
        self._screen.say("Stopped before it was ready.")

    def end(self) -> None:
        self._wait.over()


def _reached_at(ready: Ready) -> str:
    """What a client on this machine connects to: "every interface" is an address to listen on only."""
    return read_address(ready.url).url


_DO_SET_A_KEY = "set PORTICO_API_KEY, or portico serve --api-key-file FILE"


def _is_open(config: Config) -> bool:
    """Other machines reach it, and it asks nobody for a key."""
    return not (_is_loopback(config.host) or config.api_keys or config.api_key_file)


def _open_to_all(config: Config) -> str:
    return f"whoever reaches {config.host}:{config.port} may use this server: no API key is set"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _tidy(path: Path, environ: Mapping[str, str]) -> str:
    home = environ.get("HOME")
    return f"~/{path.relative_to(home)}" if home and path.is_relative_to(home) else str(path)

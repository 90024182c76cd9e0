"""Composes a server: engines, library, gateway, in one process. The parts list, in sight."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import msgspec

from portico import config_file, names
from portico.config import Config
from portico.configured import BUNDLED as BUNDLED
from portico.configured import configured, copies, elsewhere, kept_as, specify
from portico.dialects import ollama
from portico.engines import ModelSpec, memory
from portico.engines.gpus import Seen
from portico.engines.llamacpp import LlamaCpp
from portico.engines.remote import Remote
from portico.engines.supervisor import Supervisor
from portico.engines.vllm.engine import Vllm
from portico.errors import ConfigError, DamagedFile, PorticoError
from portico.fetching import fetched, is_offline
from portico.gateway.app import Gateway
from portico.gateway.beside import BesideRoutes
from portico.gateway.listen import Limits, Listener, until_signal
from portico.gateway.listen.listener import make_room
from portico.gateway.log import Records, RequestLog
from portico.gateway.meters import Meters
from portico.gateway.models import Models, Preset, Served
from portico.gateway.ollama_routes import OllamaRoutes
from portico.gateway.ollama_shelf import ShelfRoutes
from portico.gateway.openai_routes import OpenAIRoutes
from portico.gateway.openapi import describe
from portico.gateway.serving import Serving
from portico.library import HubSettings, Library, ModelFile, bundled_folder
from portico.ollama_env import model_folders
from portico.web import Access, Route, Routes
from portico.web.tracing import tracing

WATCHED = ("model loading", "leftovers ended")
"""What is told of a start before it is over; how it ends, `on_ready` or an error says."""


@dataclass(frozen=True)
class Ready:
    """A server that listens and whose models are loaded."""

    url: str
    host: str
    port: int
    models: tuple[str, ...]
    guarded: bool
    """Callers need a key."""


class Portico:
    """A whole server. Owns its parts, from `start` to `stop`; belongs to one event loop."""

    def __init__(
        self,
        config: Config,
        environ: Mapping[str, str],
        extra: Sequence[Route] = (),
        on_event: Callable[..., object] = lambda event, **facts: None,
    ) -> None:
        """`extra` are routes of later floors, such as those of workflows. `on_event` hears what happens to models
        while the server starts; later the log does."""
        self._on_event = on_event
        self._tracing = tracing(environ)
        home = config_file.data_home(config, environ)
        keys = config_file.callers_keys(config)
        self.config = config
        self.library = library(config, environ, home)
        self.log = RequestLog(form=config.log_format, level=config.log_level, prompts=config.log_prompts)
        self._vllm = Vllm(
            home,
            first_byte=config.first_token_timeout,
            between=config.token_timeout,
            max_waiting=config.max_queue,
            patience=config.queue_timeout,
            visible=environ.get("CUDA_VISIBLE_DEVICES"),
            fetch=partial(fetched, library=self.library, offline=is_offline(environ)),
            hold=self.library.hold,
        )
        self.supervisor = Supervisor(
            {
                "vllm": self._vllm,
                "llamacpp": LlamaCpp(
                    logs=home / "logs",
                    hold=self.library.hold,
                    first_byte=config.first_token_timeout,
                    between=config.token_timeout,
                    max_waiting=config.max_queue,
                    patience=config.queue_timeout,
                ),
                "remote": Remote(
                    connect=config.connect_timeout,
                    first_byte=config.first_token_timeout,
                    between=config.token_timeout,
                    max_waiting=config.max_queue,
                    patience=config.queue_timeout,
                ),
            },
            max_queue=config.max_queue,
            patience=config.queue_timeout,
            max_loaded=config.max_loaded_models,
            load_timeout=config.load_timeout,
            drain_timeout=config.drain_timeout,
            naps=(config.sleep_after, config.deep_sleep_after),
            free=partial(memory.free, environ.get("CUDA_VISIBLE_DEVICES")),
            say=self._say,
        )
        self.meters = Meters()
        self._extra = tuple(extra)
        self._up = False
        self._keys = keys

    async def start(self) -> Ready:
        """Listens, then loads the models named in the config. Raises ConfigError (a port that is taken),
        and what keeps a model from being loaded; then nothing is left running."""
        config = self.config
        shelf = Shelf(self.library, config)
        specs = await configured(config, self.library, vllm_is_there=bool(self._vllm.installs.all()))
        kept = await asyncio.to_thread(kept_as, specs, config.models, self.library)
        self.library.lend([elsewhere(spec) for spec, name in zip(specs, kept, strict=True) if name is None])
        named = [name or names.canonical(spec.name) for spec, name in zip(specs, kept, strict=True)]
        further = copies(specs, config.models, config)
        self.models = Models(
            specs,
            shelf.served,
            config.aliases,
            named,
            copies=further,
            fallback={spec.name: entry.fallback for spec, entry in zip(specs, config.models, strict=False)},
        )
        await self.models.current()
        access = Access(keys=self._keys, origins=config.origins, loopback=is_loopback(config.host))
        serving = Serving(
            self.models,
            self.supervisor,
            heartbeat=config.heartbeat,
            request_seconds=config.request_timeout,
            say=self._say,
        )
        self.beside = BesideRoutes(
            self.models, self.supervisor, self.meters, lambda: len(self.listener.gate.connections), access
        )
        rows = [
            *OpenAIRoutes(serving).rows(),
            *OllamaRoutes(serving).rows(),
            *ShelfRoutes(self.models, self.supervisor, self.library, version=config.ollama_version).rows(),
            *self.beside.rows(),
            *self._extra,
        ]
        self.beside.description = describe(rows, keys=bool(self._keys))
        self.gateway = Gateway(Routes(rows), access, self.meters, self.log, self._tracing)
        limits = msgspec.structs.replace(Limits.of(config), streamed_paths=("/api/blobs/",))
        self.listener = Listener(self.gateway, config, refuse=self.gateway.turned_away, limits=limits)
        host, port = await self.listener.start()
        try:
            for left in await asyncio.to_thread(self._vllm.end_leftovers):
                self._say("leftovers ended", model=left.model)
            self._tell_of(await self._vllm.look())
            here = [spec for spec in (*specs, *chain(*further.values())) if spec.engine != "remote"]
            await self._check_fallbacks()
            await asyncio.gather(*map(self.supervisor.load, here))
            if config.prune:
                await self._prune()
        except BaseException:
            await self.stop(grace=0)
            raise
        self._up = True
        return Ready(
            url=f"http://{_address(host)}:{port}",
            host=host,
            port=port,
            models=tuple(self.models.names()),
            guarded=bool(self._keys),
        )

    async def _check_fallbacks(self) -> None:
        """Before anything is loaded, which may take minutes. Raises ConfigError."""
        for entry in self.config.models:
            for name in entry.fallback:
                try:
                    await self.models.resolve(name)
                except PorticoError as error:
                    raise ConfigError(
                        f"fallback of model {entry.name!r} names {name!r}: {error} Name a model that is here, or give "
                        "it a [[model]] of its own"
                    ) from error

    async def _prune(self) -> None:
        """As Ollama does at its start. A disk that does not let it is no reason not to serve."""
        with contextlib.suppress(OSError):
            if freed := await asyncio.to_thread(self.library.prune):
                self.log.say("files removed that nothing needs", bytes=freed)

    def _tell_of(self, seen: Seen) -> None:
        """GPUs that are counted in another way than one would think, or not at all."""
        for gpu in seen.gpus:
            if gpu.shared:
                self.log.say("GPU has the system's memory", gpu=gpu.index, name=gpu.name, bytes=gpu.total)
        for one in seen.left_out:
            self.log.say("GPU left out", gpu=one.index, error=one.reason)

    def _say(self, event: str, **facts: object) -> None:
        """What happens to models: to whoever watches the start, then to the log."""
        if not self._up:
            if event in WATCHED:
                self._on_event(event, **facts)
        elif event != "model loading":
            self.log.say(event, **facts)

    async def stop(self, grace: float | None = None) -> None:
        """No new requests; running ones get `grace` seconds (default: shutdown_timeout); then the engines."""
        self.beside.stopping, self._up = True, False
        self.supervisor.wind_down()
        self.models.close()
        await self.listener.stop(grace)
        await self.supervisor.stop()
        await asyncio.to_thread(self._tracing.close)
        self.log.flush()

    def cut(self) -> None:
        """A `stop` under way waits for nobody any more."""
        self.listener.cut()


def serve(
    config: Config,
    *,
    on_ready: Callable[[Ready], object] = lambda ready: None,
    on_stopping: Callable[[float, int], object] = lambda grace, running: None,
    on_event: Callable[..., object] = lambda event, **facts: None,
) -> None:
    """Serves until SIGTERM or SIGINT; a second one cuts what still runs. Blocks. `on_stopping` is told how many
    seconds the running requests have, and how many there are."""
    if sys.platform == "win32":
        asyncio.run(_serve(config, on_ready, on_stopping, on_event))
    else:
        import uvloop

        uvloop.run(_serve(config, on_ready, on_stopping, on_event))


async def _serve(
    config: Config,
    on_ready: Callable[[Ready], object],
    on_stopping: Callable[[float, int], object],
    on_event: Callable[..., object],
) -> None:
    make_room(config.max_connections)
    portico = Portico(config, os.environ, on_event=on_event)

    def started(ready: Ready) -> None:
        on_ready(ready)
        settle_memory()

    def stopping() -> None:
        on_stopping(config.shutdown_timeout, portico.meters.in_flight)

    with Records(portico.log):
        await until_signal(portico, on_started=started, on_stopping=stopping)


def settle_memory() -> None:
    """What has been loaded until now stays: the collector need not look through it again and again, and
    need not come every 700 objects, of which a busy server makes and drops a million a second."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


# ---- what it serves ----------------------------------------------------------------------------


def library(config: Config, environ: Mapping[str, str], home: Path) -> Library:
    """The library that this config and environment mean."""
    stores = model_folders(str(config.ollama_models or environ.get("OLLAMA_MODELS", "")))
    return Library(home, hub=HubSettings.read(environ), ollama=stores, bundled=bundled_folder())


class Shelf:
    """What the library holds, as the gateway serves it. Presets of one model share its spec, so that they
    share its engine."""

    def __init__(self, library: Library, config: Config) -> None:
        self._library, self._config = library, config
        self._specs: dict[str, ModelSpec] = {}

    def served(self) -> list[Served]:
        """Damaged ones last, so that `default` never means one of them."""
        whole = [self._serve(model) for model in self._library.models()]
        return whole + [_damaged(name, damage) for name, damage in self._library.problems().items()]

    def _serve(self, model: ModelFile) -> Served:
        refusal: PorticoError | None = None
        made: Preset | None = None
        try:
            made = preset(model)
            spec = specify(model, self._config)
        except PorticoError as error:  # one that cannot run is listed, and must not hide the others
            refusal = error
            spec = ModelSpec(name=model.runs, engine="none", source=model.path, facts=model.facts)
        known = self._specs.get(spec.name)
        if known is not None and msgspec.structs.replace(known, facts=spec.facts) == spec:
            spec = known
        else:
            self._specs[spec.name] = spec
        return Served(name=model.name, spec=spec, facts=model.facts, preset=made, refusal=refusal)


def _damaged(name: str, damage: DamagedFile) -> Served:
    return Served(name=name, spec=ModelSpec(name=name, engine="none", source=damage.path), refusal=damage)


def preset(model: ModelFile) -> Preset | None:
    if not model.made:
        return None
    parameters = dict(model.parameters)
    options = ollama.read_options(parameters)
    return Preset(
        parent=model.parent,
        system=model.system,
        template=model.template,
        sampling=options.sampling,
        context=options.context,
        parameters=parameters,
        messages=model.messages,
    )


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")


def _address(host: str) -> str:
    return f"[{host}]" if ":" in host else host

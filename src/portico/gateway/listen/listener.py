"""A listener's life: bound, serving, draining, gone."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
from collections.abc import Callable, Sequence

import uvicorn

from portico.config import Config
from portico.gateway.listen.bind import BACKLOG, bind
from portico.gateway.listen.connection import GuardedProtocol
from portico.gateway.listen.exchange import App
from portico.gateway.listen.gate import Gate, Limits, Refuse

log = logging.getLogger("portico.listen")

# Bytes of answers that the kernel holds for one caller; without a limit it is 4 MB (net.ipv4.tcp_wmem).
# Linux doubles the figure and counts its own overhead in it. It bounds what is under way to a far caller.
SEND_BUFFER = 96 * 1024
# Of these, bytes that could not be sent because the caller does not read.
UNSENT = 32 * 1024
_A_MOMENT = 0.01
LAST_WORDS = 2.0  # seconds that cancelled requests and closing connections have to write what they still have


class Listener:
    """Serves `app` on the address of `config` until it is stopped. Owns its sockets and the gate.

    Needs a running event loop and nothing else of the process: no signals, no logging set-up, no lifespan.
    """

    def __init__(
        self,
        app: App,
        config: Config,
        *,
        refuse: Refuse,
        limits: Limits | None = None,
        sockets: Sequence[socket.socket] | None = None,
    ) -> None:
        self._app, self._config, self._given = app, config, sockets
        self.gate = Gate(limits or Limits.of(config), refuse)
        self.addresses: tuple[tuple[str, int], ...] = ()
        self._servers: list[asyncio.Server] = []
        self._watching: asyncio.Task[None] | None = None
        self._cut = False
        self._ended = asyncio.Event()

    async def start(self) -> tuple[str, int]:
        """Listens from now on; the host and port of the first socket. Raises CannotListen with what to do."""
        loop = asyncio.get_running_loop()
        sockets = self._given or await bind(self._config.host, self._config.port)
        config = _uvicorn_config(self._app)
        for sock in sockets:
            _hold_little(sock)
            connect = functools.partial(GuardedProtocol, config, self.gate)
            self._servers.append(await loop.create_server(connect, sock=sock, backlog=BACKLOG))
        self.addresses = tuple(sock.getsockname()[:2] for sock in sockets)
        self._watching = loop.create_task(self.gate.watch())
        return self.addresses[0]

    async def wait(self) -> None:
        """Until `stop` is through."""
        await self._ended.wait()

    def cut(self) -> None:
        """A `stop` under way waits for nobody any more."""
        self._cut = True
        self.gate.changed.set()

    async def stop(self, grace: float | None = None) -> None:
        """Ends in order; a second call waits for the first.

        1. No new connections; idle ones close, half a request is answered 503. 2. What runs may finish,
        `grace` seconds long (default: `shutdown_timeout`). 3. What still runs is cancelled, and has a
        moment to write its last words. 4. Whatever is left is cut.
        """
        if self.gate.stopping:
            return await self.wait()
        self.gate.stopping = True
        try:
            for server in self._servers:  # (1)
                server.close()
            await asyncio.sleep(_A_MOMENT)  # requests that the kernel has received already get their 503
            for connection in tuple(self.gate.connections):
                connection.drain()
            seconds = self._config.shutdown_timeout if grace is None else grace
            await self._until(lambda: not self.gate.tasks, seconds)  # (2)
            for task in tuple(self.gate.tasks):  # (3)
                task.cancel()
            await self._until(lambda: not self.gate.tasks and not self.gate.connections, LAST_WORDS)
        finally:
            await self._end()

    async def _until(self, reached: Callable[[], bool], seconds: float) -> None:
        """Until `reached`, or `seconds` are over, or the stop is cut short."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not (reached() or self._cut):
                    self.gate.changed.clear()
                    await self.gate.changed.wait()

    async def _end(self) -> None:
        for connection in tuple(self.gate.connections):  # (4)
            connection.transport.abort()
        if self._watching is not None:
            self._watching.cancel()
        for task in tuple(self.gate.tasks):
            task.cancel()
        self._cut = False
        await self._until(lambda: not self.gate.tasks and not self.gate.connections, 0.2)
        if self.gate.tasks:
            log.warning("%d requests did not end when they were cancelled.", len(self.gate.tasks))
        self._ended.set()


def _hold_little(sock: socket.socket) -> None:
    """Limits what the kernel buffers for each connection that `sock` accepts."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # not on Windows
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)


def make_room(connections: int) -> None:
    """Raises the process's limit of open files for `connections`, each with one to an engine, if it may."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):  # macOS has a second limit behind this one
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _uvicorn_config(app: App) -> uvicorn.Config:
    """What uvicorn's protocol reads of its configuration. Not `load()`: that calls the application to see
    whether it is a factory. No logging set-up, no environment variables, no websockets."""
    config = uvicorn.Config(app, log_config=None, ws="none", lifespan="off", proxy_headers=False, workers=1)
    config.loaded, config.loaded_app, config.ws_protocol_class = True, app, None
    config.interface = "asgi3"
    return config

"""MCP servers as tools of `run`: a program that is started for it (stdio), or one that answers at a URL (streamable HTTP).
(The protocol: modelcontextprotocol.io. The package `mcp`, which speaks it, comes with the extra `[mcp]`.)

The package's session lives in one task of one event loop. So each server has a thread with a loop of its own, which both clients
ask in the same way; what it started is ended with it, also when its user is cancelled or its program ends.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import re
import shlex
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import urlsplit

from portico import recording
from portico.client.functions import Callee, tool_name
from portico.client.servers import is_near
from portico.client.watch import STRUCK, is_secret
from portico.errors import InvalidRequest, NotRunning, NotSupported
from portico.recording import Player

START_SECONDS = 60.0
"""Until a server has said what it can; a command such as uvx may have to fetch it first."""
CALL_SECONDS = 120.0
END_SECONDS = 10.0
"""The package itself gives a program 2 s to end, and 2 s more before it is killed with everything it started."""
KIND = "mcp"
"""Of the effects of a recording: what a server offers. Its calls are recorded as those of every tool are."""
_LAST = 5
"""Lines of a program's stderr that an error shows."""


_USER = re.compile(r"^(https?://)[^/]*@")


class ToolFailed(Exception):
    """The server's tool says that it failed: told to the model in its own words."""


class McpServer:
    """Gives a model the tools of an MCP server: `client.run("...", tools=[McpServer("uvx mcp-server-time")])`.

    where: a command (a text, or a list of arguments), or a URL that begins with http.
    only: the names of the tools to offer; None: all. prefix: put before their names, where two servers have the same.
    env, cwd: of the command, which sees PATH, HOME and their like besides, and no key of ours. headers: of the URL.
    seconds: what one call may take.
    In a `with` or `async with` it lives as long as the block; else as long as the run it is given to. Threads and runs may share it.
    Raises NotRunning where it does not start or answer, NotSupported without the package `mcp`.
    """

    def __init__(
        self,
        where: str | Sequence[str],
        *,
        only: Sequence[str] | None = None,
        prefix: str = "",
        env: Mapping[str, str] | None = None,
        cwd: str | Path | None = None,
        headers: Mapping[str, str] | None = None,
        seconds: float = CALL_SECONDS,
        start_seconds: float = START_SECONDS,
    ) -> None:
        command = shlex.split(where) if isinstance(where, str) else list(where)
        if not command:
            raise InvalidRequest("An MCP server is a command or a URL.", param="tools")
        self._url = where if isinstance(where, str) and where.startswith(("http://", "https://")) else ""
        self._command = [] if self._url else command
        self._env, self._cwd, self._headers = dict(env or {}), cwd, dict(headers or {})
        self._only, self._prefix = None if only is None else frozenset(only), prefix
        self.seconds, self._start_seconds = seconds, start_seconds
        self._lock = threading.Lock()
        self._users = 0
        self._session: _Session | None = None

    @property
    def name(self) -> str:
        """The URL without its query and user, or the command, without keys in either: recordings and errors show it."""
        return _USER.sub(r"\1", self._url.partition("?")[0]) or shlex.join(_without_keys(self._command))

    # ---- its life

    def __enter__(self) -> McpServer:
        session = self._entered()
        try:
            session.started.result()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if (thread := self._left()) is not None:
            thread.join(END_SECONDS)

    async def __aenter__(self) -> McpServer:
        session = self._entered()
        try:
            # Whoever is cancelled leaves; the others still want it.
            await asyncio.shield(asyncio.wrap_future(session.started))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if (thread := self._left()) is not None:
            await asyncio.shield(asyncio.to_thread(thread.join, END_SECONDS))

    def _entered(self) -> _Session:
        with self._lock:
            self._users += 1
            if self._session is None:
                self._session = _Session(self)
            return self._session

    def _left(self) -> threading.Thread | None:
        """The thread that ends, if nobody uses it any more."""
        with self._lock:
            self._users -= 1
            if self._users or self._session is None:
                return None
            session, self._session = self._session, None
        return session.end()

    # ---- its tools

    def tools(self) -> list[Tool]:
        """What it offers. Raises NotRunning outside of its block."""
        session = self._session
        if session is None:
            raise NotRunning(f"The MCP server {self.name} is not started: use it in a `with`.")
        return self._chosen(session.started.result(), session)

    def _chosen(self, listed: Sequence[Mapping[str, Any]], session: _Session | None) -> list[Tool]:
        known = {each["name"] for each in listed}
        if self._only is not None and (missing := self._only - known):
            has = ", ".join(sorted(known)) or "none"
            raise InvalidRequest(
                f"The MCP server {self.name} has no tool {', '.join(sorted(missing))}. It has: {has}.",
                param="tools",
            )
        chosen = [each for each in listed if self._only is None or each["name"] in self._only]
        return [Tool(self, session, each, self._prefix) for each in chosen]

    def transport(self, errors: IO[str]) -> tuple[Any, Any]:
        """The package's transport, and the HTTP client that it needs; it writes what the program says to `errors`."""
        if not self._url:
            from mcp.client.stdio import StdioServerParameters, stdio_client

            program, *arguments = self._command
            cwd = str(self._cwd) if self._cwd is not None else None
            parameters = StdioServerParameters(command=program, args=arguments, env=self._env, cwd=cwd)
            return stdio_client(parameters, errlog=cast(Any, errors)), None
        import httpx2
        from mcp.client.streamable_http import streamable_http_client

        near = is_near(urlsplit(self._url).hostname or "")
        http = httpx2.AsyncClient(
            headers=self._headers,
            timeout=httpx2.Timeout(30.0, read=self.seconds),
            trust_env=not near,  # a proxy of the environment is not for this machine or a private network
        )
        return streamable_http_client(self._url, http_client=http), http


def _without_keys(command: Sequence[str]) -> Iterator[str]:
    """Options like `--api-key`, with = or without, lose what they say."""
    hidden = False
    for word in command:
        name, gives, _ = word.partition("=")
        secret = name.startswith("-") and is_secret(name)
        yield STRUCK if hidden else f"{name}={STRUCK}" if secret and gives else word
        hidden = secret and not gives


class Tool(Callee):
    """One tool of a server, to the loop what a function is. Outside of its server's life it only has its description."""

    def __init__(
        self, server: McpServer, session: _Session | None, listed: Mapping[str, Any], prefix: str
    ) -> None:
        self._server, self._session, self._theirs = server, session, str(listed["name"])
        self.name = tool_name(prefix + self._theirs)
        self.description = str(listed.get("description") or "")
        self.parameters = dict(listed["parameters"])

    def arguments(self, text: str) -> dict[str, Any]:
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

        try:
            found = json.loads(text or "{}")
        except ValueError as error:
            raise ValueError(f"no JSON: {error}") from error
        problems = [
            f"{'.'.join(map(str, one.absolute_path)) or 'arguments'}: {one.message}"
            for one in Draft202012Validator(self.parameters).iter_errors(found)
        ]
        if problems or not isinstance(found, dict):
            raise ValueError("; ".join(problems) or "arguments: not an object")
        return found

    async def function(self, **arguments: Any) -> str:
        assert self._session is not None, "a replay calls nothing"
        return await asyncio.wrap_future(self._session.call(self._theirs, arguments))


class _Session:
    """A thread, its loop, and the package's client in it. `started` gives the tools, or why there are none."""

    def __init__(self, server: McpServer) -> None:
        self._server = server
        self.started: Future[list[dict[str, Any]]] = Future()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._client: Any = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"mcp {server.name}", daemon=True)
        self._thread.start()
        self._ready.wait()
        atexit.register(self._at_exit)

    def end(self) -> threading.Thread:
        atexit.unregister(self._at_exit)
        loop, task = self._loop, self._task
        if loop is not None and task is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                loop.call_soon_threadsafe(task.cancel)
        return self._thread

    def _at_exit(self) -> None:
        self.end().join(END_SECONDS)

    def call(self, name: str, arguments: Mapping[str, Any]) -> Future[str]:
        """Cancelling it cancels the call at the server."""
        loop = self._loop
        if loop is None or not self._thread.is_alive():
            raise ToolFailed(f"the MCP server {self._server.name} has ended")
        return asyncio.run_coroutine_threadsafe(self._called(name, arguments), loop)

    async def _called(self, name: str, arguments: Mapping[str, Any]) -> str:
        from mcp.shared.exceptions import MCPError

        try:
            result = await self._client.call_tool(
                name, dict(arguments), read_timeout_seconds=self._server.seconds
            )
        except MCPError as error:
            raise ToolFailed(str(error)) from error
        told = _said(result)
        if result.is_error:
            raise ToolFailed(told)
        return told

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        finally:
            self._ready.set()

    async def _live(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._ready.set()
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
            try:
                async with self._connected(errors) as (client, listed):
                    self._client = client
                    self.started.set_result(listed)
                    await asyncio.get_running_loop().create_future()  # until it is cancelled
            except asyncio.CancelledError:
                self.started.cancel()
            except Exception as error:  # whatever hindered it is for the one who started it to know
                if not self.started.done():
                    self.started.set_exception(self._hindered(error, errors))

    @contextlib.asynccontextmanager
    async def _connected(self, errors: IO[str]) -> AsyncIterator[tuple[Any, list[dict[str, Any]]]]:
        """The client, and what the server offers: only then it is started."""
        try:
            from mcp import Client
        except ImportError:
            raise NotSupported(
                "MCP servers need the package mcp: pip install 'portico[mcp]'.", feature="mcp"
            ) from None
        async with contextlib.AsyncExitStack() as stack:
            transport, http = self._server.transport(errors)
            if http is not None:
                await stack.enter_async_context(http)
            async with asyncio.timeout(self._server._start_seconds):
                client = await stack.enter_async_context(Client(transport))
                listed = await _listed(client)
            yield client, listed

    def _hindered(self, error: BaseException, errors: IO[str]) -> Exception:
        if isinstance(error, NotSupported):
            return error
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        why = str(error) or type(error).__name__
        if isinstance(error, TimeoutError):
            why = f"it was not ready within {self._server._start_seconds:g} s"
        errors.seek(0)
        last = " / ".join(line.strip() for line in errors.readlines()[-_LAST:] if line.strip())
        shown = f" Its last lines: {last}" if last else ""
        return NotRunning(f"The MCP server {self._server.name} cannot be used: {why}.{shown}")


async def _listed(client: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor = None
    while True:
        page = await client.list_tools(cursor=cursor)
        found += [
            {"name": each.name, "description": each.description, "parameters": each.input_schema}
            for each in page.tools
        ]
        cursor = page.next_cursor
        if not cursor:
            return found


def _said(result: Any) -> str:
    """What a tool gave, as a text: a model is told no picture."""
    parts = []
    for part in result.content:
        if (text := getattr(part, "text", None)) is not None:
            parts.append(text)
        elif (resource := getattr(part, "resource", None)) is not None:
            parts.append(getattr(resource, "text", None) or f"[{resource.uri}]")
        else:
            parts.append(f"[{part.type}{' ' + part.mime_type if getattr(part, 'mime_type', None) else ''}]")
    if not parts and result.structured_content is not None:
        return json.dumps(result.structured_content, ensure_ascii=False)
    return "\n".join(parts)


# ---- among the tools of a run


@contextlib.contextmanager
def opened(tools: Sequence[Any]) -> Iterator[list[Any]]:
    """`tools` with those of the servers among them in their place. In a replay no server is started."""
    with contextlib.ExitStack() as stack:
        found: list[Any] = []
        for tool in tools:
            if isinstance(tool, McpServer):
                if (replayed := _replayed(tool)) is None:
                    replayed = _recorded(stack.enter_context(tool))
                found += replayed
            else:
                found.append(tool)
        yield found


@contextlib.asynccontextmanager
async def aopened(tools: Sequence[Any]) -> AsyncIterator[list[Any]]:
    async with contextlib.AsyncExitStack() as stack:
        found: list[Any] = []
        for tool in tools:
            if isinstance(tool, McpServer):
                if (replayed := _replayed(tool)) is None:
                    replayed = _recorded(await stack.enter_async_context(tool))
                found += replayed
            else:
                found.append(tool)
        yield found


def _replayed(server: McpServer) -> list[Tool] | None:
    journal = recording.current()
    if not isinstance(journal, Player):
        return None
    return server._chosen(journal.answer(KIND, {"server": server.name}), None)


def _recorded(server: McpServer) -> list[Tool]:
    session = server._session
    assert session is not None
    recording.effect(KIND, {"server": server.name}, session.started.result)
    return server.tools()

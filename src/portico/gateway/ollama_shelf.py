"""Ollama's routes about models: what there is, what runs, pull, create, copy, delete, blobs; and the account
and cloud routes, answered as an Ollama that is offline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import msgspec

from portico.dialects import body as bodies
from portico.dialects import ollama
from portico.engines.supervisor import Supervisor
from portico.errors import DamagedFile, InvalidRequest, ModelNotFound, PorticoError, ShuttingDown, Unsupported
from portico.gateway import ollama_shapes as shapes
from portico.gateway.models import Models, Served, bare
from portico.library import Library, model_info
from portico.messages import Message
from portico.web import Request, Route
from portico.web.request import JSON_TYPE

NDJSON = b"application/x-ndjson"

T = TypeVar("T")


class ShelfRoutes:
    """Answers about models in Ollama's dialect."""

    def __init__(self, models: Models, supervisor: Supervisor, library: Library, *, version: str) -> None:
        self._models, self._supervisor, self._library, self._version = models, supervisor, library, version

    def rows(self) -> list[Route]:
        post, delete = "POST", "DELETE"
        s = shapes
        return [
            _row("GET", "/", self.root, "Says that it runs", gives=str, open=True),
            _row(
                "GET",
                "/api/version",
                self.version,
                "Ollama's version that this server stands for",
                gives=s.VersionBody,
            ),
            _row("GET", "/api/tags", self.tags, "The models there are", gives=s.Tags),
            _row("GET", "/api/ps", self.ps, "The models that are loaded", gives=s.Processes),
            _row(post, "/api/show", self.show, "All about a model", takes=s.ModelName, gives=s.Shown),
            _row(post, "/api/pull", self.pull, "Fetch a model", takes=s.Pull, gives=s.Status, streams=True),
            _row(post, "/api/push", self.push, "Not there: models are not published from here", takes=s.Pull),
            _row(
                post,
                "/api/create",
                self.create,
                "Make a model from another",
                takes=s.Create,
                gives=s.Status,
                streams=True,
            ),
            _row(post, "/api/copy", self.copy, "A second name", takes=s.Copy),
            _row(delete, "/api/delete", self.delete, "Remove a model", takes=s.ModelName),
            _row("GET", "/api/blobs/{digest}", self.blob, "Is this blob there? (ask with HEAD)"),
            _row(post, "/api/blobs/{digest}", self.put_blob, "Upload a blob", takes=bytes),
            _row("GET", "/api/status", self.status, "Cloud switched off", gives=s.CloudStatus),
            _row(post, "/api/me", self.account, "No account here"),
            _row(post, "/api/signout", self.account, "No account here"),
            _row(delete, "/api/user/keys/{key}", self.account, "No account here"),
            _row(post, "/api/experimental/web_search", self.cloud, "No cloud here"),
            _row(post, "/api/experimental/web_fetch", self.cloud, "No cloud here"),
            _row("GET", "/api/experimental/model-recommendations", self.recommendations, "None", gives=dict),
        ]

    # ---- what there is

    async def root(self, request: Request) -> None:
        await request.answer(200, b"Ollama is running", b"text/plain; charset=utf-8")

    async def version(self, request: Request) -> None:
        await _say(request, shapes.VersionBody(version=self._version))

    async def tags(self, request: Request) -> None:
        await self._models.current()
        pulls = await asyncio.to_thread(self._library.unfinished)
        await _say(
            request,
            shapes.Tags(
                models=[_listed(served) for served in self._models.all()],
                damaged=[
                    shapes.Damaged(name, error.reason) for name, error in self._models.damaged().items()
                ],
                unfinished=[shapes.Unfinished(each.name, each.completed, each.total) for each in pulls],
            ),
        )

    async def ps(self, request: Request) -> None:
        running = []
        for status in self._supervisor.states():
            if status.state not in ("ready", "starting", "dozing", "sleeping", "waking"):
                continue
            try:
                listed = _listed(await self._models.resolve(status.model))
            except (ModelNotFound, DamagedFile):
                continue  # it was removed while it ran, or has lost its file
            running.append(
                shapes.Running(
                    name=listed.name,
                    model=listed.model,
                    size=status.size or listed.size,
                    digest=listed.digest,
                    details=listed.details,
                    expires_at=shapes.FOREVER
                    if status.expires_at is None
                    else shapes.rfc3339(status.expires_at),
                    size_vram=0,
                    context_length=status.context or listed.details.context_length,
                )
            )
        running.sort(key=lambda entry: entry.expires_at, reverse=True)
        await _say(request, shapes.Processes(models=running))

    async def show(self, request: Request) -> None:
        asked = _read(await request.body(), shapes.ModelName)
        name = asked.model or asked.name
        if not name:
            raise InvalidRequest("model is required", param="model")
        served = await self._models.resolve(name)
        await _say(request, await asyncio.to_thread(self._shown, served, asked))

    def _shown(self, served: Served, asked: shapes.ModelName) -> shapes.Shown:
        facts, preset = served.facts, served.preset
        info = model_info(facts)
        basename = bare(served.name).rpartition("/")[2]
        info.setdefault("general.basename", basename)
        system = asked.system or (preset.system if preset else "")
        template = asked.template or (preset.template if preset else "")
        parent = preset.parent if preset else ""
        parameters = dict(preset.parameters) if preset else {}
        parameters |= asked.options or {}
        return shapes.Shown(
            modelfile=shapes.modelfile(served.name, parent or served.name, template, system, parameters),
            parameters=shapes.parameter_lines(parameters),
            template=shapes.go_template(template, facts.capabilities),
            details=shapes.details(facts, parent),
            model_info=info,
            capabilities=list(facts.capabilities),
            modified_at=_listed(served).modified_at,
            license=facts.license or "",
            system=system,
            messages=[
                shapes.ShownMessage(role=message.role, content=message.text)
                for message in (preset.messages if preset else ())
            ],
        )

    # ---- changing it

    async def pull(self, request: Request) -> None:
        asked = _read(await request.body(), shapes.Pull)
        name = asked.model or asked.name
        if not name:
            raise InvalidRequest("model is required", param="model")
        await self._progress(request, self._pulled(name), stream=asked.stream is not False)

    async def _pulled(self, name: str) -> AsyncIterator[shapes.Status]:
        """A model that is there already ends quickly with success, also offline: codex pulls whatever it does
        not see in the listing under the very name it was told."""
        try:
            served = await self._models.resolve(name)
        except (ModelNotFound, DamagedFile):
            wanted: str | None = name
        else:
            wanted = None if served.spec in self._models.configured else served.name
        yield shapes.Status(status="pulling manifest")
        if wanted is not None:
            try:
                async with aclosing(self._library.pull(wanted)) as steps:
                    async for progress in steps:
                        if progress.status not in ("pulling manifest", "success"):
                            yield shapes.Status(
                                status=progress.status,
                                digest=progress.digest or "",
                                total=progress.total or 0,
                                completed=progress.completed or 0,
                            )
            finally:
                self._models.refresh()
        yield shapes.Status(status="success")

    async def push(self, request: Request) -> None:
        raise Unsupported("push is not supported: Portico does not publish models", model="", feature="push")

    async def create(self, request: Request) -> None:
        asked = _read(await request.body(), shapes.Create)
        name = asked.model or asked.name
        if not name:
            raise InvalidRequest("model is required", param="model")
        if asked.quantize:
            raise Unsupported(
                "quantize is not supported: pull a quantized model", model=name, feature="quantize"
            )
        if asked.adapters:
            raise Unsupported(
                "adapters are not supported by the embedded engine", model=name, feature="adapters"
            )
        await self._progress(request, self._created(name, asked), stream=asked.stream is not False)

    async def _created(self, name: str, asked: shapes.Create) -> AsyncIterator[shapes.Status]:
        yield shapes.Status(status="reading model metadata")
        source = (await self._models.resolve(asked.from_)).name if asked.from_ else ""
        try:
            await asyncio.to_thread(self._make, name, source, asked)
        finally:
            self._models.refresh()
        yield shapes.Status(status="creating system layer")
        yield shapes.Status(status="writing manifest")
        yield shapes.Status(status="success")

    def _make(self, name: str, source: str, asked: shapes.Create) -> None:
        license = "\n".join(asked.license) if isinstance(asked.license, list) else asked.license
        if asked.parameters:
            ollama.read_options(asked.parameters)  # a wrong type is refused now, not at the first chat
        messages = _messages(asked.messages) if asked.messages is not None else None
        self._library.create(
            name,
            from_=source,
            files=asked.files,
            system=asked.system,
            template=asked.template,
            parameters=asked.parameters,
            messages=messages,
            license=license,
        )

    async def copy(self, request: Request) -> None:
        asked = _read(await request.body(), shapes.Copy)
        if not asked.source or not asked.destination:
            raise InvalidRequest("source and destination are required", param="source")
        source = await self._models.resolve(asked.source)
        await asyncio.to_thread(self._library.copy, source.name, asked.destination)
        self._models.refresh()
        await request.answer(200, content_type=b"")

    async def delete(self, request: Request) -> None:
        asked = _read(await request.body(), shapes.ModelName)
        name = asked.model or asked.name
        if not name:
            raise InvalidRequest("model is required", param="model")
        try:
            running = (await self._models.resolve(name)).spec.name
        except (ModelNotFound, DamagedFile):
            running = ""  # perhaps an interrupted pull, or what is left of a model: the library knows both
        # By the name it was called: nobody who says `default` or an alias means that a model may go.
        await asyncio.to_thread(self._library.delete, name)
        self._models.refresh()
        await self._models.current()
        if running and all(served.spec.name != running for served in self._models.all()):
            await self._supervisor.unload(running)
        await request.answer(200, content_type=b"")

    async def blob(self, request: Request) -> None:
        there = await asyncio.to_thread(self._library.has_blob, request.params["digest"])
        await request.answer(200 if there else 404, content_type=b"")

    async def put_blob(self, request: Request) -> None:
        new = await self._library.put_blob(request.params["digest"], request.pieces())
        await request.answer(201 if new else 200, content_type=b"")

    async def _progress(self, request: Request, steps: AsyncIterator[shapes.Status], *, stream: bool) -> None:
        """Statuses as they come, or only the last. An error before the first has its own HTTP status; one
        after it is a line, as Ollama has it."""
        request.watch()
        last = await anext(steps)
        try:
            if stream:
                second = await anext(steps)  # what cannot even begin gets an honest status
                await request.begin(NDJSON)
                await request.write(_line(last))
                last = second
            async for step in steps:
                if stream:
                    await request.write(_line(last))
                last = step
        except PorticoError as error:
            if not request.started:
                raise
            return await request.end(ollama.error_body(error) + b"\n")
        except asyncio.CancelledError:
            if request.gone or not request.started:
                raise
            return await request.end(ollama.error_body(ShuttingDown()) + b"\n")
        if stream:
            await request.end(_line(last))
        else:
            await _say(request, last)

    # ---- account and cloud, as an Ollama that is offline answers

    async def status(self, request: Request) -> None:
        await _say(request, shapes.CloudStatus(cloud={"disabled": True, "source": "config"}))

    async def account(self, request: Request) -> None:
        await request.answer(401, b'{"error":"unauthorized"}', JSON_TYPE)

    async def cloud(self, request: Request) -> None:
        await request.answer(403, b'{"error":"cloud features are disabled: this server is local"}', JSON_TYPE)

    async def recommendations(self, request: Request) -> None:
        await request.answer(200, b'{"recommendations":[]}')


def _messages(sent: list[dict[str, Any]]) -> tuple[Message, ...]:
    """The messages of a create, which are those of a chat."""
    return ollama.read_chat(msgspec.json.encode({"model": "-", "messages": sent})).messages


def _read(body: bytes, kind: type[T]) -> T:
    return bodies.decode(msgspec.json.Decoder(kind), body)


def _row(
    method: str,
    path: str,
    handle: Callable[[Request], Awaitable[None]],
    summary: str,
    *,
    takes: object = None,
    gives: object = None,
    streams: bool = False,
    open: bool = False,
) -> Route:
    kind = NDJSON.decode() if streams else None
    return Route(method, path, handle, "ollama", summary, takes=takes, gives=gives, streams=kind, open=open)


def _listed(served: Served) -> shapes.Listed:
    parent = served.preset.parent if served.preset else ""
    return shapes.listed(served.name, served.facts, served.spec, parent)


async def _say(request: Request, body: msgspec.Struct) -> None:
    await request.answer(200, msgspec.json.encode(body))


def _line(status: shapes.Status) -> bytes:
    return msgspec.json.encode(status) + b"\n"

"""The ASGI application: from the raw call to a route and back, errors and counting included."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import secrets
from collections.abc import Awaitable

from portico.errors import Forbidden, MethodNotAllowed, PorticoError, RouteNotFound, TookTooLong
from portico.gateway import refusals
from portico.gateway.log import Overheard, RequestLog
from portico.gateway.meters import Meters
from portico.web import Access, Account, HungUp, Request, Routes
from portico.web.request import LAST_WORDS, Receive, Scope, Send
from portico.web.tracing import Tracing

NO_SPANS = Tracing()
_log = logging.getLogger("portico.gateway")
_TAG = re.compile(rb"[\w.:-]{1,128}", re.ASCII)


class Gateway:
    """Answers every request once, in its caller's dialect, and counts it once, at its end.

    1. Give the request its id. 2. Ask `access`. 3. Answer a browser's preflight. 4. Find the route and
    let it answer. 5. Turn whatever went wrong into the dialect's own error. 6. Settle the account.
    """

    def __init__(
        self,
        routes: Routes,
        access: Access,
        meters: Meters,
        log: RequestLog,
        tracing: Tracing = NO_SPANS,
    ) -> None:
        self.routes, self.access, self.meters, self.log = routes, access, meters, log
        self._trace = tracing.begin
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            raise RuntimeError(f"Portico speaks HTTP, not {scope['type']}")
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        said = Overheard(scope, receive, send) if self.log.prompts else None
        if said is not None:
            scope, receive, send = said.scope, said.receive, said.send
        request = Request(scope, receive, send, self._loop)
        request.tag = self._tag(request)  # (1)
        self.meters.in_flight += 1
        traced = self._trace(request)
        note = ""
        try:
            await self._answer(request)
        except HungUp:
            request.gone = True
        except PorticoError as error:
            note = str(error)
            await self._refuse(request, error)
        except asyncio.CancelledError:
            if not request.gone:
                cut = request.cut_by
                note = str(cut) if isinstance(cut, TookTooLong) else ""
                await self._refuse(request, cut)
        except Exception as error:  # (5) our own bug: the caller gets an answer, the log the traceback
            note = f"internal error: {error!r}"
            _log.exception("request %s failed", request.tag)
            await self._refuse(request, PorticoError("Internal error; the server's log has the details."))
        finally:
            request.unwatch()
            self.meters.in_flight -= 1
            account = request.account
            status = 499 if request.gone else request.status
            if account.error is not None and not request.gone:
                status, note = account.error.status, note or str(account.error)
            self.meters.settle(account, status, gone=request.gone)  # (6)
            if traced is not None:
                traced(status)
            account.error = (
                None  # its traceback holds the account, a ring that only the collector would break
            )
            self.log.request(request.tag, request.method, request.path, status, account, note, said)

    def _answer(self, request: Request) -> Awaitable[None]:
        try:
            route = self.routes.find(request)
        except (RouteNotFound, MethodNotAllowed):
            self.access.check(request, open_route=request.method == "OPTIONS")
            if request.method == "OPTIONS":  # (3)
                return request.answer(204, content_type=b"", headers=self.access.preflight())
            raise
        account = request.account
        account.dialect, account.route = route.dialect, route.path
        self.access.check(request, open_route=route.open)  # (2)
        return route.handle(request)  # (4)

    async def _refuse(self, request: Request, error: PorticoError) -> None:
        if request.started:  # the stream's own writer has said what it could
            return
        body, content_type = refusals.render(request.path, error)
        if isinstance(error, Forbidden) and not str(error):
            body = b""  # as Ollama answers a foreign page
        try:
            async with asyncio.timeout(LAST_WORDS):
                status = refusals.status(request.path, error)
                if request.opened:
                    request.account.failed(error)
                await request.answer(status, body, content_type, error.headers)
        except TimeoutError:
            request.gone = True

    def turned_away(
        self, path: str, error: PorticoError
    ) -> tuple[bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
        """(body, content type, further headers) for a request that the listener answers itself, with `error`:
        one that is too large, too slow or no HTTP. Counted and logged like any other."""
        account, tag = Account(), self._new_tag()
        row = self.routes.at(path)
        if row is not None:
            account.dialect, account.route = row.dialect, row.path
        self.meters.settle(account, error.status, gone=False)
        self.log.request(tag, "-", path, error.status, account, str(error))
        return *refusals.render(path, error), ((b"x-request-id", tag.encode()),)

    def _tag(self, request: Request) -> str:
        asked = request.headers.get(b"x-request-id")
        if asked is not None and _TAG.fullmatch(asked):
            return asked.decode()
        return self._new_tag()

    def _new_tag(self) -> str:
        return f"{self._prefix}-{next(self._numbers):x}"

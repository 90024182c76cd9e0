"""Routes as a table."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from portico.errors import MethodNotAllowed, RouteNotFound
from portico.web.request import Request

DialectName = Literal["openai", "ollama", "plain"]


@dataclass(frozen=True)
class Route:
    """One row of the table. `path` may hold `{name}` (one segment) or `{name:path}` (the rest, slashes too).

    `takes` and `gives` are the types of the JSON bodies, for the OpenAPI description; `gives=None` is a text
    or an empty answer. `open` routes ask for no key.
    """

    method: str
    path: str
    handle: Callable[[Request], Awaitable[None]]
    dialect: DialectName
    summary: str
    takes: Any = None
    gives: Any = None
    streams: str | None = None
    open: bool = False
    optional_body: bool = False
    tags: tuple[str, ...] = field(default=())


class Routes:
    """Finds a request's row: a dictionary for fixed paths, a few patterns for the others."""

    def __init__(self, rows: Iterable[Route]) -> None:
        self.rows = tuple(rows)
        self._fixed: dict[tuple[str, str], Route] = {}
        self._patterns: list[tuple[re.Pattern[str], Route]] = []
        self._methods: dict[str, list[str]] = {}
        for row in self.rows:
            if "{" in row.path:
                self._patterns.append((_pattern(row.path), row))
            else:
                self._fixed[row.method, row.path] = row
                self._methods.setdefault(row.path, []).append(row.method)

    def at(self, path: str) -> Route | None:
        """A row with that fixed path, whatever its method; None if there is none."""
        methods = self._methods.get(path)
        return self._fixed[methods[0], path] if methods else None

    def find(self, request: Request) -> Route:
        """The row for this request. Raises RouteNotFound or MethodNotAllowed, in Ollama's (gin's) words."""
        method = "GET" if request.method == "HEAD" else request.method
        row = self._fixed.get((method, request.path))
        if row is not None:
            return row
        allowed = list(self._methods.get(request.path, ()))
        for pattern, candidate in self._patterns:
            match = pattern.fullmatch(request.path)
            if match is not None:
                if candidate.method == method:
                    request.params = match.groupdict()
                    return candidate
                allowed.append(candidate.method)
        if allowed:
            raise MethodNotAllowed(
                f"{request.method} is not a method of {request.path}; it has {', '.join(allowed)}.",
                allowed=allowed,
            )
        raise RouteNotFound(f"There is no {request.path} on this server; /openapi.json lists what there is.")


def _pattern(path: str) -> re.Pattern[str]:
    pieces = re.split(r"(\{\w+(?::path)?\})", path)
    build = []
    for piece in pieces:
        if piece.startswith("{"):
            name, _, kind = piece[1:-1].partition(":")
            build.append(f"(?P<{name}>{'.+' if kind else '[^/]+'})")
        else:
            build.append(re.escape(piece))
    return re.compile("".join(build))

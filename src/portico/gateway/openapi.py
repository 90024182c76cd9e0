"""The OpenAPI description, made from the table of routes: what is not in the table is not described, and
what is in it cannot be forgotten. https://spec.openapis.org/oas/v3.1.0
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from portico import __version__
from portico.web import Route

_TEMPLATE = "#/components/schemas/{name}"


class OpenAIErrorBody(msgspec.Struct):
    message: str
    type: str
    param: str | None = None
    code: str | int | None = None


class OpenAIError(msgspec.Struct):
    error: OpenAIErrorBody


class OllamaError(msgspec.Struct):
    error: str


_ERRORS: dict[str, type] = {"openai": OpenAIError, "ollama": OllamaError, "plain": OllamaError}


def describe(rows: Sequence[Route], *, keys: bool) -> bytes:
    """The description as JSON. `keys`: callers must send one."""
    types = [kind for row in rows for kind in (row.takes, row.gives) if kind is not None]
    types += list(_ERRORS.values())
    unique = list({id(kind): kind for kind in types}.values())
    found, components = msgspec.json.schema_components(unique, ref_template=_TEMPLATE)
    schemas = {id(kind): schema for kind, schema in zip(unique, found, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for row in rows:
        path = re.sub(r"\{(\w+):path\}", r"{\1}", row.path)
        paths.setdefault(path, {})[row.method.lower()] = _operation(row, schemas)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": "Portico",
            "version": __version__,
            "description": "Ollama's and OpenAI's APIs over open-weight models.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }
    if keys:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
        }
        document["security"] = [{"bearer": []}, {"key": []}]
    return msgspec.json.encode(document)


def _operation(row: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    name = re.sub(r"\W+", "_", f"{row.method.lower()}_{row.path.strip('/')}").strip("_")
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": row.summary,
        "tags": [row.dialect],
        "responses": {
            "200": {"description": "Done", "content": _content(row, schemas)},
            "4XX": {
                "description": "The request is wrong",
                "content": _json(schemas[id(_ERRORS[row.dialect])]),
            },
            "5XX": {"description": "The engine failed", "content": _json(schemas[id(_ERRORS[row.dialect])])},
        },
    }
    if not operation["responses"]["200"]["content"]:
        del operation["responses"]["200"]["content"]
    parameters = re.findall(r"\{(\w+)(?::path)?\}", row.path)
    if parameters:
        operation["parameters"] = [
            {"name": parameter, "in": "path", "required": True, "schema": {"type": "string"}}
            for parameter in parameters
        ]
    if row.takes is not None:
        content = (
            {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
            if row.takes is bytes
            else _json(schemas[id(row.takes)])
        )
        operation["requestBody"] = {"required": not row.optional_body, "content": content}
    if row.open:
        operation["security"] = []
    return operation


def _content(row: Route, schemas: dict[int, dict[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if row.gives is str:
        content["text/plain"] = {"schema": {"type": "string"}}
    elif row.gives is not None:
        content |= _json(schemas[id(row.gives)])
    if row.streams:
        content[row.streams] = {"schema": {"type": "string"}}
    return content


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}

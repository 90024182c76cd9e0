"""Functions as tools: a function's name, type hints and docstring are what the model is told of it."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Sequence
from typing import Any, get_type_hints

from portico.client.outputs import closed
from portico.errors import InvalidRequest
from portico.messages import Tool

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_ARGUMENT = re.compile(r"^\s*(?::param )?\*{0,2}(\w+)(?: \([^)]*\))?\s*:\s*(.+)$")


class Callee:
    """What a model may call, of whatever kind."""

    name: str
    description: str
    parameters: dict[str, Any]
    """The JSON schema of its arguments."""
    function: Callable[..., Any]

    @property
    def tool(self) -> Tool:
        return Tool(name=self.name, description=self.description or None, parameters=self.parameters)

    def arguments(self, text: str) -> dict[str, Any]:
        """The arguments that the model wrote. Raises ValueError that tells the model what to change."""
        raise NotImplementedError


class Function(Callee):
    """A function as a tool."""

    def __init__(self, function: Callable[..., Any], *, name: str = "", description: str = "") -> None:
        from pydantic import create_model

        self.function = function
        self.name = name or getattr(function, "__name__", "")
        if not _NAME.fullmatch(self.name):
            raise InvalidRequest(
                f"{self.name!r} is no name for a tool: letters, digits, _ and -.", param="tools"
            )
        about, each = _described(inspect.getdoc(function) or "")
        self.description = description or about
        fields: dict[str, Any] = {}
        # pydantic has names of its own (schema, copy, model_config): a parameter is called so by alias alone.
        self._names: dict[str, str] = {}
        try:
            hints = get_type_hints(function, include_extras=True)
        except NameError as error:
            raise InvalidRequest(
                f"{self.name}: {error}: type hints are looked up in its module, not in a function.",
                param="tools",
            ) from error
        for parameter in inspect.signature(function).parameters.values():
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
                raise InvalidRequest(
                    f"{self.name}: {parameter} cannot be a tool's parameter: name each one.", param="tools"
                )
            default = ... if parameter.default is parameter.empty else parameter.default
            self._names[field := f"a{len(fields)}"] = parameter.name
            fields[field] = (
                hints.get(parameter.name, Any),
                _field(default, each.get(parameter.name), parameter.name),
            )
        self._arguments = create_model(f"{self.name}_arguments", **fields)
        schema = self._arguments.model_json_schema()
        schema.pop("title", None)
        for one in schema.get("properties", {}).values():
            one.pop("title", None)
        self.parameters = closed({"type": "object", "properties": {}, **schema})

    def arguments(self, text: str) -> dict[str, Any]:
        """As the function's types."""
        from pydantic import ValidationError

        try:
            found = self._arguments.model_validate_json(text or "{}")
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, one['loc'])) or 'arguments'}: {one['msg']}" for one in error.errors()
            ]
            raise ValueError("; ".join(problems)) from error
        return {name: getattr(found, field) for field, name in self._names.items()}


def tool_name(text: str) -> str:
    """As OpenAI's API takes it: MCP allows more signs."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", text)[:64]


def functions(tools: Sequence[Any]) -> list[Callee]:
    """Raises InvalidRequest for two of one name, and for what cannot be called."""
    for tool in tools:
        if not isinstance(tool, Callee) and not callable(tool):
            raise InvalidRequest(f"{tool!r} is no tool: neither a function nor an McpServer.", param="tools")
    found = [tool if isinstance(tool, Callee) else Function(tool) for tool in tools]
    names = [each.name for each in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidRequest(f"Two tools are called {', '.join(twice)}.", param="tools")
    return found


def outcome(value: Any) -> str:
    """What a function gave back, as a text for the model."""
    if isinstance(value, str):
        return value
    if value is None:
        return "null"
    if hasattr(value, "model_dump_json"):
        return str(value.model_dump_json())
    try:
        return json.dumps(value, ensure_ascii=False)
    except TypeError:
        from pydantic_core import to_json

        return to_json(value, fallback=str).decode()


def _field(default: Any, description: str | None, name: str) -> Any:
    from pydantic import Field

    # Without one, that of Annotated[..., Field(description=...)] stands.
    described: dict[str, Any] = {"description": description} if description else {}
    return Field(default, alias=name, **described)


def _described(doc: str) -> tuple[str, dict[str, str]]:
    """A docstring's first paragraph, and what it says of each argument (Google's, reST's or plain `name: text`)."""
    about, _, rest = doc.partition("\n\n")
    found = {}
    for line in rest.splitlines():
        if match := _ARGUMENT.match(line):
            found[match[1]] = match[2].strip()
    return " ".join(about.split()), found

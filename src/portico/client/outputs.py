"""Output types: from what the user names to a JSON schema the server holds the answer to, and from the answer to a value."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from types import UnionType
from typing import Any, Generic, TypeVar, get_type_hints, is_typeddict

import msgspec

from portico.client.results import Result
from portico.errors import InvalidRequest, WrongAnswer
from portico.messages import Format

P = TypeVar("P")


class Choice:
    """One of these texts."""

    def __init__(self, *texts: str) -> None:
        if not texts:
            raise InvalidRequest("A choice needs at least one text.", param="output")
        self.texts = texts


class Regex:
    """A text that this regular expression matches from beginning to end."""

    def __init__(self, pattern: str) -> None:
        try:
            re.compile(pattern)
        except re.error as error:
            raise InvalidRequest(f"{pattern!r} is no regular expression: {error}.", param="output") from error
        self.pattern = pattern


class Grammar:
    """A text of this grammar, in the form that the server's engine reads (xgrammar's EBNF for vLLM)."""

    def __init__(self, text: str) -> None:
        self.text = text


class Output(Generic[P]):
    """How an answer is asked for and read."""

    format: Format | None = None
    """The schema, as OpenAI's API carries it."""
    structured: Mapping[str, Any] | None = None
    """vLLM's structured_outputs, for what OpenAI's API has no words for."""

    wrapped: bool = False
    """The value stands in an object, under "value"."""

    def read(self, text: str) -> P:
        """Raises WrongAnswer, with every problem."""
        raise NotImplementedError


def checked(result: Result[Any], wanted: Output[P]) -> Result[P]:
    """With the answer as a value; a turn that calls tools instead of answering has none. Raises WrongAnswer for one that was
    cut off or does not keep to its type."""
    if result.tool_calls and not result.text:
        return result
    try:
        if result.finish_reason == "length":
            cut = f"The answer was cut off after {result.usage.output_tokens} tokens: raise max_tokens."
            raise WrongAnswer(cut, text=result.text)
        return msgspec.structs.replace(result, parsed=wanted.read(result.text))
    except WrongAnswer as error:
        error.url, error.request_id = result.url, result.request_id
        error.attempts = max(1, len(result.attempts))
        raise


class _Typed(Output[Any]):
    def __init__(self, kind: Any) -> None:
        from pydantic import TypeAdapter

        self._adapter = TypeAdapter(_pydantics(kind))
        schema = self._adapter.json_schema()
        self.wrapped = schema.get("type") != "object" and "$ref" not in schema and "properties" not in schema
        if self.wrapped:  # OpenAI's strict mode, and small models, want an object
            definitions = {"$defs": schema.pop("$defs")} if "$defs" in schema else {}
            schema = {"type": "object", "properties": {"value": schema}, "required": ["value"], **definitions}
        self.format = Format(kind="schema", name=_named(getattr(kind, "__name__", "")), schema=closed(schema))

    def read(self, text: str) -> Any:
        import json

        from pydantic import ValidationError

        try:
            found = json.loads(text)
            if self.wrapped:
                found = found["value"]
            return self._adapter.validate_python(found)
        except ValidationError as error:
            problems = [
                f"{'.'.join(map(str, one['loc'])) or 'answer'}: {one['msg']}" for one in error.errors()
            ]
            raise WrongAnswer(
                f"The answer does not keep to its type: {'; '.join(problems)}.", text=text, problems=problems
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise WrongAnswer(f"The answer is no JSON: {error}.", text=text, problems=[str(error)]) from error


def _named(name: Any) -> str:
    """As OpenAI lets a schema be called."""
    return re.sub(r"[^a-zA-Z0-9_-]", "_", str(name or ""))[:64] or "response"


def _pydantics(kind: Any) -> Any:
    """Before Python 3.12 pydantic reads typing_extensions' TypedDict only."""
    if sys.version_info >= (3, 12) or not is_typeddict(kind) or type(kind).__module__ != "typing":
        return kind
    import typing_extensions

    hints = get_type_hints(kind, include_extras=True)
    return typing_extensions.TypedDict(kind.__name__, hints, total=kind.__total__)  # type: ignore[operator]


class _Schema(Output[Any]):
    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._schema = dict(schema)
        self.format = Format(kind="schema", name=_named(schema.get("title")), schema=self._schema)

    def read(self, text: str) -> Any:
        import json

        try:
            found = json.loads(text)
        except ValueError as error:
            raise WrongAnswer(f"The answer is no JSON: {error}.", text=text, problems=[str(error)]) from error
        from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

        problems = [
            f"{'.'.join(map(str, one.absolute_path)) or 'answer'}: {one.message}"
            for one in Draft202012Validator(self._schema).iter_errors(found)
        ]
        if problems:
            raise WrongAnswer(
                f"The answer does not keep to its schema: {'; '.join(problems)}.",
                text=text,
                problems=problems,
            )
        return found


class _Text(Output[str]):
    def __init__(
        self, structured: Mapping[str, Any], pattern: re.Pattern[str] | None, texts: Sequence[str] = ()
    ) -> None:
        self.structured, self._pattern, self._texts = structured, pattern, tuple(texts)

    def read(self, text: str) -> str:
        if self._texts and text not in self._texts:
            raise WrongAnswer(f"The answer {text!r} is none of {', '.join(self._texts)}.", text=text)
        if self._pattern is not None and not self._pattern.fullmatch(text):
            raise WrongAnswer(f"The answer {text!r} does not match {self._pattern.pattern!r}.", text=text)
        return text


def output(wanted: Any) -> Output[Any]:
    """Of a pydantic model, a dataclass, a TypedDict or another type, of a JSON schema, of Choice, Regex or Grammar."""
    if isinstance(wanted, Output):
        return wanted
    if isinstance(wanted, Choice):
        return _Text({"choice": list(wanted.texts)}, None, wanted.texts)
    if isinstance(wanted, Regex):
        return _Text({"regex": wanted.pattern}, re.compile(wanted.pattern, re.DOTALL))
    if isinstance(wanted, Grammar):
        return _Text({"grammar": wanted.text}, None)
    if isinstance(wanted, Mapping):
        return _Schema(wanted)
    if (
        isinstance(wanted, type)
        or is_dataclass(wanted)
        or is_typeddict(wanted)
        or hasattr(wanted, "__origin__")
        or isinstance(wanted, UnionType)
    ):
        return _Typed(wanted)
    raise InvalidRequest(
        f"output={wanted!r} is neither a type nor a JSON schema nor a Choice, Regex or Grammar.",
        param="output",
    )


def closed(schema: Any) -> Any:
    """Objects hold what they name and nothing else, unless they say otherwise: a grammar that lets a model invent further
    fields lets a small one invent them for ever."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    found = {name: closed(value) for name, value in schema.items()}
    if found.get("type") == "object" and "properties" in found and "additionalProperties" not in found:
        found["additionalProperties"] = False
    return found

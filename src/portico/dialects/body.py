"""JSON of a request into typed shapes. What is wrong becomes InvalidRequest and names the field.

A body may be hostile: half a surrogate pair, bytes that are no UTF-8, brackets nested a million deep.
None of that may surface as anything but InvalidRequest, else it is a 500 that clients send again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from portico.errors import InvalidRequest

T = TypeVar("T")

Number = int | float
"""A number of a body that has to be whole: 40.0 is, see `whole`."""

INT32 = 2**31 - 1
MAX_TOP_LOGPROBS = 20

_encoder = msgspec.json.Encoder()
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_anything = msgspec.json.Decoder()

_AT = re.compile(r"^(?P<what>.*?)(?: - at `(?P<place>.*)`)?$", re.DOTALL)
_EXPECTED = re.compile(r"^Expected `(?P<expected>[^`]*)`(?P<limit> [<>]=? .*)?(?:, got `(?P<got>[^`]*)`)?$")
_MISSING = re.compile(r"^Object missing required field `(?P<name>[^`]*)`$")
_WORDS = {
    "str": "a string",
    "int": "an integer",
    "float": "a number",
    "bool": "a boolean",
    "object": "an object",
    "array": "an array",
    "null": "null",
}


def decode(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """`body` as the decoder's type. Raises InvalidRequest, with the field's path as `param`."""
    try:
        # msgspec does not look at the UTF-8 of what it skips, and the engine would be sent it.
        if not body.isascii():
            body.decode()
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise wrong_field(str(error)) from None
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"The body is not UTF-8: {error.reason} (byte {error.start}).") from None
    except msgspec.DecodeError as error:
        if not body.strip():
            raise InvalidRequest("missing request body") from None
        raise InvalidRequest(
            f"The body is not valid JSON: {str(error).removeprefix('JSON is malformed: ')}."
        ) from None
    except RecursionError:
        raise InvalidRequest("The body is nested too deeply.") from None


def fields(body: bytes) -> dict[str, msgspec.Raw]:
    """The top level of `body`, each value as the bytes that were sent. Raises InvalidRequest; also for a
    name given twice, since what we read and what the engine reads could differ."""
    found = decode(_fields, body)
    # With nothing between the tokens a body is exactly this long; any other is counted the slow way.
    length = 1 + 4 * len(found)
    for name, value in found.items():
        length += len(name) + len(memoryview(value))
    if length != len(body):
        refuse_duplicates(body)
    return found


def refuse_duplicates(body: bytes) -> None:
    """Raises InvalidRequest if a name occurs twice at the top level of `body`, valid JSON."""
    outermost: list[tuple[str, Any]] = []

    def keep(pairs: list[tuple[str, Any]]) -> None:
        outermost[:] = pairs  # called for the outermost object last

    try:
        json.loads(body, object_pairs_hook=keep)
    except (RecursionError, ValueError):  # ValueError: an integer of more digits than Python converts
        raise InvalidRequest("The body is not JSON that can be read.") from None
    seen = set()
    for name, _ in outermost:
        if name in seen:
            raise InvalidRequest(f"{name!r} is given twice.", param=name)
        seen.add(name)


def value(raw: msgspec.Raw | bytes, param: str) -> Any:
    """Any JSON value out of its bytes."""
    try:
        return _anything.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"Invalid {param!r}: {error}.", param=param) from None


def encode(value: object, extra: Mapping[str, Any] = {}) -> bytes:
    """`value`, which becomes a JSON object, with the names of `extra` before its own, so that where both
    have one a reader takes the value's own."""
    try:
        body = _encoder.encode(value)
        if not extra:
            return body
        named = _fields.decode(body)
        more = {name: item for name, item in extra.items() if name not in named}
        return body if not more else _encoder.encode(more)[:-1] + b"," + body[1:]
    except RecursionError:
        raise InvalidRequest("The request is nested too deeply.") from None
    except UnicodeEncodeError:
        raise InvalidRequest("The request has half a surrogate pair in a text.") from None


def wrong_field(message: str, *, under: str = "") -> InvalidRequest:
    """msgspec's message (``Expected `str`, got `int` - at `$.a[1].b` ``) in words, with `a[1].b` as param.
    `under` is where in the body the value stood that msgspec was given."""
    at = _AT.match(message)
    what, place = (at["what"], at["place"] or "$") if at else (message, "$")
    param = (under + place.removeprefix("$")).removeprefix(".")
    if missing := _MISSING.match(what):
        param = f"{param}.{missing['name']}" if param else missing["name"]
        return InvalidRequest(f"Missing required field: {param!r}.", param=param)
    if expected := _EXPECTED.match(what):
        what = "expected " + _listed(expected["expected"]) + (expected["limit"] or "")
        if expected["got"]:
            what += ", got " + _listed(expected["got"])
    if not param:
        return InvalidRequest(f"Invalid body: {what}.")
    return InvalidRequest(f"Invalid {param!r}: {what}.", param=param)


def _listed(types: str) -> str:
    # null means unset everywhere; naming it would make a reader look for a reason to send it.
    names = [name for name in types.split(" | ") if name != "null"] or ["null"]
    return " or ".join(_WORDS.get(name, name) for name in names)


def whole(
    number: Number | None, param: str, *, at_least: int | None = None, at_most: int = INT32
) -> int | None:
    """A number that counts something. 40.0 is 40; beyond `at_most` it is `at_most`, since more than that
    many of anything means no limit; below `at_least` it is refused."""
    if number is None:
        return None
    if number != number or number in (float("inf"), -float("inf")) or int(number) != number:
        raise InvalidRequest(f"Invalid {param!r}: expected an integer, got {number}.", param=param)
    if at_least is not None and number < at_least:
        raise InvalidRequest(
            f"Invalid {param!r}: must be at least {at_least}, got {int(number)}.", param=param
        )
    return min(int(number), at_most)


def top_logprobs(number: Number | None, *, asked: bool) -> int | None:
    """Alternatives for each token, 0 to 20. Both dialects have this range and this sentence."""
    if number is None:
        return None
    if not 0 <= number <= MAX_TOP_LOGPROBS:
        raise InvalidRequest(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}", param="top_logprobs")
    count = whole(number, "top_logprobs")
    if count and not asked:
        raise InvalidRequest("Invalid 'top_logprobs': logprobs must be true for it.", param="top_logprobs")
    return count if asked else None

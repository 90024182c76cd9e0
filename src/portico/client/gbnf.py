"""Regular expressions as llama.cpp's grammars (GBNF: grammars/README.md of llama.cpp), for servers that know those and no
regular expressions. What has no counterpart there is a ValueError that names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from re import _constants, _parser  # type: ignore[attr-defined]
from typing import Any

_CATEGORIES = {
    _constants.CATEGORY_DIGIT: "0-9",
    _constants.CATEGORY_WORD: "a-zA-Z0-9_",
    _constants.CATEGORY_SPACE: " \\t\\r\\n",
    _constants.CATEGORY_NOT_DIGIT: "^0-9",
    _constants.CATEGORY_NOT_WORD: "^a-zA-Z0-9_",
    _constants.CATEGORY_NOT_SPACE: "^ \\t\\r\\n",
}
_NAMES = {
    _constants.GROUPREF: "a backreference",
    _constants.GROUPREF_EXISTS: "a conditional group",
    _constants.ASSERT: "a look-around",
    _constants.ASSERT_NOT: "a look-around",
}


def of_regex(pattern: str) -> str:
    """A grammar of the texts that the pattern matches from beginning to end."""
    parsed = _parser.parse(pattern)
    return f"root ::= {_sequence(parsed, bool(parsed.state.flags & re.IGNORECASE))}"


def of_choice(texts: Sequence[str]) -> str:
    return of_regex("|".join(map(re.escape, texts)))


def _sequence(parts: Any, caseless: bool) -> str:
    return " ".join(found for part in parts if (found := _part(part[0], part[1], caseless))) or '""'


def _part(kind: Any, value: Any, caseless: bool) -> str:
    if kind is _constants.LITERAL:
        return f"[{_cased(value, caseless)}]"
    if kind is _constants.NOT_LITERAL:
        return f"[^{_cased(value, caseless)}]"
    if kind is _constants.ANY:
        return "[^\\n]"
    if kind is _constants.IN:
        return _class(value, caseless)
    if kind is _constants.BRANCH:
        return f"({' | '.join(_sequence(each, caseless) for each in value[1])})"
    if kind is _constants.SUBPATTERN:
        _, added, removed, inside = value
        return f"({_sequence(inside, (caseless or bool(added & re.IGNORECASE)) and not removed & re.IGNORECASE)})"
    if kind is _constants.ATOMIC_GROUP:
        return f"({_sequence(value, caseless)})"
    if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT, _constants.POSSESSIVE_REPEAT):
        least, most, inside = value
        upper = "" if most is _constants.MAXREPEAT else most
        return f"({_sequence(inside, caseless)}){{{least},{upper}}}"
    if kind is _constants.AT and value not in (_constants.AT_BOUNDARY, _constants.AT_NON_BOUNDARY):
        return ""  # the beginning and the end, where it begins and ends anyway
    raise ValueError(f"{_NAMES.get(kind, 'a word boundary')} cannot be enforced by this server")


def _class(members: Any, caseless: bool) -> str:
    negated = members[0][0] is _constants.NEGATE
    rest = members[1:] if negated else members
    found = [_member(kind, value, caseless) for kind, value in rest]
    opposite = [each for each in found if each.startswith("^")]
    if not opposite:
        return f"[{'^' if negated else ''}{''.join(found)}]"
    if negated and len(found) == 1:
        return f"[{opposite[0][1:]}]"
    if negated:
        raise ValueError("a class like [^\\W_] cannot be enforced by this server")
    plain = "".join(each for each in found if not each.startswith("^"))
    return f"({' | '.join([*(f'[{each}]' for each in opposite), *([f'[{plain}]'] if plain else [])])})"


def _member(kind: Any, value: Any, caseless: bool) -> str:
    if kind is _constants.LITERAL:
        return _cased(value, caseless)
    if kind is _constants.RANGE:
        low, high = value
        plain = f"{_escaped(low)}-{_escaped(high)}"
        if not caseless:
            return plain
        swapped = chr(low).swapcase(), chr(high).swapcase()
        letters = all(len(each) == 1 for each in swapped) and chr(low).isalpha() and chr(high).isalpha()
        return f"{plain}{_escaped(ord(swapped[0]))}-{_escaped(ord(swapped[1]))}" if letters else plain
    return _CATEGORIES[value]


def _cased(code: int, caseless: bool) -> str:
    other = chr(code).swapcase()
    swap = caseless and len(other) == 1 and ord(other) != code
    return _escaped(code) + (_escaped(ord(other)) if swap else "")


def _escaped(code: int) -> str:
    char = chr(code)
    if char.isascii() and (char.isalnum() or char in " _,.:;"):
        return char
    return f"\\x{code:02X}" if code < 256 else f"\\u{code:04X}" if code < 65536 else f"\\U{code:08X}"

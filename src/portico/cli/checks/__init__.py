"""What `portico doctor` looks at: a module a subject. Looking and concluding are two functions: the conclusion is
pure, and tested with plain values."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "warn", "fail", "skip"]
"""warn: it works, and may disappoint. skip: not there and not needed, or not looked at."""


class Check(NamedTuple):
    """One line. `found` is what is there, `do` what mends it: a command, or a sentence with commands in backquotes."""

    group: str
    name: str
    state: State
    found: str
    do: str = ""

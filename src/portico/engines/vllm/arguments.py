"""Reads the further arguments that vLLM is given, as it reads them itself. Pure but for looking which files there are."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

_FILES_OF_THEIR_OWN = ("--tokenizer", "--hf-config-path")
"""What these name is a repository of the hub unless it is here, also where it has no owner, such as gpt2."""
_REPOSITORY = re.compile(r"(?<![\w./~-])[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(?![\w./-])")


def flag(argument: str) -> str:
    """The flag that an argument is: vLLM takes _ for - too, and a value after =."""
    return argument.partition("=")[0].replace("_", "-")


def has_any(args: Sequence[str], flags: Sequence[str]) -> bool:
    return any(flag(each) in flags for each in args)


def values(args: Sequence[str], *flags: str) -> Iterator[str]:
    """What a flag is given, in one word or in two; the last one counts."""
    for at, each in enumerate(args):
        if flag(each) in flags:
            _, equals, value = each.partition("=")
            if equals:
                yield value
            elif at + 1 < len(args):
                yield args[at + 1]


def number(args: Sequence[str], *flags: str) -> int | None:
    """None: there is none, or it is no number, which vLLM says better."""
    last = next(reversed(list(values(args, *flags))), "")
    return int(last) if last.isascii() and last.isdigit() else None


def may_need_the_hub(args: Sequence[str]) -> bool:
    """It names a repository of the hub, or allows code that may lie in another one than the model."""
    if has_any(args, ("--trust-remote-code",)):
        return True
    named = [
        *values(args, *_FILES_OF_THEIR_OWN),
        *(found for each in args for found in _REPOSITORY.findall(each)),
    ]
    return not all(Path(each).exists() for each in named)

"""Which key belongs to which server. A key goes to the server that its own variable names, and to no other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from portico.cli.checks import Check

OWNERS = {
    "PORTICO_HOST": "PORTICO_API_KEY",
    "OLLAMA_HOST": "OLLAMA_API_KEY",
    "VLLM_BASE_URL": "VLLM_API_KEY",
    "VLLM_ENDPOINT": "VLLM_API_KEY",
    "OPENAI_BASE_URL": "OPENAI_API_KEY",
}
_SECRET = ("KEY", "KEYS", "TOKEN", "SECRET", "PASSWORD")
_SHORTEST = 8
"""Characters. What is shorter (`none`, `EMPTY`) is no secret, and would be a part of ordinary words."""


class Key(NamedTuple):
    """`value` None: the variable is not set."""

    variable: str
    value: str | None = None

    def __repr__(self) -> str:
        return f"Key({self.variable!r}, {'set' if self.value else 'unset'})"

    @property
    def refused(self) -> str:
        """What it means that a server wants a key."""
        if self.value:
            return f"does not know the key in {self.variable}"
        return f"wants a key, and {self.variable} is not set" if self.variable else "wants a key"

    @property
    def mended(self) -> str:
        return f"export {self.variable}=KEY" if self.variable else ""


NONE = Key("")


def key_of(address: str, environ: Mapping[str, str]) -> Key:
    """The key for the server that the variable `address` names. Several keys may stand there, for a server that
    is started here; a caller needs one."""
    variable = OWNERS[address]
    value = environ.get(variable, "").strip().strip("\"'").partition(",")[0].strip()
    return Key(variable, value or None)


def without_secrets(checks: Iterable[Check], environ: Mapping[str, str]) -> list[Check]:
    """The same lines, should a server's answer or a path hold a key. Nothing here prints one by itself."""
    secrets = [
        piece.strip()
        for name, value in environ.items()
        if name.upper().endswith(_SECRET)
        for piece in value.split(",")
        if len(piece.strip()) >= _SHORTEST
    ]

    def clean(text: str) -> str:
        for secret in secrets:
            text = text.replace(secret, "***")
        return text

    return [check._replace(found=clean(check.found), do=clean(check.do)) for check in checks]

"""Which server a client talks to, and with which key. A key goes only to the server that its own variable names."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit, urlunsplit

from portico.errors import ConfigError
from portico.messages import Value
from portico.ollama_env import read_address

_OPENAI = "https://api.openai.com"
_NONE = ("", "EMPTY", "none")
"""What people set as the key of a server that wants none."""
LOOPBACK = ("http://127.0.0.1:11434", "http://127.0.0.1:8000")
"""Where Portico or Ollama, and a bare vLLM, usually are: asked in this order when nothing names a server."""


class Server(Value, frozen=True, kw_only=True):
    url: str
    """Without /v1, a slash at its end, user or password."""
    key: str | None = None
    origin: str = ""
    """The argument or variable that named it; empty: it is one of LOOPBACK."""

    @property
    def near(self) -> bool:
        """On loopback or a private network: a proxy of the environment is not for it."""
        return is_near(urlsplit(self.url).hostname or "")


def candidates(url: str | None, api_key: str | None, environ: Mapping[str, str]) -> tuple[Server, ...]:
    """The server that is meant, or those of which the first that answers is. Raises ConfigError for a URL that is none.

    1. The argument. 2. PORTICO_HOST. 3. VLLM_BASE_URL, VLLM_ENDPOINT. 4. OLLAMA_HOST. 5. OPENAI_BASE_URL. 6. Loopback.
    """
    named = _named(environ)
    if url is not None:  # (1)
        where = _url(url, "url")
        key = api_key if api_key is not None else _key_of(where, named, environ)
        return (Server(url=where, key=_clean(key), origin="url"),)
    for variable, where, key in named:  # (2) to (5)
        return (Server(url=where, key=_clean(api_key if api_key is not None else key), origin=variable),)
    here = api_key if api_key is not None else environ.get("PORTICO_API_KEY", "").split(",")[0]
    # (6) A bare vLLM has no use for Portico's key.
    return tuple(
        Server(url=where, key=_clean(here if at == 0 or api_key is not None else None))
        for at, where in enumerate(LOOPBACK)
    )


def _named(environ: Mapping[str, str]) -> Iterator[tuple[str, str, str | None]]:
    """(variable, URL, key) of each variable that is set, in their order; one that comes after the one that counts is not read."""
    keys = {
        "PORTICO_HOST": "PORTICO_API_KEY",
        "VLLM_BASE_URL": "VLLM_API_KEY",
        "VLLM_ENDPOINT": "VLLM_API_KEY",
        "OLLAMA_HOST": "OLLAMA_API_KEY",
        "OPENAI_BASE_URL": "OPENAI_API_KEY",
    }
    for variable, key in keys.items():
        if text := environ.get(variable, "").strip().strip("\"'"):
            yield variable, _url(text, variable), environ.get(key, "").split(",")[0].strip() or None


def _key_of(url: str, named: Iterator[tuple[str, str, str | None]], environ: Mapping[str, str]) -> str | None:
    """The key of the variable that names this very server."""
    for _, where, key in named:
        if where == url:
            return key
    if url == _OPENAI:
        return environ.get("OPENAI_API_KEY")
    here = urlsplit(url).hostname or ""
    return environ.get("PORTICO_API_KEY", "").split(",")[0] if url == LOOPBACK[0] and is_near(here) else None


def _clean(key: str | None) -> str | None:
    return None if key is None or key.strip() in _NONE else key.strip()


def _url(text: str, origin: str) -> str:
    try:
        address = read_address(_USER.sub(r"\1", text))
    except ValueError as error:
        raise ConfigError(f"{origin}: {error}") from error
    parts = urlsplit(address.url)
    port = {"http": 80, "https": 443}[parts.scheme]
    netloc = parts.netloc.removesuffix(f":{port}")
    path = parts.path.rstrip("/").removesuffix("/v1").rstrip("/")
    return urlunsplit((parts.scheme, netloc, path, "", ""))


_USER = re.compile(r"^([a-zA-Z]+://)?[^/?#]*@")
"""A user and a password before the host: they are no part of an address, and never told."""


def is_near(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        return name == "localhost" or "." not in name or name.endswith((".localhost", ".local", ".internal"))
    return address.is_private or address.is_loopback or address.is_link_local

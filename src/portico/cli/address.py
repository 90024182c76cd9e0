"""Where the server is, and with which key to knock: from a flag or from the environment."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from portico.cli.failure import usage
from portico.ollama_env import read_address

OURS, OLLAMAS = "PORTICO_API_KEY", "OLLAMA_API_KEY"


class Address(NamedTuple):
    url: str
    """`http://127.0.0.1:11434`, perhaps with a path; never ends in a slash."""
    origin: str | None
    """The flag or variable that decided it; None for the default address."""
    key: str | None

    @property
    def near(self) -> bool:
        """A loopback or private host: reached directly, whatever HTTP_PROXY says."""
        return _distance(read_address(self.url).host)[0]

    @property
    def here(self) -> bool:
        """This machine: where no server answers, the models on disk are still ours to list."""
        return _distance(read_address(self.url).host)[1]


def find(given: str | None, environ: Mapping[str, str], *, flag: str = "--host") -> Address:
    """What the user typed as `flag`, else PORTICO_HOST, else OLLAMA_HOST, else where `portico serve` listens when
    it is started here: its portico.toml, or 127.0.0.1:11434. An empty variable is unset. A key goes only to the server
    that its variable is about."""
    named = [(flag, given), *((name, environ.get(name)) for name in ("PORTICO_HOST", "OLLAMA_HOST"))]
    for origin, text in named:
        cleaned = (text or "").strip().strip("\"'")
        if cleaned:
            try:
                url = read_address(cleaned).url
            except ValueError as error:
                raise usage(f"{origin}: {error}") from error
            return Address(url=url, origin=origin, key=_key(environ, _keys_for(origin, url)))
    return _configured(environ)


def _configured(environ: Mapping[str, str]) -> Address:
    from portico import config_file
    from portico.config import Config
    from portico.errors import ConfigError

    config, default = config_file.load(None, environ, {}), Config()
    host = f"[{config.host}]" if ":" in config.host else config.host
    url = read_address(f"{host}:{config.port or default.port}").url
    moved = (config.host, config.port) != (default.host, default.port)
    files = ", ".join(map(str, config_file.sources(None, environ))) or "PORTICO_PORT"
    key = _key(environ, (OURS, OLLAMAS))
    if key is None:
        try:
            key = next(iter(config_file.callers_keys(config)), None)
        except ConfigError:
            pass  # the file of keys is the server's; whoever may not read it sets PORTICO_API_KEY
    return Address(url=url, origin=files if moved else None, key=key)


def _keys_for(origin: str, url: str) -> tuple[str, ...]:
    """The variables whose key the server at `url` may see. OLLAMA_HOST may name a server of anyone's: ours is sent there
    only on this machine, where it says where `portico serve` listens. Ollama's own is for Ollama's servers."""
    if _distance(read_address(url).host)[1]:
        return OURS, OLLAMAS
    return (OLLAMAS,) if origin == "OLLAMA_HOST" else (OURS,)


def _key(environ: Mapping[str, str], names: Sequence[str]) -> str | None:
    """The server may know several keys, separated by commas; a caller needs one."""
    for name in names:
        key = environ.get(name, "").split(",")[0].strip()
        if key:
            return key
    return None


def _distance(host: str) -> tuple[bool, bool]:
    """(near, here) of a host's name or address; names are not looked up."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        name = host.lower().rstrip(".")
        here = name == "localhost" or name.endswith(".localhost")
        return here or "." not in name or name.endswith((".local", ".internal")), here
    return address.is_private or address.is_loopback or address.is_link_local, address.is_loopback

"""Ollama's environment variables, read as Ollama reads them, in Portico's settings.

Known and without effect here: OLLAMA_NO_CLOUD (there is no cloud), OLLAMA_FLASH_ATTENTION, OLLAMA_KV_CACHE_TYPE,
OLLAMA_SCHED_SPREAD, OLLAMA_GPU_OVERHEAD, OLLAMA_NOHISTORY and the rest of Ollama's list.
"""

from __future__ import annotations

import ipaddress
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

PORT = 11434


SERVICE = Path("/usr/share/ollama/.ollama/models")
"""Where the service that Ollama's Linux installer sets up keeps its models: it runs as a user of its own."""


def model_folders(said: str = "") -> tuple[Path, ...]:
    """Where Ollama keeps its models; each may be missing. `said` is OLLAMA_MODELS, which alone counts if it is
    set; else the home folder of whoever started it, or of the service."""
    said = said.strip().strip("\"'")
    return (Path(os.path.expanduser(said)),) if said else (Path.home() / ".ollama" / "models", SERVICE)


class Address(NamedTuple):
    """Where a server listens or is reached. `port_given` is false where the port is only the default."""

    scheme: str
    host: str
    port: int
    path: str
    port_given: bool

    @property
    def url(self) -> str:
        """What a client connects to: an address that means "every interface" is reached on loopback."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)
        return f"{self.scheme}://{f'[{host}]' if ':' in host else host}:{self.port}{self.path}"


def read_address(value: str) -> Address:
    """`host[:port]` or `scheme://host[:port][/path]`, as in OLLAMA_HOST; http:// alone means port 80.

    Raises ValueError, naming what is wrong.
    """
    scheme, has_scheme, rest = value.strip().rpartition("://")
    scheme = scheme or "http"
    if scheme not in ("http", "https"):
        raise ValueError(f"expected host:port or an http URL, got {value!r}")
    default = (443 if scheme == "https" else 80) if has_scheme else PORT
    place, slash, path = rest.partition("/")
    host, port = _host_and_port(place)
    if not port:
        return Address(scheme, host, default, (slash + path).rstrip("/"), port_given=bool(has_scheme))
    if not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"expected a port between 0 and 65535, got {port!r}")
    return Address(scheme, host, int(port), (slash + path).rstrip("/"), port_given=True)


def _host_and_port(place: str) -> tuple[str, str]:
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return host, rest.removeprefix(":")
    try:
        return str(ipaddress.ip_address(place)), ""  # ::1 without brackets has no port
    except ValueError:
        host, colon, port = place.rpartition(":")
    if not colon:
        return place or "127.0.0.1", ""
    return host or "0.0.0.0", port  # ":8080" is every interface, as in Go


def _host(value: str) -> Mapping[str, object]:
    address = read_address(value)
    return {"host": address.host} | ({"port": address.port} if address.port_given else {})


def _origins(value: str) -> Mapping[str, object]:
    return {"origins": [piece.strip() for piece in value.split(",") if piece.strip()]}


def _keep_alive(value: str) -> Mapping[str, object]:
    return {"keep_alive": value}


def _load_timeout(value: str) -> Mapping[str, object]:
    # Imported here: the commands that only want an address read this file too.
    from portico.dialects.ollama.duration import read_duration

    seconds = read_duration(value, param="load_timeout") or 0.0
    return {"load_timeout": seconds if seconds > 0 else math.inf}


def _count(name: str) -> Callable[[str], Mapping[str, object]]:
    """A number whose 0 means "decide by yourself" in Ollama: then nothing is set."""

    def read(value: str) -> Mapping[str, object]:
        if not value.isascii() or not value.isdigit():
            raise ValueError(f"expected a number, got {value!r}")
        return {name: int(value)} if int(value) else {}

    return read


def _noprune(value: str) -> Mapping[str, object]:
    return {"prune": not _truth(value)}


def _debug(value: str) -> Mapping[str, object]:
    return {"log_level": "debug"} if _truth(value) else {}


def _log_requests(value: str) -> Mapping[str, object]:
    return {"log_prompts": True} if _truth(value) else {}


def _truth(value: str) -> bool:
    """As Ollama reads it: whatever is not clearly no means yes."""
    return value.lower() not in ("0", "f", "false")


OLLAMA: dict[str, Callable[[str], Mapping[str, object]]] = {
    "OLLAMA_HOST": _host,
    "OLLAMA_ORIGINS": _origins,
    "OLLAMA_KEEP_ALIVE": _keep_alive,
    "OLLAMA_CONTEXT_LENGTH": _count("context"),
    "OLLAMA_MAX_LOADED_MODELS": _count("max_loaded_models"),
    "OLLAMA_MAX_QUEUE": _count("max_queue"),
    "OLLAMA_NUM_PARALLEL": _count("parallel"),
    "OLLAMA_LOAD_TIMEOUT": _load_timeout,
    "OLLAMA_MODELS": lambda value: {"ollama_models": value},
    "OLLAMA_NOPRUNE": _noprune,
    "OLLAMA_DEBUG": _debug,
    "OLLAMA_DEBUG_LOG_REQUESTS": _log_requests,
}
"""Each variable with what it sets."""

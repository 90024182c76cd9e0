"""Who may ask: origins, hosts and keys."""

from __future__ import annotations

import hmac
import ipaddress
import re
import socket
from collections.abc import Iterable, Mapping

from portico.errors import ConfigError, Forbidden, Unauthorized
from portico.web.request import Request

_LOCAL_ORIGINS = tuple(
    f"{scheme}://{host}"
    for scheme in ("http", "https")
    for host in ("localhost", "127.0.0.1", "0.0.0.0", "[::1]")
)
_APP_SCHEMES = (
    "app://",
    "file://",
    "tauri://",
    "vscode-webview://",
    "vscode-file://",
    "chrome-extension://",
    "moz-extension://",
    "safari-web-extension://",
)
_METHODS = b"GET, POST, PUT, PATCH, DELETE, HEAD, OPTIONS"
_ALLOWED_HEADERS = (
    b"Authorization, Content-Type, User-Agent, Accept, X-Requested-With, OpenAI-Beta, x-api-key, x-request-id, "
    b"anthropic-version, anthropic-beta, anthropic-dangerous-direct-browser-access, "
    b"x-stainless-lang, x-stainless-package-version, x-stainless-os, x-stainless-arch, x-stainless-runtime, "
    b"x-stainless-runtime-version, x-stainless-async, x-stainless-helper-method, x-stainless-poll-helper, "
    b"x-stainless-custom-poll-interval, x-stainless-retry-count, x-stainless-timeout, x-stainless-read-timeout"
)


_LOCAL_HOSTS = frozenset((b"", b"localhost", b"127.0.0.1"))
_REMEMBERED = 64


class Access:
    """Who may ask: allowed origins, allowed hosts, keys. Asked once for each request.

    Origins and hosts follow Ollama (reference: its allowedHostsMiddleware and CORS set-up): local pages and
    desktop applications may, any other page must be named. The host is checked only when the server listens
    on loopback: there a foreign name means DNS rebinding.
    """

    def __init__(
        self, *, keys: Iterable[str] = (), origins: Iterable[str] = (), loopback: bool = True
    ) -> None:
        self._keys = tuple(key.encode() for key in keys)
        self._patterns = tuple(_origin_pattern(origin) for origin in origins)
        self._loopback = loopback
        self._good_hosts: set[bytes] = set()
        self._hostname = socket.gethostname().lower() if loopback else ""

    def check(self, request: Request, *, open_route: bool) -> None:
        """Raises Forbidden (wrong origin or host) or Unauthorized; adds CORS's headers to the answer."""
        headers = request.headers
        origin, host = headers.get(b"origin"), headers.get(b"host")
        if origin is not None:
            if not self.allows_origin(origin.decode("latin-1"), host):
                raise Forbidden("")
            request.extra.append((b"access-control-allow-origin", origin))
            request.extra.append((b"vary", b"Origin"))
        if self._loopback and host is not None and host not in self._good_hosts:
            if not self._allows_host(host):
                raise Forbidden("")
            if len(self._good_hosts) < _REMEMBERED:
                self._good_hosts.add(host)
        if self._keys and not open_route and not self._knows(_key(headers)):
            raise Unauthorized

    def knows(self, request: Request) -> bool:
        """Whether this caller has a key, or needs none."""
        return not self._keys or self._knows(_key(request.headers))

    def preflight(self) -> list[tuple[bytes, bytes]]:
        """The further headers that answer a browser's OPTIONS."""
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", _ALLOWED_HEADERS),
            (b"access-control-max-age", b"43200"),
        ]

    def _knows(self, key: bytes | None) -> bool:
        if key is None:
            return False
        known = False
        for candidate in self._keys:  # every key is compared, so that time tells nothing about which
            known |= hmac.compare_digest(candidate, key)
        return known

    def allows_origin(self, origin: str, host: bytes | None = None) -> bool:
        if host and origin.partition("://")[2].encode("latin-1") == host:
            return True  # a page this server sent itself
        if origin.startswith(_APP_SCHEMES):
            return True
        if any(origin == local or origin.startswith(local + ":") for local in _LOCAL_ORIGINS):
            return True
        return any(pattern.fullmatch(origin) for pattern in self._patterns)

    def _allows_host(self, host: bytes) -> bool:
        name = host.lower()
        name = name.partition(b"]")[0][1:] if name.startswith(b"[") else name.partition(b":")[0]
        if name in _LOCAL_HOSTS:
            return True
        text = name.decode("latin-1")
        if text == self._hostname or text.endswith((".localhost", ".local", ".internal")):
            return True
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            return False
        return address.is_loopback or address.is_private or address.is_unspecified


def _key(headers: Mapping[bytes, bytes]) -> bytes | None:
    """The key a caller sent, as `Authorization: Bearer KEY` or `x-api-key: KEY`."""
    bearer = headers.get(b"authorization", b"")
    if bearer[:7].lower() == b"bearer ":
        return bearer[7:].strip()
    return headers.get(b"x-api-key")


def _origin_pattern(origin: str) -> re.Pattern[str]:
    """`*` stands for anything; `https://*.example.org` for its subdomains."""
    if not origin or any(char in origin for char in " \n\r"):
        raise ConfigError(f"origins: {origin!r} is not an origin such as https://example.org")
    return re.compile(".*".join(re.escape(piece) for piece in origin.split("*")))

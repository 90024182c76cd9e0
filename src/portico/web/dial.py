"""How a connection to a server is made: straight or through a proxy, with TLS or without.

What goes wrong here has a cause that somebody can mend, and each error says which: the name, the certificate,
the proxy and its password, the limit on waiting. No error holds a password.
"""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import NamedTuple, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from portico.errors import ConfigError, ProxyFailed, UpstreamUnreachable, UpstreamUntrusted

P = TypeVar("P", bound=asyncio.BaseProtocol)

_MOST_HEAD = 16 * 1024
"""Bytes of a proxy's answer to CONNECT."""

# ---- proxies -----------------------------------------------------------------------------------


class Proxy(NamedTuple):
    """An HTTP proxy. `url` is what errors call it: without user and password."""

    url: str
    host: str
    port: int
    authorization: bytes | None

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        return [] if self.authorization is None else [(b"proxy-authorization", self.authorization)]


def read_proxy(url: str) -> Proxy:
    """`http://[user:password@]host:port`. Raises ConfigError, which does not repeat what was given."""
    form = "proxy: expected http://host:port or http://user:password@host:port"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:  # the part of a password behind a / or # would be read as the port, and told
        raise ConfigError(f"{form}; special characters of a password are written as %XX") from None
    if parts.scheme != "http" or not host or parts.path not in ("", "/") or parts.query or parts.fragment:
        kind = f", not {parts.scheme}://" if parts.scheme not in ("http", "") and "://" in url else ""
        raise ConfigError(f"{form}{kind}")
    named = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    return Proxy(named, host, port, basic(parts))


def basic(parts: SplitResult) -> bytes | None:
    """The authorization that stands before the @ of a URL."""
    if parts.username is None:
        return None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return b"Basic " + b64encode(pair.encode())


# ---- TLS ---------------------------------------------------------------------------------------


def tls_context(
    ca_file: Path | str | None = None,
    client_cert: Path | str | None = None,
    client_key: Path | str | None = None,
) -> ssl.SSLContext:
    """What connections to a server are checked against: the CAs of `ca_file`, instead of the system's; and the
    certificate that is shown to it. Raises ConfigError for a file that cannot be used."""
    if ca_file is client_cert is client_key is None:
        return _systems()
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"ca_file {ca_file}: {_file_error(error, 'certificates in PEM form')}") from error
    if ca_file is not None:
        # Python 3.13 made this a default: a private CA that 3.12 trusted would not be one any more.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if client_cert is None:
        if client_key is not None:
            raise ConfigError("client_key is given without client_cert")
        return context
    try:
        # A password is never asked for: the prompt would wait for ever where nobody sits.
        context.load_cert_chain(client_cert, client_key, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        wanted = "a certificate and its key in PEM form, the key without a password"
        also = f" with client_key {client_key}" if client_key is not None else ""
        raise ConfigError(f"client_cert {client_cert}{also}: {_file_error(error, wanted)}") from error
    return context


@functools.cache
def _systems() -> ssl.SSLContext:
    """One for all: reading the system's CAs takes tens of milliseconds, and a hosted API may have a hundred models."""
    return ssl.create_default_context()


def _file_error(error: OSError, wanted: str) -> str:
    if isinstance(error, ssl.SSLError):
        return f"expected {wanted}"
    return f"cannot be read: {error.strerror}"


_SELF_SIGNED = 18
_UNKNOWN_CA = (2, 7, 19, 20, 21)
"""OpenSSL's codes for a chain that ends at nobody we trust; 7: at another CA of the same name."""
_OTHER_NAME = (62, 64)
_EXPIRED, _NOT_YET = 10, 9
_NO_TLS = ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE")


def why_untrusted(error: ssl.SSLError, host: str) -> str:
    """What is wrong with a TLS connection, and what to do."""
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        if code == _EXPIRED:
            return "its certificate has expired; whoever runs the server has to renew it"
        if code == _NOT_YET:
            return "its certificate is not valid yet; the clock here or there is wrong"
        if code in _OTHER_NAME:
            return f"its certificate is not for {host!r}; write the URL with a name that the certificate has"
        if code == _SELF_SIGNED:
            return "its certificate is one that it signed itself; name that certificate as ca_file"
        if code in _UNKNOWN_CA:
            return "its certificate comes from a CA that is not trusted here; name that CA's certificate as ca_file"
        return f"its certificate is refused: {error.verify_message}"
    reason = error.reason or str(error)
    if "CERTIFICATE_REQUIRED" in reason:
        return "it wants a client certificate; give it as client_cert"
    if reason in _NO_TLS:
        return "what answers there does not speak TLS; write the URL with http://"
    if "ALERT" in reason:
        said = reason.rpartition("ALERT_")[2].lower().replace("_", " ")
        if "CERTIFICATE" in reason or "UNKNOWN_CA" in reason:
            return f"it refuses our client certificate ({said}); look at client_cert"
        return f"it refuses the connection ({said}); it may want a client certificate, client_cert"
    return f"TLS failed: {reason.lower().replace('_', ' ')}"


# ---- connections -------------------------------------------------------------------------------


class Dial:
    """Makes connections to one server. `seconds` bounds all of it: name, proxy, TLS; 0: no limit.

    https is asked for through a proxy with CONNECT. http is not: the proxy is sent the whole URL with each
    request (RFC 9112, 3.2.2), because proxies let CONNECT through to the ports of TLS only.
    """

    def __init__(
        self, parts: SplitResult, url: str, *, seconds: float, tls: ssl.SSLContext | None, proxy: Proxy | None
    ) -> None:
        self.url, self.proxy = url, proxy
        self.forwarded = proxy is not None and parts.scheme == "http"
        """Requests go to the proxy, which sends them on."""
        self._unix = parts.path if parts.scheme == "unix" else None
        self._host = parts.hostname or "localhost"
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = tls
        self._seconds = seconds if 0 < seconds < math.inf else None

    async def connect(self, build: Callable[[], P]) -> P:
        """A connection, ready for a request. Raises UpstreamUnreachable."""
        try:
            async with asyncio.timeout(self._seconds) as limit:
                return await self._connected(build)
        except ssl.SSLError as error:
            raise UpstreamUntrusted(url=self.url, reason=why_untrusted(error, self._host)) from error
        except OSError as error:
            if isinstance(error, TimeoutError) and limit.expired():
                raise self._too_late() from error
            raise self._unreachable(error) from error

    async def _connected(self, build: Callable[[], P]) -> P:
        loop = asyncio.get_running_loop()
        if self._unix is not None:
            return (await loop.create_unix_connection(build, self._unix))[1]
        if self._tls is None:
            host, port = (self._host, self._port) if self.proxy is None else self.proxy[1:3]
            return (await loop.create_connection(build, host, port))[1]
        # The loop's own limit on handshakes: never the first to strike.
        within = self._seconds + 1 if self._seconds is not None else 24 * 3600.0
        if self.proxy is None:
            made = loop.create_connection(
                build, self._host, self._port, ssl=self._tls, ssl_handshake_timeout=within
            )
            return (await made)[1]
        sock = await self._tunnel(loop, self.proxy)
        made = loop.create_connection(
            build, sock=sock, ssl=self._tls, server_hostname=self._host, ssl_handshake_timeout=within
        )
        return (await made)[1]

    async def _tunnel(self, loop: asyncio.AbstractEventLoop, proxy: Proxy) -> socket.socket:
        """A socket that leads through the proxy to the server. Not a transport: what is read too much there would
        be lost to the one that comes after it."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        place = f"{host}:{self._port}"
        lines = [b"%b: %b\r\n" % pair for pair in ((b"host", place.encode()), *proxy.headers)]
        try:
            sock = await _dialled(loop, proxy.host, proxy.port)
        except OSError as error:
            raise self._proxy_failed(f"cannot be reached: {_reason(error)}") from error
        try:
            await loop.sock_sendall(
                sock, b"CONNECT %b HTTP/1.1\r\n%b\r\n" % (place.encode(), b"".join(lines))
            )
            head = b""
            while b"\r\n\r\n" not in head:
                data = await loop.sock_recv(sock, 4096)
                if not data:
                    raise self._proxy_failed("closed the connection without an answer")
                head += data
                if len(head) > _MOST_HEAD:
                    raise self._proxy_failed("answered with something that is not HTTP")
            version, _, rest = head.partition(b" ")
            status = int(rest[:3]) if rest[:3].isdigit() else 0
            if not version.startswith(b"HTTP/1.") or status < 100:
                raise self._proxy_failed("answered with something that is not HTTP")
            if not 200 <= status < 300:
                raise self.refused(status)
            return sock
        except BaseException as error:
            sock.close()
            if isinstance(error, OSError) and not isinstance(error, TimeoutError):
                raise self._proxy_failed(f"broke off: {_reason(error)}") from error
            raise

    # ---- what goes wrong

    def refused(self, status: int) -> ProxyFailed:
        """The proxy answered with `status` in the server's place."""
        assert self.proxy is not None
        try:
            said = f"{status} {HTTPStatus(status).phrase}"
        except ValueError:
            said = str(status)
        if status == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            if self.proxy.authorization is None:
                do = 'give it a user and a password: proxy = "http://user:password@host:port"'
            else:
                do = "it does not accept the user and the password that proxy has"
        elif status in (502, 503, 504):
            return self._proxy_failed(f"could not reach it: {said}")
        else:
            do = "its rules do not let us through to there"
        return self._proxy_failed(f"refused: {said}; {do}")

    def _too_late(self) -> UpstreamUnreachable:
        within = f"within {self._seconds:g} s (connect_timeout)"
        if self.proxy is not None:
            return self._proxy_failed(f"made no connection {within}")
        return UpstreamUnreachable(url=self.url, reason=f"no connection {within}")

    def _unreachable(self, error: OSError) -> UpstreamUnreachable:
        reason = _reason(error)
        if self.forwarded:
            return self._proxy_failed(f"cannot be reached: {reason}")
        if self._tls is not None and isinstance(error, ConnectionResetError | ConnectionAbortedError):
            reason = "it closed the connection before TLS was agreed on; it may want a client certificate, client_cert"
        return UpstreamUnreachable(url=self.url, reason=reason)

    def _proxy_failed(self, reason: str) -> ProxyFailed:
        assert self.proxy is not None
        return ProxyFailed(proxy=self.proxy.url, url=self.url, reason=reason)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


async def _dialled(loop: asyncio.AbstractEventLoop, host: str, port: int) -> socket.socket:
    failure = OSError("it has no address")
    for family, kind, proto, _, address in await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        sock = socket.socket(family, kind, proto)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.sock_connect(sock, address)
            return sock
        except OSError as error:
            sock.close()
            failure = error
        except BaseException:
            sock.close()
            raise
    raise failure

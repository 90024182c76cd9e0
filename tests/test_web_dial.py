"""Connections to servers elsewhere over real sockets: TLS with a CA of the test's own, proxies, and how each fails."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from certificates import Authority, Pair
from listen_fixtures import each_loop
from portico.errors import ConfigError, ProxyFailed, UpstreamClosed, UpstreamUnreachable, UpstreamUntrusted
from portico.web import Upstream
from portico.web.dial import read_proxy, tls_context
from scripted_answers import CHAT, STREAM_HEAD, framed
from scripted_proxy import ScriptedProxy
from scripted_upstream import ScriptedUpstream

WHOLE = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
FAR = 5
"""By what a wait may be longer than it has to be, on a slow machine."""


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca") / "ours")


@pytest.fixture(scope="session")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another CA of the same name."""
    return Authority(tmp_path_factory.mktemp("ca") / "theirs")


@pytest.fixture(scope="session")
def good(authority: Authority) -> Pair:
    return authority.issue("good")


def shown(pair: Pair, *, callers: Path | None = None, tls12: bool = False) -> ssl.SSLContext:
    """What a server shows; `callers`: the CA whose certificates its callers must have."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*pair)
    if callers is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(callers)
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@contextlib.contextmanager
def served(pair: Pair, **options: Any) -> Iterator[ScriptedUpstream]:
    with ScriptedUpstream(tls=shown(pair, **options)) as server:
        yield server


async def end(upstream: Upstream) -> None:
    """Its server, in another thread, sees it before it ends itself."""
    upstream.close()
    await asyncio.sleep(0.01)


async def failure(upstream: Upstream) -> UpstreamUnreachable:
    """Why there is no connection."""
    with pytest.raises(UpstreamUnreachable) as caught:
        await upstream.fetch("GET", "/models")
    await end(upstream)
    return caught.value


# ---- TLS


@each_loop
async def test_a_private_ca(authority: Authority, good: Pair) -> None:
    with served(good) as server:
        upstream = Upstream(server.url, tls=tls_context(authority.file))
        for _ in range(3):
            assert (await upstream.fetch("GET", "/models")).status == 200
        assert upstream.connections == 1
        await end(upstream)


@each_loop
async def test_a_long_stream_through_tls_is_whole(authority: Authority, good: Pair) -> None:
    piece = bytes(range(256)) * 200
    with served(good) as server:
        server.script(CHAT, (STREAM_HEAD, *[framed(piece)] * 100, framed(b"")))
        upstream = Upstream(server.url.removesuffix("/v1"), tls=tls_context(authority.file))
        assert (await upstream.fetch("POST", CHAT, b"{}")).body == piece * 100
        await end(upstream)


@each_loop
async def test_a_ca_that_nobody_knows(good: Pair, stranger: Authority) -> None:
    with served(good) as server:
        for context in (None, tls_context(stranger.file)):
            error = await failure(Upstream(server.url, tls=context))
            assert isinstance(error, UpstreamUntrusted) and error.status == 502
            assert "not trusted here" in str(error) and "ca_file" in str(error) and server.url in str(error)


@each_loop
async def test_a_certificate_that_a_server_signed_itself(authority: Authority) -> None:
    pair = authority.self_signed("alone")
    with served(pair) as server:
        error = await failure(Upstream(server.url))
        assert (
            isinstance(error, UpstreamUntrusted) and "signed itself" in str(error) and "ca_file" in str(error)
        )
        upstream = Upstream(server.url, tls=tls_context(pair.cert))
        assert (await upstream.fetch("GET", "/models")).status == 200
        await end(upstream)


@pytest.mark.parametrize(
    ("names", "days", "says"),
    [
        ("DNS:other.example", (-1, 10), "is not for '127.0.0.1'; write the URL with a name"),
        ("IP:127.0.0.1", (-10, -1), "has expired"),
        ("IP:127.0.0.1", (1, 10), "is not valid yet; the clock"),
    ],
    ids=["name", "expired", "early"],
)
@each_loop
async def test_a_wrong_certificate(authority: Authority, names: str, days: Any, says: str) -> None:
    with served(authority.issue("wrong", names, days=days)) as server:
        error = await failure(Upstream(server.url, tls=tls_context(authority.file)))
    assert isinstance(error, UpstreamUntrusted) and says in str(error)


class Handshakes:
    """A server that says why it refuses a handshake and leaves politely, as Go's and Envoy do: asyncio's does not.
    Whoever passes gets one whole reply."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Handshakes:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with sock, contextlib.suppress(OSError):
                sock.settimeout(10)
                self._serve(sock)
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(4096):
                    pass

    def _serve(self, sock: socket.socket) -> None:
        coming, going = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = self._context.wrap_bio(coming, going, server_side=True)
        try:
            for step in (tls.do_handshake, lambda: tls.read(4096), lambda: tls.write(WHOLE)):
                while True:
                    try:
                        step()
                        break
                    except ssl.SSLWantReadError:
                        sock.sendall(going.read())
                        coming.write(sock.recv(4096))
        except ssl.SSLError:
            pass
        sock.sendall(going.read())


@pytest.mark.parametrize("tls12", [False, True], ids=["1.3", "1.2"])
@each_loop
async def test_a_client_certificate(
    authority: Authority, stranger: Authority, good: Pair, tls12: bool
) -> None:
    own, foreign = authority.issue("caller"), stranger.issue("caller")
    with Handshakes(shown(good, callers=authority.file, tls12=tls12)) as server:
        upstream = Upstream(server.url, tls=tls_context(authority.file, *own))
        assert (await upstream.fetch("GET", "/models")).status == 200
        await end(upstream)
        error = await failure(Upstream(server.url, tls=tls_context(authority.file)))
        assert isinstance(error, UpstreamUntrusted) and "want" in str(error) and "client_cert" in str(error)
        error = await failure(Upstream(server.url, tls=tls_context(authority.file, *foreign)))
        assert isinstance(error, UpstreamUntrusted) and "refuses our client certificate" in str(error)


@each_loop
async def test_https_where_nobody_speaks_it() -> None:
    async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as address:
        error = await failure(Upstream(f"https://{address}"))
    assert isinstance(error, UpstreamUntrusted) and "does not speak TLS" in str(error)
    assert "http://" in str(error)


@contextlib.asynccontextmanager
async def answering(said: bytes | None) -> AsyncIterator[str]:
    """A server that says this to whatever it hears, and closes; None: nothing, and it stays. Gives its address."""

    async def run(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if said is None:
            await reader.read()
        elif said:
            await reader.read(4096)
            writer.write(said)
        writer.close()

    server = await asyncio.start_server(run, "127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


@each_loop
async def test_a_handshake_that_breaks_off() -> None:
    async with answering(b"") as address:
        error = await failure(Upstream(f"https://{address}"))
    assert "closed the connection before TLS was agreed on" in str(error)


@each_loop
async def test_a_handshake_that_does_not_end() -> None:
    async with answering(None) as address:
        began = time.monotonic()
        error = await failure(Upstream(f"https://{address}", connect=0.2))
    assert 0.2 <= time.monotonic() - began < 0.2 * FAR
    assert "no connection within 0.2 s (connect_timeout)" in str(error)


@pytest.mark.parametrize("part", ["ca_file", "client_cert", "client_key", "locked"])
def test_files_that_cannot_be_used(authority: Authority, good: Pair, tmp_path: Path, part: str) -> None:
    nonsense = tmp_path / "nonsense.pem"
    nonsense.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    other, locked = authority.issue("other"), authority.issue("locked", password="sesame")
    wrong: dict[str, tuple[Path | None, ...]] = {
        "ca_file": (nonsense,),
        "client_cert": (None, nonsense, good.key),
        "client_key": (None, good.cert, other.key),
        "locked": (None, *locked),
    }
    with pytest.raises(ConfigError, match=r"PEM form") as caught:
        tls_context(*wrong[part])
    assert "sesame" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"No such file"):
        tls_context(tmp_path / "none.pem")
    with pytest.raises(ConfigError, match="without client_cert"):
        tls_context(None, None, good.key)


# ---- proxies


@each_loop
async def test_https_through_a_proxy(authority: Authority, good: Pair) -> None:
    with served(good) as server, ScriptedProxy(password="me:s%40crét") as proxy:
        upstream = Upstream(server.url, tls=tls_context(authority.file), proxy=proxy.url)
        for _ in range(3):
            assert (await upstream.fetch("GET", "/models")).status == 200
        assert proxy.requests == [f"CONNECT 127.0.0.1:{server.port} HTTP/1.1"], "one tunnel, kept"
        assert not any("proxy" in name for each in server.received for name in each.headers)
        await end(upstream)


@each_loop
async def test_http_through_a_proxy(authority: Authority, good: Pair) -> None:
    with ScriptedUpstream(prefix="/far") as server, ScriptedProxy(password="me:secret") as proxy:
        upstream = Upstream(server.url.removesuffix("/v1"), proxy=proxy.url)
        assert (await upstream.fetch("GET", "/v1/models")).status == 200
        assert (await upstream.fetch("POST", CHAT, b'{"stream":true}')).body.count(b"data: ") == 6
        place = f"http://127.0.0.1:{server.port}/far/v1"
        assert proxy.requests == [
            f"GET {place}/models HTTP/1.1",
            f"POST {place}/chat/completions HTTP/1.1",
        ]
        assert upstream.connections == 1
        assert [each.headers["host"] for each in server.received] == [f"127.0.0.1:{server.port}"] * 2
        await end(upstream)


SECURE = pytest.mark.parametrize("secure", [True, False], ids=["https", "http"])


@contextlib.contextmanager
def behind(good: Pair, proxy: ScriptedProxy, secure: bool) -> Iterator[str]:
    """The URL of a server, which is only to be reached through the proxy."""
    with proxy, served(good) if secure else ScriptedUpstream() as server:
        yield server.url
        assert not server.received


@SECURE
@each_loop
async def test_a_proxy_that_wants_a_password(good: Pair, secure: bool) -> None:
    proxy = ScriptedProxy(password="me:secret")
    with behind(good, proxy, secure) as url:
        error = await failure(Upstream(url, proxy=proxy.address))
        assert isinstance(error, ProxyFailed) and error.status == 502
        assert f"proxy {proxy.address} before {url} refused: 407 Proxy Authentication Required" in str(error)
        assert "user:password@" in str(error)
        error = await failure(Upstream(url, proxy=proxy.url.replace("secret", "sesame")))
        assert "does not accept the user and the password" in str(error)
        assert "sesame" not in str(error) and "me:" not in str(error)
    assert len(proxy.requests) == 2


@SECURE
@pytest.mark.parametrize(
    ("fails", "says"),
    [
        ("closes", "closed the connection"),
        ("nonsense", "not HTTP"),
        (403, "refused: 403 Forbidden; its rules"),
        (502, "could not reach it: 502 Bad Gateway"),
        (599, "refused: 599"),
    ],
    ids=str,
)
@each_loop
async def test_a_proxy_that_fails(good: Pair, secure: bool, fails: Any, says: str) -> None:
    proxy = ScriptedProxy(fails=fails)
    with behind(good, proxy, secure) as url:
        upstream = Upstream(url, proxy=proxy.address)
        if secure or fails == 502:
            error = await failure(upstream)
            assert isinstance(error, ProxyFailed) and says in str(error) and proxy.address in str(error)
        elif isinstance(fails, int):  # may be the server's own answer
            assert (await upstream.fetch("GET", "/models")).status == fails
        else:
            with pytest.raises(UpstreamClosed, match=f"through the proxy {proxy.address}"):
                await upstream.fetch("GET", "/models")
        await end(upstream)


@each_loop
async def test_a_proxy_that_keeps_silent(good: Pair) -> None:
    proxy = ScriptedProxy(fails="silent")
    with behind(good, proxy, True) as url:
        began = time.monotonic()
        error = await failure(Upstream(url, proxy=proxy.address, connect=0.2))
        assert 0.2 <= time.monotonic() - began < 0.2 * FAR
    assert isinstance(error, ProxyFailed)
    assert "made no connection within 0.2 s (connect_timeout)" in str(error)


@SECURE
@each_loop
async def test_a_proxy_that_is_not_there(good: Pair, secure: bool) -> None:
    with ScriptedProxy() as proxy:
        address = proxy.address
    url = "https://127.0.0.1:9" if secure else "http://127.0.0.1:9"
    error = await failure(Upstream(url, proxy=address.replace("://", "://me:secret@")))
    assert isinstance(error, ProxyFailed) and f"{address} before {url} cannot be reached" in str(error)
    assert "secret" not in str(error)


@SECURE
@each_loop
async def test_a_server_that_a_proxy_cannot_reach(secure: bool) -> None:
    with ScriptedUpstream() as server:
        url = server.url.replace("http:", "https:") if secure else server.url
    with ScriptedProxy() as proxy:
        error = await failure(Upstream(url, proxy=proxy.address))
    assert isinstance(error, ProxyFailed) and "could not reach it: 503 Service Unavailable" in str(error)


@each_loop
async def test_what_is_wrong_behind_a_proxy_is_the_servers(good: Pair) -> None:
    with served(good) as server, ScriptedProxy() as proxy:
        error = await failure(Upstream(server.url, proxy=proxy.address))
    assert isinstance(error, UpstreamUntrusted) and "ca_file" in str(error)


@pytest.mark.parametrize(
    "url",
    [
        *("https://me:sesame@h:1", "socks5://me:sesame@h:1", "me:sesame@h:1", "h:3128", "", "http://"),
        *("http://me:ses/ame@h:1", "http://me:1sesame#@h:1", "http://me:sesame@h:99999", "http://h:1/path"),
    ],
)
def test_an_address_that_is_no_proxys(url: str) -> None:
    with pytest.raises(ConfigError, match=r"expected http://host:port") as caught:
        read_proxy(url)
    assert "ses" not in str(caught.value)
    assert ("not socks5://" in str(caught.value)) == url.startswith("socks5")


def test_a_proxys_address() -> None:
    proxy = read_proxy("http://[::1]:3128/")
    assert (proxy.url, proxy.host, proxy.port, proxy.headers) == ("http://[::1]:3128", "::1", 3128, [])
    assert read_proxy("http://me:p%40ss%3A@h").headers == [
        (b"proxy-authorization", b"Basic " + b64encode(b"me:p@ss:"))
    ]

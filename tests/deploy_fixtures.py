"""The proxies of deploy/, started as they are shipped: only ports, certificate, user and folders are filled in."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from live_server import LiveServer, wait_until

DEPLOY = Path(__file__).parent.parent / "deploy"
START_SECONDS = 20.0
WAIT_SECONDS = 20.0
"""For what takes milliseconds here: a busy machine may take longer, and what is to be told apart never happens."""


def needed(*programs: str) -> list[str]:
    """The programs' paths; skips the test where one is not installed."""
    found = [
        shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") for program in programs
    ]
    missing = [program for program, path in zip(programs, found, strict=True) if path is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} is not installed")
    return [path for path in found if path is not None]


def filled(text: str, replacements: Mapping[str, str]) -> str:
    """`text` with each placeholder replaced; each stands in it exactly once, so that nothing is changed by accident."""
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{old!r} stands {text.count(old)} times in the file"
        text = text.replace(old, new)
    return text


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def certificate(folder: Path) -> None:
    """fullchain.pem and key.pem for 127.0.0.1, their own authority, and both in portico.pem."""
    (openssl,) = needed("openssl")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", "/CN=Portico's tests", "-addext", "subjectAltName=IP:127.0.0.1"]
    command += ["-keyout", str(folder / "key.pem"), "-out", str(folder / "fullchain.pem")]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    both = (folder / "fullchain.pem").read_text() + (folder / "key.pem").read_text()
    (folder / "portico.pem").write_text(both)


@dataclass
class Proxy:
    """A running nginx or haproxy. Each caller may come from an address of its own, 127.0.0.1 to 127.0.0.254, since
    what a client may do is counted by address."""

    name: str
    port: int
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.folder / "fullchain.pem"))

    def client(self, address: str = "127.0.0.1") -> httpx2.Client:
        transport = httpx2.HTTPTransport(verify=self.tls, local_address=address, trust_env=False)
        return httpx2.Client(base_url=self.url, transport=transport, timeout=30, trust_env=False)

    def connect(self, address: str = "127.0.0.1") -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", self.port), WAIT_SECONDS, source_address=(address, 0))
        return self.tls.wrap_socket(plain, server_hostname="127.0.0.1")

    def log(self) -> str:
        return (self.folder / "proxy.log").read_text(encoding="utf-8", errors="replace")

    def runtime(self, command: str) -> str:
        """haproxy's answer on its stats socket."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(WAIT_SECONDS)
            sock.connect(str(self.folder / "admin.sock"))
            sock.sendall(f"{command}\n".encode())
            answer = b""
            while piece := sock.recv(65536):
                answer += piece
        return answer.decode()


class Caller:
    """A request over a bare TLS connection, read as far as a test wants, and left at any byte."""

    def __init__(self, proxy: Proxy, path: str, body: Any, *, address: str = "127.0.0.1") -> None:
        payload = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: {len(payload)}\r\n\r\n"
        self.socket = proxy.connect(address)
        self.got = b""
        self.socket.sendall(head.encode() + payload)

    def receive(self, until: bytes) -> None:
        while until not in self.got:
            piece = self.socket.recv(65536)
            assert piece, f"the proxy closed the connection: {self.got!r}"
            self.got += piece

    def rest(self) -> bytes:
        """Everything, until the proxy closes the connection or the answer is whole."""
        while not self.got.endswith(b"\r\n0\r\n\r\n"):
            try:
                piece = self.socket.recv(65536)
            except OSError:
                break
            if not piece:
                break
            self.got += piece
        return self.got

    def leave(self) -> None:
        self.socket.close()


@contextmanager
def calling(proxy: Proxy, path: str, body: Any, *, address: str = "127.0.0.1") -> Iterator[Caller]:
    caller = Caller(proxy, path, body, address=address)
    try:
        yield caller
    finally:
        caller.socket.close()


# ---- starting them


def nginx_text(folder: Path, port: int, servers: Sequence[int], text: str | None = None) -> str:
    temporary = "".join(
        f"\n    {kind}_temp_path {folder}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    return filled(
        (DEPLOY / "nginx.conf").read_text(encoding="utf-8") if text is None else text,
        {
            "user www-data;": f"user {getpass.getuser()};",
            "pid /run/nginx.pid;": f"pid {folder}/nginx.pid;",
            "/var/log/nginx/error.log": f"{folder}/error.log",
            "/var/log/nginx/access.log": f"{folder}/proxy.log",
            "http {": f"http {{{temporary}",
            "portico-1:11434 max_fails=1": f"127.0.0.1:{servers[0]} max_fails=1",
            "portico-2:11434 max_fails=1": f"127.0.0.1:{servers[1]} max_fails=1",
            "portico-1:11434 max_fails=0": f"127.0.0.1:{servers[0]} max_fails=0",
            "portico-2:11434 max_fails=0": f"127.0.0.1:{servers[1]} max_fails=0",
            "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
            "/etc/portico/tls/fullchain.pem": f"{folder}/fullchain.pem",
            "/etc/portico/tls/key.pem": f"{folder}/key.pem",
        },
    )


def haproxy_text(folder: Path, port: int, servers: Sequence[int], text: str | None = None) -> str:
    return filled(
        (DEPLOY / "haproxy.cfg").read_text(encoding="utf-8") if text is None else text,
        {
            # Only root may become somebody else.
            "    user haproxy\n    group haproxy\n": "",
            "/run/haproxy/admin.sock": f"{folder}/admin.sock",
            "portico-1:11434": f"127.0.0.1:{servers[0]}",
            "portico-2:11434": f"127.0.0.1:{servers[1]}",
            "bind :443 ": f"bind 127.0.0.1:{port} ",
            "/etc/portico/tls/portico.pem": f"{folder}/portico.pem",
        },
    )


@contextmanager
def proxy_before(name: str, servers: Sequence[int], *, text: str | None = None) -> Iterator[Proxy]:
    """nginx or haproxy before two servers, by their ports; `text` in place of the file of deploy/."""
    if sys.platform != "linux":
        pytest.skip(f"only Linux has further loopback addresses for the callers of {name}")
    (program,) = needed(name)
    # Not pytest's folder: the path of haproxy's socket would be too long, and nobody but its owner may enter it.
    with tempfile.TemporaryDirectory(prefix="portico-") as made:
        folder, port = Path(made), free_port()
        certificate(folder)
        if name == "nginx":
            file, write = folder / "nginx.conf", nginx_text
            command = [program, "-c", str(file), "-p", made, "-e", f"{made}/error.log", "-g", "daemon off;"]
        else:
            file, write = folder / "haproxy.cfg", haproxy_text
            command = [program, "-db", "-f", str(file)]
        file.write_text(write(folder, port, servers, text), encoding="utf-8")
        with (folder / ("output.log" if name == "nginx" else "proxy.log")).open("wb") as output:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            _wait_for(process, port, folder)
            yield Proxy(name, port, folder, process)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for(process: subprocess.Popen[bytes], port: int, folder: Path) -> None:
    began = time.monotonic()
    while True:
        said = "".join(path.read_text(errors="replace") for path in sorted(folder.glob("*.log")))
        assert process.poll() is None, f"it ended with {process.returncode}:\n{said}"
        assert time.monotonic() - began < START_SECONDS, f"nothing listens on {port}:\n{said}"
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)


def in_flight(server: LiveServer) -> int:
    return int(server.health()["requests_in_flight"])


def wait_until_idle(*servers: LiveServer) -> None:
    for server in servers:
        wait_until(
            lambda each=server: in_flight(each) == 0, seconds=WAIT_SECONDS, what="no request in flight"
        )

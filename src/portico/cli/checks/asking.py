"""One server, asked over HTTP: its answer, or why there is none. The only file here that knows HTTP."""

from __future__ import annotations

import socket
import ssl
import time
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self, TypeVar
from urllib.parse import urlsplit

import msgspec

from portico.cli.address import Address
from portico.cli.replies import ErrorBody

Kind = TypeVar("Kind")

LARGEST = 1 << 20
"""Bytes of an answer that are read: nobody knows what listens there."""
Why = Literal[
    "refused", "unknown", "unreachable", "slow", "closed", "tls", "no_http", "no_url", "no_key", "other"
]


class Answer(NamedTuple):
    status: int
    body: bytes = b""
    server: str = ""
    """What it calls itself in its headers."""
    seconds: float = 0.0

    def read(self, kind: type[Kind]) -> Kind | None:
        """The body; None where it is an error or something else."""
        if self.status != 200:
            return None
        try:
            return msgspec.json.decode(self.body, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
            return None

    @property
    def said(self) -> str:
        """The message of an error, on one line."""
        try:
            text = msgspec.json.decode(self.body, type=ErrorBody).text
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError, RecursionError):
            text = ""
        line = " ".join((text or f"status {self.status}").split())
        return line if len(line) <= 160 else f"{line[:156]} ..."


class Silence(NamedTuple):
    """No answer. `seconds`: how long it was waited for; `detail`: what went wrong on this side."""

    why: Why
    seconds: float = 0.0
    detail: str = ""

    def found(self, url: str) -> str:
        within = f"{self.seconds:g} s"
        match self.why:
            case "refused":
                return f"nothing listens at {url} (connection refused)"
            case "unknown":
                return f"the name in {url} leads to no address"
            case "unreachable":
                return f"no connection to {url} within {within}: a firewall, or the machine is off"
            case "slow":
                return f"no answer from {url} within {within}, though something listens there"
            case "closed":
                return f"{url} closes the connection without an answer"
            case "tls":
                return (
                    f"no secure connection to {url}: it does not speak TLS, or its certificate is not trusted"
                )
            case "no_http":
                return f"{url} does not speak HTTP"
            case "no_url":
                return "not the URL of a server"
            case "no_key":
                return f"the key for {url} holds characters that no request can carry"
            case "other":
                return f"{url} cannot be asked ({self.detail[:200]})"


Heard = Answer | Silence


class Asker:
    """Asks one server until `seconds` from now are over. `key` goes to it and nowhere else: redirects are not
    followed. Belongs to one thread."""

    def __init__(self, url: str, key: str | None, *, seconds: float) -> None:
        import httpx2

        self._url, self._seconds = url, seconds
        self._until = time.monotonic() + seconds
        headers = {"User-Agent": "portico-doctor"}
        self._refusal: Why | None = None
        if key and not (key.isascii() and key.isprintable()):
            self._refusal = "no_key"
        elif key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            near = Address(url=url, origin=None, key=None).near
            self._http = httpx2.Client(
                headers=headers,
                # Loading the system's certificates costs 40 ms, which an http:// address never uses.
                verify=url.startswith("https:"),
                # A proxy for the internet cannot reach this machine or the next one.
                mounts={"http://": None, "https://": None, "all://": None} if near else None,
            )
        except ValueError:
            self._refusal, self._http = "no_url", httpx2.Client(verify=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str) -> Heard:
        return self._heard("GET", path, None)

    def post(self, path: str, body: dict[str, Any]) -> Heard:
        return self._heard("POST", path, msgspec.json.encode(body))

    def _heard(self, method: str, path: str, content: bytes | None) -> Heard:
        import httpx2

        began = time.monotonic()
        left = self._until - began
        if self._refusal is not None:
            return Silence(self._refusal)
        if left <= 0:
            return Silence("slow", self._seconds)
        try:
            headers = {"Content-Type": "application/json"} if content is not None else {}
            with self._http.stream(
                method, self._url + path, content=content, headers=headers, timeout=left
            ) as reply:
                body = b""
                for piece in reply.iter_bytes():
                    body += piece
                    if len(body) > LARGEST:
                        break
                    if time.monotonic() > self._until:  # each piece came in time, and all of them do not
                        return Silence("slow", self._seconds)
                name = reply.headers.get("server", "")
                return Answer(reply.status_code, body, name, time.monotonic() - began)
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError, UnicodeError, ValueError) as error:
            return Silence(_why(error), self._seconds)


def _why(error: BaseException) -> Why:
    import httpx2

    causes: list[BaseException] = [error]
    while cause := causes[-1].__cause__ or causes[-1].__context__:
        causes.append(cause)
    kinds: tuple[tuple[Why, type[BaseException] | tuple[type[BaseException], ...]], ...] = (
        ("tls", ssl.SSLError),
        ("refused", ConnectionRefusedError),
        ("unknown", socket.gaierror),
        ("unreachable", (httpx2.ConnectTimeout, httpx2.ConnectError)),
        ("slow", httpx2.TimeoutException),
        ("no_url", (httpx2.InvalidURL, httpx2.UnsupportedProtocol, UnicodeError)),
        ("closed", (httpx2.NetworkError, OSError)),
    )
    for why, kind in kinds:
        if any(isinstance(cause, kind) for cause in causes):
            return why
    return "closed" if "disconnected" in str(error) else "no_http"


def shown(url: str) -> str:
    """A URL for the screen: without what may be a secret in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")

"""A running server, asked over Ollama's API. Everything the commands know about HTTP is in this file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import msgspec

from portico.cli.failure import Failure
from portico.cli.replies import (
    Chunk,
    ErrorBody,
    Health,
    Listed,
    Loaded,
    Pulling,
    Running,
    Shown,
    Tags,
    Versions,
)
from portico.dialects.framing import LineReader

if TYPE_CHECKING:
    import httpx2

    from portico.cli.address import Address

Kind = TypeVar("Kind")

CONNECT_SECONDS = 5.0
ANSWER_SECONDS = 30.0  # for what is read from memory; generation and pulls may be silent for longer
SLUGS = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "forbidden",
    404: "model_not_found",
    503: "overloaded",
}


class Server:
    """One server. Its methods raise Failure: unreachable, or what the server itself said."""

    def __init__(self, address: Address) -> None:
        import httpx2  # takes 100 ms, which completing a name or printing help must not wait for

        self.address = address
        headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
        self._http = httpx2.Client(
            base_url=address.url,
            headers=headers,
            timeout=httpx2.Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS),
            # Loading the system's certificates costs 40 ms, which an http:// address never uses.
            verify=address.url.startswith("https:"),
            # A proxy for the internet cannot reach this machine or the next one.
            mounts={"http://": None, "https://": None, "all://": None} if address.near else None,
        )

    @property
    def _patience(self) -> httpx2.Timeout:
        import httpx2

        return httpx2.Timeout(None, connect=CONNECT_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    # ---- asking

    def version(self) -> str:
        """The version of Ollama that the server stands for."""
        versions: Versions = self._ask("GET", "/api/version", Versions)
        return versions.version

    def own_version(self) -> str | None:
        """Portico's own version; None from another server."""
        try:
            versions: Versions = self._ask("GET", "/version", Versions)
        except Failure as failure:
            if failure.slug == "unreachable":
                raise
            return None
        return versions.version or None

    def health(self) -> Health:
        """What Portico's own server says of its engines; nothing from another one. An engine that failed
        makes the answer a 503, which is an answer all the same."""
        with self._failing():
            reply = self._http.get("/health")
        try:
            return msgspec.json.decode(reply.content, type=Health)
        except (msgspec.DecodeError, msgspec.ValidationError):
            return Health()

    def listing(self) -> Tags:
        tags: Tags = self._ask("GET", "/api/tags", Tags)
        return tags

    def models(self) -> tuple[Listed, ...]:
        return self.listing().models or ()

    def running(self) -> tuple[Loaded, ...]:
        return self._ask("GET", "/api/ps", Running).models or ()

    def show(self, model: str) -> Shown:
        shown: Shown = self._ask("POST", "/api/show", Shown, {"model": model}, model=model)
        return shown

    def delete(self, model: str) -> None:
        self._ask("DELETE", "/api/delete", None, {"model": model}, model=model)

    def copy(self, source: str, destination: str) -> None:
        self._ask("POST", "/api/copy", None, {"source": source, "destination": destination}, model=source)

    def load(self, model: str, keep_alive: str | float | None = None) -> None:
        """Returns when the model is ready."""
        self._ask("POST", "/api/generate", Chunk, _load(model, keep_alive), model=model, patient=True)

    def unload(self, model: str) -> None:
        self._ask("POST", "/api/generate", Chunk, _load(model, 0), model=model, patient=True)

    def pull(self, model: str) -> Iterator[Pulling]:
        # No name for `model`: what is nearest among the models that are there is not what can be fetched.
        return self._lines("/api/pull", Pulling, {"model": model, "stream": True}, model=None)

    def chat(self, body: Mapping[str, Any]) -> Iterator[Chunk]:
        return self._lines("/api/chat", Chunk, body, model=str(body["model"]))

    def generate(self, body: Mapping[str, Any]) -> Iterator[Chunk]:
        return self._lines("/api/generate", Chunk, body, model=str(body["model"]))

    # ---- inside

    def _ask(
        self,
        method: str,
        path: str,
        kind: type[Kind] | None,
        body: Mapping[str, Any] | None = None,
        *,
        model: str | None = None,
        patient: bool = False,
    ) -> Any:
        content = None if body is None else msgspec.json.encode(body)
        with self._failing():
            reply = self._http.request(
                method,
                path,
                content=content,
                headers=_JSON,
                timeout=self._patience if patient else self._http.timeout,
            )
        if reply.status_code >= 400:
            raise self._refused(reply.status_code, reply.content, model)
        return None if kind is None else self._read(reply.content, kind)

    def _lines(
        self, path: str, kind: type[Kind], body: Mapping[str, Any], *, model: str | None
    ) -> Iterator[Kind]:
        """The objects of an NDJSON reply as they arrive. Leaving the loop closes the connection, and with it
        the server's work."""
        content = msgspec.json.encode(body)
        with (
            self._failing(),
            self._http.stream("POST", path, content=content, headers=_JSON, timeout=self._patience) as reply,
        ):
            if reply.status_code >= 400:
                raise self._refused(reply.status_code, reply.read(), model)
            for line in _whole_lines(reply.iter_bytes()):
                chunk = self._read(line, kind)
                if error := getattr(chunk, "error", None):
                    raise Failure("server", error)
                yield chunk

    @contextmanager
    def _failing(self) -> Iterator[None]:
        import httpx2

        url = self.address.url
        try:
            yield
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise unreachable(self.address) from error
        except httpx2.TimeoutException as error:
            raise Failure("timeout", f"the server at {url} did not answer in time") from error
        except httpx2.TransportError as error:
            raise Failure(
                "closed", f"the server at {url} closed the connection before its answer was whole"
            ) from error
        except (httpx2.InvalidURL, UnicodeError) as error:
            raise Failure("usage", f"{url} is not an address: {error}", exit_code=2) from error

    def _read(self, body: bytes, kind: type[Kind]) -> Kind:
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            url = self.address.url
            raise Failure("not_ollama", f"{url} does not answer as Ollama's API does: {error}") from error

    def _refused(self, status: int, body: bytes, model: str | None) -> Failure:
        try:
            said = msgspec.json.decode(body, type=ErrorBody)
        except (msgspec.DecodeError, msgspec.ValidationError):
            said = ErrorBody()
        slug = said.code or SLUGS.get(status, "server")
        if status == 404 and model and said.text:
            return self._unknown_model(model)
        if status == 401:
            key = (
                "PORTICO_API_KEY holds a key it does not know"
                if self.address.key
                else "no PORTICO_API_KEY is set"
            )
            return Failure(slug, said.text or f"{self.address.url} wants an API key", facts=(("key", key),))
        return Failure(slug, said.text or f"{self.address.url} answered with status {status}")

    def _unknown_model(self, model: str) -> Failure:
        try:
            names = [listed.name for listed in self.models()]
        except Failure:
            names = []
        return unknown_model(model, names, where=f"at {self.address.url}")


_JSON = {"Content-Type": "application/json"}


def _load(model: str, keep_alive: str | float | None) -> dict[str, Any]:
    """Ollama's way to load or, with 0, to unload: an empty prompt."""
    body: dict[str, Any] = {"model": model, "prompt": "", "stream": False}
    return body if keep_alive is None else body | {"keep_alive": keep_alive}


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    reader = LineReader()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.end()


def unreachable(address: Address) -> Failure:
    facts = (("address", f"from {address.origin}"),) if address.origin else ()
    return Failure("unreachable", f"no server answers at {address.url}", facts=facts, attempt="portico serve")


def unknown_model(model: str, names: Sequence[str], *, where: str) -> Failure:
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in names} | {name.lower().split(":")[0]: name for name in names}
    found = dict.fromkeys(
        by_lower[match] for match in get_close_matches(model.lower(), by_lower, n=3, cutoff=0.5)
    )
    facts = (("nearest", ", ".join(found)),) if found else ()
    attempt = "portico ls" if found else f"portico pull {model}"
    return Failure("model_not_found", f"there is no model {model!r} {where}", facts=facts, attempt=attempt)

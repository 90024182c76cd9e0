"""Which servers stand in for a client's own, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from portico.client.servers import Server, candidates
from portico.errors import (
    ClientError,
    ConfigError,
    CutOff,
    NoSuchModel,
    NotRunning,
    NotTrusted,
    OutOfMemory,
    RateLimited,
    ServerFailed,
    TimedOut,
)
from portico.messages import Value


class Place(Value, frozen=True, kw_only=True):
    """A server and a model of it. `model` empty: the first that it lists. `api_key` None: that of the variable which names
    this very server (OPENAI_API_KEY for OpenAI); neither the client's own key nor its headers go there."""

    url: str
    model: str = ""
    api_key: str | None = None
    headers: Mapping[str, str] = {}


class Fallback(Value, frozen=True, kw_only=True):
    """`places` are asked in order, each with the client's retries, when one before them cannot answer."""

    places: tuple[Place, ...]
    rate_limits: bool = True
    """Also when a server wants to be left alone, after the retries."""
    missing_models: bool = False
    """Also when a server does not have the model: usually a wrong name, which nobody should pay for elsewhere."""

    def goes_on(self, error: ClientError) -> bool:
        """Whether the next place is asked after this error.

        1. There is no connection, or it broke before the first byte of the answer. 2. The server failed (5xx), or its memory is
        too small. 3. It has too much to do. 4. It does not have the model. Anything else would fail elsewhere too, or is for
        the caller to mend: a wrong key, a wrong request, a prompt that is too long, a limit on the whole call.
        """
        if isinstance(error, TimedOut):  # (1)
            return error.which in ("connect", "first_token")
        if isinstance(error, NotRunning | NotTrusted | CutOff):
            return True
        if isinstance(error, ServerFailed | OutOfMemory):  # (2)
            return True
        if isinstance(error, RateLimited):  # (3)
            return self.rate_limits
        return isinstance(error, NoSuchModel) and self.missing_models  # (4)


Fallbacks = Fallback | Sequence[Any] | None
"""A Fallback, or only its places: Place, (url, model) or a URL."""


def read_fallback(given: Fallbacks) -> Fallback | None:
    """Raises ConfigError for a place that is none."""
    if given is None or isinstance(given, Fallback):
        return given
    if isinstance(given, str):
        raise ConfigError(f"fallback is a list of places: fallback=[{given!r}].")
    return Fallback(places=tuple(_place(each) for each in given)) if given else None


def _place(given: Any) -> Place:
    if isinstance(given, Place):
        return given
    if isinstance(given, str):
        return Place(url=given)
    if isinstance(given, Sequence) and len(given) == 2 and all(isinstance(each, str) for each in given):
        return Place(url=given[0], model=given[1])
    raise ConfigError(f"fallback: {given!r} is neither a Place nor (url, model) nor a URL.")


def server_of(place: Place, environ: Mapping[str, str]) -> Server:
    """Raises ConfigError for a URL that is none."""
    (server,) = candidates(place.url, place.api_key, environ)
    return server

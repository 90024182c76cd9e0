"""Where the hub is, by the variables that all its tools read."""

from __future__ import annotations

import os
from collections.abc import Mapping

from portico.messages import Value


class HubSettings(Value, frozen=True, kw_only=True):
    """Where the hub is, who asks, and where its cache lies. None: as huggingface_hub finds it itself."""

    endpoint: str | None = None
    token: str | None = None
    cache: str

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> HubSettings:
        """From HF_ENDPOINT, HF_TOKEN, HF_HUB_CACHE, HF_HOME and XDG_CACHE_HOME, as huggingface_hub does it."""

        def value(name: str) -> str | None:
            return environ.get(name, "").strip() or None

        def path(text: str) -> str:
            return os.path.expandvars(os.path.expanduser(text))

        home = value("HF_HOME") or os.path.join(value("XDG_CACHE_HOME") or path("~/.cache"), "huggingface")
        cache = value("HF_HUB_CACHE") or value("HUGGINGFACE_HUB_CACHE") or os.path.join(path(home), "hub")
        endpoint = (value("HF_ENDPOINT") or "").rstrip("/") or None
        return cls(endpoint=endpoint, token=value("HF_TOKEN"), cache=path(cache))

    def __repr__(self) -> str:
        """Without the token, so that it gets into no log."""
        return f"HubSettings(endpoint={self.endpoint!r}, cache={self.cache!r})"

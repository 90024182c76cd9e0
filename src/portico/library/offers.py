"""What the hub has, before anything of it is fetched: how large it is, and what its first bytes tell."""

from __future__ import annotations

import msgspec

from portico.engines import Facts
from portico.errors import DamagedFile, LibraryError
from portico.library import checkpoint, gguf
from portico.library.catalogue import Source
from portico.library.choice import Choice, choose
from portico.library.hub import Hub, Remote
from portico.messages import Value

MOST = gguf.WINDOW
"""Bytes of a file that are read. What describes a GGUF model stands in its first few thousand."""
_WEIGHTS = (".gguf", ".safetensors")


class Offer(Value, frozen=True, kw_only=True):
    """A model of the hub. `facts.size` counts the weights; what the hub did not tell is None."""

    repository: str
    license: str
    download: int
    """Bytes that a pull would fetch."""
    facts: Facts


def offer(hub: Hub, source: Source) -> Offer:
    """Raises Unreachable, Gated, PullFailed."""
    remote = hub.look(source.repository)
    choice = choose(remote.files, repository=remote.repository, quantization=source.quantization)
    weights = sum(file.size for file in choice.files if file.path.lower().endswith(_WEIGHTS))
    return Offer(
        repository=remote.repository,
        license=remote.license,
        download=sum(file.size for file in choice.files),
        facts=msgspec.structs.replace(_described(hub, remote, choice), size=weights),
    )


def _described(hub: Hub, remote: Remote, choice: Choice) -> Facts:
    """What it is, as far as the beginning of one file tells. A licence that is not accepted yet hides that, and
    not how large it is."""
    form = "gguf" if choice.main else "safetensors"
    try:
        content = hub.read(remote, choice.main or "config.json", MOST)
        return _of_gguf(gguf.beginning(content)) if choice.main else checkpoint.described(content)
    except (DamagedFile, LibraryError):
        return Facts(format=form)


def _of_gguf(values: dict[str, gguf.Scalar]) -> Facts:
    architecture = values.get("general.architecture")
    context = values.get(f"{architecture}.context_length")
    return Facts(
        architecture=architecture if isinstance(architecture, str) else None,
        family=architecture if isinstance(architecture, str) else None,
        format="gguf",
        context=context if isinstance(context, int) else None,
        metadata={name: value for name, value in values.items() if not isinstance(value, str)},
    )

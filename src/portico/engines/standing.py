"""How one model stands, as values: all that is known when it is decided what to do next."""

from __future__ import annotations

import math

from portico.engines import Account, Device, State
from portico.messages import Value


class Standing(Value, frozen=True, kw_only=True):
    """How one model stands. Times are the event loop's, in seconds; memory is in bytes."""

    name: str
    copy_of: str = ""
    """The model it is a further replica of; the first one has none."""
    state: State
    in_flight: int = 0
    waiting: int | None = None
    """Order of the caller who has waited longest; None: nobody waits."""
    leaving: int | None = None
    """Order of the wish to unload it, or to run it with other settings: who came before it is still served."""
    expires_at: float = math.inf
    """When it is unloaded if nobody uses it; infinity: never."""
    retry_at: float = 0.0
    """Before this it is not started again, because it failed too often."""
    revive_at: float = math.inf
    """It ran and has failed: when it is started again though nobody waits for it, until `expires_at`.
    Infinity: not."""
    failures: int = 0
    """How often it failed in a row."""

    occupies: bool = True
    """It takes memory of this machine: `max_loaded` counts it."""
    device: Device = "host"
    needs: int = 0
    """Memory of the host, or of each of its GPUs, that a start, or waking it, takes; 0: unknown."""
    by_gpu: dict[Account, int] = {}
    """... where that depends on which GPU it is."""
    count: int = 1
    """GPUs that it needs."""
    gpus: frozenset[Account] = frozenset()
    """Those that it has, also while it sleeps; none: it is on no GPU, or nobody knows on which."""
    without: frozenset[str] = frozenset()
    """Its last start ran out of memory beside these models: it is started once more, when none of them is loaded."""
    stays_until: float = 0.0
    """Before this it does not give way to another model: what has just been loaded is used first."""
    cut_at: float = math.inf
    """It is to give way and does not become idle: when it is stopped all the same."""

    level: int = 0
    """How deep it sleeps; 0: not."""
    deepest: int = 0
    """How deep it can; 0: it cannot."""
    nap_at: float = math.inf
    """When it goes to sleep, or sleeps deeper, if nobody uses it."""


def are_copies(one: Standing, other: Standing) -> bool:
    return (one.copy_of or one.name) == (other.copy_of or other.name)

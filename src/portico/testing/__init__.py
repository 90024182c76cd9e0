"""Doubles for tests of code that uses Portico.

scripted     ScriptedModel: a server on a real socket with answers that a test has written
fixtures     for pytest, found by itself: portico_recording, portico_model
engines      FakeEngine and FakeReplica: for tests of what starts and stops engines
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from portico.testing.engines import FakeEngine as FakeEngine
    from portico.testing.engines import FakeReplica as FakeReplica
    from portico.testing.scripted import Asked as Asked
    from portico.testing.scripted import Call as Call
    from portico.testing.scripted import Dropped as Dropped
    from portico.testing.scripted import Failure as Failure
    from portico.testing.scripted import ScriptedModel as ScriptedModel

_FROM = {
    "Asked": "scripted",
    "Call": "scripted",
    "Dropped": "scripted",
    "Failure": "scripted",
    "FakeEngine": "engines",
    "FakeReplica": "engines",
    "ScriptedModel": "scripted",
}
__all__ = sorted(_FROM)


def __getattr__(name: str) -> Any:
    """Loaded when used: pytest imports this package in every run of a project that has Portico."""
    if name not in _FROM:
        raise AttributeError(f"module 'portico.testing' has no attribute {name!r}")
    return getattr(import_module(f"portico.testing.{_FROM[name]}"), name)

"""A replica asked for one of its LoRA adapters."""

from __future__ import annotations

from typing import Any, cast

from portico.engines import Replica


def adapted(replica: Replica, name: str) -> Replica:
    """`replica` under the name of one of its adapters. All but the name is the replica's own, whether it lives
    included: an adapter has neither a tokenizer nor a chat template."""
    return cast(Replica, _Adapted(replica, name))


class _Adapted:
    def __init__(self, replica: Replica, name: str) -> None:
        self._replica, self.served_name = replica, name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replica, name)

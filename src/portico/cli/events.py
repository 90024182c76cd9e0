"""JSON Lines: what a command that takes its time tells a program, one object for each thing that happens."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click


class Events:
    """`{"schema": 1, "event": ..., "seq": ..., "at": ...}` and the event's own facts. Owns the numbers."""

    def __init__(self, *, to_stderr: bool = False) -> None:
        self._to_stderr = to_stderr
        self._number = 0

    def tell(self, event: str, **facts: Any) -> None:
        self._number += 1
        at = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        told = {"schema": 1, "event": event, "seq": self._number, "at": at} | facts
        click.echo(json.dumps(told), err=self._to_stderr)

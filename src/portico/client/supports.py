"""Whether a server can do what a call needs: asked when it is needed, and not again for what it has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from portico import recording
from portico.client import schemas
from portico.client.abilities import FEATURES, Ability, Asked, Feature, Software
from portico.client.remembered import Remembered
from portico.client.servers import Server
from portico.client.wishes import Call, Flow, Gate, Once
from portico.errors import ClientError, NotSupported


class Supports:
    """Owns what is known of one server. `home`: the folder where it is kept; None: nowhere."""

    def __init__(self, server: Server, home: Callable[[], Path] | None) -> None:
        self._server, self._asked = server, Asked(server)
        self._known: dict[tuple[str, str], Ability] = {}
        self._asking: dict[tuple[str, str], Gate] = {}
        self._remembered = Remembered(home) if home is not None else None

    def software(self) -> Flow[Software]:
        return (yield from self._asked.software())

    def ability(self, feature: Feature, model: str) -> Flow[Ability]:
        """Raises ClientError where the server does not answer.

        1. A replay has it from its recording, whatever was known by itself then. 2. What the server has is known. 3. What it
        lacks is asked again: it may have been started anew. Several who ask at once ask once.
        """
        about = {"feature": feature, "model": model}
        journal = recording.current()
        if isinstance(journal, recording.Player):  # (1)
            return msgspec.convert(journal.answer("ability", about), Ability)
        key = (feature, model)
        found = self._known.get(key)
        if found is None or found.state != "yes":  # (3)
            gate = self._asking.setdefault(key, Gate())
            found = yield Once(gate, lambda: self._learnt(feature, model))
            self._known[key] = found
        if journal is not None:
            journal.keep(journal.asked(), "ability", about, msgspec.to_builtins(found))
        return found

    def _learnt(self, feature: Feature, model: str) -> Flow[Ability]:
        software = yield from self._asked.software()
        where = {"url": self._server.url, "software": software, "model": model}
        kept = self._remembered
        if kept is not None and feature in (before := (yield Call(kept.read, where))):
            known: Ability = before[feature]
            return known
        found = yield from self._asked.ability(feature, model)
        found = msgspec.structs.replace(found, server=str(software))
        if kept is not None and found.state == "yes":
            yield Call(kept.write, {**where, "ability": found})
        return found

    def require(self, feature: Feature, model: str) -> Flow[Ability | None]:
        """Raises NotSupported for what the server is known not to have; what nobody knows is tried."""
        try:
            found = yield from self.ability(feature, model)
        except ClientError:
            return None  # whether it answers at all is for the request itself to tell, with its retries
        if found.state == "no":
            raise self._lacking(found)
        return found

    def enforces(self, schema: Any, model: str) -> Flow[None]:
        """Raises NotSupported for keywords that the server's grammars are known to overlook."""
        used = tuple(schemas.keywords(schema))
        if not used:
            return
        try:
            found = yield from self.ability("json_schema", model)
        except ClientError:
            return
        if lost := [str(each) for each in used if each.name in found.without]:
            error = NotSupported(
                f"{found.server} cannot hold {model} to a part of this schema: {', '.join(lost)}. Leave that out "
                "of the schema, and check it afterwards.",
                feature="json_schema",
            )
            error.url = self._server.url
            raise error

    def honours(self, parameters: Sequence[str], model: str) -> Flow[None]:
        """Raises NotSupported for parameters that the server is known to overlook."""
        try:
            found = yield from self.ability("sampling", model)
        except ClientError:
            return
        if lost := [name for name in parameters if name in found.without]:
            error = NotSupported(
                f"{found.server} would overlook {', '.join(lost)} with {model}: leave that out, or ask a model that vLLM runs.",
                feature=lost[0],
            )
            error.url = self._server.url
            raise error

    def _lacking(self, found: Ability) -> NotSupported:
        why = f": {found.why}" if found.why else ""
        error = NotSupported(
            f"{found.server} does not offer {found.feature}{why}.", feature=found.feature, flag=found.flag
        )
        error.url = self._server.url
        return error

    def all(self, model: str) -> Flow[tuple[Ability, ...]]:
        found = []
        for feature in FEATURES:
            try:
                found.append((yield from self.ability(feature, model)))
            except ClientError as error:
                found.append(Ability(feature=feature, state="unknown", why=str(error.args[0])))
        return tuple(found)

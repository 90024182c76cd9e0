"""Where models are kept: at the server that answers, else in the data folder of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from portico.cli.failure import Failure
from portico.cli.replies import Pulling, Shown, Tags
from portico.cli.server import Server

if TYPE_CHECKING:
    from portico.cli.address import Address


class Shelf(Protocol):
    """What `ls`, `show`, `pull`, `rm` and `cp` need. Methods raise Failure or a PorticoError."""

    def listing(self) -> Tags: ...

    def show(self, model: str) -> Shown: ...

    def delete(self, model: str) -> None: ...

    def copy(self, source: str, destination: str) -> None: ...

    def pull(self, model: str) -> Iterator[Pulling]: ...


@contextmanager
def opened(address: Address, environ: Mapping[str, str]) -> Iterator[Shelf]:
    """The server if one answers. A server on another machine, or one named by --host, is never replaced by
    the disk: what is listed or removed must be what was asked for."""
    with Server(address) as server:
        if not address.here or address.origin == "--host" or _answers(server):
            yield server
            return
    from portico.cli.on_disk import OnDisk

    yield OnDisk(environ)


def _answers(server: Server) -> bool:
    try:
        server.version()
    except Failure as failure:
        if failure.slug == "unreachable":
            return False
        raise
    return True

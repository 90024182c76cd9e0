"""Where engines listen: a unix socket in a folder that only this user can enter.

No port: nothing on the network and no web page can reach it, and two servers cannot take the same.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
import stat
import sys
import tempfile
import time
from pathlib import Path

from portico.leftovers import began, boot

LONGEST = 100
"""Bytes of a path; the kernel takes 107 on Linux and 103 on macOS."""
_OLD = 86400.0
"""Seconds after which a socket of a server that cannot be seen from here (another container, an earlier start of the
machine) is one that nobody will ever listen to."""


def new(folder: Path | None = None) -> str | None:
    """A path for a new socket; None where there can be none, or only with a path that is too long."""
    if sys.platform == "win32":
        return None
    try:
        folder = folder or _private(Path(tempfile.gettempdir()) / f"portico-{os.getuid()}")
        _sweep(folder)
    except OSError:
        return None  # no folder for temporary files: a port will do
    path = str(folder / f"{_owner(os.getpid())}-{secrets.token_hex(4)}.sock")
    return path if len(os.fsencode(path)) <= LONGEST else None


def remove(path: str | None) -> None:
    if path is not None:
        Path(path).unlink(missing_ok=True)


def _private(folder: Path) -> Path:
    """`folder`, if it is ours alone. In a shared /tmp somebody else may have made it first, to listen in."""
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid() and not found.st_mode & 0o077
    return folder if ours else Path(tempfile.mkdtemp(prefix="portico-"))


def _owner(pid: int) -> str:
    """What the names of a process's sockets begin with: no other process, here or elsewhere, has the same."""
    return f"{_short(boot())}-{pid}-{_short(began(pid))}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def _sweep(folder: Path) -> None:
    """Removes what servers left behind that were killed. By the server, not by whether somebody listens: vLLM binds its
    socket first and listens when the model is loaded, minutes later."""
    here = _short(boot())
    for path in folder.glob("*.sock"):
        place, _, rest = path.name.partition("-")
        pid = rest.partition("-")[0]
        if place == here and pid.isdigit():
            if not path.name.startswith(_owner(int(pid)) + "-"):
                path.unlink(missing_ok=True)
        else:
            _remove_deserted(path)


def _remove_deserted(path: Path) -> None:
    try:
        if time.time() - path.lstat().st_mtime < _OLD:
            return
        with socket.socket(socket.AF_UNIX) as probe:
            probe.setblocking(False)
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink(missing_ok=True)
    except OSError:
        pass  # gone already, or alive with a full queue

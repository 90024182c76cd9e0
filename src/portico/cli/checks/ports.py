"""The address that the commands use, and the ports that servers and their clients expect each other on."""

from __future__ import annotations

import errno
import socket
from typing import NamedTuple

from portico.cli.checks import Check, State
from portico.cli.checks.keys import Key
from portico.cli.checks.who import OLLAMA, OPENAI, PORTICO, VLLM, Seen

GROUP = "server"
PORT, VLLM_PORT = 11434, 8000


class Holder(NamedTuple):
    """A program that listens on a port of this machine."""

    pid: int
    name: str


def holder(port: int) -> Holder | None:
    """Who listens there; None: nobody, or somebody else's program that we may not see."""
    import psutil

    try:
        for each in psutil.net_connections("tcp"):
            if each.status == psutil.CONN_LISTEN and each.laddr and each.laddr.port == port and each.pid:
                return Holder(each.pid, psutil.Process(each.pid).name())
    except (psutil.Error, OSError):
        pass
    return None


def bindable(host: str, port: int) -> str:
    """Why nothing can listen there; empty: it can."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        try:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EPERM):
                return "listening there is not allowed to you"
            return error.strerror or str(error)
    return ""


def address(
    seen: Seen, *, origin: str | None, here: bool, key: Key, who: Holder | None = None, closed: str = ""
) -> Check:
    """The server that the other commands ask. `origin`: the variable or file that names it; `key`: what it
    was sent; `closed`: why nothing can listen there, where nothing does."""
    source = f"from {origin}" if origin else "the default"

    def line(state: State, found: str, do: str = "") -> Check:
        return Check(GROUP, "address", state, f"{found} ({source})", do)

    if seen.silence is not None:
        if seen.silence.why != "refused":
            return line("fail", seen.silence.found(seen.url), _unblocked(who, here, origin))
        if here and closed:
            return line("fail", f"{seen.url} answers nobody, and is not free: {closed}", _elsewhere(seen.url))
        if here:
            return line("skip", f"{seen.silence.found(seen.url)}; the port is free", "portico serve")
        do = f"start it there, on more than its loopback: `portico serve --host 0.0.0.0`; or {_undo(origin)}"
        return line("fail", seen.silence.found(seen.url), do)
    if seen.locked:
        return line("fail", f"{seen.called or 'the server'} at {seen.url} {key.refused}", key.mended)
    match seen.kind:
        case kind if kind == PORTICO:
            return line("ok", f"{seen.called} at {seen.url}, {_count(seen)}")
        case kind if kind == OLLAMA:
            found = f"{seen.called} at {seen.url}, {_count(seen)}"
            if origin:
                return line("ok", found)
            stop = "or stop it: `systemctl stop ollama`"
            return line("warn", f"{found}: it has Portico's port", f"`{_elsewhere(seen.url)}`, {stop}")
        case kind if kind in (VLLM, OPENAI) or seen.names is not None:
            found = f"{seen.called} at {seen.url} has no Ollama API, which ls, ps and chat use"
            return line("warn", found, f"portico serve --engine {seen.url}/v1 --port {_beside(seen.url)}")
    program = f" ({who.name}, pid {who.pid})" if who else ""
    return line("fail", f"another program{program} listens at {seen.url}", _elsewhere(seen.url))


def vllms_port(seen: Seen) -> Check:
    """Port 8000 of this machine, where vLLM's clients look unless they are told otherwise."""
    name = f"port {VLLM_PORT}"
    if seen.silence is not None and seen.silence.why == "refused":
        found = "nothing listens there; vLLM's clients look there unless they are told otherwise"
        return Check(GROUP, name, "skip", found, f"portico serve --port {VLLM_PORT}")
    if seen.silence is not None:
        return Check(GROUP, name, "skip", seen.silence.found(seen.url))
    if seen.kind:
        names = f" with {_some(seen.names)}" if seen.names else " that wants a key" if seen.locked else ""
        return Check(GROUP, name, "ok", f"{seen.called}{names}")
    return Check(GROUP, name, "skip", "another program listens there, and no model's server")


def own_port(seen: Seen, who: Holder | None = None, closed: str = "") -> Check:
    """Port 11434 of this machine, where the commands are told to look elsewhere."""
    name = f"port {PORT}"
    if seen.silence is not None and seen.silence.why == "refused" and not closed:
        return Check(GROUP, name, "skip", "free on this machine")
    if seen.kind == PORTICO:
        return Check(GROUP, name, "ok", f"{seen.called}, which the commands do not ask")
    program = f" ({who.name}, pid {who.pid})" if who else ""
    found = f"{seen.called or 'another program'}{program} listens there{': ' + closed if closed else ''}"
    return Check(GROUP, name, "warn", found, f"portico serve --port {PORT + 1}")


def _count(seen: Seen) -> str:
    count = len(seen.names or ())
    ready = sum(1 for model in seen.models if model.state != "failed")
    return f"{count} model{'s' if count != 1 else ''}, {ready} loaded"


def _some(names: tuple[str, ...] | None) -> str:
    names = names or ()
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _elsewhere(url: str) -> str:
    return f"portico serve --port {_beside(url)}"


def _beside(url: str) -> int:
    """A port that is not the one of `url`."""
    port = url.rpartition(":")[2]
    return int(port) + 1 if port.isdigit() and int(port) < 65535 and int(port) != PORT - 1 else PORT


def _unblocked(who: Holder | None, here: bool, origin: str | None) -> str:
    if who is not None:
        return f"stop it ({who.name}, pid {who.pid}), or take another port: `portico serve --port {PORT + 1}`"
    return f"portico serve --port {PORT + 1}" if here else _undo(origin)


def _undo(origin: str | None) -> str:
    return f"unset {origin}" if origin and origin.isupper() else f"name another address in {origin}"

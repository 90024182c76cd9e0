"""What one install brings: how many packages, how many bytes, and what an import of it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
MOST_PACKAGES, MOST_BYTES = 60, 300_000_000
NEVER = {"torch", "openai", "transformers", "litellm", "langchain-core", "vllm"}
IMPORT_SECONDS = 0.1
"""CPU time of `import portico`: 0.01 s were measured, so a machine may be ten times as slow."""
HEAVY = ("httpx2", "pydantic", "openai", "torch", "msgspec", "asyncio", "click", "rich", "dbos")


@cache
def project() -> dict[str, Any]:
    return dict(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8")))


@cache
def closure() -> dict[str, Distribution]:
    """Every package that an install without extras brings, as this environment has it."""
    found: dict[str, Distribution] = {}
    extras: dict[str, set[str]] = {}
    waiting = [Requirement(text) for text in project()["project"]["dependencies"]]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        if name in found and wanted.extras <= extras[name]:
            continue
        try:
            package = distribution(name)
        except PackageNotFoundError:
            pytest.fail(f"{name} is not installed here: `make test` sees to it")
        found[name] = package
        asked = extras.setdefault(name, set()) | wanted.extras
        extras[name] = asked
        for text in package.requires or ():
            more = Requirement(text)
            choices = [{"extra": extra} for extra in (asked or {""})]
            if more.marker is None or any(more.marker.evaluate(choice) for choice in choices):
                more.marker = None
                waiting.append(more)
    return found


def size(package: Distribution) -> int:
    """Bytes of its files; compiled Python, which comes at first use, not counted."""
    paths = [Path(str(package.locate_file(file))) for file in package.files or ()]
    return sum(path.stat().st_size for path in paths if path.suffix != ".pyc" and path.is_file())


def test_one_install_is_few_packages_and_small() -> None:
    packages = closure()
    ours = sum(path.stat().st_size for path in (ROOT / "src").rglob("*") if path.suffix in (".py", ".toml"))
    model = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    ours += sum((ROOT / path).stat().st_size for path in model)
    total = ours + sum(map(size, packages.values()))
    largest = sorted(((size(each), name) for name, each in packages.items()), reverse=True)[:5]
    assert len(packages) + 1 <= MOST_PACKAGES, sorted(packages)
    assert 10_000_000 < total <= MOST_BYTES, (total, largest)
    assert {"msgspec", "httpx2", "pydantic", "xllamacpp"} <= set(packages), "the walk finds what there is"


def test_none_of_them_is_one_that_was_ruled_out() -> None:
    assert not NEVER & set(closure())


def imported(code: str) -> dict[str, Any]:
    """CPU seconds of a program's imports, and which heavy modules it then has."""
    program = (
        "import json, sys, time\n"
        "began = time.process_time()\n"
        f"{code}\n"
        "took = time.process_time() - began\n"
        f"print(json.dumps({{'took': took, 'heavy': [name for name in {HEAVY!r} if name in sys.modules]}}))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_an_import_is_light() -> None:
    """Nothing heavy is loaded, so nothing heavy is paid for."""
    found = min((imported("import portico") for _ in range(3)), key=lambda each: each["took"])
    assert found["heavy"] == []
    assert found["took"] < IMPORT_SECONDS
    assert imported("import portico.testing.fixtures")["heavy"] == [], "pytest loads it in every run"


def test_a_client_loads_what_it_needs_and_no_more() -> None:
    heavy = imported("from portico import AsyncClient, Client")["heavy"]
    assert not {"pydantic", "openai", "torch", "click", "rich", "dbos"} & set(heavy)

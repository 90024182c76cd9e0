"""The house stays as it is drawn: imports only go down, and rooms have names that say what is in them."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "src" / "portico"

FLOORS: tuple[frozenset[str], ...] = tuple(
    map(
        frozenset,
        (
            {"errors", "messages", "prompts", "disk"},
            {"config", "names", "dialects"},
            {"ollama_env"},
            {"config_file"},
            {"guard", "leftovers"},
            {"web", "process", "recording"},
            {"engines", "library", "client"},
            {"gateway", "testing"},
            {"configured", "fetching"},
            {"inprocess", "background"},
            {"cli", "amplifier"},
            {"__main__"},
        ),
    )
)
"""From the ground up. A room may know the floors below it, and neighbours do not know each other."""
ALLOWED_ANYWAY = {
    ("library", "portico.engines"): {"Facts", "ModelSpec"},  # the words for what a model is
}
FORBIDDEN = {"utils", "util", "helper", "helpers", "manager", "handler", "handlers", "core", "common", "base"}
FORBIDDEN |= {"data", "info", "misc", "stuff"}


def modules() -> Iterator[tuple[Path, str, ast.Module]]:
    """Every source file with its room and its syntax tree."""
    for path in sorted(PACKAGE.rglob("*.py")):
        room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        yield path, room, ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.Module) -> Iterator[tuple[str, set[str], int]]:
    """(module, names, line) of every import of our own, wherever it stands: a lazy import is one too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that their floor can be read"
            if (node.module or "").split(".")[0] == "portico":
                yield node.module or "", {alias.name for alias in node.names}, node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "portico":
                    yield alias.name, set(), node.lineno


def floor_of(room: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def rooms_of(module: str, names: set[str]) -> set[str]:
    """`from portico import errors` leads into the room errors; `from portico import __version__` into none."""
    parts = module.split(".")
    if len(parts) > 1:
        return {parts[1]}
    return {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists()}


def test_every_module_is_on_a_floor() -> None:
    rooms = {room for _, room, _ in modules()} - {"__init__"}
    assert {room for room in rooms if floor_of(room) < 0} == set()


def test_imports_only_go_down() -> None:
    wrong = []
    for path, room, tree in modules():
        for module, names, line in imports(tree):
            for target in rooms_of(module, names):
                below = floor_of(target) < floor_of(room)
                allowed = names and names <= ALLOWED_ANYWAY.get((room, module), set())
                if room != "__init__" and target != room and not below and not allowed:
                    wrong.append(f"{path.relative_to(ROOT)}:{line} imports {module}")
    assert wrong == []


def test_the_ground_floor_does_no_io() -> None:
    """Dialects are bytes to values and back; whoever tests or reuses them needs no network and no loop."""
    wrong = []
    for path, room, tree in modules():
        if room not in ("errors", "messages", "names", "dialects"):
            continue
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            tops = {name.split(".")[0] for name in names}
            wrong += [
                f"{path.name}: {top}" for top in tops & {"asyncio", "socket", "os", "subprocess", "httpx2"}
            ]
    assert wrong == []


def test_names_say_what_is_inside() -> None:
    wrong = []
    for path, _, tree in modules():
        if FORBIDDEN & set(re.split(r"[_/.]", str(path.relative_to(PACKAGE).with_suffix("")))):
            wrong.append(str(path))
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef) and re.search(
                r"(Manager|Helper|Handler|Utils?|Info|Data)$", node.name
            ):
                wrong.append(f"{path.name}: class {node.name}")
    assert wrong == []


def test_every_module_says_what_it_is_for() -> None:
    assert [str(path) for path, _, tree in modules() if not ast.get_docstring(tree)] == []


def test_whoever_catches_everything_says_why() -> None:
    wrong = []
    for path, _, _ in modules():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"except (Exception|BaseException)\b.*:|except:", line) and "#" not in line:
                following = path.read_text(encoding="utf-8").splitlines()[number : number + 8]
                if not any(re.match(r"\s+raise\b", each) or "#" in each for each in following):
                    wrong.append(f"{path.relative_to(ROOT)}:{number}")
    assert wrong == []


def test_the_environment_is_read_by_the_ways_in_alone() -> None:
    """Settings are read once and passed on; a variable read deep inside could not be seen from outside."""
    ways_in = {"inprocess", "background", "cli", "amplifier", "__main__", "process"}
    programs = {"llamacpp_child.py"}  # started as a process of its own
    programs |= {"client.py", "async_client.py"}  # a user's way in
    wrong = []
    for path, room, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and ast.unparse(node) in ("os.environ", "os.getenv"):
                wrong += (
                    []
                    if room in ways_in or path.name in programs
                    else [f"{path.relative_to(ROOT)}:{node.lineno}"]
                )
    assert wrong == []


def test_the_map_names_every_room() -> None:
    text = (ROOT / "docs" / "house.md").read_text(encoding="utf-8")
    rooms = {room for _, room, _ in modules()} - {"__init__", "__main__"}
    assert {room for room in rooms if not re.search(rf"\b{room}\b", text)} == set()


def test_the_locked_clients_name_no_registry() -> None:
    """Whoever installs them may use a mirror."""
    lock = (ROOT / "tests" / "npm" / "package-lock.json").read_text(encoding="utf-8")
    assert "resolved" not in lock and '"integrity": "sha512-' in lock


@pytest.mark.parametrize(
    "name", ["LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "README.md", "Makefile", ".ci/run"]
)
def test_what_a_project_needs_is_there(name: str) -> None:
    assert (ROOT / name).stat().st_size > 100


def test_the_lowest_python_is_the_one_that_is_promised() -> None:
    assert 'requires-python = ">=3.11"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert sys.version_info >= (3, 11)

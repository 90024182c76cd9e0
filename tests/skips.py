"""In CI a skipped test is a failed one, unless tests/allowed_skips.txt names it.

A test that is skipped where everything is installed has stopped testing, and nobody reads the list of skips.
Elsewhere skips are only listed, each with its reason (pytest's -ra).
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator
from pathlib import Path

import pytest

ALLOWED = Path(__file__).parent / "allowed_skips.txt"


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def is_allowed(nodeid: str, lines: list[str]) -> bool:
    """Each line is a test's node id, `*` standing for anything; `#` begins the reason. Brackets are those of a
    parameter's value."""
    patterns = (line.partition("#")[0].strip() for line in lines)
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), nodeid) for pattern in patterns if pattern
    )


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if not in_ci() or not report.skipped or hasattr(report, "wasxfail"):
        return
    lines = ALLOWED.read_text(encoding="utf-8").splitlines() if ALLOWED.exists() else []
    if not is_allowed(report.nodeid, lines):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{reason}\nIn CI a skip is a failure unless tests/{ALLOWED.name} names it."


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _refuse(report)
    return report

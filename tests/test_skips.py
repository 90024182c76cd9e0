"""A skip in CI fails, unless it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from skips import in_ci, is_allowed

pytest_plugins = ["pytester"]

HERE = Path(__file__).parent
TESTS = """
import pytest
def test_runs(): pass
@pytest.mark.skip(reason="no such thing here")
def test_skipped(): pass
def test_skips_inside(): pytest.skip("not today")
@pytest.mark.skip(reason="known")
def test_named(): pass
@pytest.mark.xfail(strict=True)
def test_expected_to_fail(): raise ValueError
"""
MODULE = 'import pytest\npytest.skip("no client", allow_module_level=True)\n'


@pytest.fixture
def suite(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")  # they cost seconds and play no part
    pytester.makepyfile(
        conftest="from skips import *",
        skips=(HERE / "skips.py").read_text(encoding="utf-8"),
        test_things=TESTS,
        test_whole=MODULE,
    )
    pytester.makefile(".txt", allowed_skips="# a comment\n*::test_named  # known everywhere")
    return pytester


def test_a_skip_in_ci_is_a_failure(suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    result = suite.runpytest_subprocess("-ra", "--continue-on-collection-errors")
    result.assert_outcomes(passed=1, skipped=1, failed=1, xfailed=1, errors=2)
    result.stdout.fnmatch_lines(["*no such thing here*", "*In CI a skip is a failure*"])
    assert result.ret == pytest.ExitCode.TESTS_FAILED


def test_elsewhere_it_is_listed_with_its_reason(
    suite: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CI", raising=False)
    result = suite.runpytest_subprocess("-ra")
    result.assert_outcomes(passed=1, skipped=4, xfailed=1)
    for reason in ("no client", "no such thing here", "not today", "known"):
        result.stdout.fnmatch_lines([f"SKIPPED*{reason}*"])


@pytest.mark.parametrize(
    ("value", "expected"), [("true", True), ("1", True), ("", False), ("false", False), ("0", False)]
)
def test_what_counts_as_ci(monkeypatch: pytest.MonkeyPatch, value: str, expected: bool) -> None:
    monkeypatch.setenv("CI", value)
    assert in_ci() is expected


def test_only_what_is_named_is_allowed() -> None:
    lines = ["# test_b", "", "tests/test_a.py::test_x  # macOS has no such call", "tests/test_c.py::*"]
    assert is_allowed("tests/test_a.py::test_x", lines)
    assert is_allowed("tests/test_c.py::test_anything[1]", lines)
    assert not is_allowed("tests/test_a.py::test_xy", lines)
    assert not is_allowed("tests/test_b.py::test_b", lines)


def test_the_brackets_of_a_parameter_are_meant_as_they_stand() -> None:
    lines = ["tests/test_a.py::test_b[vllm]  # a difference"]
    assert is_allowed("tests/test_a.py::test_b[vllm]", lines)
    assert not is_allowed("tests/test_a.py::test_bv", lines)
    assert not is_allowed("tests/test_a.py::test_b[llamacpp]", lines)

"""A plugin of pytest: lines that run from here on are of this test, in this process and in those that it starts.

Loaded by `known.py` alone, in a copy whose Python starts coverage.py by itself (COVERAGE_PROCESS_START). Threads count
for the test that runs while they do; lines that run while a module is imported count for none.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import coverage
import pytest

TEST: Final = "FLUX_MUTANTS_TEST"  # what the configuration of coverage.py reads the context of a process from
REPORT: Final = "FLUX_MUTANTS_REPORT"

_seconds: dict[str, float] = {}
_failed: set[str] = set()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    here = coverage.Coverage.current()
    assert here is not None
    here.switch_context(item.nodeid)
    os.environ[TEST] = item.nodeid
    try:
        return (yield)
    finally:
        os.environ.pop(TEST, None)
        here.switch_context("")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _seconds[report.nodeid] = _seconds.get(report.nodeid, 0.0) + report.duration
    if report.failed or report.skipped:
        _failed.add(report.nodeid)


def pytest_sessionfinish() -> None:
    passed = {test: seconds for test, seconds in _seconds.items() if test not in _failed}
    Path(os.environ[REPORT]).write_text(json.dumps(passed))

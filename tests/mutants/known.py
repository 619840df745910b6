"""Which tests run which lines, and how long each takes: measured on the unchanged copy, a test file at a time, and
remembered in build/mutants. So a mutant is judged by the tests that run its line, and those that take the least first.

What is remembered holds for one state of the sources and of what the tests share; a test file that changed is
measured again, alone. What a killed process ran is not seen, so no line is taken for one that no test runs: for those
the tests nearest to the file are asked (`nearest.py`).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from coverage import CoverageData
from coverage.exceptions import CoverageException

from tests.mutants.marked import REPORT, TEST
from tests.mutants.nearest import ROOMS, ROOT, matching, nearest, sources
from tests.mutants.trial import Copy, tracked

FOLDER: Final = ROOT / "build" / "mutants"
_OTHER: Final = (  # in the names of tests of system/ that are long, or of something else
    *(
        "bench",
        "cimport",
        "codec",
        "demo",
        "find_max",
        "kill",
        "loadgen",
        "mutate",
        "nth_call",
        "packaging",
        "peers",
    ),
    *("cli", "gates", "power_cuts", "terminal", "through"),
)
_SETTINGS: Final = """[run]
parallel = True
sigterm = True
context = ${{{test}-}}
data_file = {folder}/seen
include =
    {include}
"""


class Tests(NamedTuple):
    """What is known of the tests of one file."""

    seconds: dict[str, float]  # by test; those alone that pass
    lines: dict[str, dict[int, list[str]]]  # by source file and line: the tests that run it


class Known:
    """What is known of all test files; `measure` has to be called for a file first."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or FOLDER / _of_the_tree()
        self._folder.mkdir(parents=True, exist_ok=True)
        self._files: dict[str, Tests] = {}

    def measure(self, copy: Copy | None, files: Iterable[str]) -> None:
        """Measure those of these test files of which nothing is remembered; without a copy there must be none."""
        for file in files:
            digest = hashlib.sha256((ROOT / file).read_bytes()).hexdigest()[:16]
            at = self._folder / f"{file.replace('/', '.')}.{digest}.json"
            if not at.exists():
                assert copy is not None, file
                found = _measured(copy, file)
                print(
                    f"     {file}: {len(found.seconds)} tests in {sum(found.seconds.values()):.0f} s",
                    flush=True,
                )
                part = at.with_suffix(f".{os.getpid()}")
                part.write_text(json.dumps(found))
                part.rename(at)
            seconds, lines = json.loads(at.read_text())
            self._files[file] = Tests(
                seconds,
                {path: {int(line): tests for line, tests in of.items()} for path, of in lines.items()},
            )

    def running(self, path: str, lines: Iterable[int]) -> list[str]:
        """The tests that run any of these lines, those that take the least first."""
        lines = list(lines)
        found = {
            test: of.seconds[test]
            for of in self._files.values()
            for line in lines
            for test in of.lines.get(path, {}).get(line, ())
            if test in of.seconds
        }
        return sorted(found, key=lambda test: (found[test], test))

    def of_files(self, files: Sequence[str]) -> list[str]:
        """All tests of these files, those that take the least first."""
        found = {test: seconds for file in files for test, seconds in self._files[file].seconds.items()}
        return sorted(found, key=lambda test: (found[test], test))

    def seconds(self, tests: Iterable[str]) -> float:
        return sum(self._files[test.partition("::")[0]].seconds[test] for test in tests)


def measured_files() -> list[str]:
    """The test files that may run lines of the rooms: all that are near to one, of unit/, and the quick of system/."""
    near = {name for path in sources() for name in nearest(path)} | set(matching("unit/test_*"))
    quick = {name for name in matching("system/test_*") if not any(part in name for part in _OTHER)}
    return sorted(near | quick)


def _of_the_tree() -> str:
    """Of all that a test may depend on but its own file."""
    whole = hashlib.sha256(repr(ROOMS).encode())
    for name in tracked():
        at = Path(name)
        own = at.parts[0] == "tests" and (at.name.startswith("test_") or "mutants" in at.parts)
        if not own and at.parts[0] in ("src", "ext", "schemas", "tests", "pyproject.toml", "CMakeLists.txt"):
            whole.update(name.encode() + b"\0" + (ROOT / name).read_bytes())
    return whole.hexdigest()[:16]


def _measured(copy: Copy, file: str) -> Tests:
    folder = copy.root / "build" / "seen"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rooms = [copy.root / (room if room.endswith(".py") else f"{room}/*") for room in ROOMS]
    include = "\n    ".join(str(room) for room in rooms)
    settings, report = folder / "settings", folder / "report.json"
    settings.write_text(_SETTINGS.format(folder=folder, include=include, test=TEST))
    env = {"COVERAGE_PROCESS_START": str(settings), REPORT: str(report)}
    copy.run_all(file, env)
    passed = json.loads(report.read_text()) if report.exists() else {}
    lines: dict[str, dict[int, set[str]]] = {}
    for part in folder.glob("seen.*"):
        data = CoverageData(str(part))
        try:
            data.read()
        except CoverageException:
            continue  # its process was killed while it wrote
        for seen in data.measured_files():
            path = str(Path(seen).relative_to(copy.root))
            for line, tests in data.contexts_by_lineno(seen).items():
                lines.setdefault(path, {}).setdefault(line, set()).update(
                    test for test in tests if test in passed
                )
    return Tests(
        passed, {path: {line: sorted(tests) for line, tests in of.items()} for path, of in lines.items()}
    )

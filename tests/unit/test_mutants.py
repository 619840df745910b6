"""The mutator itself (tools/mutate): what it changes, what it leaves alone, and that its lists are true of the code."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from tests.mutants.__main__ import REASONS, drawn, lines_of, reasons
from tests.mutants.known import Known, measured_files
from tests.mutants.mutations import changed_line, mutants, parses
from tests.mutants.nearest import ROOT, matching, named, nearest, sources
from tests.mutants.planted import PLANTED

SAMPLE = b'''"""A docstring with 1 < 2."""
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    import ast
LIMIT = 250
Rows: TypeAlias = int | None

@dataclass(frozen=True)
class Kept:
    size: int | None = 8

def check(rows, flag=True):
    """Another, a == b."""
    if rows < LIMIT and not flag:
        raise ValueError("more than 3")
    _LOG.warning("a log of %d", 5)
    rows.count += 1
    assert rows != 7
    return rows - 1 if rows in SEEN else None
'''


def changes() -> set[tuple[str, str]]:
    return {(one.what, list(changed_line(SAMPLE, one))[1]) for one in mutants("sample.py", SAMPLE)}


def test_what_is_changed() -> None:
    assert changes() == {
        ("constant", "LIMIT = (250 * 1000)"),
        ("constant", "size: int | None = (8 * 1000)"),
        ("constant", "def check(rows, flag=False):"),
        ("if", "if not (rows < LIMIT and not flag):"),
        ("compare", "if rows <= LIMIT and not flag:"),
        ("and/or", "if rows < LIMIT or not flag:"),
        ("not", "if rows < LIMIT and flag:"),
        ("statement", "pass"),
        ("constant", "rows.count += (1 + 1)"),
        ("return", "return None"),
        ("compute", "return rows + 1 if rows in SEEN else None"),
        ("constant", "return rows - (1 + 1) if rows in SEEN else None"),
        ("compare", "return rows - 1 if rows not in SEEN else None"),
    }


def test_only_what_stands_in_a_function_has_lines_that_a_test_runs() -> None:
    at = {one.new: lines_of(SAMPLE, one.begin, one.end) for one in mutants("sample.py", SAMPLE)}
    assert (at["(250 * 1000)"], at["False"]) == (range(0), range(0)), "they run at the import"
    assert (at["<="], at["(1 + 1)"]) == (range(14, 15), range(19, 20))


def test_a_mutant_differs_in_one_place_and_parses() -> None:
    for path in ("src/flux/protocol/coordinator.py", "src/flux/server/pipeline/committer.py"):
        text = (ROOT / path).read_bytes()
        found = mutants(path, text)
        assert len(found) > 50
        sound = [one for one in found if parses(one.applied(text))]  # what does not parse is not drawn
        assert len(sound) > 0.98 * len(found)
        for one in sound[::10]:
            made = one.applied(text)
            assert made != text
            assert made[: one.begin] == text[: one.begin]
            assert made[len(made) - (len(text) - one.end) :] == text[one.end :]


def test_the_same_seed_draws_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (drawn(12, seed, "src/flux/protocol") for seed in (1, 1, 2))
    assert first == again != other
    assert len({change.content for change in first}) == 12


def test_every_file_of_the_rooms_has_tests_near_it() -> None:
    for path in sources():
        assert all((ROOT / name).is_file() for name in nearest(path)), path


def test_every_glob_stands_for_a_test() -> None:
    globs = named().union(*(one.tests for one in PLANTED))
    assert [glob for glob in sorted(globs) if not matching(glob)] == []


@pytest.mark.parametrize("planted", PLANTED, ids=lambda planted: planted.name)
def test_a_planted_change_has_its_place(planted: object) -> None:
    """The code moved: let tests/mutants/planted.py follow, so that the promise goes on being watched."""
    (one,) = [other for other in PLANTED if other is planted]
    here = (ROOT / one.path).read_text().count(one.old)
    assert here == 1 or (one.every and here > 1)
    assert one.old != one.new


def test_names_of_planted_changes_differ() -> None:
    assert len({one.name for one in PLANTED}) == len(PLANTED)


def test_every_survivor_has_a_reason_and_its_place() -> None:
    for shown, why in reasons(REASONS.read_text()).items():
        assert why, shown
        path, _, change = shown.partition(": ")
        before = change.partition(" => ")[0]
        text = (ROOT / path).read_text()
        assert before in " ".join(text.split()), f"{Path(path).name} has no such line any more: {before}"


def known_from(folder: Path, lines: dict[str, dict[str, list[str]]], **seconds: float) -> Known:
    """As if that were remembered of this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    remembered = folder / f"tests.unit.test_mutants.py.{digest}.json"
    remembered.write_text(json.dumps([{f"{THIS}::{test}": took for test, took in seconds.items()}, lines]))
    known = Known(folder)
    known.measure(None, [THIS])
    return known


THIS = "tests/unit/test_mutants.py"


def test_the_tests_that_run_a_line_come_the_quickest_first(tmp_path: Path) -> None:
    a, b, c = (f"{THIS}::{test}" for test in "abc")
    lines = {"src/x.py": {"3": [a, b], "4": [c], "7": []}}
    known = known_from(tmp_path, lines, a=2.0, b=1.0, c=1.5, d=0.1)
    assert known.running("src/x.py", range(3, 5)) == [b, c, a]
    assert known.running("src/x.py", range(4, 8)) == [c]
    assert known.running("src/x.py", range(7, 8)) == known.running("src/y.py", range(3, 5)) == []
    assert known.of_files([THIS]) == [f"{THIS}::d", b, c, a]
    assert known.seconds([a, b]) == 3.0


def test_every_test_file_that_is_nearest_to_one_is_measured() -> None:
    assert {name for path in sources() for name in nearest(path)} <= set(measured_files())

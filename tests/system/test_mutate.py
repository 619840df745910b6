"""The mutator at work (tools/mutate): it finds the tests that run a line, and says which of them notices a change."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutants.__main__ import Change, judge, lines_of
from tests.mutants.known import Known
from tests.mutants.nearest import ROOT
from tests.mutants.trial import Copy, Verdict

pytestmark = pytest.mark.system

PATH, TESTS = "src/flux/server/pipeline/exchange.py", "tests/unit/test_exchange.py"
FILLS = b"yield self._filled[index]"
EMPTY = b"return self.handover.kernel.empty"


def changed(old: bytes, new: bytes) -> Change:
    text = (ROOT / PATH).read_bytes()
    begin = text.index(old)
    lines = lines_of(text, begin, begin + len(old))
    return Change(PATH, "changed", text.replace(old, new), "", lines, [TESTS])


def test_a_change_is_judged_by_the_tests_that_run_it(tmp_path: Path) -> None:
    with Copy() as copy:
        known = Known(tmp_path)
        known.measure(copy, [TESTS])
        collected = copy.collected([TESTS])
        assert set(known.of_files([TESTS])) == collected

        def judged(change: Change) -> Verdict:
            return judge(copy, change, known, collected)

        fills, empty = changed(FILLS, b"yield None"), changed(EMPTY, b"return None")
        assert 0 < len(known.running(PATH, empty.lines)) < len(known.running(PATH, fills.lines))
        verdict = judged(fills)
        assert verdict.killed
        assert verdict.test in known.running(PATH, fills.lines)
        assert not judged(changed(FILLS, FILLS + b"  # as it was")).killed
        assert (copy.root / PATH).read_bytes() == (ROOT / PATH).read_bytes()
        assert judged(empty).killed

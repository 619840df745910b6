"""`benchmarks/bench_churn.py` run small: that rows and changes of both kinds of rounds are counted, not how fast."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.bench_churn import SMALL, WARM, measure, report

pytestmark = pytest.mark.system


def test_rounds_with_and_without_churn_are_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = measure(tmp_path, SMALL)
    assert len(pairs) == SMALL.rounds
    counted = SMALL.rows - SMALL.rows // WARM
    for pair in pairs:
        assert len(pair.without.latencies) == len(pair.churned.latencies) == counted
        assert min(pair.without.latencies) > 0
        assert pair.without.changes == 0
        assert pair.churned.changes > SMALL.changes * SMALL.rows / SMALL.rate / 10
    report(pairs, SMALL)
    said = capsys.readouterr().out
    assert said.count("p90 without churn") == SMALL.rounds
    assert "another's p90 moves by" in said

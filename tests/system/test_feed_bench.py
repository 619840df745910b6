"""`benchmarks/bench_feed.py` run small: that rows of both kinds of sends arrive and are counted, not how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.ratios import KEPT_IN
from tests.patience import PATIENCE_S

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.system


def test_single_rows_and_batches_of_a_feed_are_measured(tmp_path: Path) -> None:
    out = tmp_path / "ratios"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "benchmarks/bench_feed.py"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"FLUX_BENCH_FED": "1000", KEPT_IN: str(out)},
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line[0] for line in found] == ["feed: single rows, Feed.send", "feed: batches of 64, Feed.send"]
    assert [line[2] for line in found] == [0.4, 3.0]
    assert all(line[1] > 0 and not line[5] for line in found)  # measured, and no gate

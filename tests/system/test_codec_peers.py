"""The benchmark of the codec's peers, run small: that it builds, runs and judges, not what it measures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.peers.build import missing_for_flatc

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.system


def test_the_table_has_every_line(tmp_path: Path) -> None:
    program, out = ROOT / "benchmarks" / "bench_codec_peers.py", tmp_path / "measured.json"
    done = subprocess.run(
        [sys.executable, program, "--rounds", "3", "--json", out], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    measured = json.loads(out.read_text())
    assert all(ns > 0 for ns in measured.values())
    assert {"encode 1", "decode 1000", "builder 1", "accessors v1 1000"} <= set(measured)
    missing = missing_for_flatc()
    if missing:
        assert f"left out: {missing} is not installed" in done.stderr
        pytest.skip(f"{missing} is not installed")
    for name in ("encode", "decode", "encode_v1", "decode_v1"):
        for rows in (1, 1000):
            assert {f"ours_{name} {rows}", f"flatc_{name} {rows}"} <= set(measured)
    assert done.stdout.count(" at most ") + done.stdout.count(" at least ") == 16

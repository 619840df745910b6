"""The kernels under gcc's sanitizers: the inputs that once failed, a share of fuzzing, and the fuzzer itself.

`tools/fuzz --minutes N` is the whole; here it runs for --fuzz-seconds.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fuzz import build, corpus, fuzzing

pytestmark = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")


def test_inputs_that_were_kept_make_no_report() -> None:
    kept = sorted(corpus.KEPT.glob("*.bin"))
    assert {path.name.partition("-")[0] for path in kept} >= {
        "codec",
        "match",
        "pump",
        "ring",
        "journal",
        "decode",
    }
    report = fuzzing.replay(kept)
    assert report is None, report


@pytest.mark.slow
def test_fuzzing_makes_no_report(pytestconfig: pytest.Config, rng: random.Random) -> None:
    seconds = float(pytestconfig.getoption("--fuzz-seconds"))
    outcome = fuzzing.campaign(seconds, rng.getrandbits(32))
    print(outcome)
    assert not outcome.reports, outcome
    assert len(outcome.executions) >= 11
    assert min(outcome.executions.values()) > 0


def test_a_planted_read_behind_the_frame_is_found_and_kept(tmp_path: Path) -> None:
    """The fuzzer itself: a string may end where the frame ends, and its NUL is read behind it."""
    ext = tmp_path / "ext"
    shutil.copytree(build.EXT, ext, ignore=shutil.ignore_patterns("*.pyx"))
    sound = (ext / "verify.h").read_text()
    planted = sound.replace("if (at + size >= check->size ||", "if (at + size > check->size ||")
    assert planted != sound
    (ext / "verify.h").write_text(planted)
    driver = build.build_driver(ext, tmp_path)
    last = tmp_path / "last"
    done = subprocess.run(
        [driver, "run", "1", "60", last, *corpus.frames(tmp_path / "corpus")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "heap-buffer-overflow" in done.stderr
    assert fuzzing.keep_last(last, tmp_path / "kept").startswith("kept as ")
    assert len(list((tmp_path / "kept").glob("*.bin"))) == 1

"""`tools/fuzz`."""

from __future__ import annotations

import argparse
import random
import shutil
import sys
from pathlib import Path

from tests.fuzz import corpus, fuzzing


def main() -> int:
    """0, 1 when there was a report, 2 without a compiler."""
    parser = argparse.ArgumentParser(prog="tools/fuzz", description="fuzz the kernels under gcc's sanitizers")
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=0.0)
    parser.add_argument("--seed", type=int, default=None, help="random, and printed, when not given")
    parser.add_argument("--replay", type=Path, nargs="*", help="these kept inputs, all without a name")
    given = parser.parse_args()
    if shutil.which("gcc") is None:
        print("tools/fuzz: gcc is not installed", file=sys.stderr)
        return 2
    if given.replay is not None:
        paths = given.replay or sorted(corpus.KEPT.glob("*.bin"))
        report = fuzzing.replay(paths)
        print(report or f"{len(paths)} inputs, no report")
        return report is not None
    seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
    seconds = given.minutes * 60 + given.seconds or 60.0
    print(f"seed {seed}, {seconds:.0f} s", flush=True)
    outcome = fuzzing.campaign(seconds, seed)
    print(outcome)
    return bool(outcome.reports)


if __name__ == "__main__":
    sys.exit(main())

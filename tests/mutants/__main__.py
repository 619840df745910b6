"""`tools/mutate`."""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.mutants.mutations import Mutant, changed_line, mutants, parses
from tests.mutants.nearest import ROOT, matching, nearest, sources
from tests.mutants.planted import PLANTED, Planted
from tests.mutants.trial import Copy, Kernels, Verdict

AT_A_TIME: Final = 3  # test files; to start pytest for every one takes longer than most of them
REASONS: Final = ROOT / "tests" / "mutants" / "survivors.txt"


class Change(NamedTuple):
    """One change of one file, whatever made it."""

    path: str
    name: str
    content: bytes
    shown: str  # the line before and after
    tests: list[str]


def reasons(text: str) -> dict[str, str]:
    """By `PATH: BEFORE => AFTER` why that mutant may live. A reason is the indented lines below it."""
    found: dict[str, str] = {}
    now = ""
    for line in text.splitlines():
        if line.startswith((" ", "\t")):
            found[now] = f"{found[now]} {line.strip()}".strip()
        elif line and not line.startswith("#"):
            now = line
            found[now] = ""
    return found


def drawn(count: int, seed: int, only: str) -> list[Change]:
    """So many of all mutants, each as likely as any other."""
    paths = [path for path in sources() if path.startswith(only)]
    every = [one for path in paths for one in mutants(path, (ROOT / path).read_bytes())]
    random.Random(seed).shuffle(every)
    python = (one for one in every if parses(one.applied((ROOT / one.path).read_bytes())))
    picked = list(itertools.islice(python, count))
    print(f"{len(every):,} mutants in {len(paths)} files; {len(picked)} drawn with seed {seed}", flush=True)
    return [_of_mutant(one) for one in sorted(picked)]


def _of_mutant(one: Mutant) -> Change:
    text = (ROOT / one.path).read_bytes()
    before, after = changed_line(text, one)
    shown = f"{one.path}: {before} => {after}"
    return Change(one.path, f"{one.path}:{one.line} {one.what}", one.applied(text), shown, nearest(one.path))


def _of_planted(one: Planted) -> Change | None:
    """None where the code has moved on."""
    text = (ROOT / one.path).read_text() if (ROOT / one.path).exists() else ""
    here = text.count(one.old)
    if here == 0 or (here > 1 and not one.every):
        return None
    own = [name for glob in one.tests for name in matching(glob)]
    try:
        near = nearest(one.path)
    except ValueError:  # outside the rooms: its own tests alone
        near = []
    content = text.replace(one.old, one.new).encode()
    return Change(one.path, one.name, content, one.name, list(dict.fromkeys([*own, *near])))


def planted(names: Sequence[str]) -> tuple[list[Change], list[str]]:
    """The fixed list or these of it, and the names of those whose place is no longer there."""
    unknown = set(names) - {one.name for one in PLANTED}
    if unknown:
        raise SystemExit(f"tools/mutate: not planted: {' '.join(sorted(unknown))}")
    changes = {one.name: _of_planted(one) for one in PLANTED if not names or one.name in names}
    return [one for one in changes.values() if one], [name for name, one in changes.items() if one is None]


def judge(copy: Copy, change: Change) -> Verdict:
    """Put the change into the copy, ask its tests, and take it out again: the nearest first, a few at a time."""
    if Path(change.path).suffix == ".h":
        return _judge_compiled(copy, change)
    if copy.kernels is Kernels.CHANGED:
        _build_unchanged(copy)
    seconds = 0.0
    for at in range(0, len(change.tests), AT_A_TIME):
        tests = copy.sound(change.tests[at : at + AT_A_TIME])
        if not tests:
            continue
        copy.write(change.path, change.content)
        try:
            verdict = copy.judge(tests)
        finally:
            copy.restore(change.path)
        seconds += verdict.seconds
        if verdict.killed:
            return verdict._replace(seconds=seconds)
    return Verdict(False, seconds, "")


def _judge_compiled(copy: Copy, change: Change) -> Verdict:
    """All of its tests at once, since the kernels are built for it; those that take the least first."""
    if copy.kernels is Kernels.INSTALLED or not copy.measured(change.tests):
        _build_unchanged(copy)
    tests = copy.sound(change.tests)
    copy.write(change.path, change.content)
    copy.kernels = Kernels.CHANGED
    try:
        said = copy.build()
        return Verdict(True, 0, "it does not compile") if said else copy.judge(copy.quickest_first(tests))
    finally:
        copy.restore(change.path)


def _build_unchanged(copy: Copy) -> None:
    said = copy.build()
    if said:
        raise RuntimeError(said)
    copy.kernels = Kernels.BUILT


def campaign(changes: Sequence[Change], known: dict[str, str]) -> int:
    """Judge them one after the other; how many live without a reason."""
    began, ends, unexplained = time.monotonic(), Counter[str](), []
    with Copy() as copy:
        for number, change in enumerate(changes, 1):
            verdict = judge(copy, change)
            reason = known.get(change.shown, "")
            end = "killed" if verdict.killed else "excused" if reason else "LIVES"
            ends[end] += 1
            why = verdict.why if verdict.killed else reason
            print(f"{number:>4} {end:<8}{verdict.seconds:5.1f} s  {change.name}  {why[:150]}", flush=True)
            if end == "LIVES":
                unexplained.append(change.shown)
                print(f"     {change.shown}", flush=True)
    counted = ", ".join(f"{count} {end.lower()}" for end, count in sorted(ends.items()))
    judged = len(changes) - ends["excused"]
    share = ends["killed"] / judged if judged else 1.0
    print(f"{len(changes)} mutants in {time.monotonic() - began:,.0f} s: {counted}; {share:.1%} killed")
    for shown in unexplained:
        print(f"lives: {shown}")
    return len(unexplained)


def main() -> int:
    """0, or 1 when a mutant lives that has no reason to."""
    parser = argparse.ArgumentParser(prog="tools/mutate", description="would a test notice?")
    parser.add_argument("--count", type=int, default=20, help="mutants to draw (20)")
    parser.add_argument("--seed", type=int, default=None, help="random, and printed, when not given")
    parser.add_argument("--only", default="", metavar="PATH", help="of files whose path begins so")
    parser.add_argument("--planted", nargs="*", metavar="NAME", help="the fixed list, or these of it")
    given = parser.parse_args()
    gone: list[str] = []
    if given.planted is None:
        seed = random.SystemRandom().randrange(2**32) if given.seed is None else given.seed
        changes = drawn(given.count, seed, given.only)
    else:
        changes, gone = planted(given.planted)
        for name in gone:
            print(f"the place of {name} has changed: tests/mutants/planted.py has to follow")
    return 1 if campaign(changes, reasons(REASONS.read_text())) or gone else 0


if __name__ == "__main__":
    sys.exit(main())

"""`tools/mutate`."""

from __future__ import annotations

import argparse
import ast
import itertools
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Final, NamedTuple

from tests.mutants.known import Known, measured_files
from tests.mutants.mutations import Mutant, changed_line, mutants, parses
from tests.mutants.nearest import ROOT, matching, nearest, sources
from tests.mutants.planted import PLANTED, Planted
from tests.mutants.trial import Copy, Kernels, Verdict

FIRST: Final = 15  # tests: so many are asked before all others
LONG_S: Final = 1.0  # a test that takes so long waits for something
MOST_S: Final = 240.0  # of tests for one mutant, as long as they take on the unchanged copy
REASONS: Final = ROOT / "tests" / "mutants" / "survivors.txt"


class Change(NamedTuple):
    """One change of one file, whatever made it."""

    path: str
    name: str
    content: bytes
    shown: str  # the line before and after
    lines: range  # of the file; of C it is not known which tests run them
    tests: list[str]  # the files nearest to it, for lines that no test is known to run


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
    lines = lines_of(text, one.begin, one.end)
    return Change(
        one.path, f"{one.path}:{one.line} {one.what}", one.applied(text), shown, lines, nearest(one.path)
    )


def lines_of(text: bytes, begin: int, end: int) -> range:
    """The lines of a file, counted from 1, in which a span of its text stands. None of a span outside of functions: it
    runs at an import, not for the test alone during which that was."""
    first, last = text.count(b"\n", 0, begin) + 1, text.count(b"\n", 0, end - 1) + 1
    bodies = (
        node.body
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    inside = any(body[0].lineno <= first and last <= (body[-1].end_lineno or 0) for body in bodies)
    return range(first, last + 1) if inside else range(0)


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
    return Change(one.path, one.name, content, one.name, range(0), list(dict.fromkeys([*own, *near])))


def planted(names: Sequence[str]) -> tuple[list[Change], list[str]]:
    """The fixed list or these of it, and the names of those whose place is no longer there."""
    unknown = set(names) - {one.name for one in PLANTED}
    if unknown:
        raise SystemExit(f"tools/mutate: not planted: {' '.join(sorted(unknown))}")
    changes = {one.name: _of_planted(one) for one in PLANTED if not names or one.name in names}
    return [one for one in changes.values() if one], [name for name, one in changes.items() if one is None]


def judge(copy: Copy, change: Change, known: Known, collected: set[str]) -> Verdict:
    """Put the change into the copy, ask the tests that run it, and take it out again."""
    compiled = change.path.endswith((".h", ".pyx"))
    if copy.kernels is Kernels.INSTALLED if compiled else copy.kernels is Kernels.CHANGED:
        _build_unchanged(copy)
    tests = known.running(change.path, change.lines) or known.of_files(change.tests)
    copy.write(change.path, change.content)
    try:
        if compiled:
            copy.kernels = Kernels.CHANGED
            said = copy.build()
            if said:
                return Verdict(True, 0, "it does not compile", "")
        return _asked(copy, [test for test in tests if test in collected], known)
    finally:
        copy.restore(change.path)


def _asked(copy: Copy, tests: list[str], known: Known) -> Verdict:
    """A few first, since most mutants fall at once. A long one that fails is asked again: the machine may be busy."""
    seconds, spent, size = 0.0, 0.0, FIRST
    while tests and spent < MOST_S:
        part, tests = tests[:size], tests[size:]
        usual = known.seconds(part)
        verdict = copy.judge(part, usual)
        seconds, spent, size = seconds + verdict.seconds, spent + usual, size * 4
        if not verdict.killed:
            continue
        usual = known.seconds([verdict.test]) if verdict.test in part else 0.0
        if usual < LONG_S or copy.judge([verdict.test], usual).killed:
            return verdict._replace(seconds=seconds)
        print(f"     {verdict.test} failed once and then did not", flush=True)
        tests = part[part.index(verdict.test) + 1 :] + tests
    return Verdict(False, seconds, f"{len(tests)} tests more were not asked" if tests else "", "")


def _build_unchanged(copy: Copy) -> None:
    said = copy.build()
    if said:
        raise RuntimeError(said)
    copy.kernels = Kernels.BUILT


def campaign(changes: Sequence[Change], excuses: dict[str, str]) -> int:
    """Judge them one after the other; how many live without a reason."""
    began, ends, unexplained = time.monotonic(), Counter[str](), []
    with Copy() as copy:
        seen = measured_files() if any(change.lines for change in changes) else []
        files = sorted({*seen, *(file for change in changes for file in change.tests)})
        known = Known()
        known.measure(copy, files)
        collected = copy.collected(files)
        print(f"{len(collected):,} tests after {time.monotonic() - began:,.0f} s", flush=True)
        for number, change in enumerate(changes, 1):
            verdict = judge(copy, change, known, collected)
            reason = excuses.get(change.shown, "")
            end = "killed" if verdict.killed else "excused" if reason else "LIVES"
            ends[end] += 1
            why = verdict.why if verdict.killed or not reason else reason
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

"""`tools/bench_gate --against REF`: this tree and that of a commit, built side by side and measured in turns.

    base ─┐ instructions once each, for they do not vary; then ROUNDS times: base, head, base, head, ... ┌─ table
    head ─┘                                                                                              └─ verdict

What is beyond noise is said by the rounds themselves: each of head's is on the same side of each of base's, *and* the
best of one is further from the best of the other than two runs of one tree have been seen to be. Both must be, for
three rounds of noise alone lie apart once in ten times, and a step alone may be one neighbour's burst. Instructions
need neither: the same tree gives the same count, from Python to a thousandth or so.

A regression is a change for the worse that is beyond noise and more than the gate allows; or loss, a repeat or
corruption on head; or an import that head has and may not have. One that was found by a clock is measured once more,
in as many rounds, and counts when those say so too: of the thirty figures of one tree beside itself, on a machine that
others use, a burst moves one that far now and then.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.building import ROOT
from benchmarks.gate import baseline, imports, load, peers, size
from benchmarks.gate.accepted import git
from benchmarks.gate.installed import Installed, install
from benchmarks.gate.instructions import OUT, WrongResultError, measure

ROUNDS: Final = 3
LOAD_SECONDS: Final = 5


class Rule(NamedTuple):
    """From which share on a change is beyond noise, and from which on it is a regression."""

    noise: float
    most: float


RULES: Final = {
    "instructions": Rule(0.002, baseline.MORE),
    "size": Rule(0.0, size.MORE),
    "import": Rule(0.1, 0.25),
    "ratios": Rule(0.15, 0.15),
    "load": Rule(0.5, 0.5),
}
"""By gate. The last three were seen to move by 8, 12 and 40 % between the best of three rounds of one tree."""


BY_CLOCK: Final = frozenset({"import", "ratios", "load"})
"""Gates whose regressions are measured once more."""


class Change(NamedTuple):
    """One figure on both sides, a value for each round; `less` is whether less is better. `again`: the same, measured
    once more, because it was worse."""

    gate: str
    name: str
    base: Sequence[float]
    head: Sequence[float]
    less: bool = True
    again: Change | None = None

    def _best(self, values: Sequence[float]) -> float:
        return min(values) if self.less else max(values)

    @property
    def change(self) -> float | None:
        """Of the best, as a share; more is worse. None where one side has nothing."""
        if not self.base or not self.head or not self._best(self.base) or not self._best(self.head):
            return None
        base, head = self._best(self.base), self._best(self.head)
        return head / base - 1 if self.less else base / head - 1

    @property
    def beyond_noise(self) -> bool:
        """See the head of this file."""
        if self.change is None:
            return False
        apart = min(self.head) > max(self.base) or max(self.head) < min(self.base)
        return apart and abs(self.change) > RULES[self.gate].noise

    @property
    def regression(self) -> bool:
        """Worse beyond noise, by more than the gate allows; or no longer measured. Both times, where there are two."""
        if self.again is not None and not self.again.regression:
            return False
        if self.base and not self.head:
            return True
        return self.beyond_noise and (self.change or 0) > RULES[self.gate].most

    def __str__(self) -> str:
        base, head = (
            f"{self._best(values):16,.2f}" if values else f"{'-':>16}" for values in (self.base, self.head)
        )
        if self.change is None:
            said = "" if self.base and self.head else "new" if self.head else "gone"
            said += "  REGRESSION" if self.regression else ""
        else:
            word = "REGRESSION" if self.regression else "beyond noise" if self.beyond_noise else ""
            said = f"{self.change:+8.2%} {word}"
        if self.again is not None and self.again.change is not None:
            said += f"; once more: {self.again.change:+.2%}"
        return f"{self.name:60}{base}{head}  {said}".rstrip()


@contextmanager
def checked_out(ref: str) -> Iterator[Path]:
    """A work tree of a commit in a folder of its own, taken away at the end. Raises NotComparableError without it."""
    commit = git("rev-parse", "--verify", f"{ref}^{{commit}}")
    with tempfile.TemporaryDirectory(prefix="flux-against-") as folder:
        tree = Path(folder) / "base"
        try:
            git("worktree", "add", "--detach", str(tree), commit)
            yield tree
        finally:
            if tree.exists():  # git takes away itself what it was interrupted in
                git("worktree", "remove", "--force", str(tree))


def _instructions(base: Path, parts: Sequence[str]) -> list[Change]:
    before = measure(base, base / "build" / "gate", parts)
    return [
        Change("instructions", line.name, _one(line.before), _one(line.now))
        for line in baseline.compared(before, measure(ROOT, OUT, parts))
    ]


def _one(value: float | None) -> list[float]:
    return [] if value is None else [value]


def _sizes(sides: Mapping[str, Installed]) -> list[Change]:
    base, head = size.measure(sides["base"]), size.measure(sides["head"])
    return [Change("size", f"bytes, {name}", [base[name]], [head[name]]) for name in head]


def _imports(sides: Mapping[str, Installed], wrong: list[str]) -> list[Change]:
    rounds = [{side: imports.measure(made.python) for side, made in sides.items()} for _ in range(ROUNDS)]
    strangers: dict[str, list[str]] = rounds[0]["head"]["strangers"]
    wrong += [f"{name} loads {', '.join(those)}" for name, those in strangers.items() if those]
    ms = {side: [one[side]["ms"] for one in rounds] for side in sides}
    return [
        Change("import", f"ms, {name}", [one[name] for one in ms["base"]], [one[name] for one in ms["head"]])
        for name in ms["head"][0]
    ]


def _ratios(sides: Mapping[str, Installed], roots: Mapping[str, Path]) -> list[Change]:
    """Each tree's own benchmarks on its own flux: the C that they compile is the tree's too."""
    values: dict[str, dict[str, list[float]]] = {"base": {}, "head": {}}
    less: dict[str, bool] = {}
    for _ in range(ROUNDS):
        for side, made in sides.items():
            found, _failed = peers.measure(made.python, roots[side])
            for ratio in (ratio for ratio in found if ratio.gate):
                values[side].setdefault(ratio.name, []).append(ratio.value)
                less[ratio.name] = ratio.most
    return [
        Change("ratios", name, values["base"].get(name, []), values["head"].get(name, []), less[name])
        for name in sorted(less)
    ]


def _load(sides: Mapping[str, Installed], wrong: list[str]) -> list[Change]:
    runs: dict[str, list[load.Run]] = {"base": [], "head": []}
    for _ in range(ROUNDS):
        for side, made in sides.items():
            runs[side].append(load.run(made.python, seconds=LOAD_SECONDS))
    wrong += [f"load: {run.wrong}" for run in runs["head"] if run.wrong]
    p99 = {side: [run.p99_ns / 1e6 for run in those if run.report] for side, those in runs.items()}
    return [Change("load", f"ms, p99 at {load.RATE:,}/s", p99["base"], p99["head"])]


def _measured(base: Path, gates: Collection[str], parts: Sequence[str]) -> tuple[list[Change], list[str]]:
    """All changes, and what is wrong with head whatever base does."""
    wrong: list[str] = []
    changes: list[Change] = []
    if "instructions" in gates:
        try:
            changes += _instructions(base, parts)
        except WrongResultError as error:
            wrong.append(f"wrong result: {error}")
    if set(gates) - {"instructions"}:
        sides = {"base": install(base, base / "build" / "gate"), "head": install(ROOT, OUT)}
        changes += _sizes(sides) if "size" in gates else []
        changes += _imports(sides, wrong) if "import" in gates else []
        changes += _ratios(sides, {"base": base, "head": ROOT}) if "ratios" in gates else []
        changes += _load(sides, wrong) if "load" in gates else []
    return changes, wrong


def _once_more(base: Path, changes: list[Change], wrong: list[str]) -> list[Change]:
    """The changes, those that a clock says are regressions with what it says the second time."""
    gates = BY_CLOCK & {change.gate for change in changes if change.regression}
    if not gates:
        return changes
    print(f"once more, for it was worse: {', '.join(sorted(gates))}", flush=True)
    more, wrong_again = _measured(base, gates, ())
    wrong += [text for text in wrong_again if text not in wrong]
    again = {(change.gate, change.name): change for change in more}
    return [
        change._replace(again=again.get((change.gate, change.name)))
        if change.regression and change.gate in gates
        else change
        for change in changes
    ]


def compare(ref: str, only: Collection[str] | None, parts: Sequence[str], told: Path | None) -> bool:
    """Prints the table; whether there is a regression. Raises what `checked_out` and the measuring raise."""
    with checked_out(ref) as base:
        changes, wrong = _measured(base, only or tuple(RULES), parts)
        changes = _once_more(base, changes, wrong)
    worse = [change for change in changes if change.regression]
    if told:
        told.parent.mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps(_report(ref, changes, wrong), indent=1) + "\n")
    for gate, rule in RULES.items():
        if lines := [change for change in changes if change.gate == gate]:
            head = f"== {gate}: beyond noise from {rule.noise:.1%} on, a regression above {rule.most:.0%}"
            print(head, f"{'':60}{ref[:16]:>16}{'this tree':>16}", *lines, sep="\n")
    for text in (*wrong, *map(str, worse)):
        print(f"REGRESSION {text}", file=sys.stderr)
    if wrong or worse:
        print(f"this tree is worse than {ref}")
    else:
        print(f"this tree is no worse than {ref}")
    return bool(wrong or worse)


def _report(ref: str, changes: Sequence[Change], wrong: Sequence[str]) -> dict[str, Any]:
    rows = [
        change._asdict()
        | {"change": change.change, "beyond_noise": change.beyond_noise, "regression": change.regression}
        | {"again": change.again and {"base": change.again.base, "head": change.again.head}}
        for change in changes
    ]
    return {"against": git("rev-parse", ref), "wrong": list(wrong), "changes": rows}

"""The judge: what consumers were shown, what is kept, and what the source gave, held against one another.

    source      rows in the order in which they were given
    shown       what a consumer received, in order of arrival; a consumer that was killed has several runs
    kept        a server's database, one rebuilt from the journal alone, a client's cache: by sequence

It is plain numpy and knows nothing of how flux numbers, keeps or repairs: from the three it says what is wrong.

    lost        a row that was shown, or that the source gave, is not kept; a hole
    repeated    a consumer got a sequence twice in one run; a row of the source is kept under two sequences
    reordered   a consumer got a lower sequence after a higher one; rows are kept in another order than the source's
    changed     a row that is none of the source's, though the source has one of the same time or id
    phantom     a row that is none of the source's at all
    reused      one sequence of one epoch is two different rows of the source, or an epoch took a sequence that the one
                before had said it kept
    epoch back  an epoch that is lower than the one before it

A new epoch says where the one before ended (`ends`): rows shown above that may be gone, and their sequences may be
given to others. Nothing else excuses anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

KINDS = ("lost", "repeated", "reordered", "changed", "phantom", "reused", "epoch back")

_WORDS = np.random.default_rng(20_26).integers(1, 2**63, 16, np.uint64) | np.uint64(1)


class Violation(NamedTuple):
    """What is wrong at one place: how many rows, and the first of them."""

    kind: str
    place: str
    rows: int
    sequence: int
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.place}: {self.text} ({self.rows} rows, first at sequence {self.sequence})"


@dataclass(frozen=True, eq=False)
class Account:
    """What one place says of one stream: three arrays of one length."""

    place: str
    epochs: NDArray[np.uint32]
    sequences: NDArray[np.uint64]
    rows: NDArray[np.void]
    whole: bool = True
    """Of a consumer: it promises no hole. Of a place that keeps: every row from sequence 1 on is there."""
    runs: Sequence[int] = ()
    """Of a consumer: where it was started again. It may then get again what it had."""
    gaps: Sequence[tuple[int, int]] = ()
    """Sequences (both inclusive) of which it was said that they will not come."""

    def __len__(self) -> int:
        return len(self.sequences)


@dataclass(frozen=True, eq=False)
class Case:
    """One stream, to be judged."""

    source: NDArray[np.void]
    shown: Sequence[Account] = ()
    kept: Sequence[Account] = ()
    ends: Mapping[int, int] = field(default_factory=dict)
    """The last sequence that a later epoch kept of each ended one."""
    complete: bool = False
    """Every row of the source is to be kept by now."""
    ordered: bool = True
    """One source gave its rows in this order, so they are to be kept in it."""


def digests(rows: NDArray[np.void]) -> NDArray[np.uint64]:
    """64 bits of each row: equal rows have equal ones, rows that differ in one word never have."""
    words = np.ascontiguousarray(rows).view(np.uint64).reshape(len(rows), rows.dtype.itemsize // 8)
    mixed = words ^ (words >> np.uint64(29))
    found: NDArray[np.uint64] = (mixed * _WORDS[: words.shape[1]]).sum(axis=1, dtype=np.uint64)
    return found


def judge(case: Case) -> list[Violation]:
    """Everything that is wrong; empty when all is well."""
    known = digests(case.source)
    found: list[Violation] = []
    for account in case.shown:
        found += _order_of_arrival(account)
    for account in case.kept:
        found += _order_kept(account, case)
        found += _against_source(account, case, known)
    for account in (*case.shown, *case.kept):
        found += _foreign(account, case, known)
    found += _reused([*case.shown, *case.kept], known)
    for kept in case.kept:
        for shown in case.shown:
            found += _still_kept(shown, kept, case.ends)
        for other in case.kept:
            if other is not kept and kept.whole:
                found += _still_kept(other, kept, case.ends)
    return found


def _violation(kind: str, account: Account, wrong: NDArray[np.bool_], text: str) -> Iterator[Violation]:
    """One for the rows of an account that are marked, if any are."""
    at = np.flatnonzero(wrong)
    if len(at):
        yield Violation(kind, account.place, len(at), int(account.sequences[at[0]]), text)


def _order_of_arrival(account: Account) -> Iterator[Violation]:
    """Repeats, order and holes within each run of a consumer, and over its restarts."""
    begins = sorted({0, *account.runs, len(account)})
    highest = (0, 0)
    for begin, end in pairwise(begins):
        epochs = account.epochs[begin:end].astype(np.int64)
        sequences = account.sequences[begin:end].astype(np.int64)
        run = Account(
            account.place, account.epochs[begin:end], account.sequences[begin:end], account.rows[begin:end]
        )
        # Epochs count their own sequences: as one number a row of a later epoch is higher than any of an earlier one.
        numbers = (epochs << 40) + sequences
        before = np.concatenate(([highest[0]], epochs[:-1]))
        yield from _violation("epoch back", run, epochs < before, "an epoch lower than the one before")
        _, first = np.unique(numbers, return_index=True)
        again = np.ones(len(numbers), np.bool_)
        again[first] = False
        yield from _violation("repeated", run, again, "the same sequence again in one run")
        peak = np.concatenate(([-1], np.maximum.accumulate(numbers)[:-1]))
        lower = (numbers < peak) & ~again & (epochs >= before)
        yield from _violation("reordered", run, lower, "a lower sequence after a higher one")
        if account.whole:
            yield from _violation(
                "lost", run, _jumps(run, account.gaps, highest), "rows before this one never came"
            )
        top = int(np.argmax(numbers))
        highest = max(highest, (int(epochs[top]), int(sequences[top])))


def _jumps(run: Account, gaps: Sequence[tuple[int, int]], before: tuple[int, int]) -> NDArray[np.bool_]:
    """Rows of a run whose predecessor came neither in it nor, `before` being the highest then, in an earlier one."""
    epochs, sequences = run.epochs.astype(np.int64), run.sequences.astype(np.int64)
    numbers = (epochs << 40) + sequences
    jump = ~np.isin(numbers - 1, numbers)
    jump[np.unique(epochs, return_index=True)[1]] = False  # where an epoch begins, and a run
    if before[1] and epochs[0] == before[0]:
        jump[0] = sequences[0] > before[1] + 1
    known = np.sort(np.append(sequences, before[1]))
    for at in np.flatnonzero(jump).tolist():
        last = int(known[np.searchsorted(known, sequences[at]) - 1])
        jump[at] = (last + 1, int(sequences[at]) - 1) not in gaps
    return jump


def _order_kept(account: Account, case: Case) -> Iterator[Violation]:
    """A place that keeps rows: by sequence, each once, no hole, epochs that only rise."""
    sequences, epochs = account.sequences.astype(np.int64), account.epochs.astype(np.int64)
    steps = np.diff(sequences, prepend=sequences[:1] - 1)
    yield from _violation("repeated", account, steps == 0, "a sequence that is kept twice")
    yield from _violation("reordered", account, steps < 0, "sequences that do not ascend")
    yield from _violation(
        "epoch back", account, np.diff(epochs, prepend=epochs[:1]) < 0, "an epoch lower than the one before"
    )
    holes = steps > 1
    if account.whole and len(sequences) and sequences[0] > 1:
        holes[0] = True
    for at in np.flatnonzero(holes).tolist():
        if (int(sequences[at] - steps[at]) + 1, int(sequences[at]) - 1) in account.gaps:
            holes[at] = False
    yield from _violation("lost", account, holes, "rows before this one are not kept")


def _against_source(account: Account, case: Case, known: NDArray[np.uint64]) -> Iterator[Violation]:
    """Every row of the source at most once, in the source's order, and all of them where that is asked for."""
    mine = digests(account.rows)
    _, which = np.unique(mine, return_inverse=True)
    given = dict(zip(*np.unique(known, return_counts=True), strict=True))
    seen: dict[int, int] = {}
    again = np.zeros(len(mine), np.bool_)
    counts = np.bincount(which) if len(which) else np.zeros(0, np.intp)
    for at in np.flatnonzero(counts[which] > 1).tolist() if len(which) else ():
        digest = int(mine[at])
        seen[digest] = seen.get(digest, 0) + 1
        again[at] = seen[digest] > given.get(mine[at], 1)
    yield from _violation("repeated", account, again, "a row of the source under a second sequence")
    order = np.argsort(known, kind="stable")
    spot = np.searchsorted(known, mine, sorter=order)
    there = spot < len(known)
    there[there] = known[order[spot[there]]] == mine[there]
    places = order[spot[there]]
    if case.ordered and len(places) and len(given) == len(known):
        back = np.zeros(len(mine), np.bool_)
        back[there] = places < np.concatenate(([-1], np.maximum.accumulate(places)[:-1]))
        yield from _violation("reordered", account, back & ~again, "kept in another order than the source's")
    if case.complete:
        missing = np.flatnonzero(~np.isin(known, mine))
        if len(missing):
            text = "rows that the source gave are not kept (counted in the source)"
            yield Violation("lost", account.place, len(missing), int(missing[0]) + 1, text)


def _foreign(account: Account, case: Case, known: NDArray[np.uint64]) -> Iterator[Violation]:
    """Rows that the source never gave: changed ones have the time or id of one that it gave."""
    name = (
        "trade_id" if "trade_id" in (case.source.dtype.names or ()) else (case.source.dtype.names or ("",))[0]
    )
    foreign = ~np.isin(digests(account.rows), known)
    near = np.isin(account.rows[name], case.source[name])
    yield from _violation(
        "changed", account, foreign & near, f"a row with a {name} of the source's, but other values"
    )
    yield from _violation(
        "phantom", account, foreign & ~near, f"a row that the source never gave, nor its {name}"
    )


def _reused(accounts: Iterable[Account], known: NDArray[np.uint64]) -> Iterator[Violation]:
    """One (epoch, sequence), two rows, wherever they were seen."""
    parts = list(accounts)
    if not parts:
        return
    rows = np.concatenate([digests(account.rows) for account in parts])
    epochs = np.concatenate([account.epochs for account in parts]).astype(np.uint64)
    sequences = np.concatenate([account.sequences for account in parts]).astype(np.uint64)
    ours = np.isin(rows, known)  # a changed row is said to be that
    numbers, mine = ((epochs << np.uint64(40)) + sequences)[ours], rows[ours]
    order = np.lexsort((mine, numbers))
    numbers, mine = numbers[order], mine[order]
    two = (numbers[1:] == numbers[:-1]) & (mine[1:] != mine[:-1])
    if two.any():
        first = int(numbers[1:][two][0])
        text = f"epoch {first >> 40} gave it to two rows"
        yield Violation("reused", "all places", int(two.sum()), first % 2**40, text)


def _still_kept(shown: Account, kept: Account, ends: Mapping[int, int]) -> Iterator[Violation]:
    """What was shown is kept, unless a later epoch says that it ended before."""
    last = np.full(len(shown), 2**62, np.int64)
    for epoch, end in ends.items():
        last[shown.epochs == epoch] = end
    held = shown.sequences.astype(np.int64) <= last
    spot = np.searchsorted(kept.sequences, shown.sequences)
    there = spot < len(kept)
    there[there] = kept.sequences[spot[there]] == shown.sequences[there]
    begins = int(kept.sequences[0]) if len(kept) and not kept.whole else 0
    needed = held & (shown.sequences.astype(np.int64) >= begins)
    yield from _violation("lost", shown, needed & ~there, f"not kept by {kept.place}")
    both = held & there
    at = spot[both]
    other = np.zeros(len(shown), np.bool_)
    other[both] = (kept.epochs[at] > shown.epochs[both]) & (
        digests(kept.rows)[at] != digests(shown.rows)[both]
    )
    text = f"shown in an epoch that kept it, and {kept.place} has another row of a later epoch there"
    yield from _violation("reused", shown, other, text)
    back = np.zeros(len(shown), np.bool_)
    back[both] = kept.epochs[at] < shown.epochs[both]
    yield from _violation("epoch back", shown, back, f"{kept.place} has it in an older epoch")

"""The judge itself: silent where nothing is wrong, and one planted fault of each kind is called by its name."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flux.feed import synth
from tests.system.checker import KINDS, Account, Case, judge
from tests.system.feeding import truth_of

ROWS = synth.candles(200, 7)
N = len(ROWS)


def account(place: str, first: int = 1, last: int = N, epoch: int = 1) -> Account:
    """Sequences `first` to `last`, as they are to be."""
    sequences = np.arange(first, last + 1, dtype=np.uint64)
    return Account(place, np.full(len(sequences), epoch, np.uint32), sequences, ROWS[first - 1 : last].copy())


def joined(*parts: Account) -> Account:
    return Account(
        parts[0].place,
        np.concatenate([part.epochs for part in parts]),
        np.concatenate([part.sequences for part in parts]),
        np.concatenate([part.rows for part in parts]),
    )


def kinds(case: Case) -> set[str]:
    return {violation.kind for violation in judge(case)}


def taken(whole: Account, order: list[int]) -> Account:
    """These of its rows, in this order."""
    return Account(whole.place, whole.epochs[order], whole.sequences[order], whole.rows[order])


def test_nothing_is_wrong() -> None:
    restarted = replace(joined(account("client", 1, 120), account("client", 90, N)), runs=(120,))
    late = replace(account("bare", 50, N), whole=False)
    cache = replace(account("cache", 20, 180), whole=False)
    case = Case(ROWS, (restarted, late), (account("database"), account("rebuilt"), cache), complete=True)
    assert judge(replace(case, kept=case.kept[:2])) == []
    assert judge(Case(ROWS, (account("shown", 30, 180),), (cache,))) == []


def test_a_new_epoch_that_says_where_the_one_before_ended_excuses_its_loss() -> None:
    """Rows 101 to 150 were shown in epoch 1 and lost; epoch 2 gave their sequences to other rows."""
    kept = joined(
        account("database", 1, 100),
        replace(account("", 151, N, 2), sequences=np.arange(101, 151, dtype=np.uint64)),
    )
    case = Case(ROWS, (account("shown", 1, 150),), (kept,), ends={1: 100})
    assert judge(case) == []
    assert kinds(replace(case, ends={})) == {"reused"}
    assert kinds(replace(case, ends={1: 120})) == {"reused"}
    assert kinds(Case(ROWS, (account("shown", 1, 150),), (account("database", 1, 100),))) == {"lost"}
    assert judge(Case(ROWS, (account("shown", 1, 150),), (account("database", 1, 100),), ends={1: 100})) == []


def changed() -> Account:
    spoilt = account("database")
    spoilt.rows["close"][41] += 1e-9
    return spoilt


def phantom() -> Account:
    made = account("database")
    made.rows["ts_ms"][41] = 77
    return made


def reused() -> Account:
    other = account("shown")
    other.rows[41] = ROWS[42]
    return other


def hole() -> Account:
    return taken(account("shown"), [*range(50), *range(60, N)])


ORDER = list(range(N))
PLANTED = {
    "shown, and gone": ("lost", Case(ROWS, (account("shown"),), (account("database", 1, 180),))),
    "a hole on the way": ("lost", Case(ROWS, (hole(),))),
    "a hole where it is kept": ("lost", Case(ROWS, (), (replace(hole(), place="database"),))),
    "does not begin at 1": ("lost", Case(ROWS, (), (account("database", 5),))),
    "never kept": ("lost", Case(ROWS, (), (account("database", 1, 180),), complete=True)),
    "skipped over a kill": (
        "lost",
        Case(ROWS, (replace(joined(account("client", 1, 90), account("client", 95)), runs=(90,)),)),
    ),
    "the journal lacks what the database has": (
        "lost",
        Case(ROWS, (), (account("database"), account("rebuilt", 1, 190))),
    ),
    "twice in a run": ("repeated", Case(ROWS, (taken(account("shown"), [*ORDER[:50], *ORDER[40:]]),))),
    "kept twice": ("repeated", Case(ROWS, (), (taken(account("database"), [*ORDER[:50], 49, *ORDER[50:]]),))),
    "numbered twice": (
        "repeated",
        Case(ROWS, (), (joined(account("database"), replace(account("", 200), sequences=np.array([201], np.uint64))),)),
    ),
    "out of order": ("reordered", Case(ROWS, (taken(account("shown"), [0, 2, 1, *ORDER[3:]]),))),
    "numbered in another order": (
        "reordered",
        Case(ROWS, (), (replace(account("database"), rows=ROWS[[0, 2, 1, *ORDER[3:]]]),)),
    ),
    "one bit": ("changed", Case(ROWS, (), (changed(),))),
    "one bit on the way": ("changed", Case(ROWS, (replace(changed(), place="shown"),))),
    "out of nowhere": ("phantom", Case(ROWS, (), (phantom(),))),
    "one sequence, two rows": ("reused", Case(ROWS, (reused(),), (account("database"),))),
    "two consumers, two rows": ("reused", Case(ROWS, (reused(), account("another")))),
    "an older epoch comes again": (
        "epoch back",
        Case(ROWS, (joined(account("shown", 1, 50, 2), account("shown", 51)),)),
    ),
    "kept in an older epoch": (
        "epoch back",
        Case(ROWS, (account("shown", 1, N, 2),), (account("database"),)),
    ),
    "epochs that fall": (
        "epoch back",
        Case(ROWS, (), (joined(account("database", 1, 50, 2), account("database", 51)),)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_fault_is_called_by_its_name(name: str) -> None:
    kind, case = PLANTED[name]
    assert kind in kinds(case), [str(violation) for violation in judge(case)]


def test_every_kind_is_planted() -> None:
    assert {kind for kind, _ in PLANTED.values()} == set(KINDS)


def test_what_one_fault_is_not() -> None:
    """A fault is not called by the names of others."""
    only = {
        "shown, and gone",
        "a hole on the way",
        "twice in a run",
        "out of order",
        "one bit",
        "out of nowhere",
    }
    for name in only | {"one sequence, two rows", "never kept", "skipped over a kill"}:
        kind, case = PLANTED[name]
        assert kinds(case) <= {kind, *({"repeated", "reordered"} if kind == "reused" else ())}, name


def test_trades_go_by_their_id() -> None:
    (rows,) = (rows for key, rows in truth_of(50, 1).items() if key.interval == "trade")
    kept = Account("database", np.ones(50, np.uint32), np.arange(1, 51, dtype=np.uint64), rows.copy())
    assert judge(Case(rows, (), (kept,), complete=True)) == []
    kept.rows["price"][3] = 1
    assert kinds(Case(rows, (), (kept,))) == {"changed"}
    kept.rows["trade_id"][3] = 1_000
    assert kinds(Case(rows, (), (kept,))) == {"phantom"}

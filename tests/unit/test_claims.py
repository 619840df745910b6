"""Durable runs that processes take over: who asked last has it, and a bounded number is remembered."""

from __future__ import annotations

from flux.limits import MAX_RUNS
from flux.server.pipeline.claims import Claims, Due


def test_a_claim_is_the_loops_to_carry_out_and_known_when_it_is() -> None:
    woken: list[int] = []
    claims = Claims(lambda: woken.append(1))
    assert claims.take() is None
    assert claims.claim("SIM", 7, 31) == 0
    assert len(woken) == 1
    assert claims.claim("SIM", 7, 31) == 0, "asked again: it is under way"
    due = claims.take()
    assert due == Due("SIM", 7, 31)
    assert (claims.take(), len(woken)) == (None, 1), "and is carried out once"
    claims.done(due, 5)
    assert claims.claim("SIM", 7, 31) == 5
    assert (claims.take(), len(woken)) == (None, 1)


def test_the_claim_that_came_last_counts() -> None:
    claims = Claims(lambda: None)
    claims.claim("SIM", 7, 31)
    claims.claim("SIM", 7, 32)
    first, second = claims.take(), claims.take()
    assert first is not None
    assert second is not None
    assert (first.token, second.token) == (31, 32)
    claims.done(first, 5)
    assert claims.claim("SIM", 7, 32) == 0, "what was carried out is another's"
    claims.done(second, 6)
    assert claims.claim("SIM", 7, 32) == 6
    claims.done(first, 7)
    assert claims.claim("SIM", 7, 32) == 6


def test_runs_do_not_share_claims() -> None:
    claims = Claims(lambda: None)
    for source, run in (("SIM", 7), ("SIM", 8), ("OTHER", 7)):
        claims.claim(source, run, 31)
        due = claims.take()
        assert due == Due(source, run, 31)
        claims.done(due, run)
    assert [claims.claim(source, run, 31) for source, run in (("SIM", 7), ("SIM", 8))] == [7, 8]


def test_the_oldest_claims_are_forgotten() -> None:
    claims = Claims(lambda: None)
    for run in range(1, MAX_RUNS + 1):
        claims.claim("SIM", run, 31)
        due = claims.take()
        assert due is not None
        claims.done(due, run)
    claims.claim("SIM", 1, 32)
    claims.claim("SIM", MAX_RUNS + 1, 31)
    assert claims.claim("SIM", 3, 31) == 3
    assert claims.claim("SIM", 2, 31) == 0, "forgotten: run 1 was claimed again since"


def test_claims_that_nobody_carries_out_are_bounded() -> None:
    claims = Claims(lambda: None)
    for run in range(1, MAX_RUNS + 3):
        claims.claim("SIM", run, 31)
    due = iter(claims.take, None)
    assert [one.run for one in due] == list(range(3, MAX_RUNS + 3))

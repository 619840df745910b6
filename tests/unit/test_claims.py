"""Durable runs that processes take over: who asked last has it, and a bounded number is remembered."""

from __future__ import annotations

from flux.limits import CLAIMS_PER_TURN, MAX_CLAIMS_WAITING, MAX_RUNS
from flux.server.pipeline.claims import Claims, Due


def test_a_claim_is_the_loops_to_carry_out_and_known_when_it_is() -> None:
    woken: list[int] = []
    claims = Claims(lambda: woken.append(1))
    assert claims.take() == []
    assert claims.claim("SIM", 7, 31) == 0
    assert len(woken) == 1
    assert claims.claim("SIM", 7, 31) == 0, "asked again: it is under way"
    assert claims.waiting
    [due] = claims.take()
    assert due == Due("SIM", 7, 31)
    assert (claims.take(), claims.waiting, len(woken)) == ([], False, 1), "and is carried out once"
    claims.done(due, 5)
    assert claims.claim("SIM", 7, 31) == 5
    assert (claims.take(), len(woken)) == ([], 1)


def test_the_claim_that_came_last_counts() -> None:
    claims = Claims(lambda: None)
    claims.claim("SIM", 7, 31)
    claims.claim("SIM", 7, 32)
    first, second = claims.take()
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
        [due] = claims.take()
        assert due == Due(source, run, 31)
        claims.done(due, run)
    assert [claims.claim(source, run, 31) for source, run in (("SIM", 7), ("SIM", 8))] == [7, 8]


def test_the_oldest_claims_are_forgotten() -> None:
    claims = Claims(lambda: None)
    for run in range(1, MAX_RUNS + 1):
        claims.claim("SIM", run, 31)
        [due] = claims.take()
        claims.done(due, run)
    claims.claim("SIM", 1, 32)
    claims.claim("SIM", MAX_RUNS + 1, 31)
    assert claims.claim("SIM", 3, 31) == 3
    assert claims.claim("SIM", 2, 31) == 0, "forgotten: run 1 was claimed again since"


def test_claims_that_nobody_carries_out_are_bounded() -> None:
    """Those that came first are carried out, some at a time; the others are told to ask again."""
    woken: list[int] = []
    claims = Claims(lambda: woken.append(1))
    said = [claims.claim("SIM", run, 31) for run in range(MAX_CLAIMS_WAITING + 3)]
    assert said == [0] * MAX_CLAIMS_WAITING + [None] * 3
    assert len(woken) == 1, "one wake-up for all that wait"
    due = claims.take()
    assert [one.run for one in due] == list(range(CLAIMS_PER_TURN))
    assert claims.claim("SIM", MAX_CLAIMS_WAITING, 31) == 0, "there is room again"
    due += [one for _ in range(MAX_CLAIMS_WAITING) for one in claims.take()]
    assert [one.run for one in due] == list(range(MAX_CLAIMS_WAITING + 1))
    claims.claim("SIM", 7, 32)
    assert len(woken) == 2


def test_a_claim_that_is_no_longer_recorded_is_carried_out_anew() -> None:
    claims = Claims(lambda: None)
    claims.claim("SIM", 7, 31)
    claims.forget("SIM", 7, 31)
    assert claims.claim("SIM", 7, 31) == 0
    [due] = claims.take()
    claims.done(due, 1)
    claims.forget("SIM", 7, 32)
    assert claims.claim("SIM", 7, 31) == 1, "of another process"
    claims.forget("SIM", 7, 31)
    assert claims.claim("SIM", 7, 31) == 0
    assert claims.take() == [due]

"""The state of a server: the worst of what holds now, its reasons, and how long the loop has not turned."""

from __future__ import annotations

import logging

import pytest

from flux.limits import LOOP_LATE_MS, MAX_REASON_CHARS
from flux.model import State
from flux.server import vitals as module
from flux.server.vitals import Vitals


def test_the_state_is_the_worst_of_what_holds_now() -> None:
    vitals = Vitals()
    assert (vitals.state, vitals.reason) == (State.OK, "")
    vitals.set("store", State.DEGRADED, "no store")
    vitals.set("journal", State.UNHEALTHY, "no journal")
    assert (vitals.state, vitals.reason) == (State.UNHEALTHY, "no journal; no store")
    assert vitals.has("journal")
    vitals.clear("journal")
    assert (vitals.state, vitals.reason, vitals.has("journal")) == (State.DEGRADED, "no store", False)
    vitals.set("store", State.DEGRADED, "another reason")
    assert vitals.reason == "another reason"
    vitals.clear("store")
    assert (vitals.state, vitals.reason) == (State.OK, "")


def test_a_condition_is_logged_when_it_is_new_and_when_it_ends(caplog: pytest.LogCaptureFixture) -> None:
    vitals = Vitals()
    with caplog.at_level(logging.INFO, "flux.server"):
        for _ in range(3):
            vitals.set("store", State.DEGRADED, "no store")
        vitals.set("stop", State.CLOSING, "it ends")
        for _ in range(3):
            vitals.clear("store")
        vitals.clear("never")
    assert [(one.levelno, one.getMessage()) for one in caplog.records] == [
        (logging.ERROR, "DEGRADED: no store"),
        (logging.INFO, "CLOSING: it ends"),
        (logging.WARNING, "no longer: no store"),
    ]


def test_one_reason_is_logged_once_whoever_found_it(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    vitals = Vitals()
    for name in ("store", "reading", "store"):
        vitals.set(name, State.DEGRADED, "the database fails")
    vitals.set("journal", State.DEGRADED, "the journal does")
    vitals.clear("store")
    assert vitals.reason == "the journal does; the database fails"
    assert vitals.has("reading")
    vitals.clear("reading")
    vitals.clear("reading")
    assert [record.message for record in caplog.records] == [
        "DEGRADED: the database fails",
        "DEGRADED: the journal does",
        "no longer: the database fails",
    ]
    vitals.set("store", State.DEGRADED, "the database fails")
    assert caplog.records[-1].message == "DEGRADED: the database fails", "it came back"


def test_reasons_are_cut() -> None:
    vitals = Vitals()
    vitals.set("a", State.DEGRADED, "x" * 2 * MAX_REASON_CHARS)
    assert vitals.reason == "x" * MAX_REASON_CHARS


def test_the_loops_age_is_since_it_last_came_round_with_python_or_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 5_000_000_000
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: now)
    vitals = Vitals()
    now += 2_000_000_000
    assert vitals.loop_age_ms() == 2_000
    vitals.also_turned = lambda: 6_500_000_000
    assert vitals.loop_age_ms() == 500
    vitals.turned()
    assert vitals.loop_age_ms() == 0
    vitals.also_turned = lambda: now + 1_000
    assert vitals.loop_age_ms() == 0, "it came round while this was asked"


def test_a_loop_that_has_not_come_round_for_seconds_is_not_well(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 5_000_000_000
    monkeypatch.setattr(module.time, "monotonic_ns", lambda: now)
    vitals = Vitals()
    now += 10 * LOOP_LATE_MS * 1_000_000
    assert vitals.state is State.OK, "it has not begun"
    vitals.turned()
    now += LOOP_LATE_MS * 1_000_000 - 1
    assert (vitals.state, vitals.reason) == (State.OK, "")
    now += 1
    assert vitals.state is State.UNHEALTHY
    assert vitals.reason == "no rows are taken: the loop has not come round for 5 s"
    vitals.also_turned = lambda: now
    assert vitals.state is State.OK
    now += LOOP_LATE_MS * 1_000_000
    vitals.also_turned = lambda: 0
    vitals.ended()
    assert vitals.state is State.OK, "it was told to"

"""What is logged of the conditions that hold."""

from __future__ import annotations

import logging

import pytest

from flux.model import State
from flux.server.vitals import Vitals


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

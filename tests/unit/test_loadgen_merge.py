"""Several publishers and subscribers as one."""

from __future__ import annotations

import dataclasses

from flux.loadgen.histogram import Histogram
from flux.loadgen.merge import merged_received, merged_sent, publisher_entry, subscriber_entry
from flux.loadgen.outcome import Received, Sent


def histogram(*values: int) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


def got(received: int, measured: int, last_ns: int, latency: int) -> Received:
    return Received(
        received=received,
        missing=1,
        duplicate=2,
        reordered=3,
        corrupt=4,
        unread=5,
        measured=measured,
        last_ns=last_ns,
        from_schedule=histogram(latency),
        from_send=histogram(latency - 1),
        cpu=0.25,
        refused=1,
        faulty_streams=1,
        streams=[{"stream": 3, "missing": 1, "duplicate": 2, "reordered": 3, "corrupt": 3}],
    )


def test_publishers_add_up() -> None:
    parts = [
        Sent(scheduled=10, sent=9, send_blocked=1, slip=histogram(5), cpu=0.5, faults={"drop": 1}),
        Sent(scheduled=20, sent=20, send_blocked=0, slip=histogram(70, 80), cpu=0.25),
    ]
    merged = merged_sent(parts)
    assert (merged.scheduled, merged.sent, merged.send_blocked, merged.cpu) == (30, 29, 1, 0.75)
    assert merged.slip == histogram(5, 70, 80)
    dropping = [dataclasses.replace(part, send_blocked=None) for part in parts]
    assert merged_sent(dropping).send_blocked is None, "a PUB socket is never full: nobody counted"
    assert publisher_entry(parts[0]) == {
        "counts": {"scheduled": 10, "sent": 9, "send_blocked": 1},
        "slip_ns": {"p50": 5, "p99": 5, "max": 5},
        "cpu": 0.5,
        "faults": {"drop": 1},
    }


def test_rows_of_subscribers_add_up_and_the_slowest_is_the_rate() -> None:
    merged = merged_received([got(100, 90, 7, 20), got(99, 80, 9, 30)])
    assert (merged.received, merged.missing, merged.unread, merged.refused) == (199, 2, 10, 2)
    assert (merged.measured, merged.last_ns, merged.cpu) == (80, 9, 0.5)
    assert merged.from_schedule == histogram(20, 30)
    assert merged.from_send == histogram(19, 29)


def test_the_entry_of_a_subscriber() -> None:
    entry = subscriber_entry(got(100, 90, 7, 20))
    assert entry["kind"] == "steady"
    assert entry["counts"]["refused"] == 1
    assert entry["latency_ns"]["from_schedule"]["max"] == 20
    assert entry["streams"] == [{"stream": 3, "missing": 1, "duplicate": 2, "reordered": 3, "corrupt": 3}]
    assert (entry["faulty_streams"], entry["stopped_ns"], entry["cpu"]) == (1, [], 0.25)

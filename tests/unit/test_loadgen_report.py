"""The report: its keys, its verdict, its gates and the exit codes."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from hdrh.histogram import HdrHistogram

from flux.errors import ConfigError
from flux.loadgen import report as reports
from flux.loadgen.gates import PLACES, Gate
from flux.loadgen.histogram import Histogram, distribution, summary
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.report import Outcome, Received, Sent


def histogram(*values: int) -> Histogram:
    made = Histogram()
    for value in values:
        made.record(value)
    return made


PLAN = Plan(rate=1000, duration_ns=2 * NS_PER_S, warmup_ns=NS_PER_S)


def outcome(**received: Any) -> Outcome:
    got = Received(
        received=3000,
        missing=0,
        duplicate=0,
        reordered=0,
        corrupt=0,
        unread=0,
        measured=2000,
        last_ns=3 * NS_PER_S,
        from_schedule=histogram(1_000_000, 2_000_000, 7_000_000),
        from_send=histogram(900_000, 1_900_000),
        cpu=0.5,
    )
    return Outcome(
        plan=PLAN,
        complete=True,
        publisher=Sent(scheduled=3000, sent=3000, send_blocked=0, slip=histogram(60_000), cpu=0.3),
        subscriber=dataclasses.replace(got, **received),
        libzmq="4.3.5",
        intervals=[{"t_s": 1, "sent": 1000, "received": 1000, "p50": 1, "p99": 2, "max": 3, "missing": 0}],
    )


def test_the_keys_of_the_contract() -> None:
    made = json.loads(reports.to_json(reports.report(outcome(), [Gate.parse("p99>5ms")])))
    assert {
        "schema_version",
        "complete",
        "tool",
        "env",
        "config",
        "rate",
        "counts",
        "latency_ns",
        "generator",
        "intervals",
        "gates",
    } <= set(made)
    assert made["schema_version"] == 1
    assert {"name", "version", "commit"} <= set(made["tool"])
    assert {"python", "cpu", "cores", "kernel", "libzmq"} <= set(made["env"])
    assert {"mode", "rate", "duration_s", "streams", "rows", "seed", "hwm"} <= set(made["config"])
    assert {"target", "achieved", "held"} <= set(made["rate"])
    assert {
        "scheduled",
        "sent",
        "received",
        "missing",
        "duplicate",
        "reordered",
        "corrupt",
        "send_blocked",
    } <= set(made["counts"])
    times = {"min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"}
    assert times <= set(made["latency_ns"]["from_schedule"])
    assert times <= set(made["latency_ns"]["from_send"])
    assert {"p99", "max"} <= set(made["generator"]["slip_ns"])
    assert {"publisher", "subscriber"} <= set(made["generator"]["cpu"])
    assert {"t_s", "sent", "received", "p50", "p99", "max", "missing"} <= set(made["intervals"][0])
    assert made["gates"] == [{"expr": "p99>5ms", "value": 7_000_000, "pass": False}]
    for name, place in PLACES.items():
        found: Any = made
        for step in place:
            found = found[step]
        assert isinstance(found, (int, float)), name


def test_held() -> None:
    made = reports.report(outcome())
    assert made["rate"] == {"target": 1000, "achieved": 1000.0, "held": True}
    assert reports.exit_code(made) == 0
    assert reports.to_text(made).startswith("HELD: 1,000 of 1,000 messages/s\n")


@pytest.mark.parametrize(
    "received",
    [
        {"measured": 1980},  # one in a hundred did not come
        {"last_ns": 3 * NS_PER_S + 30_000_000},  # the last came 30 ms behind the end: a backlog
        {"measured": 0, "last_ns": 0},
    ],
)
def test_not_held(received: dict[str, int]) -> None:
    made = reports.report(outcome(**received), [Gate.parse("missing>=0")])
    assert not made["rate"]["held"]
    assert reports.exit_code(made) == 6
    assert reports.to_text(made).startswith("NOT HELD")


def test_not_held_when_not_all_was_sent() -> None:
    ran = outcome()
    ran.publisher.sent -= 1
    assert reports.exit_code(reports.report(ran)) == 6


def test_a_gate_that_fails_is_exit_5() -> None:
    assert reports.exit_code(reports.report(outcome(missing=2), [Gate.parse("missing>0")])) == 5
    assert reports.exit_code(reports.report(outcome(missing=2), [Gate.parse("missing>2")])) == 0


def test_interrupted() -> None:
    ran = outcome(measured=500, last_ns=NS_PER_S + NS_PER_S // 2)
    ran.complete = False
    made = reports.report(ran)
    assert made["complete"] is False
    assert made["rate"]["achieved"] == 1000.0
    assert reports.exit_code(made) == 130
    assert reports.to_text(made).startswith("INTERRUPTED")


def test_rows_per_message_count_as_one_message() -> None:
    ran = outcome(measured=20_000)
    ran.plan = dataclasses.replace(PLAN, rows=10)
    assert reports.report(ran)["rate"]["achieved"] == 1000.0


@pytest.mark.parametrize(
    ("text", "name", "sign", "bound"),
    [
        ("p99>5ms", "p99", ">", 5_000_000),
        (" p99.9 >= 1.5ms ", "p99.9", ">=", 1_500_000),
        ("send.max<1us", "send.max", "<", 1000),
        ("slip.p99>1ms", "slip.p99", ">", 1_000_000),
        ("missing!=0", "missing", "!=", 0),
        ("achieved<99.5k", "achieved", "<", 99_500),
        ("received==2000", "received", "==", 2000),
    ],
)
def test_expressions(text: str, name: str, sign: str, bound: int) -> None:
    assert Gate.parse(text) == Gate(text.strip(), name, sign, bound)


@pytest.mark.parametrize(
    "text", ["", "p99", "p98>1ms", "p99>5", "missing>1ms", "p99=>1ms", "1ms<p99", "p99>1ms;"]
)
def test_expressions_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--fail-if"):
        Gate.parse(text)


def test_no_percentile_above_the_maximum() -> None:
    times = summary(histogram(1_000_000, 5_000_001))
    assert list(times) == ["min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
    assert times["p99.99"] == times["max"] == 5_000_001
    assert times["mean"] == 3_000_000.5
    assert set(summary(Histogram()).values()) == {0}


def test_the_distribution_agrees_with_the_hdrhistogram_package() -> None:
    mine, theirs = Histogram(), HdrHistogram(1, 100 * NS_PER_S, 3)
    for i in range(1, 5001):
        mine.record(i * i)
        theirs.record_value(i * i)
    rows = [line.split() for line in distribution(mine).splitlines()[2:] if not line.startswith("#")]
    levels = [float(row[1]) for row in rows]
    assert levels[:7] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55]
    assert levels[-1] == 1.0
    assert levels == sorted(set(levels))
    for row, level in zip(rows[:-1], levels[:-1], strict=True):
        value = theirs.get_value_at_percentile(level * 100)
        assert float(row[0]) == pytest.approx(min(value, 25_000_000) / 1000, abs=0.001)
        assert int(row[2]) == sum(i * i <= value for i in range(1, 5001))
    assert rows[-1][0] == "25000.000"
    assert rows[-1][2] == "5000"
    assert distribution(Histogram()).count("\n") == 5


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1500, "1.50 µs"),
        (12_345, "12.3 µs"),
        (123e6, "123 ms"),
        (2e9, "2.00 s"),
    ],
)
def test_times_for_people(ns: float, text: str) -> None:
    assert reports.duration_text(ns) == text

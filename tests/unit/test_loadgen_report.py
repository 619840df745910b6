"""The report: its keys, its verdict, its gates and the exit codes."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator

import pytest
from hdrh.histogram import HdrHistogram

from flux.errors import ConfigError
from flux.loadgen import report as reports
from flux.loadgen.environment import Surroundings
from flux.loadgen.gates import PLACES, Gate, met, parse_objective
from flux.loadgen.histogram import Histogram, distribution, summary
from flux.loadgen.plan import NS_PER_S
from tests.unit.outcomes import PLAN, closed, histogram, outcome
from tests.unit.report_schema import SCHEMA, resolved


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
    made["env"] |= Surroundings().seen()
    of_one_mode = (
        "send_blocked",
        "rows_per_s",
        "bytes_per_s",
        "errors",
        "cpu.server",
        "journalled",
        "stored",
    )
    for name, place in PLACES.items():
        expected = not (
            name in of_one_mode
            or place[0] in ("rpc", "codec")
            or place[1] in ("from_recorded", "from_origin")
        )
        bound = "0s" if "ns" in "".join(place) else "0"
        found = Gate.parse(f"{name}>{bound}").value(made)
        assert (found is not None) == expected, name


@pytest.mark.parametrize("name", PLACES)
def test_what_an_expression_may_name_is_in_the_schema(name: str) -> None:
    part = SCHEMA
    for step in PLACES[name]:
        properties = resolved(part).get("properties", {})
        part = properties.get(step) or resolved(part)["additionalProperties"]
    kinds = part["type"] if isinstance(part["type"], list) else [part["type"]]
    assert {"integer", "number"} & set(kinds), name


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


def test_a_closed_loop_says_what_it_carried_and_nothing_from_a_schedule() -> None:
    made = reports.report(closed())
    assert made["rate"] == {"target": None, "achieved": 1000.0, "held": True}
    assert made["config"]["rate"] is None
    assert made["latency_ns"]["from_schedule"] is None
    assert made["latency_ns"]["from_send"]["p50"] > 0
    assert made["generator"]["slip_ns"] is made["publishers"][0]["slip_ns"] is None
    assert made["subscribers"][0]["latency_ns"]["from_schedule"] is None
    assert reports.exit_code(made) == 0
    shown = reports.to_text(made)
    assert shown.startswith("CARRIED: 1,000 messages/s\n")
    assert "100,000 messages under way at most" in shown
    assert "nothing is ever due" in shown
    assert "slip" not in shown
    assert reports.to_csv(made).splitlines()[1] == "1,1000,1000,0,,,"
    assert reports.second_line(made["intervals"][0], warmup=True).endswith("missing      0  (warm-up)")
    gate = Gate.parse("p99>5ms")
    assert reports.exit_code(reports.report(closed(), [gate])) == 5, "what is not there fails a gate"


def test_a_closed_loop_that_lost_something_is_not_held() -> None:
    made = reports.report(closed(missing=1))
    assert made["rate"]["held"] is False
    assert reports.exit_code(made) == 6
    assert reports.to_text(made).startswith("NOT ALL ARRIVED: 1,000 messages/s\n")
    ran = closed()
    ran.complete = False
    assert reports.exit_code(reports.report(ran)) == 130


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


@pytest.mark.parametrize(
    ("text", "unit", "bound"),
    [
        ("p99<0.5ms", "ns", 500_000),
        ("latency_ns.from_send.p99.9>1us", "ns", 1000),
        ("counts.missing==0", "count", 0),
        ("generator.cpu.publisher>90%", "share", 0.9),
        ("cpu.subscriber<0.5", "share", 0.5),
        ("other_cpu>20%", "share", 0.2),
        ("target<1M", "count", 1_000_000),
    ],
)
def test_an_expression_names_anything_of_the_report(text: str, unit: str, bound: float) -> None:
    gate = Gate.parse(text)
    assert (gate.unit, gate.bound) == (unit, bound)


@pytest.mark.parametrize(
    ("text", "near"),
    [
        ("p98>1ms", "p99"),
        ("mising>0", "missing"),
        ("cpu.publsher>1", "cpu.publisher"),
        ("slip.p90>1ms", "slip.p99"),
        ("counts.recieved>1", "counts.received"),
    ],
)
def test_a_name_that_is_nearly_right_is_suggested(text: str, near: str) -> None:
    with pytest.raises(ConfigError, match=rf"did you mean .*{re.escape(near)}"):
        Gate.parse(text)


def test_a_number_that_a_report_lacks_fails_a_gate_and_an_objective() -> None:
    made = reports.report(outcome(), [Gate.parse("other_cpu>50%"), Gate.parse("other_cpu<=50%")])
    assert made["gates"] == [
        {"expr": "other_cpu>50%", "value": None, "pass": False},
        {"expr": "other_cpu<=50%", "value": None, "pass": False},
    ]
    assert "FAIL  fail if other_cpu>50%  (is not in this report)" in reports.to_text(made)
    assert not met(parse_objective("missing==0,other_cpu<50%"), made)
    seen = reports.report(outcome(), surroundings={"other_cpu": 0.25})
    assert met(parse_objective("missing==0, other_cpu<50%"), seen)
    assert not met(parse_objective("missing==0,other_cpu<20%"), seen)


@pytest.mark.parametrize("text", ["", "p99<1ms,", "p99<1ms;missing==0", "p99<1ms missing==0"])
def test_an_objective_is_expressions_with_commas(text: str) -> None:
    with pytest.raises(ConfigError, match="--slo"):
        parse_objective(text)


def test_no_percentile_above_the_maximum() -> None:
    times = summary(histogram(1_000_000, 5_000_001))
    assert list(times) == ["min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max"]
    assert times["p99.99"] == times["max"] == 5_000_001
    assert times["mean"] == 3_000_000.5
    assert set(summary(Histogram()).values()) == {0}


def plotted(text: str) -> Iterator[tuple[float, ...]]:
    """What HdrHistogram's plotter takes of a `.hgrm`: lines of four words that are numbers and no comment."""
    for line in text.split("\n"):
        words = line.strip().split()
        if not line.startswith("#") and len(words) == 4:
            try:
                yield tuple(float(word) for word in words)
            except ValueError:
                assert words == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]


def test_the_distribution_is_what_hdrhistogram_says_of_the_same_values() -> None:
    mine, theirs = Histogram(), HdrHistogram(1, 100 * NS_PER_S, 3)
    values = [i * i for i in range(1, 5001)] + [90 * NS_PER_S, 1_999_999_999]
    for value in values:
        mine.record(value)
        theirs.record_value(value)
    text = distribution(mine)
    rows = list(plotted(text))
    levels = [percentile for _, percentile, _, _ in rows]
    assert levels[:7] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55]
    assert levels == sorted(set(levels))
    assert 1 - levels[-1] <= 1 / len(values)
    for value, level, upto, odds in rows:
        highest = theirs.get_value_at_percentile(level * 100)
        assert value == pytest.approx(highest / 1000, abs=0.001)
        assert int(upto) == sum(value <= highest for value in values)
        assert odds == pytest.approx(1 / (1 - level), abs=0.01)
    *_, last, mean, most, buckets = text.splitlines()
    assert last.split() == ["90000000.000", "1.000000000000", "5002"]
    numbers = [float(n) for line in (mean, most, buckets) for n in re.findall(r"= +([\d.]+)", line)]
    assert numbers[0] == pytest.approx(sum(values) / len(values) / 1000, abs=0.001)
    assert numbers[1] == pytest.approx(theirs.get_stddev() / 1000, rel=1e-3)
    assert numbers[2:] == [90e6, 5002, theirs.bucket_count, theirs.sub_bucket_count]


def test_the_distribution_of_what_hdrhistogram_cannot_hold() -> None:
    assert list(plotted(distribution(Histogram()))) == []
    one = distribution(histogram(5_000))
    assert [row[0] for row in plotted(one)] == []
    assert one.splitlines()[2].split() == ["5.000", "1.000000000000", "1"]
    over = histogram(*[1000] * 9, 200 * NS_PER_S)
    *_, last, mean, _, _ = distribution(over).splitlines()
    assert last.split() == ["200000000.000", "1.000000000000", "10"]
    assert float(mean.split("StdDeviation")[1].strip(" =]")) == pytest.approx(60e6, rel=1e-3)
    assert math.isclose(over.mean, 20e9 + 900)


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

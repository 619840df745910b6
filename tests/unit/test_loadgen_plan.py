"""What is sent when, and how its numbers are written."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import ConfigError
from flux.loadgen.histogram import Schedule
from flux.loadgen.plan import NS_PER_S, Plan, parse_count, parse_duration


@pytest.mark.parametrize(
    ("text", "count"),
    [("100", 100), ("10k", 10_000), ("10K", 10_000), ("1.5M", 1_500_000), ("0.25k", 250), ("1_000", 1000)],
)
def test_counts(text: str, count: int) -> None:
    assert parse_count(text) == count


@pytest.mark.parametrize(
    "text", ["", "k", "-1", "1e3", "1.5", "0.0001k", "10kk", "10 k", "1G", "ten", "1._5k"]
)
def test_counts_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_count(text)


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("20s", 20 * NS_PER_S),
        ("500ms", NS_PER_S // 2),
        ("1.5m", 90 * NS_PER_S),
        ("100us", 100_000),
        ("100µs", 100_000),
        ("7ns", 7),
        ("0s", 0),
    ],
)
def test_durations(text: str, ns: int) -> None:
    assert parse_duration(text) == ns


@pytest.mark.parametrize("text", ["20", "", "s", "-1s", "1.5ns", "2 s", "1h30m", "1k"])
def test_durations_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("change", "flag"),
    [
        ({"rate": 0}, "--rate"),
        ({"rate": 10**9}, "--rate"),
        ({"duration_ns": 0}, "--duration"),
        ({"duration_ns": 10**18}, "--duration"),
        ({"streams": 0}, "--streams"),
        ({"streams": 100_001}, "--streams"),
        ({"rows": 0}, "--rows"),
        ({"rows": 65}, "--rows"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_a_plan_that_cannot_be(change: dict[str, int], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        dataclasses.replace(Plan(rate=100), **change).checked()


@given(st.integers(1, 3_000_000), st.integers(0, 5 * NS_PER_S), st.integers(NS_PER_S // 10, 5 * NS_PER_S))
def test_the_plan_counts_what_the_schedule_says_is_due(rate: int, warmup: int, duration: int) -> None:
    plan = Plan(rate=rate, warmup_ns=warmup, duration_ns=duration)
    schedule = Schedule(rate, 0)
    assert plan.messages == schedule.due(plan.run_ns - 1)
    assert plan.warmup_messages == schedule.due(warmup - 1)
    assert schedule.intended(plan.messages) >= plan.run_ns


@given(st.integers(0, 500), st.integers(1, 70), st.integers(1, 64))
def test_heads_are_where_turns_end(messages: int, streams: int, rows: int) -> None:
    heads = [0] * streams
    for k in range(messages):
        heads[k % streams] += rows
    assert Plan(rate=1, streams=streams, rows=rows).heads(messages) == heads

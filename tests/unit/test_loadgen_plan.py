"""What is sent when, and how its numbers are written."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import ConfigError
from flux.loadgen.histogram import Schedule
from flux.loadgen.plan import MAX_UNDER_WAY, NS_PER_S, Plan, parse_count, parse_duration
from flux.loadgen.schedule import Burst, Ramp, Replay


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


@given(st.data(), st.integers(1, 40), st.integers(1, 64), st.integers(1, 4))
def test_heads_are_where_turns_end(data: st.DataObject, streams: int, rows: int, parts: int) -> None:
    streams *= parts
    plan = Plan(rate=1, streams=streams, rows=rows, publishers=parts)
    numbered = data.draw(st.lists(st.integers(0, 300), min_size=parts, max_size=parts))
    heads = [0] * streams
    for part, messages in enumerate(numbered):
        for own in range(messages):
            heads[(own * parts + part) % streams] += rows
    assert plan.heads(*numbered) == heads


@given(st.integers(0, 10**6), st.integers(1, 64))
def test_each_message_is_one_publishers(messages: int, parts: int) -> None:
    plan = Plan(rate=1, streams=64 * parts, publishers=parts)
    shares = [plan.shared(messages, part) for part in range(parts)]
    assert sum(shares) == messages
    assert max(shares) - min(shares) <= 1
    assert shares == sorted(shares, reverse=True)


SHAPES = [
    Plan(ramp=Ramp(1000, 5000, NS_PER_S), duration_ns=2 * NS_PER_S, warmup_ns=NS_PER_S),
    Plan(ramp=Ramp(5000, 10, NS_PER_S // 3), duration_ns=NS_PER_S, warmup_ns=0),
    Plan(burst=Burst(500, NS_PER_S // 10), duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 4),
]


@pytest.mark.parametrize("plan", SHAPES, ids=["ramp", "down", "burst"])
def test_a_shape_counts_what_its_schedule_says_is_due(plan: Plan) -> None:
    schedule = plan.checked().schedule()
    assert plan.messages == schedule.due(plan.run_ns - 1) > plan.warmup_messages
    assert schedule.intended(plan.messages - 1) < plan.run_ns <= schedule.intended(plan.messages)
    assert plan.all_heads() == plan.heads(plan.messages)
    measured = plan.messages - plan.warmup_messages
    assert plan.target == pytest.approx(measured * NS_PER_S / plan.duration_ns, abs=0.1)


def test_a_ramp_is_at_its_first_rate_during_the_warm_up() -> None:
    plan = SHAPES[0].checked()
    assert plan.warmup_messages == 1000
    assert plan.messages_before(2 * NS_PER_S) == 1000 + 3000
    assert plan.messages == 1000 + 3000 + 5000


def candles(tmp_path: Path, *seconds: int) -> Replay:
    file = tmp_path / "replayed.csv"
    lines = [f"{1_600_000_000 + second}000,1,1,1,1,1" for second in seconds]
    file.write_text("\n".join(["ts_ms,open,high,low,close,volume", *lines]) + "\n")
    return Replay(str(file), speed=4)


def test_a_replay_keeps_the_times_of_the_file(tmp_path: Path) -> None:
    plan = Plan(replay=candles(tmp_path, 0, 1, 2, 7, 8, 12), warmup_ns=NS_PER_S // 2).checked()
    assert plan.replay is not None
    assert plan.replay.times().tolist() == [s * NS_PER_S // 4 for s in (0, 1, 2, 7, 8, 12)]
    assert (plan.run_ns, plan.messages, plan.warmup_messages) == (3 * NS_PER_S + 1, 6, 2)
    assert dataclasses.replace(plan, duration_ns=NS_PER_S).checked().messages == 3


def test_a_replay_that_is_too_short_or_empty(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lower --speed"):
        Plan(replay=candles(tmp_path, 0, 1)).checked()
    with pytest.raises(ConfigError, match="no row"):
        Plan(replay=dataclasses.replace(candles(tmp_path), speed=3)).checked()


def test_a_closed_loop_has_no_rate_and_no_end_but_its_time() -> None:
    plan = Plan(saturate=True, warmup_ns=NS_PER_S, publishers=2).checked()
    assert plan.paced
    assert plan.target is None
    assert plan.messages > 2**62
    assert plan.schedule(5).intended(10**12) == 5
    assert plan.heads(2, 1) == [1, 1, 1, *[0] * 61], "of streams 0 and 2, and of stream 1"
    assert plan.config()["rate"] is None
    assert plan.config()["schedule"] == {"shape": "closed", "under_way": MAX_UNDER_WAY}
    assert Plan.of(json.loads(json.dumps(dataclasses.asdict(plan)))) == plan

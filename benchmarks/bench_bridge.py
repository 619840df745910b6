"""The whole bridge: feed -> server (numbered, journalled, stored, published) -> client, a process each, by durability.

    python -m pytest -s benchmarks/bench_bridge.py

It is `flux-loadgen --mode through`: latency at 100,000 messages a second from the intended send time, and how many
messages get through when more are asked for than the machine carries. Every row must have arrived, and be in the
journal and in the database.
"""

from __future__ import annotations

from statistics import median
from typing import Any

import pytest

from benchmarks import ratios
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.report import report, to_text
from flux.loadgen.run import run

LATENCY_RATE = 100_000
TOO_MUCH = 1_200_000  # messages a second
RUNS = 3


def through(rate: int, seconds: int, durability: str) -> dict[str, Any]:
    """The report of one run, once every row is accounted for."""
    plan = Plan(
        mode="through",
        rate=rate,
        duration_ns=seconds * NS_PER_S,
        warmup_ns=NS_PER_S,
        durability=durability,
    ).checked()
    made = report(run(plan, say=lambda _: None))
    print(f"\n{to_text(made)}", end="")
    counts, server = made["counts"], made["server"]
    assert counts["missing"] == counts["corrupt"] == counts["duplicate"] == 0
    assert server["journalled"] == server["stored"] == counts["sent"]
    return made


@pytest.mark.informational
@pytest.mark.parametrize(("durability", "most_ms"), [("process", 1), ("disk", 5)])
def test_latency(durability: str, most_ms: float) -> None:
    runs = [through(LATENCY_RATE, 5, durability)["latency_ns"]["from_schedule"] for _ in range(RUNS)]
    p99 = median(run["p99"] for run in runs) / 1e6
    ratios.note_at_most(f"bridge: {durability}, 100 k/s, p99, median of {RUNS} runs", p99, most_ms, "ms")


@pytest.mark.informational
@pytest.mark.parametrize(("durability", "least_k"), [("process", 800), ("disk", 600)])
def test_throughput(durability: str, least_k: float) -> None:
    achieved = median(through(TOO_MUCH, 2, durability)["rate"]["achieved"] for _ in range(RUNS))
    ratios.note_at_least(
        f"bridge: {durability}, messages a second, median of {RUNS} runs", achieved / 1e3, least_k, "k/s"
    )

"""The whole bridge: feed -> server (numbered, journalled, stored, published) -> client, a process each, by durability.

    python -m pytest -s benchmarks/bench_bridge.py

It is `flux-loadgen --mode through`: latency at 100,000 messages a second from the intended send time, and how many
messages get through when more are asked for than the machine carries. Every row must have arrived, and be in the
journal and in the database.
"""

from __future__ import annotations

import pytest

from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.report import report, to_text
from flux.loadgen.run import run

LATENCY_RATE = 100_000
TOO_MUCH = 1_200_000  # messages a second
DURABILITIES = ("process", "disk")


def through(rate: int, seconds: int, durability: str) -> None:
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


@pytest.mark.informational
@pytest.mark.parametrize("durability", DURABILITIES)
def test_latency(durability: str) -> None:
    through(LATENCY_RATE, 5, durability)


@pytest.mark.informational
@pytest.mark.parametrize("durability", DURABILITIES)
def test_throughput(durability: str) -> None:
    through(TOO_MUCH, 2, durability)

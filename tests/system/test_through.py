"""Mode `through` of the load generator: every row of a feed through a real server, exactly accounted for."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from flux.errors import ConfigError
from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import Plan, Servers
from flux.loadgen.report import report
from flux.loadgen.run import run
from tests.system.processes import FluxServer

PLAN = Plan(
    mode="through", rate=2_000, duration_ns=1_000_000_000, warmup_ns=500_000_000, streams=7, rows=3, seed=5
)
ROWS = 3_000 * 3


def accounted(outcome: Outcome) -> dict[str, Any]:
    """The report, once its rows are known to be all there, once, in order and to the bit."""
    made = report(outcome)
    counts = made["counts"]
    assert made["complete"]
    assert (counts["scheduled"], counts["sent"], counts["received"]) == (ROWS, ROWS, ROWS)
    assert not any(counts[name] for name in ("missing", "duplicate", "reordered", "corrupt", "unread"))
    assert (made["config"]["mode"], made["config"]["tick_us"]) == ("through", 200)
    server: dict[str, Any] = made["server"]
    assert server["journalled"] == ROWS
    return server


@pytest.mark.parametrize("durability", ["process", "disk"])
def test_a_server_of_its_own(durability: str) -> None:
    plan = dataclasses.replace(PLAN, durability=durability).checked()
    server = accounted(run(plan, say=lambda _: None))
    assert (server["started"], server["durability"], server["stored"]) == (True, durability, ROWS)
    assert server["cpu"] >= 0


def test_a_server_that_runs_already_twice(tmp_path: Path) -> None:
    """A second run on the same server has streams of its own."""
    with FluxServer(tmp_path, "--ingest", "tcp://127.0.0.1:*") as server:
        servers = Servers(pub=server.pub, rpc=server.rpc, ingest=server.ingest)
        plan = dataclasses.replace(PLAN, servers=servers).checked()
        for _ in range(2):
            said = accounted(run(plan, say=lambda _: None))
            assert (said["started"], said["durability"], said["stored"]) == (False, None, None)
        assert sum(server.heads().values()) == 2 * ROWS
        assert server.stop() == 0


def test_what_it_cannot_do_is_said_at_once() -> None:
    given = dataclasses.replace(PLAN, servers=Servers(pub="tcp://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="--ingest"):
        run(given, say=lambda _: None)

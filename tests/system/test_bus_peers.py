"""`python -m benchmarks.peers` run small: that each bus passes every message and is counted, not how fast it is."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers.bus.measure import QUICK, Measured, Searching, Size, met
from benchmarks.peers.bus.peers import PEERS
from benchmarks.peers.bus.spec import Result, Spec

ROOT = Path(__file__).resolve().parents[2]

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


ATTEMPTS = 5


def quick(name: str, out: Path) -> tuple[subprocess.CompletedProcess[str], list[dict[str, Any]]]:
    """A small run of one bus and its trials. They last a quarter of a second: a machine that stalls for as long leaves
    no time to send anything, and they are asked again."""
    command = [sys.executable, "-m", "benchmarks.peers", "--quick", "--only", name, "--json", str(out)]
    for _ in range(ATTEMPTS):
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        trials = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        if all(trial["sent"] and (trial["p50"] or not trial["rate"]) for trial in trials):
            break
        out.unlink()
    return done, trials


@pytest.mark.parametrize("name", ["pyzmq", "libzmq", "asyncio", "redis", "streams-aof", "nats", "jetstream"])
def test_a_bus_passes_every_message(name: str, tmp_path: Path) -> None:
    done, trials = quick(name, tmp_path / "trials.jsonl")
    peer = PEERS[name]
    if why := peer.needs():
        assert f"{peer.name}: left out: {why}" in done.stdout
        pytest.skip(why)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"| {peer.name} | {peer.keeps} |" in done.stdout
    assert [(trial["part"], trial["rate"]) for trial in trials] == [
        ("saturation", 0),
        ("rate", QUICK.rates[0]),
    ]
    for trial in trials:
        assert trial["received"] == trial["sent"] > 0
        assert (trial["missing"], trial["disorder"]) == (0, 0)
        assert trial["cpu_us"]["publisher"] > 0
        assert trial["cpu_us"]["subscriber"] > 0
    assert 0 < trials[1]["p50"] <= trials[1]["p99"] <= trials[1]["p999"] <= trials[1]["max"]
    assert trials[1]["scheduled"] == QUICK.rates[0] * QUICK.rate_ns * 5 // 4 // 10**9


def passing_up_to(limit: int, tried: list[int]) -> Result | None:
    """A search of a peer that keeps the objective up to a rate; what it found."""

    def run(spec: Spec) -> Result:
        tried.append(spec.rate)
        good = spec.rate <= limit
        return Result("", spec.rate, achieved=spec.rate, held=True, p99=100 if good else 10**9)

    measured = Measured(saturation=[Result("", 0, achieved=1_000_000)])
    size = Size(1, (), 1, 1, 1, 3, 0.05)
    searching = Searching(run, measured, size)
    while searching.step() is not None:
        pass
    return measured.best


def test_the_search_finds_the_highest_rate_that_passes() -> None:
    tried: list[int] = []
    found = passing_up_to(300_000, tried)
    assert found is not None
    assert 285_000 <= found.rate <= 300_000
    assert tried[0] == 16_000  # a sixty-fourth of saturation


def test_a_search_that_begins_too_high_begins_again_lower() -> None:
    tried: list[int] = []
    found = passing_up_to(5_000, tried)
    assert found is not None
    assert 4_750 <= found.rate <= 5_000


def test_a_search_may_find_nothing() -> None:
    assert passing_up_to(10, []) is None


def test_a_rate_that_its_long_trials_refuted_is_never_published() -> None:
    """Short trials pass up to 300 k/s, long ones never: the answer is none, at whatever moment one looks."""
    measured, found = Measured(saturation=[Result("", 0, achieved=1_000_000)]), []

    def run(spec: Spec) -> Result:
        good = spec.rate <= 300_000 and spec.duration_ns == 1
        return Result("", spec.rate, achieved=spec.rate, held=True, p99=100 if good else 10**9)

    searching = Searching(run, measured, Size(1, (), 1, 1, 1, 3, 0.05))
    while searching.step() is not None:
        found.append(measured.best)
    assert len(found) > 20
    assert set(found) == {None}


def test_what_meets_the_objective() -> None:
    good = Result("", 10, held=True, p99=999_999)
    assert met(good)
    for name, value in (("held", False), ("p99", 1_000_000), ("missing", 1), ("error", "why")):
        bad = Result("", 10, held=True, p99=999_999)
        setattr(bad, name, value)
        assert not met(bad)

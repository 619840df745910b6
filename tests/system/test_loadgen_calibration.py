"""The instrument itself, measured: what is put in on purpose must come out, to the row and to the ms.

Every lower bound here is a law, whatever the machine does: a message that was intended while nobody read, or while
the publisher stood still, cannot have been faster. Noise only adds, so an upper bound is asked of the best of a few
runs.
"""

from __future__ import annotations

import dataclasses
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flux.loadgen.faults import Faults
from flux.loadgen.histogram import Histogram, percentile
from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import NS_PER_S, Audience, Plan
from flux.loadgen.report import report
from flux.loadgen.run import run

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

MS = 1_000_000
RATE = 5_000
SHORT = Plan(rate=RATE, duration_ns=2 * NS_PER_S, warmup_ns=NS_PER_S // 5)
ATTEMPTS = 5
BAND_NS = 50 * MS


def measured(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Outcome:
    return run(plan.checked(), say=say)


def exact(plan: Plan) -> Outcome:
    """A run in which every row was looked at. Where the machine stalls so long that rings run over, the run says so
    itself, and its counts are not those of the faults."""
    for _ in range(ATTEMPTS):
        outcome = measured(plan)
        if not outcome.subscriber.unread:
            return outcome
    pytest.fail(f"{ATTEMPTS} runs with rows that nobody looked at")


def at_least(histogram: Histogram, ns: int) -> int:
    """How many values are `ns` or more, but for the width of a slot."""
    return sum(count for lowest, count in histogram.recorded() if lowest * 1.001 >= ns) + histogram.over


def check_stall(histogram: Histogram, stall_ns: int) -> None:
    """Of the messages intended during a stall, the one intended x before its end is x late at least."""
    for late_ns in range(0, stall_ns, 10 * MS):
        assert at_least(histogram, late_ns) >= (stall_ns - late_ns) * RATE // NS_PER_S - 1
    share = 0.01 * SHORT.duration_ns  # p99: this much of the stall's messages was later still
    assert percentile(histogram, 99.0) >= (stall_ns - share) * 0.99
    assert histogram.max >= stall_ns - 2 * NS_PER_S // RATE


def check_sums(outcome: Outcome) -> None:
    """Each measured message is late by its publisher's lateness and its own way, to the ns."""
    slip, got = outcome.publisher.slip, outcome.subscriber
    assert (got.missing, got.unread, got.corrupt) == (0, 0, 0)
    assert slip.total == got.from_schedule.total == got.from_send.total == got.measured
    assert got.from_schedule.mean == pytest.approx(slip.mean + got.from_send.mean, abs=1)
    for at in (50.0, 90.0, 99.0, 99.9, 100.0):
        assert percentile(got.from_schedule, at) >= percentile(slip, at)
        assert percentile(got.from_schedule, at) >= percentile(got.from_send, at)


def check_clock(outcome: Outcome) -> None:
    """Nothing was received before it was sent, nor as good as at once: all processes read one clock."""
    got = outcome.subscriber
    assert got.from_schedule.refused == got.from_send.refused == outcome.publisher.slip.refused == 0
    assert 1_000 < got.from_send.min < NS_PER_S // 2


def test_a_subscriber_that_stops_for_200_ms() -> None:
    audience = Audience(steady=1, stopped=1, stop_ns=200 * MS, stop_at_ns=NS_PER_S)
    plan = dataclasses.replace(SHORT, audience=audience)
    over = []
    for _ in range(ATTEMPTS):
        outcome = measured(plan)
        steady, stopped = outcome.subscribers
        assert (steady.kind, stopped.kind, stopped.missing, steady.missing) == ("steady", "stopped", 0, 0)
        begin, end = stopped.stopped
        assert begin >= NS_PER_S
        assert end - begin >= 200 * MS
        check_stall(stopped.from_schedule, end - begin)
        expected = end - begin - 0.01 * plan.duration_ns  # 180 ms of a stop that lasted 200
        noise = steady.from_schedule.max  # what the machine did to everybody in this run
        over.append(percentile(stopped.from_schedule, 99.0) - expected - noise)
        entry = report(outcome)["subscribers"][1]
        assert entry["stopped_ns"] == [begin, end]
        assert entry["latency_ns"]["from_schedule"]["p99"] == percentile(stopped.from_schedule, 99.0)
        if over[-1] <= BAND_NS and percentile(stopped.from_schedule, 50.0) < 100 * MS:
            return
    pytest.fail(f"p99 lay {[ns / MS for ns in over]} ms above what a stop of 200 ms and the noise explain")


def publisher_of_this_thread() -> int:
    """The pid of the publisher that a run in this thread has started."""
    for pid in Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split():
        if b"flux.loadgen.workers.publisher" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return int(pid)
    raise AssertionError("no publisher")


def stand_still(pid: int, ns: int) -> int:
    """Stop a process for `ns` or longer; for how many ns it surely stood still."""
    os.kill(pid, signal.SIGSTOP)
    try:
        while "T" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]:
            select.select([], [], [], 0.0001)
        begin = time.monotonic_ns()
        select.select([], [], [], ns / NS_PER_S)
        return time.monotonic_ns() - begin
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_publisher_that_stands_still_is_late_and_says_so() -> None:
    stood: list[int] = []

    def stop_it(line: str) -> None:
        if not stood and "(warm-up)" in line:
            stood.append(stand_still(publisher_of_this_thread(), 300 * MS))

    outcome = measured(SHORT, stop_it)
    check_stall(outcome.publisher.slip, stood[0])
    check_stall(outcome.subscriber.from_schedule, stood[0])
    check_sums(outcome)
    check_clock(outcome)
    # From the actual send time the stop cannot be seen, which is why that is not the number to look at.
    assert percentile(outcome.subscriber.from_send, 99.0) < percentile(outcome.subscriber.from_schedule, 99.0)
    slip = report(outcome)["generator"]["slip_ns"]
    assert slip["max"] >= slip["p99"] >= (stood[0] - 0.01 * SHORT.duration_ns) * 0.99


@contextmanager
def spinning() -> Iterator[None]:
    """A process that spins on each core."""
    spinners = [
        subprocess.Popen(
            [sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"]
        )
        for core in os.sched_getaffinity(0)
    ]
    try:
        yield
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.wait()


@pytest.mark.parametrize("starved", [False, True], ids=["alone", "beside spinners"])
def test_lateness_and_way_add_up(starved: bool) -> None:
    plan = dataclasses.replace(SHORT, duration_ns=NS_PER_S)
    if starved:
        with spinning():
            outcome = measured(plan)
    else:
        outcome = measured(plan)
    check_sums(outcome)
    check_clock(outcome)
    assert outcome.publisher.cpu > 0
    assert outcome.subscriber.cpu > 0


def test_all_processes_read_one_clock() -> None:
    program = "import sys, time\nfor line in sys.stdin: print(time.monotonic_ns(), flush=True)"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdin is not None
        assert other.stdout is not None
        for _ in range(200):
            before = time.monotonic_ns()
            other.stdin.write("now\n")
            other.stdin.flush()
            assert before <= int(other.stdout.readline()) <= time.monotonic_ns()


def expected_by_stream(plan: Plan, every: int) -> Counter[int]:
    """How many messages of each stream are hit, counted one by one from what `Faults` says."""
    hit: Counter[int] = Counter()
    for part in range(plan.publishers):
        for own in range(plan.shared(plan.messages, part)):
            if (own + 1) % every == 0:
                hit[(own * plan.publishers + part) % plan.streams] += 1
    return hit


FAULTY = Plan(rate=20_000, duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 2, streams=10)


@pytest.mark.parametrize("publishers", [1, 2])
@pytest.mark.parametrize(
    ("fault", "shown"),
    [
        ("drop", ("missing",)),
        ("duplicate", ("duplicate",)),
        ("reorder", ("reordered",)),
        ("corrupt", ("missing", "corrupt")),
    ],
)
def test_every_thousandth_message_wronged_is_counted_to_the_row(
    fault: str, shown: tuple[str, ...], publishers: int
) -> None:
    faults = Faults(**{fault: 997})  # no multiple of the streams: it hits each of them
    plan = dataclasses.replace(FAULTY, faults=faults, publishers=publishers).checked()
    outcome = exact(plan)
    hit = expected_by_stream(plan, 997)
    number = hit.total()
    assert number == sum(plan.shared(30_000, part) // 997 for part in range(publishers))
    counts = report(outcome)["counts"]
    assert (counts["scheduled"], counts["sent"], counts["send_blocked"]) == (30_000, 30_000, None)
    for name in ("missing", "duplicate", "reordered", "corrupt"):
        assert counts[name] == (number if name in shown else 0), name
    assert counts["received"] == 30_000 - counts["missing"]
    assert sum(each.faults[fault] for each in outcome.publishers) == number
    got = outcome.subscriber
    assert got.refused == (number if fault == "corrupt" else 0)
    assert got.faulty_streams == len(hit)
    assert {each["stream"]: each[shown[0]] for each in got.streams} == dict(hit)


def test_all_faults_at_once() -> None:
    faults = Faults(drop=1000, corrupt=333, reorder=77, duplicate=50)
    outcome = exact(dataclasses.replace(FAULTY, faults=faults))
    done, got = outcome.publishers[0].faults, outcome.subscriber
    assert min(done.values()) >= 30
    assert got.missing == done["drop"] + done["corrupt"]
    assert (got.corrupt, got.reordered, got.duplicate) == (
        done["corrupt"],
        done["reorder"],
        done["duplicate"],
    )
    assert got.received == 30_000 - got.missing

"""Cost against size: does a row cost more when there are more streams, or when more rows are kept?

    python -m benchmarks.bench_scale [--out FOLDER]     the table, scale.md, and the curves, scale.png (with matplotlib)
    python -m pytest -s benchmarks/bench_scale.py       the first sizes only

place: one row in order in each ring in turn, inside C; the rings in a random order, as streams come.
record: `pump.record` of a turn of rows already in the inbox: into the rings, encoded as messages of one row, with
their checksum, into a group. Both as the shortest of some rounds, in ns a row.

The rings of few streams keep 4,096 rows together, those of many 16 each. A ring's length costs nothing. The number of
streams does, from some thousands on, when what a row needs (its stream's struct and names, the ring's marks, the row:
a dozen cache lines in four places) outgrows the caches: recording 100,000 streams in the order of their slots took 110
to 170 ns a row where a random order took 640 to 900. Asking for the lines ahead (prefetch) and huge pages for the
structs were tried and made no difference beyond the noise.
"""

from __future__ import annotations

import argparse
import importlib.util
import platform
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from benchmarks.peers.build import build_ring_loop
from flux.journal import Group
from flux.model import CANDLE, RUN, StreamKey
from flux.transport.pump import Streams, record

STREAMS = (1, 10, 100, 1_000, 10_000, 100_000)
STORED = (10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
TURN = 4_096  # rows a turn
ROUNDS = 7
ROWS_A_ROUND = 200_000
FILL_ROWS = 65_536


class Cost(NamedTuple):
    """ns a row; `place` is NaN without a compiler."""

    streams: int
    stored: int  # rows in each ring
    place: float
    record: float


def filled(count: int, ring_rows: int) -> Streams:
    """Streams whose rings are full: every row that comes evicts one, and no page is touched for the first time."""
    streams = Streams(count)
    rows = np.zeros(min(ring_rows, FILL_ROWS), CANDLE)
    for number in range(count):
        slot = streams.add(StreamKey("SIM", f"S{number}", "1m"), stream_id=number, ring_rows=ring_rows)
        for first in range(1, ring_rows + 1, len(rows)):
            streams.ring(slot).place(first, rows)
    return streams


def place_ns(loop: Any, streams: Streams, order: np.ndarray) -> float:
    if loop is None:
        return float("nan")
    row = np.zeros(1, CANDLE)
    rings = np.array([streams.ring(int(slot))._address for slot in order], np.uint64)
    rounds = max(1, ROWS_A_ROUND // len(rings))
    taken = min(
        loop.place_in_order(rings.ctypes.data, len(rings), row.ctypes.data, rounds) for _ in range(ROUNDS)
    )
    assert taken > 0, "a row was not placed"
    return float(taken) / (rounds * len(rings))


def record_ns(streams: Streams, order: np.ndarray) -> float:
    """Turns of TURN rows: `each` consecutive rows of as many streams as that takes, others in the next turn."""
    each = min(TURN // min(len(order), TURN), streams.ring(0).capacity)
    wide = min(len(order), TURN // each)
    inbox = np.zeros(wide * each, CANDLE)
    group = Group(8 << 20)
    runs = np.zeros(wide, RUN)
    runs["rows"], runs["at"] = each, np.arange(wide) * each * CANDLE.itemsize
    heads = np.array([streams.ring(slot).contiguous for slot in range(len(order))], np.uint64)
    best, turns = float("inf"), max(len(order) // wide, ROWS_A_ROUND // (wide * each))
    for _ in range(ROUNDS):
        taken = 0
        for turn in range(turns):
            which = np.sort(order[(turn * wide + np.arange(wide)) % len(order)])  # as the sequencer has them
            runs["stream"], runs["first"] = which, heads[which] + 1
            heads[which] += each
            group.clear()
            start = time.perf_counter_ns()
            record(streams, group, inbox.view(np.uint8), runs, store_id=1, epoch=1, max_rows=1)
            taken += time.perf_counter_ns() - start
        best = min(best, taken / (turns * wide * each))
    return best


def power_of_two(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


def cost(loop: Any, count: int, ring_rows: int) -> Cost:
    streams = filled(count, ring_rows)
    order = np.random.default_rng(1).permutation(count)
    return Cost(count, ring_rows, place_ns(loop, streams, order), record_ns(streams, order))


def by_streams(loop: Any, sizes: Sequence[int]) -> list[Cost]:
    """More and more streams, whose rings keep 4,096 rows together and 16 at least."""
    return [cost(loop, count, max(16, power_of_two(TURN // count))) for count in sizes]


def by_stored(loop: Any, sizes: Sequence[int]) -> list[Cost]:
    """Longer and longer rings: of one stream, or of as many as a turn needs."""
    rings = [power_of_two(rows) for rows in sizes]
    return [cost(loop, max(1, TURN // rows), rows) for rows in rings]


def table(title: str, costs: Sequence[Cost]) -> str:
    lines = [f"## {title}", "", "| streams | rows kept by each | place, ns a row | record, ns a row |"]
    lines.append("|---:|---:|---:|---:|")
    for one in costs:
        lines.append(f"| {one.streams:,} | {one.stored:,} | {one.place:.1f} | {one.record:.1f} |")
    return "\n".join(lines)


def plot(file: Path, streams: Sequence[Cost], stored: Sequence[Cost]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    for axes, costs, field, label in zip(
        figure.subplots(1, 2, sharey=True),
        (streams, stored),
        ("streams", "stored"),
        ("streams", "rows kept by a ring"),
        strict=True,
    ):
        sizes = [getattr(one, field) for one in costs]
        axes.plot(sizes, [one.record for one in costs], "o-", label="record: ring, message, checksum, group")
        axes.plot(sizes, [one.place for one in costs], "s-", label="place: ring alone")
        axes.set(xscale="log", xlabel=label, ylim=(0, None))
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("ns a row")
    figure.axes[0].legend(frameon=False)
    figure.savefig(file, dpi=120)


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench_scale", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent, help="where scale.md and scale.png go"
    )
    out = parser.parse_args().out
    with tempfile.TemporaryDirectory() as folder:
        loop = build_ring_loop(Path(folder))
        streams, stored = by_streams(loop, STREAMS), by_stored(loop, STORED)
    about = f"{time.strftime('%Y-%m-%d')}, {processor()}, Python {platform.python_version()}, numpy {np.__version__}"
    text = "\n\n".join(
        ["# Cost against size", about, table("More streams", streams), table("Longer rings", stored)]
    )
    print(text)
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
    else:
        plot(out / "scale.png", streams, stored)
        text += "\n\n![ns a row against streams and rows kept](scale.png)"
    (out / "scale.md").write_text(
        f"{text}\n\nAgain: `python -m benchmarks.bench_scale`; its head says what is measured.\n"
    )


@pytest.mark.informational
def test_the_first_sizes(tmp_path: Path) -> None:
    """The whole is run by hand: it fills a gigabyte."""
    loop = build_ring_loop(tmp_path)
    streams, stored = by_streams(loop, STREAMS[:4]), by_stored(loop, STORED[:4])
    print("\n" + table("More streams", streams) + "\n\n" + table("Longer rings", stored))
    assert all(one.record > 0 for one in streams + stored)


if __name__ == "__main__":
    main()

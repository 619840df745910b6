"""Cost against size: does a row cost more when there are more streams, or when more rows are kept?

    python -m benchmarks.bench_scale [--out FOLDER]     the table, scale.md, and the curves, scale.png (with matplotlib)
    python -m pytest -s benchmarks/bench_scale.py       the first sizes only

place: one row in order in each ring in turn, inside C; the rings in a random order, as streams come.
record: `pump.record` of a turn of rows already in the inbox: into the rings, encoded as messages of one row, with
their checksum, into a group. In a random order of streams, and in that of their slots.
floor: what memory itself takes for that: LINES writes of 64 bytes at random places in as many bytes as the streams
have. A row needs the pointer in the table, six lines of its stream, two of its ring's marks, its topic and its slot.
append: the journal's commit (not synced) and the store's append for rows of a stream that has so many rows already.
In ns a row; the shortest of many short rounds, of `record` the tenth part of turns that was fastest.

The rings of few streams keep 4,096 rows together, those of many 16 each. A ring's length costs nothing. The number of
streams does, from some thousands on, when what a row needs outgrows the caches. `record` asks ahead for the lines of
the next runs (ext/record.h); without that it took 350 ns a row at 10,000 streams and 700 at 100,000.
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
from flux.codec import crc32c
from flux.journal import BATCH, Group, Journal
from flux.model import CANDLE, RUN, RowKind, StreamKey
from flux.store import DuckStore, StoreBatch
from flux.transport.pump import Streams, record

STREAMS = (1, 10, 100, 1_000, 10_000, 100_000)
STORED = (10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
TURN = 4_096  # rows a turn
TURNS = 400
ROUNDS = 25
ROWS_A_ROUND = 50_000
FILL_ROWS = 65_536
LINES = 11  # of 64 bytes, that a recorded row needs
STREAM_BYTES = 1_024  # of a stream beside its ring's rows: struct, names, ring's marks, table entries
APPENDED = 20_000  # rows a commit of the store


class Cost(NamedTuple):
    """ns a row; `place` is NaN without a compiler."""

    streams: int
    stored: int  # rows in each ring
    place: float
    record: float
    in_order: float  # record, the streams in the order of their slots
    floor: float


class Stored(NamedTuple):
    """ns a row of appending to a stream that has `stored` rows."""

    stored: int
    journal: float
    store: float


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
    taken = []
    for turn in range(max(2 * len(order) // wide, TURNS)):
        which = np.sort(order[(turn * wide + np.arange(wide)) % len(order)])  # as the sequencer has them
        runs["stream"], runs["first"] = which, heads[which] + 1
        heads[which] += each
        group.clear()
        start = time.perf_counter_ns()
        record(streams, group, inbox.view(np.uint8), runs, store_id=1, epoch=1, max_rows=1)
        taken.append(time.perf_counter_ns() - start)
    return float(np.percentile(taken, 10)) / (wide * each)


def floor_ns(loop: Any, count: int, ring_rows: int) -> float:
    if loop is None:
        return float("nan")
    lines = power_of_two(count * (ring_rows * CANDLE.itemsize + STREAM_BYTES) // 64)
    memory = np.ones(lines * 64, np.uint8)  # written: no page is touched for the first time
    rows = ROWS_A_ROUND // 10
    return min(float(loop.random_lines(memory.ctypes.data, lines, LINES, rows)) for _ in range(ROUNDS)) / rows


def power_of_two(rows: int) -> int:
    return 1 << (rows - 1).bit_length()


def cost(loop: Any, count: int, ring_rows: int) -> Cost:
    streams = filled(count, ring_rows)
    order = np.random.default_rng(1).permutation(count)
    record = record_ns(streams, order)
    in_order = record_ns(streams, np.arange(count))
    return Cost(
        count, ring_rows, place_ns(loop, streams, order), record, in_order, floor_ns(loop, count, ring_rows)
    )


def by_streams(loop: Any, sizes: Sequence[int]) -> list[Cost]:
    """More and more streams, whose rings keep 4,096 rows together and 16 at least."""
    return [cost(loop, count, max(16, power_of_two(TURN // count))) for count in sizes]


def by_stored(loop: Any, sizes: Sequence[int]) -> list[Cost]:
    """Longer and longer rings: of one stream, or of as many as a turn needs."""
    rings = [power_of_two(rows) for rows in sizes]
    return [cost(loop, max(1, TURN // rows), rows) for rows in rings]


def journal_group(rows: int, messages: int) -> Group:
    """Records of so many messages with `rows` rows each: as large as what the pump makes."""
    size = 200 + rows * CANDLE.itemsize
    content = b"\x04\x00t.t." + bytes(size)
    content += crc32c(bytes(size)).to_bytes(4, "little")
    group = Group(messages * (size + 64) + 1_024, messages)
    for _ in range(messages):
        group.append(BATCH, content)
    return group


class History:
    """A journal and a store that one stream's rows are appended to."""

    def __init__(self, folder: Path) -> None:
        self.log = Journal.create(folder, b"heads")
        self.store = DuckStore(folder / "store.duckdb", 1)
        self.rows = 0
        self.one, self.many = journal_group(1, TURN), journal_group(1_000, 100)

    def commit(self, group: Group) -> int:
        """ns of a commit that is not synced."""
        if not self.log.fits(group):
            self.log.rotate(b"heads")
        start = time.perf_counter_ns()
        self.log.commit(group, sync=False)
        return time.perf_counter_ns() - start

    def append(self, count: int) -> int:
        """ns of the store's append of the stream's next `count` rows."""
        rows = np.zeros(count, CANDLE)
        sequences = np.arange(self.rows + 1, self.rows + count + 1, dtype=np.uint64)
        rows["ts_ms"] = sequences * 1_000
        ones = np.ones(count, np.uint32)
        batch = StoreBatch(RowKind.CANDLE, ones, sequences, ones, rows)
        self.rows += count
        start = time.perf_counter_ns()
        self.store.append(batch, (1, self.rows))
        return time.perf_counter_ns() - start

    def grow(self, rows: int) -> None:
        """Until there are so many."""
        while self.rows < rows:
            count = min(rows - self.rows, 100_000)
            self.append(count)
            if count == 100_000:
                self.commit(self.many)

    def cost(self, stored: int) -> Stored:
        """Of what is appended behind `stored` rows."""
        self.grow(stored)
        journal = min(self.commit(self.one) for _ in range(ROUNDS)) / TURN
        store = min(self.append(APPENDED) for _ in range(ROUNDS)) / APPENDED
        return Stored(stored, journal, store)


def by_history(folder: Path, sizes: Sequence[int]) -> list[Stored]:
    """A stream whose history grows: in the journal, and in the store that it is projected into."""
    history = History(folder)
    found = [history.cost(size) for size in sizes]
    history.log.close(clean=False)
    history.store.close()
    return found


def table(title: str, costs: Sequence[Cost]) -> str:
    lines = [
        f"## {title}",
        "",
        "| streams | rows kept by each | place | record | record, in order of slots | floor |",
        "|---:|---:|---:|---:|---:|---:|",
    ]
    for one in costs:
        figures = " | ".join(f"{ns:.1f}" for ns in one[2:])
        lines.append(f"| {one.streams:,} | {one.stored:,} | {figures} |")
    return "\n".join(lines)


def history_table(found: Sequence[Stored]) -> str:
    lines = ["## More rows stored", "", "| rows of the stream | journal | store |", "|---:|---:|---:|"]
    lines += [f"| {one.stored:,} | {one.journal:.1f} | {one.store:.0f} |" for one in found]
    return "\n".join(lines)


def plot(file: Path, streams: Sequence[Cost], rings: Sequence[Cost], history: Sequence[Stored]) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    named = {
        "record": "record: ring, message, checksum, group",
        "in_order": "the same, streams in order",
        "place": "place: ring alone",
        "floor": f"floor: {LINES} random 64-byte writes",
    }
    for axes, costs, field, label in (
        (left, streams, "streams", "streams"),
        (middle, rings, "stored", "rows kept by a ring"),
    ):
        for name in named if axes is left else ("record", "place"):
            sizes, ns = [getattr(one, field) for one in costs], [getattr(one, name) for one in costs]
            axes.plot(sizes, ns, "--" if name == "floor" else "o-", label=named[name])
        axes.set(xlabel=label)
    for name, words in (("journal", "journal: commit, not synced"), ("store", "store: append")):
        right.plot(
            [one.stored for one in history], [getattr(one, name) for one in history], "o-", label=words
        )
    right.set(xlabel="rows of the stream stored")
    for axes in (left, middle, right):
        axes.set(xscale="log", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend(frameon=False, fontsize=8)
    left.set_ylabel("ns a row")
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
        streams, rings = by_streams(loop, STREAMS), by_stored(loop, STORED)
        history = by_history(Path(folder), STORED)
    about = f"{time.strftime('%Y-%m-%d')}, {processor()}, Python {platform.python_version()}, numpy {np.__version__}"
    text = "\n\n".join(
        [
            "# Cost against size",
            f"{about}; ns a row",
            table("More streams", streams),
            table("Longer rings", rings),
            history_table(history),
        ]
    )
    print(text)
    if importlib.util.find_spec("matplotlib") is None:
        print("no picture: matplotlib is not installed")
    else:
        plot(out / "scale.png", streams, rings, history)
        text += "\n\n![ns a row against streams and rows kept](scale.png)"
    (out / "scale.md").write_text(
        f"{text}\n\nAgain: `python -m benchmarks.bench_scale`; its head says what is measured.\n"
    )


@pytest.mark.informational
def test_the_first_sizes(tmp_path: Path) -> None:
    """The whole is run by hand: it fills a gigabyte."""
    loop = build_ring_loop(tmp_path)
    streams, stored = by_streams(loop, STREAMS[:4]), by_stored(loop, STORED[:4])
    history = by_history(tmp_path, STORED[:4])
    tables = (table("More streams", streams), table("Longer rings", stored), history_table(history))
    print("", *tables, sep="\n\n")
    assert all(one.record > 0 for one in streams + stored)


if __name__ == "__main__":
    main()

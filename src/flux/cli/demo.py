"""`flux demo`: the whole main job in one terminal, and a verdict that is computed.

A sample file is made from a seed; a server (a process of its own) replays it and loses messages on purpose; a client
follows, repairs and caches; the server is killed with -9 and started again; the client is closed and begun again from
its cache. Last, every row that the consumer saw is compared with every row of the file.
"""

from __future__ import annotations

import argparse
import csv
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from flux.client.live import Live
from flux.errors import FluxError
from flux.feed import synth
from flux.loadgen.plan import parse_count
from flux.model import CANDLE, CandleFlag, StreamKey
from flux.testing.server import ANY_PORT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flux.batch import Batch

KEY: Final = StreamKey("SIM", "DEMO", "1m")
GAP_EVERY: Final = 25
TICK_MS: Final = 4
BATCH_ROWS: Final = 32
EXIT_VERDICT: Final = 5
COLUMNS: Final = ("open", "high", "low", "close", "volume")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux demo",
        description="A server, a client, a gap made and repaired, a kill -9 survived: in one terminal.",
        epilog="Exit codes: 0 every row arrived once, in order, with the file's bits; 5 it did not.",
    )
    made.add_argument("--rows", default="30k", metavar="N", help="candles in the sample (30k)")
    made.add_argument("--seed", default="1", metavar="N", help="seed of the sample (1)")
    return made


class _ServerProcess:
    """The server that loses messages on purpose, killed and started again on the same ports."""

    def __init__(self, data: Path, sample: Path) -> None:
        self._data, self._sample = data, sample
        self.pub = self.rpc = ANY_PORT
        try:
            self.start()
        except BaseException:  # interrupted while it started
            self.end()
            raise

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                sys.executable, "-m", "flux.testing", "--data", self._data, "--replay", self._sample,
                "--pub", self.pub, "--rpc", self.rpc, "--gap-every", str(GAP_EVERY),
                "--tick-ms", str(TICK_MS), "--batch-rows", str(BATCH_ROWS),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self._process.stdout is not None
        said = self._process.stdout.readline().split()
        if "pub" not in said:
            raise FluxError(f"the demo's server did not start (exit code {self._process.wait()})")
        self.pub, self.rpc = said[said.index("pub") + 1], said[said.index("rpc") + 1]
        self.state = said[said.index("state") + 1]

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def stop(self) -> str:
        """SIGTERM; the last line of its output."""
        self._process.send_signal(signal.SIGTERM)
        said, _ = self._process.communicate(timeout=10)
        return said.strip()

    def end(self) -> None:
        if self._process.poll() is None:
            self.kill()


@dataclass(slots=True)
class _Seen:
    """All that the consumer was given, in the order in which it was given."""

    sequences: list[NDArray[np.uint64]] = field(default_factory=list)
    rows: list[NDArray[np.void]] = field(default_factory=list)
    epochs: set[int] = field(default_factory=set)
    highest: int = 0

    def take(self, batch: Batch) -> None:
        """A batch; one from the cache, which repeats what this consumer was done with, is not taken again."""
        if batch.cached:
            return
        self.sequences.append(np.arange(batch.start_sequence, batch.end_sequence + 1, dtype=np.uint64))
        self.rows.append(batch.to_numpy())
        self.epochs.add(batch.epoch)
        self.highest = batch.end_sequence


def _follow(live: Live, seen: _Seen, upto: int) -> int:
    """Consume until sequence `upto` was seen; how many rows came out of the cache first."""
    live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="cache")
    cached = 0
    for batch in live:
        cached += len(batch) if batch.cached else 0
        seen.take(batch)
        if seen.highest >= upto:
            break
    return cached


def read_file(path: Path) -> NDArray[np.void]:
    """The sample as Python's own csv and float read it: nothing of flux stands between the file and the verdict."""
    with path.open(encoding="ascii", newline="") as file:
        lines = list(csv.DictReader(file))
    rows = np.zeros(len(lines), CANDLE)
    rows["ts_ms"] = [int(line["ts_ms"]) for line in lines]
    for name in COLUMNS:
        rows[name] = [float(line[name]) for line in lines]
    rows["flags"] = int(CandleFlag.CLOSED)
    return rows


def verdict(
    seen_sequences: NDArray[np.uint64], seen_rows: NDArray[np.void], truth: NDArray[np.void]
) -> list[str]:
    """What is wrong with what the consumer saw, compared with the file; nothing when all is well."""
    wrong = []
    expected = np.arange(1, len(truth) + 1, dtype=np.uint64)
    missing = np.setdiff1d(expected, seen_sequences)
    repeated = len(seen_sequences) - len(np.unique(seen_sequences))
    if len(missing):
        wrong.append(f"{len(missing)} rows never came, the first is sequence {missing[0]}")
    if repeated:
        wrong.append(f"{repeated} rows came more than once")
    if (np.diff(seen_sequences.astype(np.int64)) < 0).any():
        wrong.append("rows came out of order")
    known = seen_sequences <= len(truth)
    if not known.all():
        wrong.append(f"{int((~known).sum())} rows are not in the file")
    same = seen_rows[known].view("V64") == truth[seen_sequences[known] - 1].view("V64")
    if not same.all():
        wrong.append(f"{int((~same).sum())} rows differ from the file")
    return wrong


class _Story:
    """Lines with the time since the beginning."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def say(self, line: str) -> None:
        print(f"{time.monotonic() - self._begun:6.2f} s  {line}", flush=True)


def _play(folder: Path, rows: int, seed: int, story: _Story) -> list[str]:
    sample = folder / f"{KEY.symbol}.csv"
    synth.write_csv(sample, synth.candles(rows, seed=seed))
    story.say(f"sample: {rows:,} candles of {KEY} from seed {seed}, {sample.stat().st_size:,} bytes of CSV")
    server = _ServerProcess(folder / "data", sample)
    seen = _Seen()
    cache = folder / "client.duckdb"
    try:
        story.say(
            f"server {server.pid}: numbers, keeps and publishes, and drops every {GAP_EVERY}th message on purpose"
        )
        first, second = rows // 3, 2 * rows // 3
        with Live(cache=cache, pub=server.pub, rep=server.rpc) as live:
            _follow(live, seen, first)
            story.say(f"client: {seen.highest:,} candles, each once and in order, gaps repaired by backfill")
            killed = server.pid
            server.kill()
            server.start()
            story.say(
                f"server {killed}: killed with -9; server {server.pid}: started again, state {server.state}"
            )
            _follow(live, seen, second)
            story.say(f"client: went on by itself, {seen.highest:,} candles; closed now")
        with Live(cache=cache, pub=server.pub, rep=server.rpc) as live:
            cached = _follow(live, seen, rows)
            story.say(f"client: begun again, {cached:,} candles from its cache, then on to {seen.highest:,}")
        story.say(f"server {server.pid}: stopped; {server.stop()}")
    finally:
        server.end()
    truth = read_file(sample)
    wrong = verdict(np.concatenate(seen.sequences), np.concatenate(seen.rows), truth)
    if len(seen.epochs) != 1:
        wrong.append(f"a killed process is no reason for a new epoch, but there were {sorted(seen.epochs)}")
    return wrong


def run(arguments: argparse.Namespace) -> int:
    rows, seed = parse_count(arguments.rows), parse_count(arguments.seed)
    story = _Story()
    with tempfile.TemporaryDirectory(prefix="flux-demo-") as folder:
        wrong = _play(Path(folder), rows, seed, story)
    if wrong:
        for line in wrong:
            story.say(f"wrong: {line}")
        story.say("verdict: FAIL")
        return EXIT_VERDICT
    story.say(
        f"verdict: PASS: the consumer saw all {rows:,} rows of the file, each once, in order, to the bit"
    )
    return 0

"""Starts: a client with a warm cache, a server with a history, and what an import costs.

The server's directory holds that many rows in DuckDB and in one journal file; the time is that of `recover`: identity,
the scan of every record, the fence, and the store's opening. A journal of one gigabyte in one file is more than a
server ever scans: its files end at `limits.JOURNAL_FILE_BYTES`, and a start reads the last alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.bench_store import rows_of_a_feed
from benchmarks.sizes import of
from flux import journal
from flux.client.cache import Cache
from flux.journal import Group
from flux.journal.records import StreamRecord, pack
from flux.limits import GIB
from flux.model import StreamKey
from flux.server.storage.recover import Recovered, recover
from flux.transport.pump import Receiver, Streams, record
from tests.oracle.sequencer import Sequencer

CACHED = of(2_000, 200_000, 1_000_000)
HISTORY = of(2_000, 200_000, 10_000_000)
STREAMS = 64
ROWS_A_TURN = 512  # of each stream
ROWS_A_MESSAGE = 5
FILE_BYTES = 5 * GIB // 4
KEY = StreamKey("SIM", "BTC", "1m")


@pytest.mark.informational
@pytest.mark.benchmark(group="start: client")
@pytest.mark.parametrize("way", ["flux"])
def test_a_client_with_a_warm_cache(benchmark: Any, way: str, tmp_path: Path) -> None:
    path, rows = tmp_path / "cache.duckdb", rows_of_a_feed(CACHED)
    cache = Cache(path)
    for at in range(0, CACHED, 100_000):
        part = slice(at, min(at + 100_000, CACHED))
        cache.append(KEY, 1, 1, at + 1, rows[part], part.stop)
    cache.close()

    def start() -> None:
        cache = Cache(path)
        loaded = cache.load(KEY, CACHED)
        assert loaded is not None
        assert len(loaded.rows) == CACHED
        cache.close()

    benchmark.extra_info["rows"] = CACHED
    benchmark.pedantic(start, rounds=3)


def close(recovered: Recovered) -> None:
    recovered.journal.close()
    recovered.fence.close()
    recovered.projected.close()
    recovered.store.close()
    recovered.lock.release()


def write_history(directory: Path) -> int:
    """A server's directory with HISTORY rows, all projected; the journal's bytes."""
    recovered = recover(directory, disk=False, file_bytes=FILE_BYTES)
    log, identity = recovered.journal, recovered.identity
    streams, sequencer, group = Streams(STREAMS), Sequencer(), Group(16 << 20)
    receiver = Receiver(None, streams, server=True)
    for number in range(1, STREAMS + 1):
        key = StreamKey("SIM", f"S{number}", "1s")
        streams.add(key, stream_id=number, ring_rows=1_024)
        sequencer.add(0)
        group.append(journal.STREAM, pack(StreamRecord(number, *key)))
    rows = np.zeros(ROWS_A_TURN, "V64").view(streams.ring(0).dtype)
    rows["flags"] = 1
    for turn in range(-(-HISTORY // (STREAMS * ROWS_A_TURN))):
        rows["ts_ms"] = 1_700_000_000_000 + 1_000 * (turn * ROWS_A_TURN + np.arange(ROWS_A_TURN))
        receiver.kernel.begin()
        for slot in range(STREAMS):
            taken = receiver.kernel.offer(slot, rows)
            assert taken == ROWS_A_TURN
        runs = sequencer.number(receiver.arrivals[:STREAMS])
        record(
            streams, group, receiver.inbox, runs,
            store_id=identity.store_id, epoch=identity.epoch, max_rows=ROWS_A_MESSAGE,
        )  # fmt: skip
        log.commit(group, sync=False)
        group.clear()
    while recovered.projection.position < log.position:
        recovered.projection.step(log.position)
    size = log.position.offset
    recovered.fence.store(identity.store_id, identity.epoch, *log.position)
    close(recovered)
    return size


@pytest.mark.informational
@pytest.mark.benchmark(group="start: server")
@pytest.mark.parametrize("way", ["flux"])
def test_a_server_with_a_history(benchmark: Any, way: str, tmp_path: Path) -> None:
    size = write_history(tmp_path / "data")

    def start() -> None:
        close(recover(tmp_path / "data", disk=False, file_bytes=FILE_BYTES))

    benchmark.extra_info.update(millions=HISTORY / 1e6, mb=size / 1e6)
    benchmark.pedantic(start, rounds=3)


STARTS = {
    "python": ("-c", ""),
    "import numpy": ("-c", "import numpy"),
    "import flux.codec": ("-c", "import flux.codec"),
    "flux --help": ("-m", "flux.cli.main", "--help"),
}


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """An environment in which the interpreter keeps what it compiles, whatever this process was told."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(tmp_path_factory.mktemp("compiled"))}


@pytest.mark.informational
@pytest.mark.benchmark(group="import")
@pytest.mark.parametrize("way", STARTS)
def test_what_an_import_costs(benchmark: Any, compiled: dict[str, str], way: str) -> None:
    """The gate of it (gate/imports.py) counts the processor's time."""
    command = [sys.executable, *STARTS[way]]
    flags: dict[str, Any] = {"check": True, "capture_output": True, "env": compiled}
    benchmark.pedantic(subprocess.run, (command,), flags, rounds=of(1, 12), warmup_rounds=1)

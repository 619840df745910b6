"""What `flux serve` is fed: two inputs of one stream, files that say what they are, rings that wait for the journal."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from flux import journal, testing
from flux.cli.serve import config_of, parser
from flux.config import DEFAULT_INGEST_PULL, Replay, ServeConfig
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import State, StreamKey
from flux.server.service import Server
from flux.testing.server import ANY_PORT
from tests.full_disk import descriptor_of, refusing
from tests.patience import PATIENCE_S
from tests.system.processes import Flux, free_port, wait_until
from tests.system.test_feed import check_kept

KEY = StreamKey("SIM", "X", "1m")


def test_two_files_of_one_stream_the_first_one_writes_it(tmp_path: Path) -> None:
    """S19: the rows of the second are refused and counted `owner`, and it is read to its end all the same."""
    rows, others = synth.candles(300), synth.candles(200, 7, start_ms=1_750_000_020_000)
    files = [tmp_path / "one.csv", tmp_path / "other.csv"]
    for file, given in zip(files, (rows, others), strict=True):
        synth.write_csv(file, given)
    config = ServeConfig(
        data=tmp_path / "data",
        live_pub=ANY_PORT,
        chunk_rep=ANY_PORT,
        replays=tuple(Replay(file, key=str(KEY)) for file in files),
    )
    server = Server(config)
    server.start()
    try:
        wait_until(server.inputs_finished, "both files were read")
        assert server.counts()["ingest_owner"] == 200
        assert server.counts()["ingest_admitted"] == 300
    finally:
        server.stop()
    check_kept(tmp_path / "data", {KEY: rows})


def test_a_ring_evicts_only_what_the_journal_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S20: while the journal takes nothing, a ring keeps every row, the input waits, and nothing is shown."""
    monkeypatch.setattr("flux.limits.RING_CLASSES", ((100_000, 64),))
    rows = synth.candles(1_000)
    with (
        testing.server(data=tmp_path) as server,
        Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed,
    ):
        feed.send("X", "1m", rows[:10])
        feed.flush(PATIENCE_S)
        with refusing(descriptor_of(journal.path_of(tmp_path, 1))):
            feed.send("X", "1m", rows[10:])
            wait_until(lambda: server.vitals.state is State.UNHEALTHY, "the journal takes nothing")
            slot = server.streams.slot(KEY)
            assert slot is not None
            ring = server.streams.ring(slot)
            wait_until(lambda: server.loop.held, "the input waits for room in the ring")
            committed = server.streams.kernel.committed(slot)[0]
            assert (committed, feed.committed) == (10, 10)
            assert ring.first <= committed + 1, "a row that the journal does not have was evicted"
            assert server.streams.kernel.head(slot) <= committed + 64
        feed.flush(PATIENCE_S)
    check_kept(tmp_path, {KEY: rows})


@pytest.mark.system
def test_serve_says_which_stream_a_file_is_and_when_it_has_ended(tmp_path: Path) -> None:
    synth.write_csv(tmp_path / "SAMPLE.csv", synth.candles(50))
    process = Flux(
        *("serve", "--data", tmp_path / "data", "--pub", ANY_PORT, "--rpc", ANY_PORT),
        *("--replay", tmp_path / "SAMPLE.csv"),
    )
    try:
        assert " ready " in process.line()
        said = b""
        deadline = time.monotonic() + PATIENCE_S
        assert process.process.stderr is not None
        while b"to its end" not in said and time.monotonic() < deadline:
            said += process.process.stderr.readline()
        assert f"{tmp_path / 'SAMPLE.csv'} is replayed as SIM/SAMPLE/1m\n".encode() in said
        assert b"flux serve: SIM/SAMPLE/1m: replayed to its end, row 50\n" in said
    finally:
        process.kill()


@pytest.mark.system
def test_a_bare_ingest_is_where_the_environment_says(tmp_path: Path) -> None:
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    arguments = ("serve", "--data", tmp_path / "data", "--pub", ANY_PORT, "--rpc", ANY_PORT, "--ingest")
    process = Flux(*arguments, FLUX_INGEST_PULL=endpoint)
    try:
        assert f" ingest {endpoint} " in process.line()
    finally:
        process.kill()


def test_where_rows_of_feeds_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """F7: --ingest alone turns it on; FLUX_INGEST_PULL says where for a bare one, and a flag with a value beats it."""
    given = {
        (): None,
        ("--ingest",): "tcp://127.0.0.1:7001",
        ("--ingest", "tcp://127.0.0.1:7002"): "tcp://127.0.0.1:7002",
    }
    monkeypatch.setenv("FLUX_INGEST_PULL", "tcp://127.0.0.1:7001")
    for arguments, endpoint in given.items():
        assert config_of(parser().parse_args(arguments)).ingest == endpoint, arguments
    for empty in ("", None):
        monkeypatch.delenv("FLUX_INGEST_PULL", raising=False)
        if empty is not None:
            monkeypatch.setenv("FLUX_INGEST_PULL", empty)
        assert config_of(parser().parse_args(["--ingest"])).ingest == DEFAULT_INGEST_PULL
        assert config_of(parser().parse_args([])).ingest is None


def test_rows_of_a_file_are_those_of_the_file(tmp_path: Path) -> None:
    """S8, S16: a file may be of any time, the clock of the server is no bound; replayed again it adds nothing."""
    ahead_ms = time.time_ns() // 60_000_000_000 * 60_000 + 30 * 86_400_000
    rows = synth.candles(100, start_ms=ahead_ms)
    synth.write_csv(tmp_path / "X.csv", rows)
    for _ in range(2):
        with testing.server(data=tmp_path / "data", replay=tmp_path / "X.csv") as server:
            wait_until(server.inputs_finished, "the file was read")
            slot = server.streams.slot(KEY)
            assert slot is not None
            wait_until(lambda at=slot: server.streams.kernel.committed(at)[0] == 100, "committed")
            assert np.array_equal(server.streams.ring(slot).window(1, 100), rows)

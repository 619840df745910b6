"""No fault of the database takes the server down: rows go on, what the journal has is answered from there (S20), what
only the database has is unavailable, and health says the cure."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flux import journal
from flux.errors import FluxError, UnavailableError
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.model import State, StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer, wait_until

KEY = StreamKey("FEED", "BTC/USDT", "1m")
ROWS = 60_000
SEED = 5
TIME = int(candles(ROWS, SEED)["ts_ms"][ROWS // 2])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A directory whose database and journal have ROWS rows; only the last few thousand come back into memory."""
    with FluxServer(tmp_path / "d", "--ingest", "tcp://127.0.0.1:*") as server:
        send(server, candles(ROWS, SEED))
        assert server.stop() == 0
    return tmp_path / "d"


@pytest.fixture
def data_in_files(tmp_path: Path) -> Path:
    """The same with a journal of several files, so that the database is asked for what the older ones have."""
    with FluxServer(tmp_path / "d", "--ingest", "tcp://127.0.0.1:*", file_bytes=1 << 20) as server:
        rows = candles(ROWS, SEED)
        for at in range(0, ROWS, 2_000):
            send(server, rows[at : at + 2_000])
        assert server.stop() == 0
    return tmp_path / "d"


def send(server: FluxServer, rows: Any) -> None:
    with Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.rpc) as feed:
        feed.send(KEY.symbol, KEY.interval, rows)
        feed.flush(PATIENCE_S)


class Asking:
    """Requests to a server that lives, answered or refused."""

    def __init__(self, server: FluxServer, sockets: Sockets) -> None:
        self._requester = Requester(sockets, server.rpc)

    def __call__(self, build: Any, **slots: Any) -> Any:
        return self._requester.ask(build, timeout=PATIENCE_S, **slots)

    def rows(self, after: int, limit: int = 10) -> Any:
        return self(messages.backfill_rows_request, key=KEY, from_sequence_exclusive=after, limit=limit)

    def page_at(self, time_ms: int) -> Any:
        """The rows from a time on, which only the database can tell, or the error that came instead."""
        try:
            return self(messages.backfill_rows_request, key=KEY, start_ts_ms=time_ms, limit=10).rows
        except FluxError as error:
            return error

    def health(self) -> Any:
        return self(messages.health_request)

    def page(self, after: int) -> Any:
        """The rows behind `after`, or the error that came instead."""
        try:
            return self.rows(after).rows
        except FluxError as error:
            return error


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as made:
        yield made


def spoil(path: Path, seed: int) -> None:
    """Change bytes in the blocks in the middle of the database, as a failing disk does; its headers stay right."""
    rng, size = random.Random(seed), path.stat().st_size
    with path.open("r+b") as file:
        for at in range(3 * 4_096 + 262_144, size - 2 * 262_144, 4_096):
            file.seek(at + rng.randrange(4_000))
            file.write(rng.randbytes(64))


def test_behind_a_damaged_block_is_the_journal_and_the_server_lives_also_after_a_restart(
    data_in_files: Path, sockets: Sockets
) -> None:
    data, rows = data_in_files, np.concatenate([candles(ROWS, SEED), candles(ROWS + 200, SEED)[ROWS:]])
    spoil(data / "flux.duckdb", SEED)
    for begin in (ROWS, ROWS + 100):  # two lives
        with FluxServer(data, "--ingest", "tcp://127.0.0.1:*") as server:
            ask = Asking(server, sockets)
            for after in range(0, ROWS // 2, 2_000):
                np.testing.assert_array_equal(ask.page(after)["close"], rows["close"][after : after + 10])
            health = ask.health()
            assert (health.state, health.ok) == (State.DEGRADED, True)
            assert f"flux rebuild {data}" in health.message
            send(server, rows[begin : begin + 100])
            np.testing.assert_array_equal(
                ask.rows(begin, 100).rows["close"], rows["close"][begin : begin + 100]
            )
            assert server.stop() == 0


def test_what_only_the_damaged_database_has_is_unavailable(data_in_files: Path, sockets: Sockets) -> None:
    data = data_in_files
    spoil(data / "flux.duckdb", SEED)
    journal.path_of(data, 1).unlink()  # as retention does
    with FluxServer(data) as server:
        ask = Asking(server, sockets)
        assert isinstance(ask.page(1_000), UnavailableError)
        np.testing.assert_array_equal(
            ask.page(ROWS // 2)["close"], candles(ROWS, SEED)["close"][ROWS // 2 :][:10]
        )
        assert server.stop() == 0


@pytest.mark.parametrize("what", ["garbage", "short", "directory"])
def test_a_database_that_does_not_open_is_no_reason_not_to_start(
    data: Path, sockets: Sockets, what: str
) -> None:
    path = data / "flux.duckdb"
    if what == "garbage":
        path.write_bytes(random.Random(SEED).randbytes(100_000))
    elif what == "short":
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)
    else:
        path.unlink()
        path.mkdir()
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*") as server:
        assert server.state == "DEGRADED"
        ask = Asking(server, sockets)
        assert "the database fails" in ask.health().message
        np.testing.assert_array_equal(ask.page(0)["close"], candles(ROWS, SEED)["close"][:10])
        assert isinstance(ask.page_at(TIME), UnavailableError), (
            "where a time begins only the database can tell"
        )
        # The rings are warm all the same: what a feed sends again is known.
        send(server, candles(ROWS, SEED)[-1_000:])
        assert ask.rows(ROWS - 10).watermark_sequence == ROWS
        # More rows than any ring holds: none waits for the database.
        more = candles(ROWS + 300_000, SEED)[ROWS:]
        send(server, more)
        assert ask.rows(ROWS + 299_999).watermark_sequence == ROWS + 300_000
        # Those that the ring let go are in the journal alone.
        np.testing.assert_array_equal(ask.page(ROWS + 1)["close"], more["close"][1:11])
        assert server.stop() == 0


def test_a_database_that_comes_back_is_filled_without_a_restart(data: Path, sockets: Sockets) -> None:
    path, aside = data / "flux.duckdb", data / "aside"
    path.rename(aside)
    path.mkdir()
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*") as server:
        ask = Asking(server, sockets)
        assert isinstance(ask.page_at(TIME), UnavailableError)
        send(server, candles(ROWS + 10, SEED)[ROWS:])
        path.rmdir()
        aside.rename(path)
        wait_until(lambda: not isinstance(ask.page_at(TIME), FluxError), "the database is not read again")
        np.testing.assert_array_equal(ask.rows(0, 100).rows["close"], candles(ROWS, SEED)["close"][:100])
        wait_until(lambda: ask.health().state == State.OK, "it is not well again")
        assert server.stop() == 0

"""Which store a data directory is, over real processes: one owner, one history, and what an operator has to know."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flux import codec, journal
from flux.client.live import Live
from flux.feed import synth
from flux.model import State, StreamKey
from flux.protocol.replies import PageStatus
from flux.protocol.stream_state import StreamState
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import Flux, FluxServer, wait_until

pytestmark = pytest.mark.system

LOCAL = ("--pub", "tcp://127.0.0.1:*", "--rpc", "tcp://127.0.0.1:*")
TRIES = 3


def sample(tmp_path: Path, count: int = 300) -> Path:
    """A file of candles to replay."""
    file = tmp_path / "SAMPLE.csv"
    synth.write_csv(file, synth.candles(count, seed=5))
    return file


def ended(*arguments: str | Path) -> tuple[int, str, float]:
    """A command's exit code, its errors, and the seconds it took."""
    start = time.monotonic()
    with Flux(*arguments) as run:
        code = run.wait()
        took = time.monotonic() - start
        return code, run.errors(), took


REFUSED = """
import sys, time
from pathlib import Path
from flux.errors import InUseError
from flux.server.service import Server, ServeConfig
begin = time.monotonic()
try:
    Server(ServeConfig(Path(sys.argv[1]), "tcp://127.0.0.1:*", "tcp://127.0.0.1:*")).start()
except InUseError:
    print(time.monotonic() - begin)
"""


def names_in(data: Path) -> list[str]:
    """Its files but the database's, whose log comes and goes."""
    return sorted(path.name for path in data.iterdir() if not path.name.startswith("flux.duckdb"))


def refused_after(data: Path) -> float:
    """Seconds from a second server's start to its refusal, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", REFUSED, data], capture_output=True, text=True, check=True)
    return float(done.stdout)


@pytest.mark.parametrize("without", ["", "lock", "lock, fence and identity"])
def test_a_second_server_exits_3_within_a_second_and_changes_nothing(tmp_path: Path, without: str) -> None:
    """Also when somebody removed the lock file: the directory itself is locked (S7)."""
    data = tmp_path / "data"
    with FluxServer(data, "--replay", sample(tmp_path), "--durability", "process") as server:
        wait_until(lambda: list(server.heads().values()) == [300], "all rows")
        for name in without.replace(",", " ").replace("and", " ").split():
            (data / name).unlink()
        before = {file.path: file.path.read_bytes() for file in journal.files(data)}
        names = names_in(data)
        for _ in range(2):
            code, said, _ = ended("serve", *LOCAL, "--data", data)
            assert (code, said) == (3, f"flux serve: {data} is in use by process {server.pid}\n")
        # What a loaded machine takes to start a Python is not the server's: what comes after the imports is.
        assert min(refused_after(data) for _ in range(TRIES)) <= 1.0
        assert {file.path: file.path.read_bytes() for file in journal.files(data)} == before
        assert names_in(data) == names
        assert server.stop() == 0


class Asked:
    """Health and rows of a running server, as clients see them."""

    def __init__(self, server: FluxServer) -> None:
        self._sockets = Sockets()
        self._requester = Requester(self._sockets, server.rpc)

    def health(self) -> codec.HealthResponse:
        return self._requester.ask(messages.health_request, timeout=PATIENCE_S)

    def rows(self, key: StreamKey, **slots: int) -> codec.BackfillRowsResponse:
        return self._requester.ask(messages.backfill_rows_request, timeout=PATIENCE_S, key=key, **slots)

    def close(self) -> None:
        self._sockets.close()


@pytest.fixture
def asked() -> Iterator[Callable[[FluxServer], Asked]]:
    made: list[Asked] = []

    def ask(server: FluxServer) -> Asked:
        made.append(Asked(server))
        return made[-1]

    yield ask
    for one in made:
        one.close()


Ask = Callable[[FluxServer], Asked]


def started(tmp_path: Path, data: Path | None = None) -> FluxServer:
    """A server with the sample's rows in it."""
    server = FluxServer(data or tmp_path / "data", "--replay", sample(tmp_path), "--durability", "process")
    wait_until(lambda: list(server.heads().values()) == [300], "all rows")
    return server


@pytest.mark.parametrize("what", ["the directory", "the journal's file", "moved away"])
def test_a_directory_deleted_under_a_running_server_is_unhealthy(
    tmp_path: Path, asked: Ask, what: str
) -> None:
    """Rows would be journalled, synced and acknowledged, and gone with the process (D10)."""
    data = tmp_path / "data"
    with started(tmp_path) as server:
        client = asked(server)
        assert client.health().state == State.OK
        if what == "the directory":
            shutil.rmtree(data)
        elif what == "moved away":
            data.rename(tmp_path / "elsewhere")
        else:
            journal.path_of(data, 1).unlink()
        wait_until(lambda: client.health().state == State.UNHEALTHY, "UNHEALTHY")
        told = client.health()
        assert not told.ok
        assert "the data directory" in (told.message or "")
        assert "rows taken in now are lost" in (told.message or "")
        if what == "moved away":
            (tmp_path / "elsewhere").rename(data)
            wait_until(lambda: client.health().state == State.OK, "back")
        assert server.stop() == (0 if what == "moved away" else 1)
        said = server.errors()
        assert "UNHEALTHY: the data directory" in said
        assert ("what was taken in last is lost" in said) is (what != "moved away")


def test_a_loss_is_degraded_over_restarts_until_it_is_acknowledged(tmp_path: Path, asked: Ask) -> None:
    """Acknowledged while the server runs, and without one (D11)."""
    data = tmp_path / "data"
    with started(tmp_path) as server:
        server.kill()
    (data / "fence").unlink()
    for _ in range(2):
        with FluxServer(data) as server:
            told = asked(server).health()
            assert (told.state, told.ok) == (State.DEGRADED, True)
            assert "epoch 2 begins: the fence is gone" in (told.message or "")
            server.kill()
    with FluxServer(data) as server:
        client = asked(server)
        code, said, _ = ended("doctor", "--ack-loss", data)
        assert (code, said) == (0, "")
        wait_until(lambda: client.health().state == State.OK, "acknowledged")
        server.kill()
    with FluxServer(data) as server:
        assert asked(server).health().state == State.OK
        server.kill()


def test_a_cursor_ahead_of_the_head_is_counted_and_degraded_until_acknowledged(
    tmp_path: Path, asked: Ask
) -> None:
    """A disk that was rolled back is an older one without any trace: a client knows (D6, S6)."""
    data, key = tmp_path / "data", StreamKey("SIM", "SAMPLE", "1m")
    with started(tmp_path) as server:
        client = asked(server)
        store = client.health()
        for _ in range(2):
            page = client.rows(key, from_sequence_exclusive=301, epoch=store.epoch, store_id=store.store_id)
            assert page.status == PageStatus.CURSOR_AHEAD
        wait_until(lambda: client.health().state == State.DEGRADED, "DEGRADED")
        assert f"a client has seen {key} up to 301 of epoch 1, which is not here" in (
            client.health().message or ""
        )
        server.kill()
    with FluxServer(data) as server:
        client = asked(server)
        assert client.health().state == State.DEGRADED, "over restarts"
        assert ended("doctor", "--ack-loss", data)[0] == 0
        wait_until(lambda: client.health().state == State.OK, "acknowledged")
        assert (
            client.rows(key, from_sequence_exclusive=300, epoch=1, store_id=store.store_id).status
            == PageStatus.OK
        )
        assert client.health().state == State.OK, "at the head is not ahead of it"
        client.rows(key, from_sequence_exclusive=400, epoch=1, store_id=store.store_id)
        wait_until(lambda: client.health().state == State.DEGRADED, "a new one counts anew")
        server.kill()


def test_copied_over_it_is_another_store_unless_the_operator_says_otherwise(
    tmp_path: Path, asked: Ask
) -> None:
    """`cp -a BACKUP/. DIR/`, with and without `flux doctor --same-store` (D3, D4)."""
    data, backup = tmp_path / "data", tmp_path / "backup"
    with started(tmp_path) as server:
        original = asked(server).health().store_id
        assert server.stop() == 0
    subprocess.run(["cp", "-a", data, backup], check=True)
    subprocess.run(["cp", "-a", f"{backup}/.", data], check=True)
    code, said, _ = ended("doctor", "--same-store", data)
    assert (code, said) == (0, "")
    with FluxServer(data) as server:
        told = asked(server).health()
        assert (told.store_id, told.epoch, told.state) == (original, 1, State.OK)
        assert ended("doctor", "--same-store", data)[0] == 3, "not under a running server"
        assert server.stop() == 0
    stores = {original}
    for _ in range(2):
        subprocess.run(["cp", "-a", f"{backup}/.", data], check=True)
        with FluxServer(data) as server:
            told = asked(server).health()
            assert (told.epoch, told.state) == (2, State.DEGRADED)
            assert told.store_id not in stores
            stores.add(told.store_id)
            assert f"a copy or a restore of store {original:016x}" in (told.message or "")
            assert list(server.heads().values()) == [300]
            assert server.stop() == 0
        shutil.rmtree(data / "journal")  # what the second restore is to write over is the backup's alone


def handled(server: FluxServer, cache: Path, last: int) -> tuple[list[tuple[int, int, int]], list[str]]:
    """What a consumer with a cache is given up to `last`: (store, epoch, sequence) of every row, and gaps' reasons."""
    seen: list[tuple[int, int, int]] = []
    gaps: list[str] = []
    with Live(pub=server.pub, rep=server.rpc, cache=cache) as live:
        live.add_gap_callback(lambda gap: gaps.append(gap.reason))
        live.subscribe("SAMPLE", interval="1m", source="SIM", start="cache")
        for batch in live:
            seen += [(batch.store_id, batch.epoch, int(n)) for n in batch.sequences]
            if batch.end_sequence >= last:
                break
    return seen, gaps


def idle_at(server: FluxServer, cache: Path) -> tuple[int, int]:
    """The store and the sequence at which a cached client of this server has all there is."""
    key = StreamKey("SIM", "SAMPLE", "1m")
    with Live(pub=server.pub, rep=server.rpc, cache=cache) as live:
        live.subscribe(key.symbol, interval=key.interval, source=key.source_id, start="cache")
        live.start()
        wait_until(lambda: live.status(key).state == StreamState.IDLE, "IDLE")
        return live.status(key).store_id, live.status(key).delivered


def test_a_cached_client_fills_a_copys_rows_anew_and_is_given_the_reason_once(
    tmp_path: Path, asked: Ask
) -> None:
    """Two restores of one backup went on with different rows under the same numbers, and a client stayed on those of
    the other (D3). Rows from before the copy keep their epoch (D13)."""
    data, cache, more = tmp_path / "data", tmp_path / "cache.duckdb", tmp_path / "OTHER.csv"
    with started(tmp_path) as server:
        original = asked(server).health().store_id
        assert handled(server, cache, 300)[0] == [(original, 1, n) for n in range(1, 301)]
        assert server.stop() == 0
    synth.write_csv(more, synth.candles(400, seed=9, start_ms=1_790_000_040_000))
    before = original
    for copy in ("one", "two"):
        shutil.copytree(data, tmp_path / copy)
        with FluxServer(tmp_path / copy, "--replay", f"SIM/SAMPLE/1m={more}") as server:
            wait_until(lambda: list(server.heads().values()) == [700], "all rows")
            store = asked(server).health().store_id
            assert asked(server).health().parent_store_id == original
            seen, gaps = handled(server, cache, 700)
            assert seen == [(store, 1 if n <= 300 else 2, n) for n in range(1, 701)]
            assert gaps == [
                f"void: the server has another store: {store:016x}, and what came before is of {before:016x}"
            ]
            assert server.stop() == 0
        with FluxServer(tmp_path / copy) as server:
            assert idle_at(server, cache) == (store, 700), "the cache is this store's now"
            assert server.stop() == 0
        before = store

"""`flux rebuild`: the database anew from the journal, and a damaged journal cut, with what that loses said first."""

from __future__ import annotations

import re
from pathlib import Path

import duckdb
import numpy as np
import pytest
from numpy.typing import NDArray

from flux import journal
from flux.cli.main import main
from flux.config import Replay, ServeConfig
from flux.errors import RequestError
from flux.feed import synth
from flux.journal.records import FORMAT, HeadsRecord, pack
from flux.limits import GROUP_BYTES
from flux.model import StreamKey
from flux.schema import messages
from flux.server.requests.backfill import PageStatus
from flux.server.service import Server
from flux.server.storage.directory import DirectoryLock
from flux.server.storage.scan import scan_file
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until
from tests.system.served_rows import stored

pytestmark = pytest.mark.system

KEY = StreamKey("SIM", "SAMPLE", "1m")
LOCAL = "tcp://127.0.0.1:*"
FILE_BYTES = 4 * GROUP_BYTES


class Told:
    """`flux` commands in this process: exit code, standard output, standard error."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str | Path) -> tuple[int, str, str]:
        self._capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        return code, said.out, said.err


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    return Told(capsys)


def served(data: Path, *replays: Replay) -> Server:
    """A started server with small journal files."""
    config = ServeConfig(
        data, LOCAL, LOCAL, durability="process", replays=replays, journal_file_bytes=FILE_BYTES
    )
    server = Server(config)
    server.start()
    return server


def head(requester: Requester) -> int:
    streams = requester.ask(messages.stream_list_request, timeout=PATIENCE_S).streams
    return int(streams[0].latest_sequence) if streams else 0


def filled(tmp_path: Path, count: int) -> tuple[Path, NDArray[np.void]]:
    """A data directory with a sample in it, in many groups."""
    rows = synth.candles(count, seed=11)
    file = tmp_path / "SAMPLE.csv"
    synth.write_csv(file, rows)
    serve_until(tmp_path / "data", count, Replay(file))
    return tmp_path / "data", rows


def filled_in_two_files(tmp_path: Path) -> tuple[Path, NDArray[np.void]]:
    """The same, the second half in a second file of the journal."""
    rows = synth.candles(12_000, seed=12)
    file, data = tmp_path / "SAMPLE.csv", tmp_path / "data"
    synth.write_csv(file, rows)
    serve_until(data, 6_000, Replay(file, limit=6_000, tick_s=0.005, batch_rows=500))  # in several groups
    scanned, damage = scan_file(journal.files(data)[0])
    assert scanned is not None
    assert damage is None
    log = journal.Journal.open(data, file=1, offset=scanned.end.offset, file_bytes=FILE_BYTES)
    heads, streams = scanned.heads, list(scanned.streams.values())
    log.rotate(pack(HeadsRecord(FORMAT, heads.store_id, heads.epoch, streams, [], scanned.sources)))
    log.close(clean=False)
    serve_until(data, 12_000, Replay(file))
    assert [file.number for file in journal.files(data)] == [1, 2]
    return data, rows


def serve_until(data: Path, count: int, *replays: Replay) -> str:
    """Serve until the head is there, stop, and give what its health said."""
    server = served(data, *replays)
    try:
        with Sockets() as sockets:
            requester = Requester(sockets, server.chunk_rep)
            wait_until(lambda: head(requester) == count, f"{count} rows")
            return str(requester.ask(messages.health_request).message)
    finally:
        server.stop()


def check_kept(data: Path, rows: NDArray[np.void]) -> None:
    sequences, kept = stored(data / "flux.duckdb")
    assert np.array_equal(sequences, np.arange(1, len(rows) + 1, dtype=np.uint64))
    assert kept.tobytes() == rows.tobytes()


def batches(data: Path, number: int = 1) -> NDArray[np.void]:
    found = journal.scan(journal.read_file(journal.path_of(data, number))).records
    return found[found["kind"] == journal.BATCH]


def flip(data: Path, at: int, number: int = 1) -> None:
    with open(journal.path_of(data, number), "r+b") as file:
        file.seek(at)
        (byte,) = file.read(1)
        file.seek(at)
        file.write(bytes([byte ^ 1]))


def test_the_database_is_filled_anew_and_the_old_one_set_aside(tmp_path: Path, told: Told) -> None:
    data, rows = filled(tmp_path, 9_000)
    before = (data / "flux.duckdb").stat().st_ino
    code, out, _ = told("rebuild", data)
    assert (code, out) == (
        0,
        "flux rebuild: 9000 rows from the journal; the old database is flux.duckdb.old-1\n",
    )
    check_kept(data, rows)
    assert (data / "flux.duckdb.old-1").stat().st_ino == before
    assert (data / "flux.duckdb").stat().st_ino != before
    assert told("rebuild", data)[1].endswith("flux.duckdb.old-2\n"), "none is overwritten"
    assert serve_until(data, len(rows)) == "ok"
    check_kept(data, rows)


def test_a_database_that_is_gone_corrupt_or_half_rebuilt(tmp_path: Path, told: Told) -> None:
    data, rows = filled(tmp_path, 3_000)
    (data / "flux.duckdb").unlink()
    (data / "flux.duckdb.new").write_bytes(b"a rebuild that was killed")
    assert told("rebuild", data)[:2] == (0, "flux rebuild: 3000 rows from the journal\n")
    check_kept(data, rows)
    (data / "flux.duckdb").write_bytes(b"no database" * 1_000)
    assert told("rebuild", data)[0] == 0
    check_kept(data, rows)
    assert not (data / "flux.duckdb.new").exists()


def test_what_cannot_be_rebuilt(tmp_path: Path, told: Told) -> None:
    code, _, err = told("rebuild", tmp_path / "nowhere")
    assert (code, err) == (2, f"flux rebuild: {tmp_path / 'nowhere'} is no directory\n")
    code, _, err = told("rebuild", tmp_path)
    assert code == 2
    assert "holds no journal" in err
    assert list(tmp_path.iterdir()) == []
    data, _ = filled(tmp_path, 10)
    lock = DirectoryLock(data)
    code, _, err = told("rebuild", data)
    lock.release()
    assert code == 3
    assert "is in use by process" in err


def test_damage_in_the_middle_is_said_cut_and_begins_an_epoch(tmp_path: Path, told: Told) -> None:
    data, rows = filled(tmp_path, 60_000)
    found = journal.scan(journal.read_file(journal.path_of(data, 1))).records
    commits = found["at"][found["kind"] == journal.COMMIT]
    middle = batches(data)
    spot = int(middle["at"][len(middle) // 2]) + 200
    flip(data, spot)
    journal_before = journal.path_of(data, 1).read_bytes()
    scan = journal.scan(journal_before)
    kept = rows_until(data, scan.committed)

    for verb in (["serve", "--data", data, "--pub", LOCAL, "--rpc", LOCAL], ["rebuild", data]):
        code, _, err = told(*verb)
        assert code == 4
        assert f"damaged at byte {scan.end} (body)" in err
        assert f"`flux rebuild {data} --cut`" in err
        loss = re.search(
            r"(\d+) bytes after byte (\d+) would be lost: at least (\d+) groups with (\d+) rows of 1 streams",
            err,
        )
        assert loss is not None
        assert tuple(map(int, loss.groups())) == (
            scan.tail - scan.committed,
            scan.committed,
            int(np.count_nonzero(commits > scan.committed)),
            len(rows) - kept,
        )
    assert journal.path_of(data, 1).read_bytes() == journal_before, "nothing was changed"
    check_kept(data, rows)

    code, out, err = told("rebuild", data, "--cut")
    assert code == 0
    assert err.endswith(": cut\n")
    assert out.startswith(f"flux rebuild: {kept} rows from the journal; the old database is ")
    check_kept(data, rows[:kept])

    health = serve_until(data, kept)
    assert health.startswith("epoch 2 begins: the journal ends at file 1 byte")
    serve_until(data, len(rows), Replay(tmp_path / "SAMPLE.csv"))  # goes on behind the last row that is left
    check_kept(data, rows)


@pytest.mark.parametrize("database", [True, False])
def test_salvage_keeps_all_that_reads(tmp_path: Path, told: Told, database: bool) -> None:
    """D12: one bad group costs its own rows at most, and those only where the database has them not."""
    data, rows = filled(tmp_path, 60_000)
    middle = batches(data)
    flip(data, int(middle["at"][len(middle) // 2]) + 200)
    if not database:
        (data / "flux.duckdb").unlink()
    code, _, err = told("rebuild", data)
    assert code == 4
    assert f"`flux rebuild {data} --salvage` keeps every group that reads" in err
    code, out, err = told("rebuild", data, "--salvage")
    assert code == 0
    assert re.search(r"damaged at byte \d+ \(body\).* groups after it are kept", err)
    assert (" that only the database had" in out) == database
    assert ("no database that opens" in err) != database
    sequences, kept = stored(data / "flux.duckdb")
    assert kept.tobytes() == rows[sequences.astype(np.intp) - 1].tobytes()
    if database:
        assert len(sequences) == len(rows)
        assert serve_until(data, len(rows)) == "ok"
        return
    assert sequences[-1] == len(rows)
    (edge,) = np.flatnonzero(np.diff(sequences) != 1)
    before, behind = int(sequences[edge]), int(sequences[edge + 1])
    server = served(data)
    try:
        with Sockets() as sockets:
            requester = Requester(sockets, server.chunk_rep)
            hole = requester.ask(messages.backfill_rows_request, key=KEY, from_sequence_exclusive=before)
            assert (hole.status, hole.first_available_sequence) == (PageStatus.HOLE, behind)
            assert server.vitals.reason.startswith("epoch 2 begins")
    finally:
        server.stop()


def rows_until(data: Path, offset: int) -> int:
    """Rows in the batches of file 1 in front of `offset`."""
    whole = bytes(journal.read_file(journal.path_of(data, 1)))
    return sum(map(len, journal.Gatherer(200_000)(whole[:offset], journal.FILE_HEADER_BYTES).rows.values()))


def test_damage_in_an_older_file_leaves_a_hole(tmp_path: Path, told: Told) -> None:
    data, rows = filled_in_two_files(tmp_path)
    flip(data, int(batches(data)["at"][-1]) + 200)
    (data / "flux.duckdb").rename(data / "old.duckdb")

    code, _, err = told("serve", "--data", data, "--pub", LOCAL, "--rpc", LOCAL)
    assert code == 4, "the store would have a hole that nobody was told of"
    assert f"`flux rebuild {data}` says what that loses, and what `--salvage` and `--cut` keep" in err
    code, _, err = told("rebuild", data)
    assert code == 4
    lost = re.search(r"groups with (\d+) rows of 1 streams", err)
    assert lost is not None
    assert told("rebuild", data, "--cut")[0] == 0
    sequences, kept = stored(data / "flux.duckdb")
    assert len(sequences) == len(rows) - int(lost[1])
    assert kept.tobytes() == rows[sequences.astype(np.intp) - 1].tobytes()
    (edge,) = np.flatnonzero(np.diff(sequences) != 1)
    before, behind = int(sequences[edge]), int(sequences[edge + 1])
    server = served(data)  # no new epoch: the head is what it was
    try:
        with Sockets() as sockets:
            requester = Requester(sockets, server.chunk_rep)
            assert (head(requester), server.vitals.reason) == (len(rows), "")
            rest = requester.ask(messages.backfill_rows_request, key=KEY, from_sequence_exclusive=before - 5)
            assert (rest.start_sequence, len(rest.rows), rest.status) == (before - 4, 5, PageStatus.OK)
            hole = requester.ask(messages.backfill_rows_request, key=KEY, from_sequence_exclusive=before)
            assert (hole.status, hole.first_available_sequence) == (PageStatus.HOLE, behind)
            with pytest.raises(RequestError, match=f"sequences {before + 1} to {behind - 1} are lost"):
                requester.ask(
                    messages.backfill_candles_request,
                    version=1,
                    key=KEY,
                    has_from_sequence=True,
                    from_sequence_exclusive=before,
                )
    finally:
        server.stop()


def test_a_last_file_that_does_not_read_at_all(tmp_path: Path, told: Told) -> None:
    data, rows = filled_in_two_files(tmp_path)
    last = journal.files(data)[-1]
    flip(data, 0, last.number)
    code, _, err = told("rebuild", data)
    assert code == 4
    assert "with it (its first group does not read) would be lost" in err
    assert told("rebuild", data, "--cut")[0] == 0
    assert last.path.with_name(last.path.name + ".damaged").exists()
    sequences, _ = stored(data / "flux.duckdb")
    check_kept(data, rows[: len(sequences)])
    assert "epoch 2 begins" in serve_until(data, len(sequences))


def test_an_older_file_that_does_not_read_at_all(tmp_path: Path, told: Told) -> None:
    data, rows = filled_in_two_files(tmp_path)
    flip(data, 0, 1)
    code, _, err = told("rebuild", data)
    assert code == 4
    assert "with 6000 rows of 1 streams" in err
    code, out, err = told("rebuild", data, "--cut")
    assert code == 0
    assert "6000 rows from the journal; the old database is flux.duckdb.old-1" in out
    assert "the journal begins at file 2: rows older than that are not in the new database" in err
    sequences, kept = stored(data / "flux.duckdb")
    assert np.array_equal(sequences, np.arange(6_001, 12_001, dtype=np.uint64))
    assert kept.tobytes() == rows[6_000:].tobytes()
    with duckdb.connect(str(data / "flux.duckdb"), read_only=True) as connection:
        assert connection.execute("SELECT source_id, symbol, interval FROM streams").fetchall() == [KEY]


def test_nothing_to_keep_is_not_cut(tmp_path: Path, told: Told) -> None:
    data, rows = filled(tmp_path, 100)
    flip(data, 0)
    for arguments in ((), ("--cut",)):
        code, _, err = told("rebuild", data, *arguments)
        assert code == 4
        assert "a cut would keep nothing: restore" in err
    flip(data, 0)
    assert told("rebuild", data)[0] == 0
    check_kept(data, rows)

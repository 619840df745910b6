"""What is synced when, counted by the recorder of the power cuts: both durabilities (S3), and a start (S5, S17)."""

from __future__ import annotations

import struct
from collections import defaultdict
from pathlib import Path

import pytest

from flux import journal
from flux.feed import synth
from flux.feed.push import Feed
from tests.disk import log
from tests.disk.build import environment
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer, wait_until

pytestmark = pytest.mark.system

MARK = struct.Struct("<QIIQI")  # store_id, epoch, file, offset, serial: flux/journal/fence.py


class Synced:
    """How far each file was written and synced, entry by entry; and every mark that the fence was given."""

    def __init__(self, data: Path, entries: list[log.Entry]) -> None:
        self._files = {file.path.stat().st_ino: file.number for file in journal.files(data)}
        self._written: dict[int, int] = defaultdict(int)
        self._begun: dict[int, tuple[int, int]] = {}
        self.durable: dict[int, int] = defaultdict(int)
        """By file of the journal: up to which offset a sync has it."""
        self.marks: list[tuple[int, int, int]] = []
        """(file, offset, how far that file was durable at that moment)."""
        fence = (data / "fence").stat().st_ino
        for entry in entries:
            if entry.inode == fence and entry.kind is log.Kind.WRITE and len(entry.data) == MARK.size + 4:
                _, _, file, offset, _ = MARK.unpack(entry.data[: MARK.size])
                self.marks.append((file, offset, self.durable[file]))
            elif entry.inode in self._files:
                self._follow(entry)

    def _follow(self, entry: log.Entry) -> None:
        file = self._files[entry.inode]
        if entry.kind is log.Kind.WRITE:
            self._written[file] = max(self._written[file], entry.a + len(entry.data))
        elif entry.kind is log.Kind.SYNCING:
            self._begun[entry.a] = file, self._written[file]
        elif entry.kind is log.Kind.SYNCED and entry.b == 0:
            file, end = self._begun[entry.a]
            self.durable[file] = max(self.durable[file], end)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A data directory, and the log of what is done to it by the processes that are started."""
    data, made = tmp_path / "data", tmp_path / "log"
    data.mkdir()
    for name, value in environment(data, made).items():
        monkeypatch.setenv(name, value)
    return data, made


def send(server: FluxServer, count: int) -> None:
    rows = synth.candles(count)
    with Feed("SIM", ingest=server.ingest, chunk_rep=server.rpc) as feed:
        for at in range(0, count, count // 20):
            feed.send("X", "1m", rows[at : at + count // 20])
            feed.flush(PATIENCE_S)


def test_disk_syncs_every_group_before_it_is_shown(recorded: tuple[Path, Path]) -> None:
    data, made = recorded
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*") as server:
        send(server, 400)
        found = Synced(data, log.read(made))
        server.stop()
    assert len(found.marks) > 20
    for _, offset, durable in found.marks:
        assert durable >= offset, "a mark says that rows were shown which are not on the disk"


def test_process_syncs_soon_without_being_asked(recorded: tuple[Path, Path]) -> None:
    data, made = recorded
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as server:
        send(server, 400)
        position = server.committed()
        shown = Synced(data, log.read(made)).marks
        wait_until(
            lambda: Synced(data, log.read(made)).durable[position.file] >= position.offset,
            "the sync of what was shown",
        )
        server.kill()
    assert any(durable < offset for _, offset, durable in shown), "it waits for the disk: that is `disk`"


@pytest.mark.parametrize("durability", ["disk", "process"])
def test_a_start_syncs_what_it_finds_before_it_shows_any_of_it(
    recorded: tuple[Path, Path], durability: str
) -> None:
    """S5: killed before the sync of what it had written, as if there were none; then started again."""
    data, made = recorded
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as server:
        send(server, 400)
        position = server.committed()
        server.kill()
    made.unlink()  # what follows is the second life's alone
    with FluxServer(data, "--durability", durability) as server:
        entries = log.read(made)  # it is ready: rows may be asked for
        assert sum(server.heads().values()) == 400
        server.kill()
    found = Synced(data, entries)
    assert found.durable[position.file] >= position.offset or not written(entries, data)
    journal_inode, fence_inode = (
        path.stat().st_ino for path in (journal.path_of(data, position.file), data / "fence")
    )
    for inode in (journal_inode, fence_inode):
        synced = [
            at for at, e in enumerate(entries) if e.inode == inode and e.kind is log.Kind.SYNCED and e.b == 0
        ]
        wrote = [at for at, e in enumerate(entries) if e.inode == inode and e.kind is log.Kind.WRITE]
        assert synced, "it was never synced"
        assert not wrote or synced[-1] > wrote[-1], "written behind its last sync"


def written(entries: list[log.Entry], data: Path) -> bool:
    """Whether the start wrote into the journal: what no COMMIT called synced it writes again."""
    inode = journal.path_of(data, 1).stat().st_ino
    return any(entry.inode == inode and entry.kind is log.Kind.WRITE for entry in entries)

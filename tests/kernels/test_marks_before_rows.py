"""A group is written, marked and counted before it is sent: who asks for what it just got is never ahead of the head.
And a group that the file has no room for is Python's."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import zmq

from flux import codec, journal, limits
from flux.journal import Fence, FenceMark, Journal, Position
from flux.journal.disk import CLOSE_BYTES
from flux.journal.records import SourceRecord, pack
from flux.kernels.journal import COMMIT_SIZE
from flux.model import ROW_DTYPES, RowKind, StreamKey
from flux.server.pipeline.exchange import Exchange
from flux.transport import bridge
from flux.transport.bridge import Commits, Turns
from flux.transport.pump import Receiver, Streams
from flux.transport.sockets import Socket, Sockets, Wake, send
from tests.patience import PATIENCE_S

KEY = StreamKey("SIM", "X", "1m")
ROOM = 1 << 16  # bytes of a file


BEGINS = pack(SourceRecord("feed:SIM:7", (0, 0)))[:-3]

IN_PIECES = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <sys/types.h>
int in_pieces, calls;
static ssize_t piece(const char *name, int fd, const void *data, size_t size, off_t at) {
    ssize_t (*next)(int, const void *, size_t, off_t) = dlsym(RTLD_NEXT, name);
    if (!in_pieces) return next(fd, data, size, at);
    if (calls++ % 2 == 0) return errno = EINTR, -1;
    return next(fd, data, size < 7 ? size : 7, at);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return piece("pwrite", fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) { return piece("pwrite64", fd, data, size, at); }
"""
COMMITTING_IN_PIECES = """
import ctypes, sys
from pathlib import Path
from flux.transport import bridge
from tests.kernels import test_marks_before_rows as here
bridge.NATIVE = False
lent = here.Lent(Path(sys.argv[1]))
pieces = ctypes.CDLL(sys.argv[2])
ctypes.c_int.in_dll(pieces, "in_pieces").value = 1
here.test_a_group_is_written_marked_and_counted_before_anything_of_it_is_sent(lent)
print(ctypes.c_int.in_dll(pieces, "calls").value)
"""


class Lent:
    """Streams of one key, and an exchange with one group: three rows of a feed's run 7, position 3, in `frames`."""

    def __init__(self, directory: Path, frames: int = 1) -> None:
        self.streams = Streams(1)
        self.streams.add(KEY, stream_id=1, ring_rows=64, owner=1)
        self.exchange = Exchange()
        self._fill(frames)
        self.directory = directory
        self.log, self.fence = Journal.create(directory, b"", file_bytes=ROOM), Fence(directory)
        self.before = self.log.position.offset
        self.seen: list[tuple[int, int, Position, FenceMark | None, int]] = []

    def _fill(self, frames: int) -> None:
        rows = np.zeros(3, ROW_DTYPES[RowKind.CANDLE])
        rows["ts_ms"], rows["flags"] = 1_700_000_040_000 + 60_000 * np.arange(3), 1
        with Sockets() as sockets:
            puller = sockets.puller("inproc://fed")  # what is sent there has come
            pusher = sockets.pusher("inproc://fed")
            self.receiver = Receiver(puller, self.streams, server=True)
            self.receiver.kernel.add_run(b"SIM", 7, 0, 1, BEGINS)
            turns = Turns(self.exchange.handover, self.receiver, puller, Wake(), store_id=1, epoch=1)
            for part in np.array_split(rows, frames):
                number = 1 + int(part["ts_ms"][0] - rows["ts_ms"][0]) // 60_000
                frame = codec.encode(part, KEY, number, store_id=7, stream_id=1)
                assert isinstance(frame, bytes)
                assert send(pusher, [frame])
            deadline = time.monotonic() + PATIENCE_S
            while self.streams.kernel.head(0) < 3 and time.monotonic() < deadline:
                turns.run(0.05)

    @property
    def size(self) -> int:
        """Bytes of the group that waits, with its COMMIT."""
        return self.exchange._filled[0].group.used + COMMIT_SIZE

    def send(self, frame: bytes, flags: int) -> None:
        """As a PUB socket: at each frame it looks at what others could see by now."""
        scanned = journal.scan(journal.read_file(self.log.path))
        mark, position = Fence(self.directory).load(), self.exchange.handover.position
        rows = self.streams.kernel.committed(0)[0]
        self.seen.append((rows, self.receiver.kernel.run_committed(0)[0], position, mark, scanned.committed))

    def recv(self, flags: int) -> bytes:
        raise zmq.Again

    def commits(self, *, by_python: bool = False, disk: bool = False) -> Commits:
        return Commits(
            self.exchange.handover, self.receiver, self.streams, cast("Socket", self), store_id=1, epoch=1, disk=disk,
            by_python=by_python,
        )  # fmt: skip

    def close(self) -> None:
        self.fence.close()
        self.log.close(clean=False)


@pytest.fixture
def lent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lent]:
    monkeypatch.setattr(bridge, "NATIVE", False)  # its frames go through `Lent.send`
    made = Lent(tmp_path)
    yield made
    made.close()


def test_a_group_is_written_marked_and_counted_before_anything_of_it_is_sent(lent: Lent) -> None:
    done = lent.commits().run(0, lent.log, lent.fence)
    assert (done.groups, done.noted, done.refused) == (1, False, 0)
    end = lent.log.position
    assert end.offset > lent.before
    expected = (3, 3, end, FenceMark(1, 1, *end), end.offset)
    assert lent.seen == [expected, expected], "topic and payload"


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_a_group_that_the_file_has_no_room_for_is_pythons(
    lent: Lent, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte: `room` more than the group and its COMMIT take."""
    size = lent.size
    monkeypatch.setattr(lent.log, "_file_bytes", lent.before + size + CLOSE_BYTES + room)
    before = lent.log.path.read_bytes()
    done = lent.commits().run(0, lent.log, lent.fence)
    assert (done.groups, done.noted, done.refused) == ((0, True, 0) if room < 0 else (1, False, 0))
    if room < 0:
        assert lent.seen == []
        assert (lent.log.position.offset, lent.log.path.read_bytes()) == (lent.before, before)
    else:
        assert lent.log.position.offset == lent.before + size


def test_every_group_is_pythons_where_that_is_wanted(lent: Lent) -> None:
    done = lent.commits(by_python=True).run(0, lent.log, lent.fence)
    assert (done.groups, done.noted, lent.seen, lent.log.position.offset) == (0, True, [], lent.before)


@pytest.mark.parametrize("disk", [True, False])
def test_what_was_synced_is_known(lent: Lent, disk: bool) -> None:
    done = lent.commits(disk=disk).run(0, lent.log, lent.fence)
    assert done.groups == 1
    assert lent.log.synced.offset == (lent.log.position.offset if disk else lent.before)


def test_a_write_that_is_interrupted_or_short_is_gone_on_with(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, made = tmp_path / "pieces.c", tmp_path / "pieces.so"
    source.write_text(IN_PIECES)
    subprocess.run([compiler, "-shared", "-fPIC", source, "-o", made, "-ldl"], check=True)
    ran = subprocess.run(
        [sys.executable, "-c", COMMITTING_IN_PIECES, tmp_path, made],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "LD_PRELOAD": str(made)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > 2 * 300 // 7, "the group has more bytes than that"


def test_a_run_that_has_the_place_of_another_keeps_its_own_position(lent: Lent) -> None:
    """The run went while its group waited."""
    places = [
        lent.receiver.kernel.add_run(b"SIM", 8 + n, 100, 1, BEGINS, 0, 0) for n in range(limits.MAX_RUNS)
    ]
    assert places[-2:] == [limits.MAX_RUNS - 1, 0], "the table was full"
    before = lent.receiver.kernel.run_committed(0)
    assert lent.commits().run(0, lent.log, lent.fence).groups == 1
    assert lent.receiver.kernel.run_committed(0) == before


@pytest.mark.parametrize("frames", [1, 3])
def test_a_turn_records_once_how_far_a_run_is(tmp_path: Path, frames: int) -> None:
    made = Lent(tmp_path, frames)
    entries = made.exchange._filled[0].group.entries
    assert entries["label2"][entries["kind"] == journal.SOURCE].tolist() == [3]
    made.close()

"""A group is written, marked and counted before it is sent: who asks for what it just got is never ahead of the head.
Python is asked where it has to be, and only then."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flux import journal, limits
from flux.journal import FenceMark, Position
from flux.journal.disk import CLOSE_BYTES
from flux.transport import bridge
from flux.transport.bridge import Why
from tests.full_disk import descriptor_of, refusing
from tests.kernels.committing import BEGINS, ROOM, Committing
from tests.patience import PATIENCE_S

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
one = here.Committing()
one.begin(Path(sys.argv[1]))
one.fill()
pieces = ctypes.CDLL(sys.argv[2])
ctypes.c_int.in_dll(pieces, "in_pieces").value = 1
here.test_a_group_is_written_marked_and_counted_before_anything_of_it_is_sent(one)
print(ctypes.c_int.in_dll(pieces, "calls").value)
"""


@pytest.fixture
def one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committing]:
    """With one group that waits: three rows of the feed's run."""
    monkeypatch.setattr(bridge, "NATIVE", False)
    made = Committing()
    made.begin(tmp_path)
    made.fill()
    yield made
    made.close()


def test_a_group_is_written_marked_and_counted_before_anything_of_it_is_sent(one: Committing) -> None:
    size = one.size
    done = one.commits().run(0)
    assert (done.groups, done.why, done.refused) == (1, Why.TIME, 0)
    end = one.log.position
    assert end.offset == one.before + size
    expected = (3, 3, end, FenceMark(1, 1, *end), end.offset)
    assert one.seen == [expected, expected], "topic and payload"
    assert one.exchange.empty


@pytest.mark.parametrize("room", [-1, 0, 1])
def test_a_group_that_the_file_has_no_room_for_is_pythons(
    one: Committing, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the byte: `room` more than the group and its COMMIT take."""
    size = one.size
    one.begin(one.directory / "tight", one.before + size + CLOSE_BYTES + room)
    before = one.log.path.read_bytes()
    commits = one.commits()
    done = commits.run(0)
    assert (done.groups, done.why, done.refused) == ((0, Why.NO_ROOM, 0) if room < 0 else (1, Why.TIME, 0))
    if room < 0:
        assert one.seen == []
        assert (one.log.position.offset, one.log.path.read_bytes()) == (one.before, before)
        monkeypatch.setattr(one.log, "_file_bytes", ROOM)
        one.log.rotate(b"")
        assert commits.run(0).groups == 1, "the next call goes on with it"
        assert one.seen[0][0] == 3
        assert one.log.position == (2, one.before + size)
    else:
        assert one.log.position.offset == one.before + size


def test_python_is_asked_between_the_fence_and_the_marks(one: Committing) -> None:
    """What it is asked about is in the journal and seen by nobody; the next call shows it, in the order it is given."""
    size, commits = one.size, one.commits(ask_always=True)
    done = commits.run(0)
    end = one.log.position
    assert (done.groups, done.why, one.seen, end.offset) == (0, Why.ASKED, [], one.before + size)
    assert (one.streams.kernel.committed(0)[0], one.exchange.handover.position) == (0, Position(0, 0))
    assert one.fence.load() == FenceMark(1, 1, *end)
    assert not one.exchange.empty
    with pytest.raises(IndexError, match="entry 2 of"):
        commits.run(0, (np.array([2], np.uint32), np.zeros(1, np.uint8)))
    with pytest.raises(ValueError, match="a buffer of 1"):
        commits.run(0, (np.array([0, 0], np.uint32), np.zeros(1, np.uint8)))
    one.fill(1)
    done = commits.run(PATIENCE_S, (np.array([0, 0], np.uint32), np.zeros(2, np.uint8)))
    assert (done.groups, done.why, done.sent.sent, len(one.seen)) == (1, Why.ASKED, 2, 4), (
        "about the next one"
    )
    assert one.seen[0][:3] == (3, 3, end)
    done = commits.run(0)
    assert (done.groups, done.why, done.sent.sent) == (1, Why.TIME, 1), "the order was of the one before"
    assert one.exchange.empty
    records = journal.scan(journal.read_file(one.log.path)).records
    assert (records["kind"] == journal.BATCH).sum() == 2, "each is written once"


def test_python_is_asked_about_what_it_put_into_a_group_and_no_longer(one: Committing) -> None:
    commits = one.commits()
    with one.exchange.fill() as filled:
        filled.group.append(journal.STREAM, b"new")
    assert commits.run(0).why is Why.ASKED
    assert commits.run(0).groups == 1
    for _ in range(2):  # each of the two groups once
        one.fill(1)
        assert (commits.run(0)[:2], one.exchange.empty) == ((Why.TIME, 1), True)


def test_what_a_subscriber_says_is_seen_to_before_the_group_that_comes_after_it(one: Committing) -> None:
    """And whoever says something all the time holds up no group."""
    one.heard = [b"\x01two", b"\x01one"]
    commits = one.commits()
    done = commits.run(0)
    assert (done.groups, done.why, done.heard, one.seen) == (0, Why.HEARD, b"\x01one", [])
    assert (one.log.position.offset, one.exchange.empty) == (one.before, False)
    done = commits.run(0)
    assert (done.groups, done.why, done.heard) == (1, Why.TIME, b"")
    assert commits.run(0)[::3] == (Why.HEARD, b"\x01two"), "with nothing to commit"


@pytest.mark.parametrize("what", ["journal", "fence"])
def test_a_group_that_the_disk_refuses_is_committed_by_a_later_call(one: Committing, what: str) -> None:
    size, commits = one.size, one.commits()
    with refusing(descriptor_of(one.log.path if what == "journal" else one.fence.path)):
        for _ in range(2):
            done = commits.run(0)
            assert done.why is (Why.REFUSED if what == "journal" else Why.UNMARKED)
            assert (done.groups, done.refused, one.seen) == (0, errno.ENOSPC, [])
            assert (one.log.position.offset, one.fence.load()) == (one.before, None)
    assert commits.run(0).groups == 1
    assert one.seen[0][:3] == (3, 3, one.log.position)
    assert journal.scan(journal.read_file(one.log.path)).committed == one.before + size


@pytest.mark.parametrize("disk", [True, False])
def test_what_was_synced_is_known(one: Committing, disk: bool) -> None:
    done = one.commits(disk=disk).run(0)
    assert done.groups == 1
    assert one.log.synced.offset == (one.log.position.offset if disk else one.before)


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


def test_a_run_that_has_the_place_of_another_keeps_its_own_position(one: Committing) -> None:
    """The run went while its group waited."""
    places = [
        one.receiver.kernel.add_run(b"SIM", 8 + n, 100, 1, BEGINS, 0, 0) for n in range(limits.MAX_RUNS)
    ]
    assert places[-2:] == [limits.MAX_RUNS - 1, 0], "the table was full"
    before = one.receiver.kernel.run_committed(0)
    assert one.commits().run(0).groups == 1
    assert one.receiver.kernel.run_committed(0) == before


@pytest.mark.parametrize("frames", [1, 3])
def test_a_turn_records_once_how_far_a_run_is(one: Committing, frames: int) -> None:
    one.commits().run(0)
    one.fill(3, frames)
    entries = one.exchange._filled[1].group.entries
    assert entries["label2"][entries["kind"] == journal.SOURCE].tolist() == [6]

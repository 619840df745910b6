"""The loop commits a few rows in the place of a committer that waits; what it cannot it leaves to that, as it is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from flux import journal
from flux.journal.disk import CLOSE_BYTES
from flux.kernels import bridge as kernel
from flux.transport import bridge
from flux.transport.bridge import Commits, Committed, Why
from tests.full_disk import descriptor_of, refusing
from tests.kernels.committing import Committing
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Committing]:
    monkeypatch.setattr(bridge, "NATIVE", False)
    made = Committing()
    made.begin(tmp_path)
    yield made
    made.close()


@contextmanager
def waiting(both: Committing, commits: Commits, timeout: float = PATIENCE_S) -> Iterator[Future[Committed]]:
    """A committer in a thread of its own, once it waits; closed at the end, where it still waits."""
    with ThreadPoolExecutor(1) as threads:
        ended = threads.submit(commits.run, timeout)
        try:
            wait_until(lambda: state(both) == kernel.WAITING, "a committer that waits")
            yield ended
        finally:
            both.exchange.close()


def state(both: Committing) -> int:
    return both.exchange.handover.kernel.state


def stood_in(both: Committing) -> int:
    return both.exchange.handover.kernel.stood_in


def test_a_waiting_committer_is_not_woken(both: Committing) -> None:
    with waiting(both, both.commits()) as ended:
        for number in (1, 2):
            both.fill()
            assert (stood_in(both), state(both), both.exchange.empty) == (number, kernel.WAITING, True)
            assert both.seen[-1][:3] == (3 * number, 3 * number, both.log.position)
    assert both.senders == {threading.get_ident()}
    assert ended.result()[:2] == (Why.TIME, 2)


@pytest.mark.parametrize("why", ["disk", "ask_always", "large"])
def test_it_is_where_the_loop_must_not_stand_in(both: Committing, why: str) -> None:
    """The loop would wait for the disk, or Python for the loop; or both can work at once."""
    commits = both.commits(disk=why == "disk", ask_always=why == "ask_always")
    with waiting(both, commits) as ended:
        both.fill(1_100 if why == "large" else 3)
        wait_until(lambda: ended.done() or not both.exchange.empty or bool(both.seen), "the committer")
    assert stood_in(both) == 0
    assert ended.result()[:2] == ((Why.ASKED, 0) if why == "ask_always" else (Why.TIME, 1))


def test_python_is_asked_about_what_it_put_into_the_group(both: Committing) -> None:
    """The committer is woken by what Python fills, and the loop may come first all the same: tried often."""
    commits = both.commits()
    for _ in range(30):
        with ThreadPoolExecutor(1) as threads:
            ended = threads.submit(commits.run, PATIENCE_S)
            wait_until(lambda: state(both) == kernel.WAITING, "a committer that waits")
            with both.exchange.fill() as filled:
                filled.group.append(journal.STREAM, b"new")
            both.fill(1)
            assert ended.result(PATIENCE_S).why is Why.ASKED
        commits.run(0)


@pytest.mark.parametrize("why", [Why.HEARD, Why.NO_ROOM, Why.REFUSED, Why.UNMARKED])
def test_what_the_loop_leaves_is_the_committers(both: Committing, tmp_path: Path, why: Why) -> None:
    if why is Why.NO_ROOM:
        both.begin(tmp_path / "tight", both.before + CLOSE_BYTES)
    if why is Why.HEARD:
        both.heard = [b"\x01one"]
    commits = both.commits()
    of = both.fence.path if why is Why.UNMARKED else both.log.path
    with refusing(descriptor_of(of), why in (Why.REFUSED, Why.UNMARKED)), waiting(both, commits) as ended:
        both.fill()
        done = ended.result(PATIENCE_S)
        assert (done.why, done.groups, done.heard) == (why, 0, b"\x01one" if why is Why.HEARD else b"")
        assert (stood_in(both), state(both), both.seen) == (1, kernel.TAKEN, [])
    if why is Why.NO_ROOM:
        both.log._file_bytes = 1 << 16
        both.log.rotate(b"")
    assert commits.run(0)[:2] == (Why.TIME, 1)
    assert both.seen[0][:3] == (3, 3, both.log.position)


def test_a_socket_that_fails_is_told_by_the_committer(both: Committing) -> None:
    def fail() -> None:
        raise zmq.ZMQError(zmq.ETERM)

    both.while_sending = fail
    with waiting(both, both.commits()) as ended:
        both.fill()
        with pytest.raises(zmq.ZMQError, match="terminated"):
            ended.result(PATIENCE_S)
    assert (stood_in(both), state(both)) == (1, kernel.KEPT), "in the journal, and not to be written again"


@pytest.mark.parametrize("what", ["its time", "a heartbeat"])
def test_a_committer_that_is_to_go_on_waits_for_the_loop(both: Committing, what: str) -> None:
    commits = both.commits()

    def until_recalled() -> None:
        if what == "a heartbeat":
            both.exchange.handover.leave_beat(b"beat", 0)
        wait_until(
            lambda: state(both) == kernel.RECALLED or commits.beats == 1, "a committer that is to go on"
        )
        both.while_sending = lambda: None

    both.while_sending = until_recalled
    with waiting(both, commits, 0.5 if what == "its time" else PATIENCE_S) as ended:
        both.fill()
        if what == "a heartbeat":
            wait_until(lambda: commits.beats == 1, "the heartbeat")
    assert ended.result()[:2] == (Why.TIME, 1)
    assert [seen[0] for seen in both.seen[:2]] == [3, 3], "the rows, and then the heartbeat"
    assert state(both) == kernel.SPARE


def test_nobody_stands_in_for_a_committer_that_does_not_wait(both: Committing) -> None:
    commits = both.commits()
    for _ in range(2):  # before it was called, and after
        both.fill()
        assert (stood_in(both), state(both), both.exchange.empty) == (0, kernel.SPARE, False)
        assert commits.run(0).groups == 1


def test_nor_for_one_that_works(both: Committing) -> None:
    """Both would use the socket."""
    both.fill()
    with ThreadPoolExecutor(1) as threads:
        begun, go = threading.Event(), threading.Event()

        def stand() -> None:
            begun.set()
            assert go.wait(PATIENCE_S)

        both.while_sending = stand
        ended = threads.submit(both.commits().run, PATIENCE_S)
        assert begun.wait(PATIENCE_S)
        both.while_sending = lambda: None
        both.fill()
        assert (stood_in(both), state(both)) == (0, kernel.TAKEN)
        both.exchange.close()
        go.set()
        assert ended.result(PATIENCE_S)[:2] == (Why.TIME, 2)


def test_a_heartbeat_is_sent_once(both: Committing) -> None:
    commits = both.commits()
    assert both.exchange.handover.leave_beat(b"beat", 0)
    for _ in range(3):
        commits.run(0)
    assert (commits.beats, len(both.seen)) == (1, 2), "its topic and the frame"
    assert both.exchange.handover.leave_beat(b"beat", 0), "there is room for the next"
    commits.send_beat()
    commits.send_beat()
    assert commits.beats == 2

"""flux-loadgen's mode sub and a real server that loses the end of a stream: nothing that came tells of it, a
heartbeat does."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flux import codec
from flux.feed import synth
from flux.feed.push import Feed
from flux.transport.sockets import Poller, Sockets, receive
from flux.transport.topics import BEAT
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer
from tests.unit.report_schema import check

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

COMMAND = [sys.executable, "-m", "flux.cli.loadgen", "--mode", "sub", "--duration", "5m", "--warmup", "0s"]
MESSAGE_ROWS = 64


class Watched:
    """A run of the load generator, and the lines that it says while it goes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._lines: list[str] = []
        self._said = threading.Condition()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._said:
                self._lines.append(line)
                self._said.notify()

    def wait_for_lines(self, more: int) -> None:
        """Until it has said so many more than by now."""
        with self._said:
            enough = len(self._lines) + more
            assert self._said.wait_for(lambda: len(self._lines) >= enough, PATIENCE_S), "".join(self._lines)

    def interrupted(self) -> dict[str, object]:
        """Its report, once it has got Ctrl-C."""
        assert self.process.stdout is not None
        self.process.send_signal(signal.SIGINT)
        made = json.loads(self.process.stdout.read())
        self._reader.join(PATIENCE_S)
        check(made)
        return dict(made)


@contextmanager
def watching(pub: str, *flags: str) -> Iterator[Watched]:
    """One that has subscribed: its first second is over."""
    command = [*COMMAND, "--pub", pub, "--json", "-", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            watched = Watched(process)
            watched.wait_for_lines(1)
            yield watched
        finally:
            process.kill()


def wait_for_mark(pub: str, head: int) -> None:
    """Until a heartbeat of the server names such a head."""
    with Sockets() as sockets:
        socket = sockets.subscriber(pub, [BEAT], hwm=100)
        poller = Poller(socket)
        while poller.wait(PATIENCE_S):
            frames = receive(socket)
            if frames is not None and head in codec.decode(frames[-1]).marks["latest_sequence"]:
                return
    raise AssertionError(f"no heartbeat says {head}")


@pytest.mark.parametrize("topics", [(), ("--topic", "FEED/*/1s")], ids=["all", "one topic"])
def test_the_end_of_a_stream_that_was_lost_is_missing(tmp_path: Path, topics: tuple[str, ...]) -> None:
    rows = synth.candles(20 * MESSAGE_ROWS, interval="1s")
    with (
        FluxServer(tmp_path / "data", "--gap-every", "10", "--durability", "process", faulty=True) as server,
        watching(server.pub, *topics) as watched,
    ):
        with Feed("FEED", ingest=server.ingest, chunk_rep=server.rpc) as feed:
            for at in range(0, len(rows), MESSAGE_ROWS):
                feed.send("LOSSY", "1s", rows[at : at + MESSAGE_ROWS])
                feed.flush(PATIENCE_S)  # so that each 64 rows are one message: the 10th and the 20th are lost
        wait_for_mark(server.pub, len(rows))
        watched.wait_for_lines(3)  # it hears the heartbeats that this test does, each second
        made = watched.interrupted()
    counts, said = made["counts"], made["sub"]
    assert isinstance(counts, dict)
    assert isinstance(said, dict)
    assert (counts["received"], counts["missing"]) == (18 * MESSAGE_ROWS, 2 * MESSAGE_ROWS)
    assert (counts["duplicate"], counts["reordered"], counts["corrupt"]) == (0, 0, 0)
    assert said["missing_at_end"] == MESSAGE_ROWS
    assert said["other_messages"] >= said["heartbeats"] > 0
    (stream,) = said["streams"]
    assert (stream["first"], stream["last"]) == (1, 19 * MESSAGE_ROWS)
    assert stream["missing"] == 2 * MESSAGE_ROWS


def test_a_server_that_loses_nothing_has_nothing_missing_at_the_end(tmp_path: Path) -> None:
    """Of a stream that goes on until the very end: no heartbeat is ahead of what came."""
    rows = synth.candles(MESSAGE_ROWS, interval="1s")
    with (
        FluxServer(tmp_path / "data", "--durability", "process", faulty=True) as server,
        watching(server.pub) as watched,
        Feed("FEED", ingest=server.ingest, chunk_rep=server.rpc) as feed,
    ):
        ended = threading.Event()

        def go_on() -> None:
            while not ended.is_set():
                feed.send("WHOLE", "1s", rows)
                feed.flush(PATIENCE_S)

        feeding = threading.Thread(target=go_on)
        feeding.start()
        try:
            watched.wait_for_lines(3)
            made = watched.interrupted()
        finally:
            ended.set()
            feeding.join()
    counts, said = made["counts"], made["sub"]
    assert isinstance(counts, dict)
    assert isinstance(said, dict)
    assert counts["missing"] == said["missing_at_end"] == 0 < counts["received"]
    assert said["heartbeats"] > 0

"""A stop while the disk stands still: what a thread uses stays open, and whoever stopped it is told (D17)."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import zmq

from flux import journal
from flux.config import Replay, ServeConfig
from flux.errors import InUseError, StorageError
from flux.feed import synth
from flux.server import service
from flux.server.requests.router import Requests
from flux.server.storage.directory import DirectoryLock
from flux.transport.bridge import Commits, Committed, Order, Why
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S

LOCAL = "tcp://127.0.0.1:*"


def test_what_the_committer_uses_stays_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synth.write_csv(tmp_path / "SAMPLE.csv", synth.candles(100))
    standing, goes_on, real = threading.Event(), threading.Event(), Commits.run

    def run(self: Commits, timeout: float, order: Order | None = None) -> Committed:
        done = real(self, timeout, order)
        if done.why is Why.ASKED:
            standing.set()
            assert goes_on.wait(PATIENCE_S)
        return done

    monkeypatch.setattr(Commits, "run", run)
    monkeypatch.setattr(service, "STOP_S", 0.5)
    data = tmp_path / "data"
    server = service.Server(ServeConfig(data, LOCAL, LOCAL, replays=(Replay(tmp_path / "SAMPLE.csv"),)))
    server.start()
    try:
        assert standing.wait(PATIENCE_S)
        server.stop()
        assert server.left_open
        with pytest.raises(StorageError, match=r"flux committer.* did not end within 0\.5 s"):
            raise server.failure or AssertionError("it says nothing")
        path = journal.path_of(data, 1)
        opened = [
            os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if exists(name)
        ]
        for lent in (path, data / "fence"):
            assert str(lent) in opened
        with pytest.raises(InUseError):
            DirectoryLock(data)
    finally:
        goes_on.set()
        for thread in server._threads:
            thread.join(PATIENCE_S)
        server._release()
    assert journal.scan(journal.read_file(path)).reason == "end"


def exists(name: str) -> bool:
    return os.path.lexists(f"/proc/self/fd/{name}")


STANDING = """
import sys, threading
from pathlib import Path
from flux.config import Replay, ServeConfig
from flux.server import service
from flux.server.foreground import serve
from flux.transport.bridge import Commits, Why
real = Commits.run
def run(self, timeout, order=None):
    done = real(self, timeout, order)
    if done.why is Why.ASKED:
        print("standing", flush=True)
        threading.Event().wait()
    return done
Commits.run = run
service.STOP_S = 0.5
data, file = map(Path, sys.argv[1:])
serve(ServeConfig(data, "tcp://127.0.0.1:*", "tcp://127.0.0.1:*", replays=(Replay(file),)))
"""


def test_sigterm_while_the_disk_stands_still_ends_the_process(tmp_path: Path) -> None:
    """S15: it says what did not end, and exits 1; the lock is free again."""
    synth.write_csv(tmp_path / "SAMPLE.csv", synth.candles(100))
    with subprocess.Popen(
        [sys.executable, "-c", STANDING, tmp_path / "data", tmp_path / "SAMPLE.csv"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert any(line == b"standing\n" for line in iter(process.stdout.readline, b""))
        process.terminate()
        try:
            _, err = process.communicate(timeout=PATIENCE_S)
        finally:
            process.kill()
    assert process.returncode == 1
    assert b"flux committer did not end within 0.5 s: does the disk stand still?" in err
    DirectoryLock(tmp_path / "data").release()


def test_a_stop_waits_for_one_request_not_for_all_that_arrived() -> None:
    answering, goes_on, taken = threading.Event(), threading.Event(), 0

    class Slow:
        def answer(self, body: Sequence[bytes]) -> bytes:
            nonlocal taken
            taken += 1
            answering.set()
            assert goes_on.wait(PATIENCE_S)
            return b"answer"

    sockets, context = Sockets(), zmq.Context()
    requests = Requests(sockets, "tcp://127.0.0.1:*", Slow())
    requests.start()
    dealer = context.socket(zmq.DEALER)
    dealer.connect(requests.endpoint)
    for _ in range(20):
        dealer.send(b"request")
    assert answering.wait(PATIENCE_S)
    stopping = threading.Thread(target=requests.stop)
    stopping.start()
    while not requests._stopping:
        time.sleep(0.001)
    goes_on.set()
    stopping.join(PATIENCE_S)
    context.destroy(linger=0)
    sockets.close()
    assert taken == 1

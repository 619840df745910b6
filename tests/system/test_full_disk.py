"""A file system that is really full, and has room again: S10, for journal and database together."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flux.errors import RequestTimeout
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import State, StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.feeding import SOURCE
from tests.system.processes import FluxServer, wait_until
from tests.system.served_rows import Listener
from tests.system.test_durability import Beats

pytestmark = pytest.mark.system

SIZE_MIB = 48
FILE_BYTES = 4 << 20  # all that waits while the disk is full must fit one
MOUNT = 'mount -t tmpfs -o size="$1"m tmpfs "$2" && shift 2 && exec "$@"'


def may_mount() -> bool:
    return subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode == 0


class MountedServer(FluxServer):
    """A server whose data directory is a small file system of its own, which ends with it."""

    def __init__(self, data: Path) -> None:
        data.mkdir()
        serve = (
            sys.executable, "-m", "tests.disk.serve", str(FILE_BYTES), "--data", data, "--pub", "tcp://127.0.0.1:*",
            "--rpc", "tcp://127.0.0.1:*", "--ingest", "tcp://127.0.0.1:*",
        )  # fmt: skip
        self.process = subprocess.Popen(
            ["unshare", "-rm", "sh", "-c", MOUNT, "sh", str(SIZE_MIB), str(data), *map(str, serve)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        said = self.line().split()
        self.pub, self.rpc, self.ingest = (said[said.index(name) + 1] for name in ("pub", "rpc", "ingest"))
        self.inside = Path(f"/proc/{self.pid}/root") / data.relative_to("/")


def fill(folder: Path) -> None:
    """Take all the room that there is."""
    with open(folder / "ballast", "ab", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@pytest.mark.skipif(not may_mount(), reason="no file system of its own may be mounted here (unshare -rm)")
def test_a_full_disk_and_room_again(tmp_path: Path) -> None:
    key, rows = StreamKey(SOURCE, "X", "1m"), synth.candles(80_000)
    with (
        MountedServer(tmp_path / "data") as server,
        Feed(SOURCE, ingest=server.ingest, chunk_rep=server.rpc) as feed,
        Beats(server.pub) as beats,
        Listener(server.pub, rows) as listener,
        Sockets() as sockets,
    ):
        asker = Requester(sockets, server.rpc)
        wait_until(lambda: listener.drain() and listener.beats > 0, "a heartbeat: it is subscribed")
        feed.send("X", "1m", rows[:25_000])
        feed.flush(PATIENCE_S)
        fill(server.inside)  # before half of the file is used: the next one is not made yet
        feed.send("X", "1m", rows[25_000:50_000])
        feed.flush(PATIENCE_S)
        feed.send("X", "1m", rows[50_000:70_000])
        said = beats.wait_for(State.UNHEALTHY)
        assert said.reason is not None
        assert "No space left on device" in said.reason
        with pytest.raises(
            RequestTimeout, match=r"rows not committed in 2 s; the server reports: .*No space left"
        ):
            feed.flush(2)
        committed = feed.committed
        assert 50_000 <= committed < 70_000
        wait_until(
            lambda: listener.drain() and listener.highest == committed, "what is in the journal is shown"
        )
        kept = asker.ask(
            messages.backfill_rows_request,
            timeout=PATIENCE_S,
            key=key,
            from_sequence_exclusive=committed - 500,
        )
        assert kept.rows.tobytes() == rows[committed - 500 : committed].tobytes(), "reads go on"
        os.unlink(server.inside / "ballast")
        feed.send("X", "1m", rows[70_000:])
        feed.flush(PATIENCE_S)
        beats.wait_for(State.OK)
        wait_until(lambda: listener.drain() and listener.highest == len(rows), "every row")
        assert server.stop() == 0

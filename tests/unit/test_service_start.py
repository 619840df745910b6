"""A start as a whole: its order (S17), and rings that hold what they held before it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux import journal
from flux.config import Replay, ServeConfig
from flux.errors import InUseError, SourceFileError, StorageError
from flux.feed import synth
from flux.feed.push import Feed
from flux.journal.fence import Fence
from flux.model import StreamKey
from flux.schema import messages
from flux.server import service
from flux.server.pipeline.heartbeat import Heart
from flux.server.pipeline.inputs import ReplayInput
from flux.server.service import Server
from flux.server.storage import recover
from flux.store.duck import DuckStore
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until

LOCAL = "tcp://127.0.0.1:*"
KEY = StreamKey("SIM", "X", "1m")
ROWS = synth.candles(100)


def config(data: Path, *replays: Replay) -> ServeConfig:
    return ServeConfig(data, LOCAL, LOCAL, ingest=LOCAL, replays=replays)


def fed(server: Server) -> None:
    """The rows, sent by a feed that knows nothing of those before it."""
    assert server.ingest is not None
    with Feed("SIM", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
        feed.send("X", "1m", ROWS)
        feed.flush(PATIENCE_S)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    server = Server(config(tmp_path / "data"))
    server.start()
    fed(server)
    server.stop()
    return tmp_path / "data"


def test_rings_hold_the_last_rows_after_a_restart(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """T1: without them, rows that come again would be late ones, and the first backfill the database's."""
    server = Server(config(data))
    server.start()
    try:

        def gone(*_: object) -> None:
            raise StorageError("the database is away")

        monkeypatch.setattr(DuckStore, "read", gone)
        with Sockets() as sockets:
            answer = Requester(sockets, server.chunk_rep).ask(
                messages.backfill_rows_request, timeout=PATIENCE_S, key=KEY, from_sequence_exclusive=0
            )
        assert answer.rows.tobytes() == ROWS.tobytes()
        fed(server)
        assert server.streams.kernel.head(0) == len(ROWS), "repeats were numbered again"
    finally:
        server.stop()


def test_the_order_of_a_start(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """S17: lock, identity, scan, cut, ports held, fence, warm, listen, first heartbeat, sources. What can refuse comes
    before what cannot be taken back."""
    steps: list[str] = []

    def noted(owner: Any, name: str, step: str, counts: Callable[[Any], bool] = lambda _: True) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if step not in steps and counts(arguments[0] if arguments else None):
                steps.append(step)
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    noted(recover, "DirectoryLock", "lock")
    noted(recover, "read_identity", "identity")
    noted(recover, "scan_file", "scan")
    noted(journal.Journal, "open", "cut")
    noted(Fence, "store", "fence", lambda fence: fence.path.name == "fence")
    noted(recover, "write_identity", "identity is written")
    noted(service.Server, "_warm", "warm")
    noted(Sockets, "publisher", "ports are held")
    noted(Sockets, "listen", "listen")
    noted(service.Requests, "start", "requests")
    noted(ReplayInput, "start", "sources")
    synth.write_csv(tmp_path / "SAMPLE.csv", ROWS)
    real = Heart.frames

    def frames(self: Heart) -> Any:
        if "heartbeat" not in steps:
            steps.append("heartbeat")
        return real(self)

    monkeypatch.setattr(Heart, "frames", frames)
    server = Server(config(data, Replay(tmp_path / "SAMPLE.csv")))
    server.start()
    try:
        assert steps == [
            "lock", "identity", "scan", "cut", "ports are held", "fence", "identity is written", "warm", "listen",
            "heartbeat", "requests", "sources",
        ]  # fmt: skip
        assert server.committer.heart.begun.is_set()
        wait_until(lambda: server.inputs_finished(), "the file's end")
    finally:
        server.stop()


def settled(data: Path) -> dict[str, bytes]:
    """What a directory says that it is; of the journal, what is committed (a tail that nobody was shown may go)."""
    files = [data / "identity", data / "fence", data / "losses"]
    found = {path.name: content for path in files if path.exists() and any(content := path.read_bytes())}
    for file in journal.files(data):
        content = file.path.read_bytes()
        found[file.path.name] = content[: journal.scan(content).committed]
    return found


@pytest.mark.parametrize("port", ["pub", "rpc", "ingest", "file"])
@pytest.mark.parametrize("state", ["whole", "lost", "copied", "new"])
def test_a_start_that_is_refused_changes_nothing_of_what_a_directory_is(
    data: Path, tmp_path: Path, port: str, state: str
) -> None:
    if state == "lost":
        path = journal.files(data)[-1].path
        records = journal.scan(path.read_bytes()).records
        os.truncate(path, records["at"][records["kind"] == journal.COMMIT][-2])  # the last rows, and CLOSE
    elif state == "copied":
        shutil.copytree(data, tmp_path / "copy")
        data = tmp_path / "copy"
    elif state == "new":
        data = tmp_path / "new"
        data.mkdir()
        (data / "journal").mkdir()
    before = settled(data)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = dict.fromkeys(("pub", "rpc", "ingest"), LOCAL)
        ports[port] = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        replays = [Replay(tmp_path / "MISSING.csv")] if port == "file" else []
        server = Server(
            ServeConfig(data, ports["pub"], ports["rpc"], ingest=ports["ingest"], replays=tuple(replays))
        )
        with pytest.raises(SourceFileError if port == "file" else InUseError):
            server.start()
    assert settled(data) == before
    server = Server(config(data))
    server.start()
    try:
        assert server._recovered.identity.epoch == (1 if state in ("whole", "new") else 2)
    finally:
        server.stop()


def test_a_database_that_fails_is_logged_once(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    (data / "flux.duckdb").write_bytes(b"garbage" * 10_000)
    server = Server(config(data))
    server.start()
    server.stop()
    said = [record.message for record in caplog.records if record.message.startswith("DEGRADED: ")]
    assert len(said) == 1, said
    assert "the database fails" in said[0]


def test_what_looks_at_the_requests_socket_has_ended_before_it_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The watch on the memory follows that socket's connections: on a closed one it failed, and `flux serve` ended
    with 1."""
    server = Server(config(tmp_path / "data"))
    server.start()
    stop, watching = server._requests.stop, []

    def stopped(timeout: float) -> bool:
        watching.extend(thread.name for thread in threading.enumerate() if thread.name == "flux memory")
        return stop(timeout)

    monkeypatch.setattr(server._requests, "stop", stopped)
    server.stop()
    assert watching == []
    assert server.failure is None

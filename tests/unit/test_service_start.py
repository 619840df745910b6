"""A start as a whole: its order (S17), and rings that hold what they held before it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux import journal
from flux.config import Replay, ServeConfig
from flux.errors import StorageError
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
    """S17: lock, identity, scan, cut, fence, warm, bind, first heartbeat, sources."""
    steps: list[str] = []

    def noted(owner: Any, name: str, step: str) -> None:
        real: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            if step not in steps:
                steps.append(step)
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    noted(recover, "DirectoryLock", "lock")
    noted(recover, "read_identity", "identity")
    noted(recover, "scan_file", "scan")
    noted(journal.Journal, "open", "cut")
    noted(Fence, "store", "fence")
    noted(recover, "write_identity", "identity is written")
    noted(service.Server, "_warm", "warm")
    noted(Sockets, "publisher", "bind")
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
            "lock", "identity", "scan", "cut", "fence", "identity is written", "warm", "bind", "heartbeat",
            "requests", "sources",
        ]  # fmt: skip
        assert server.committer.heart.begun.is_set()
        wait_until(lambda: server.inputs_finished(), "the file's end")
    finally:
        server.stop()

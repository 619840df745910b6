"""Whatever was begun and stopped gives back every descriptor it had."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

import flux
from flux.config import ServeConfig
from flux.errors import ConfigError
from flux.feed.push import Feed
from flux.server.service import Server
from tests.patience import PATIENCE_S
from tests.unit.live_server import LiveServer
from tests.unit.served import KEY

ENDS = "tcp://127.0.0.1:*"
NOWHERE = "tcp://127.0.0.1:9"


def kinds() -> list[str]:
    """What each open descriptor of this process is."""
    found = []
    for name in os.listdir("/proc/self/fd"):
        try:
            found.append(os.readlink(f"/proc/self/fd/{name}").partition("[")[0])
        except FileNotFoundError:
            continue  # that of the listing itself
    return sorted(found)


def server(directory: Path) -> None:
    made = Server(ServeConfig(data=directory / "d", live_pub=ENDS, chunk_rep=ENDS, ingest=ENDS))
    made.start()
    made.stop()
    assert made.failure is None


def refused_server(directory: Path) -> None:
    made = Server(ServeConfig(data=directory / "d", live_pub="tcp://127.0.0.1:99999", chunk_rep=ENDS))
    with pytest.raises(ConfigError):
        made.start()


def live(_: Path) -> None:
    with LiveServer() as served:
        served.add(KEY, 10)
        made = flux.Live(pub=served.pub, rep=served.rep)
        made.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        assert len(next(iter(made))) > 0
        made.stop()
        assert made.block_for_close(PATIENCE_S)


def live_that_never_began(_: Path) -> None:
    flux.Live(pub=NOWHERE, rep=NOWHERE).stop()
    flux.Live(pub=NOWHERE, rep=NOWHERE)


def feed(_: Path) -> None:
    Feed("FEED", ingest=NOWHERE, chunk_rep=NOWHERE).close()


@pytest.mark.parametrize("what", [server, refused_server, live, live_that_never_began, feed])
def test_no_descriptor_is_left(what: Callable[[Path], None], tmp_path: Path) -> None:
    what(tmp_path)  # what is loaded once, and kept
    gc.collect()
    before = kinds()
    for _ in range(3):
        what(tmp_path)
    gc.collect()
    assert kinds() == before

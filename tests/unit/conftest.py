"""Servers and files that several tests begin with; a module that needs another `server` makes its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flux.client.historical import Historical
from tests.patience import PATIENCE_S
from tests.unit import history
from tests.unit.followed import KEY
from tests.unit.live_server import LiveServer
from tests.unit.served import Served, Stream, rows_at


@pytest.fixture
def server() -> Iterator[LiveServer]:
    """It has 100 rows of one stream."""
    with LiveServer() as made:
        made.add(KEY, 100)
        yield made


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A cache that is not there yet."""
    return tmp_path / "cache.duckdb"


@pytest.fixture
def long_server() -> Iterator[LiveServer]:
    """It has more rows of one stream than two pages hold, a minute apart."""
    times = [history.T0 + history.MINUTE * n for n in range(history.ROWS)]
    with LiveServer(Served(Stream(history.KEY, 1, rows_at(times)))) as made:
        yield made


@pytest.fixture
def hist(long_server: LiveServer) -> Iterator[Historical]:
    """It asks that one."""
    with Historical(rep=long_server.rep, timeout=PATIENCE_S) as made:
        yield made

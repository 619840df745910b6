"""Our client at a server of version 1 that sends all its errors with code 1: nothing else than the text is to go by."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from flux.batch import Batch
from flux.client.historical import Historical
from flux.client.live import Live
from flux.errors import NotFoundError
from flux.feed import synth
from flux.model import StreamKey
from flux.protocol.stream_state import StreamState
from flux.store.base import Rows
from flux.transport.topics import v1_topic
from tests.patience import PATIENCE_S
from tests.unit.live_server import eventually
from tests.unit.v1_server import V1Server

KEY, OTHER = StreamKey("SIM", "BTCUSDT", "1m"), StreamKey("SIM", "ETH/USDT", "1m")
ROWS = synth.candles(700, seed=3)
V1_FIELDS = ["ts_ms", "open", "high", "low", "close", "volume"]


@pytest.fixture
def server() -> Iterator[V1Server]:
    with V1Server() as made:
        made.publish(KEY, ROWS[:500])
        made.publish(OTHER, ROWS[:20])
        yield made


def live_of(server: V1Server) -> Live:
    return Live(pub=server.pub, rep=server.rep)


def same(rows: Rows, first: int, last: int) -> None:
    """As far as version 1 carries them."""
    assert len(rows) == last - first + 1
    for name in V1_FIELDS:
        assert np.array_equal(rows[name], ROWS[name][first - 1 : last]), name


def taken(live: Live, last: int) -> Batch:
    parts: list[Batch] = []
    for batch in live:
        assert not parts or batch.start_sequence == parts[-1].end_sequence + 1
        parts.append(batch)
        if batch.end_sequence >= last:
            break
    rows = np.concatenate([part.rows for part in parts])
    return type(parts[0])(parts[0].key, parts[0].start_sequence, rows)


def test_one_stream_all_that_is_kept_and_what_is_lost_on_the_way(server: V1Server) -> None:
    with live_of(server) as live:
        live.subscribe("BTCUSDT", interval="1m", start="oldest")
        batch = taken(live, 500)
        same(batch.rows, 1, 500)
        server.subscribed(v1_topic(KEY))
        server.publish(KEY, ROWS[500:510])
        server.publish(KEY, ROWS[510:520], lose=True)
        server.publish(KEY, ROWS[520:530])
        same(taken(live, 530).rows, 501, 530)


def test_a_wildcard_without_a_start(server: V1Server) -> None:
    """Nothing has to be asked for its rows, and yet it has to find out which topics there are (V2)."""
    with live_of(server) as live:
        live.subscribe("*", interval="1m")
        live.start()
        server.subscribed(b"candles.SIM.")
        server.publish(OTHER, ROWS[20:25])
        batch = next(live)
        assert (batch.key, batch.start_sequence) == (OTHER, 21)
        same(batch.rows, 21, 25)
        server.publish(KEY, ROWS[500:503])
        batch = next(live)
        assert (batch.key, batch.start_sequence) == (KEY, 501)
    assert sum(version == 2 for version, _ in server.asked) == 1, "asked once for what it cannot answer"


def test_a_wildcard_with_a_start(server: V1Server) -> None:
    with live_of(server) as live:
        live.subscribe("*", interval="1m", start="oldest")
        live.start()
        server.subscribed(b"candles.SIM.")
        server.publish(OTHER, ROWS[20:21])
        batch = taken(live, 21)
        assert batch.key == OTHER
        same(batch.rows, 1, 21)


def test_an_unknown_stream_is_waited_for(server: V1Server) -> None:
    with live_of(server) as live:
        live.subscribe("NEW", interval="1m", start="oldest")
        live.start()
        key = StreamKey("SIM", "NEW", "1m")
        eventually(lambda: "unknown stream key" in live.status(key).reason)
        assert live.status(key).state is StreamState.IDLE
        server.subscribed(v1_topic(key))
        server.publish(key, ROWS[:5])
        same(taken(live, 5).rows, 1, 5)


def test_history(server: V1Server) -> None:
    with Historical(rep=server.rep, timeout=PATIENCE_S) as hist:
        batch = hist.get_range("BTCUSDT", interval="1m")
        same(batch.rows, 1, 500)
        assert batch.sequences.tolist() == list(range(1, 501))
        start = int(ROWS["ts_ms"][99])
        assert hist.get_range("BTCUSDT", interval="1m", start=start, limit=1).sequences.tolist() == [100]
        assert hist.get_cursor(KEY).sequence == 500
        with pytest.raises(NotFoundError, match="unknown stream key"):
            hist.get_range("NONE", interval="1m")
        assert [len(part) for part in hist.iter_range("BTCUSDT", interval="1m", limit=30)] == [30]


def flux(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flux.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
        check=False,
    )


def test_flux_get(server: V1Server) -> None:
    done = flux("get", str(KEY), "--rpc", server.rep, "--limit", "3")
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["ts_ms"] for row in told] == ROWS["ts_ms"][:3].tolist()


@pytest.mark.parametrize(
    ("begin", "first"), [(["--oldest"], 1), (["--from-sequence", "499"], 499), (["--since", "87600h"], 1)]
)
def test_flux_sub(server: V1Server, begin: list[str], first: int) -> None:
    done = flux(
        "sub", str(KEY), "--pub", server.pub, "--rpc", server.rep, "--count", str(501 - first), *begin
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["sequence"] for row in told] == list(range(first, 501))


def test_flux_streams_says_what_such_a_server_can_do(server: V1Server) -> None:
    done = flux("streams", "--rpc", server.rep)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"flux streams: {server.rep} speaks version 1, which has no list of streams: "
        "name one, as SOURCE/SYMBOL/INTERVAL\n"
    )
    done = flux("streams", "--rpc", server.rep, "--output", "ndjson", str(KEY))
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["key"], told["latest_sequence"]) == (str(KEY), 500)
    assert told["latest_ts_ms"] == int(ROWS["ts_ms"][499])
    done = flux("streams", "--rpc", server.rep, "SIM/NONE/1m")
    assert done.returncode == 1
    assert "unknown stream key" in done.stderr

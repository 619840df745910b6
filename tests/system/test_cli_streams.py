"""`flux streams`: every stream of a server, page by page, for people and for programs."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux.feed import synth
from flux.feed.push import Feed
from flux.limits import MAX_LIST_STREAMS
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer

pytestmark = pytest.mark.system

STREAMS = MAX_LIST_STREAMS + 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FluxServer]:
    """More streams than one page holds, three rows in each."""
    rows = synth.candles(3, seed=1)
    data = tmp_path_factory.mktemp("streams") / "data"
    with FluxServer(data, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as made:
        with Feed("FEED", ingest=made.ingest, chunk_rep=made.rpc) as feed:
            feed.send("BTC/USDT", "5m", rows)
            for number in range(STREAMS):
                feed.send(f"S{number:04}", "1m", rows)
            feed.flush(PATIENCE_S)
        yield made
        assert made.stop() == 0


def streams(server: FluxServer, *arguments: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `flux streams`."""
    done = subprocess.run(
        [sys.executable, "-m", "flux.cli.main", "streams", "--rpc", server.rpc, *arguments],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE_S,
    )
    return done.returncode, done.stdout, done.stderr


def test_every_stream_of_every_page(server: FluxServer) -> None:
    code, out, err = streams(server, "--output", "ndjson")
    assert (code, err) == (0, "")
    told = [json.loads(line) for line in out.splitlines()]
    keys = [f"FEED/S{number:04}/1m" for number in range(STREAMS)]
    assert [stream["key"] for stream in told] == ["FEED/BTC/USDT/5m", *keys]
    assert [stream["stream_id"] for stream in told] == list(range(1, STREAMS + 2))
    assert told[1].pop("store_id") > 0
    assert told[1] == {
        "key": "FEED/S0000/1m",
        "source_id": "FEED",
        "symbol": "S0000",
        "interval": "1m",
        "stream_id": 2,
        "latest_sequence": 3,
        "first_sequence": 1,
        "latest_ts_ms": synth.FIRST_TS_MS + 120_000,
        "epoch": 1,
    }


def test_a_table(server: FluxServer) -> None:
    code, out, err = streams(server, "FEED/S000*/1m")
    assert (code, err) == (0, "")
    head, *rows = out.splitlines()
    assert head.split() == ["KEY", "HEAD", "FIRST", "LATEST", "EPOCH"]
    assert len(rows) == 10
    assert rows[3].split() == ["FEED/S0003/1m", "3", "1", "2024-01-01", "00:02:00Z", "1"]
    assert len({len(row) for row in rows}) == 1


def test_json_is_one_array(server: FluxServer) -> None:
    code, out, _ = streams(server, "--output", "json", "FEED/*/5m")
    assert code == 0
    assert [stream["symbol"] for stream in json.loads(out)] == ["BTC/USDT"]


def test_a_key_lists_that_stream(server: FluxServer) -> None:
    code, out, _ = streams(server, "--output", "ndjson", "FEED/BTC/USDT/5m")
    assert (code, json.loads(out)["key"]) == (0, "FEED/BTC/USDT/5m")


def test_an_unknown_key_names_those_near_it(server: FluxServer) -> None:
    code, out, err = streams(server, "FEED/BTC-USDT/5m")
    assert (code, out) == (1, "")
    assert "unknown stream key FEED/BTC-USDT/5m; did you mean FEED/BTC/USDT/5m" in err
    assert "Traceback" not in err


def test_a_prefix_that_nothing_has(server: FluxServer) -> None:
    code, out, err = streams(server, "NOBODY")
    assert (code, out) == (1, "")
    assert err == (
        "flux streams: no stream is 'NOBODY' (SOURCE/SYMBOL/INTERVAL or its beginning; * for any symbol)\n"
    )


@pytest.mark.parametrize(
    ("key", "count"),
    [
        ("FEED", STREAMS + 1),
        ("FE", STREAMS + 1),
        ("FEED/", STREAMS + 1),
        ("FEED/*", STREAMS + 1),
        ("FEED/*/1m", STREAMS),
        ("FEED/S000", 10),
        ("FEED/S0*/1m", 1_000),
        ("FEED/BTC", 1),
        ("FEED/BTC/", 1),
        ("FEED/BTC/*/5m", 1),
    ],
)
def test_a_key_or_its_beginning_is_in_the_order_of_keys(server: FluxServer, key: str, count: int) -> None:
    code, out, err = streams(server, "--output", "ndjson", key)
    assert (code, err) == (0, "")
    assert len(out.splitlines()) == count


def test_what_is_no_name_is_shown_escaped(server: FluxServer) -> None:
    code, _, err = streams(server, "FEED/\x1b[31m/5m")
    assert code == 2
    assert r"'\x1b[31m'" in err
    assert "\x1b" not in err


def test_wrong_usage(server: FluxServer) -> None:
    code, _, err = streams(server, "--output", "xml")
    assert code == 2
    assert "invalid choice: 'xml'" in err
    code, _, err = streams(server, "--rpc", "nonsense")
    assert code == 2
    assert "'nonsense' is no endpoint" in err


def test_no_server_is_told_within_seconds() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # not listening: refused
        endpoint = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-m", "flux.cli.main", "streams", "--rpc", endpoint],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
        )
    assert done.returncode == 1
    assert f"{endpoint} did not answer" in done.stderr


def test_an_empty_server_has_no_streams(tmp_path: Path) -> None:
    with FluxServer(tmp_path / "data") as server:
        assert streams(server) == (0, "", "flux streams: the server has no streams\n")
        assert streams(server, "--output", "json") == (0, "[]\n", "")
        assert server.stop() == 0

"""Rows that no server numbers reach no consumer: a lying server's batches are refused, with place and reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import flux
from flux import codec
from flux.errors import AnswerError
from flux.feed.synth import candles
from flux.model import CANDLE, QUOTE, ROW_DTYPES, TRADE, CandleFlag, RowKind, StreamKey
from flux.transport.outbox import faults, first_fault, reason
from flux.transport.topics import stream_topic
from tests.patience import PATIENCE_S
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import Served, Stream, rows_at

KEY = StreamKey("SIM", "BTCUSDT", "1m")
T0, MINUTE = 1_700_000_040_000, 60_000
ROWS = 20
BAD = 13  # a sequence

LIES: list[tuple[str, dict[str, Any], str]] = [
    *(
        (field, {field: value}, "not_finite")
        for field in ("open", "high", "low", "close", "volume", "turnover")
        for value in (np.nan, np.inf, -np.inf)
    ),
    ("high < low", {"high": 1.0, "low": 2.0}, "high_low"),
    ("open", {"open": 1e9}, "open_close"),
    ("close", {"close": -1e9}, "open_close"),
    ("volume", {"volume": -1.0}, "volume"),
    ("time", {"ts_ms": 2**62}, "time"),
    ("flags", {"flags": 0}, "forming"),
]


@pytest.fixture
def server() -> Iterator[LiveServer]:
    times = [T0 + MINUTE * n for n in range(ROWS)]
    with LiveServer(Served(Stream(KEY, 1, rows_at(times)))) as made:
        yield made


def lie(rows: np.ndarray[Any, Any], said: dict[str, Any]) -> None:
    for field, value in said.items():
        rows[BAD - 1][field] = value


@pytest.mark.parametrize(("what", "said", "why"), LIES)
def test_historical_refuses_the_batch(what: str, said: dict[str, Any], why: str, server: LiveServer) -> None:
    lie(server.stream(KEY).rows, said)
    with (
        flux.Historical(rep=server.rep, timeout=PATIENCE_S) as hist,
        pytest.raises(AnswerError, match=rf"corrupt batch of SIM/BTCUSDT/1m: sequence {BAD} .*\({why}\)"),
    ):
        hist.get_range("BTCUSDT", interval="1m")


@pytest.mark.parametrize(("what", "said", "why"), [LIES[0], LIES[18]])
def test_live_refuses_what_is_filled_in_and_goes_on_when_it_is_right(
    what: str, said: dict[str, Any], why: str, server: LiveServer
) -> None:
    honest = server.stream(KEY).rows.copy()
    lie(server.stream(KEY).rows, said)
    with flux.Live(pub=server.pub, rep=server.rep) as live:
        live.subscribe("BTCUSDT", interval="1m", source="SIM", start="oldest")
        live.start()
        eventually(lambda: (server.beat(), f"sequence {BAD} is a row" in live.status(KEY).reason)[1])
        server.stream(KEY).rows = honest
        taken = 0
        while taken < ROWS:
            batch = next(live)
            assert np.isfinite(batch.close).all()
            taken = batch.end_sequence


@pytest.mark.parametrize(("what", "said", "why"), [LIES[0], *LIES[18:]])
def test_live_refuses_what_is_published(
    what: str, said: dict[str, Any], why: str, server: LiveServer, caplog: pytest.LogCaptureFixture
) -> None:
    rows = server.stream(KEY).rows
    with flux.Live(pub=server.pub, rep=server.rep) as live:
        live.subscribe("BTCUSDT", interval="1m", source="SIM")
        live.start()
        server.subscribed(stream_topic(KEY))
        eventually(lambda: (server.beat(), live.status(KEY).epoch)[1])
        first = ROWS + 1
        more = rows.copy()
        more["ts_ms"] += ROWS * MINUTE
        for field, value in said.items():
            more[2][field] = value
        served = server.served
        frame = codec.encode(more, KEY, first, epoch=served.epoch, store_id=served.store_id, stream_id=1)
        server.publisher.socket.send_multipart([stream_topic(KEY), frame])
        eventually(lambda: live.counters()["values"] == 1)
        server.publish(KEY, 3)  # the same sequences, as they should be
        batch = next(live)
        assert batch.start_sequence == first
        assert batch.rows.tobytes() == server.stream(KEY).rows[ROWS : ROWS + len(batch.rows)].tobytes()
        eventually(lambda: f"sequence {first + 2} of SIM/BTCUSDT/1m ({why})" in caplog.text)


def test_the_first_fault_is_that_of_the_judge_of_feeds_for_any_rows() -> None:
    """One rule: what a server admits passes, what it refuses does not."""
    rng = np.random.default_rng(7)
    edges = np.array([0.0, -0.0, 1.0, -1.0, 1e308, -1e308, np.nan, np.inf, -np.inf, 5e-324])
    for kind in (RowKind.CANDLE, RowKind.TRADE, RowKind.QUOTE):
        key = StreamKey("SIM", "X", {RowKind.TRADE: "trade", RowKind.QUOTE: "quote"}.get(kind, "1m"))
        for _ in range(3_000):
            rows = np.zeros(3, ROW_DTYPES[kind])
            for name in rows.dtype.names or ():
                if rows.dtype[name] == np.float64:
                    rows[name] = rng.choice(edges, 3, p=[0.3, 0.1, 0.3, *[0.3 / 7] * 7])
            rows["flags" if "flags" in (rows.dtype.names or ()) else rows.dtype.names[0]] = rng.choice(
                [0, 1, 1, 1], 3
            )
            found = faults(key, rows)
            found[found == 9] = 0  # off the grid: of the stream, not of the row
            bad = np.flatnonzero(found)
            expected = (int(bad[0]), reason(int(found[bad[0]]))) if len(bad) else None
            assert first_fault(rows) == expected, rows


def test_what_flux_writes_passes() -> None:
    trades, quotes = np.ones(5, TRADE), np.ones(5, QUOTE)
    unknown = candles(50)
    unknown["turnover"], unknown["trade_count"] = 0, 0
    unknown["flags"] = CandleFlag.CLOSED
    still = np.zeros(1, CANDLE)
    still["flags"] = CandleFlag.CLOSED | CandleFlag.CORRECTION | CandleFlag.LATE
    for rows in (candles(500), unknown, still, trades, quotes, np.zeros(0, TRADE)):
        assert first_fault(rows) is None

"""C-8: what holds a table goes through a running server by `Feed.send`, and the same rows come back."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flux import Candles, Historical, Live, Trades, testing
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import TRADE, CandleFlag, RowKind, StreamKey
from flux.store.base import Rows
from tests.patience import PATIENCE_S

pytestmark = pytest.mark.system

COUNT = 3_000


def of(kind: RowKind) -> Rows:
    if kind is RowKind.CANDLE:
        rows = synth.candles(COUNT, seed=8)
        rows["turnover"] = rows["close"] * rows["volume"]
        rows["trade_count"] = np.arange(COUNT)
        rows["flags"] = CandleFlag.CLOSED | CandleFlag.TRADED
        return rows
    trades = np.zeros(COUNT, TRADE)
    trades["ts_ns"] = 1_704_067_200_000_000_000 + 1_000_003 * np.arange(COUNT)
    trades["price"], trades["size"] = 0.1 + np.arange(COUNT), 1.5
    trades["trade_id"], trades["flags"] = 2**62 + np.arange(COUNT), 1 + np.arange(COUNT) % 2
    return trades


def batch(rows: Rows) -> Any:
    made = Candles if rows.dtype != TRADE else Trades
    return made(StreamKey("ELSE", "WHERE", "1m" if made is Candles else "trade"), 41, rows)


def frame(rows: Rows) -> Any:
    return pytest.importorskip("pandas").DataFrame(batch(rows))


def table(rows: Rows) -> Any:
    return pytest.importorskip("pyarrow").table(batch(rows))


def chunked(rows: Rows) -> Any:
    pyarrow = pytest.importorskip("pyarrow")
    return pyarrow.concat_tables([table(rows[:7]), table(rows[7:])])


@pytest.mark.parametrize("kind", [RowKind.CANDLE, RowKind.TRADE])
def test_what_is_sent_as_a_table_comes_back_as_the_same_rows(kind: RowKind) -> None:
    """Asked for, and followed from the oldest row; to the bit, numbered from 1."""
    rows, interval = of(kind), "1m" if kind is RowKind.CANDLE else "trade"
    makers = (batch, frame, table, chunked)
    with testing.server() as server:
        with Feed("FEED", ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
            for made in makers:
                feed.send(made.__name__, interval, made(rows))
            feed.flush(PATIENCE_S)
            assert feed.refused == []
        with Historical(rep=server.chunk_rep, timeout=PATIENCE_S) as hist:
            for made in makers:
                found = hist.get_range(made.__name__, interval=interval, source="FEED", revisions=True)
                assert (found.start_sequence, len(found)) == (1, COUNT), made.__name__
                assert found.rows.tobytes() == rows.tobytes(), made.__name__
        with Live(pub=server.live_pub, rep=server.chunk_rep) as live:
            names = [made.__name__ for made in makers]
            live.subscribe(names, interval=interval, source="FEED", start="oldest")
            parts: dict[str, list[Rows]] = {name: [] for name in names}
            for part in live:
                assert part.key is not None
                parts[part.key.symbol].append(part.rows)
                if all(sum(map(len, of_one)) == COUNT for of_one in parts.values()):
                    break
        for name, of_one in parts.items():
            assert np.concatenate(of_one).tobytes() == rows.tobytes(), name

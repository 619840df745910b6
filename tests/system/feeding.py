"""A feed that goes on sending while its server comes and goes."""

from __future__ import annotations

import random
import threading
from types import TracebackType

import numpy as np

from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.model import TRADE, StreamKey
from flux.store.base import Rows
from tests.patience import PATIENCE_S

SOURCE = "FEED"


def truth_of(count: int, seed: int) -> dict[StreamKey, Rows]:
    """What is to be sent: two streams of candles, one of trades, `count` rows each."""
    trades = np.zeros(count, TRADE)
    trades["trade_id"] = np.arange(1, count + 1)
    trades["ts_ns"] = 1_700_000_000_000_000_000 + trades["trade_id"] * 1_000
    trades["price"], trades["size"] = 100 + np.sin(trades["trade_id"]), trades["trade_id"] % 7
    return {
        StreamKey(SOURCE, "BTC/USDT", "1m"): candles(count, seed),
        StreamKey(SOURCE, "ETH/USDT", "1m"): candles(count, seed + 1),
        StreamKey(SOURCE, "BTC/USDT", "trade"): trades,
    }


class Feeding:
    """A thread that sends all of `truth` in chunks of random size, at most `window` rows ahead of what is committed."""

    def __init__(
        self,
        feed: Feed,
        truth: dict[StreamKey, Rows],
        rng: random.Random,
        window: int = 4_000,
        before: int = 0,
    ) -> None:
        """`before`: rows that the feed's run had committed already."""
        self.total = sum(len(rows) for rows in truth.values())
        self._feed = feed
        self._truth = truth
        self._rng = random.Random(rng.random())
        self._window, self._before = window, before
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def _send(self) -> None:
        at = dict.fromkeys(self._truth, 0)
        sent = 0
        while at and not self._stopping.is_set():
            if sent + self._before - self._feed.committed > self._window:
                self._stopping.wait(0.002)
                continue
            key = self._rng.choice(list(at))
            rows = self._truth[key][at[key] : at[key] + self._rng.randint(1, 100)]
            self._feed.send(key.symbol, key.interval, rows)
            sent += len(rows)
            at[key] += len(rows)
            if at[key] == len(self._truth[key]):
                del at[key]

    def join(self) -> None:
        """Until the last row was given to the feed."""
        self._thread.join(2 * PATIENCE_S)
        assert not self._thread.is_alive(), "the feed did not take all rows"

    def __enter__(self) -> Feeding:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

"""Candles, Trades and Quotes: what a consumer holds."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flux import codec
from flux.batch import _FROM_FRAME, Batch, Candles, Quotes, Trades
from flux.model import CANDLE, QUOTE, TRADE
from tests.unit.plain_codec import KEY, sample


def test_a_decoded_batch_lends_its_frame() -> None:
    rows = sample(CANDLE, 5)
    batch = codec.decode(
        codec.encode(rows, KEY, 10, epoch=3, store_id=4, stream_id=5, origin_ns=6, recorded_ns=7)
    )
    assert isinstance(batch, Candles)
    assert (batch.key, batch.start_sequence, batch.end_sequence, len(batch)) == (KEY, 10, 14, 5)
    assert (batch.epoch, batch.store_id, batch.stream_id, batch.origin_ns, batch.recorded_ns) == (
        3,
        4,
        5,
        6,
        7,
    )
    assert (batch.schema_version, batch.message_type, batch.type_hint, batch.correlation_id) == (
        2,
        13,
        12,
        None,
    )
    assert batch.cached is False
    assert batch.rows.tobytes() == rows.tobytes()
    assert batch.rows is batch.rows
    assert not batch.rows.flags.writeable
    assert not batch.rows.flags.owndata
    np.testing.assert_array_equal(batch.close, rows["close"])
    assert repr(batch) == "<Candles 'SIM/BTC/USDT/1m' 10..14 epoch 3>"


class Bytes(bytearray):
    """Bytes that can be watched."""


@pytest.mark.parametrize("offset", range(8))
def test_a_view_outlives_its_batch_but_never_its_frame(offset: int) -> None:
    rows = sample(CANDLE, 50)
    frame = Bytes(b"x" * offset + codec.encode(rows, KEY))
    gone = weakref.ref(frame)
    close = codec.decode(memoryview(frame)[offset:]).close
    with pytest.raises(BufferError):
        frame.extend(b"x")  # the view holds the buffer
    del frame
    gc.collect()
    assert gone() is not None
    assert close.tobytes() == rows["close"].tobytes()
    del close
    gc.collect()
    assert gone() is None


def test_version_1_rows_are_the_batchs_own() -> None:
    frame = bytearray(codec.encode(sample(CANDLE, 5), KEY, version=1))
    batch = codec.decode(frame)
    before = batch.rows.tobytes()
    frame[:] = bytes(len(frame))
    assert batch.rows.tobytes() == before
    assert not batch.rows.flags.writeable


def test_columns_and_unknown_names() -> None:
    batch = codec.decode(codec.encode(sample(CANDLE, 2), KEY))
    assert batch.close.shape == (2,)
    assert {"close", "turnover", "rows", "end_sequence"} <= set(dir(batch))
    with pytest.raises(AttributeError, match="no attribute 'price'"):
        _ = batch.price
    with pytest.raises(AttributeError, match="no attribute '_missing'"):
        _ = batch._missing


def test_an_empty_batch() -> None:
    batch = codec.decode(codec.encode(sample(CANDLE, 0), KEY, 7))
    assert (len(batch), batch.start_sequence, batch.end_sequence) == (0, 7, 6)
    assert repr(batch) == "<Candles 'SIM/BTC/USDT/1m' empty at 7>"


@pytest.mark.parametrize(
    ("interval", "dtype", "made"),
    [("trade", TRADE, Trades), ("quote", QUOTE, Quotes), ("1M", CANDLE, Candles)],
)
def test_the_interval_says_the_class(interval: str, dtype: np.dtype[np.void], made: type) -> None:
    batch = codec.decode(codec.encode(sample(dtype, 3), KEY._replace(interval=interval)))
    assert type(batch) is made
    assert batch.rows.dtype == dtype


def test_a_batch_of_ones_own_rows() -> None:
    rows = np.zeros(3, CANDLE)
    batch = Candles(KEY, 5, rows, epoch=2, cached=True)
    assert batch.end_sequence == 7
    assert batch.cached
    assert not batch.rows.flags.writeable
    assert rows.flags.writeable
    own = batch.to_numpy()
    own["close"] = 1
    assert batch.close.sum() == 0
    with pytest.raises(TypeError, match="Candles holds rows of"):
        Candles(KEY, 1, np.zeros(3, TRADE))


def test_vwap_is_nan_where_it_is_not_known() -> None:
    rows = np.zeros(3, CANDLE)
    rows["turnover"], rows["volume"], rows["flags"] = 10, [4, 0, 4], [33, 33, 1]
    np.testing.assert_array_equal(Candles(KEY, 1, rows).vwap, [2.5, np.nan, np.nan])


def test_a_data_frame_has_either_label() -> None:
    pytest.importorskip("pandas")
    rows = np.zeros(2, CANDLE)
    rows["ts_ms"] = [0, 60_000]
    batch = Candles(KEY, 5, rows)
    table = batch.to_df()
    assert list(table["sequence"]) == [5, 6]
    assert [int(t.timestamp() * 1000) for t in table.index] == [0, 60_000]
    assert [int(t.timestamp() * 1000) for t in batch.to_df(label="close").index] == [60_000, 120_000]
    with pytest.raises(ValueError, match="no fixed length"):
        Candles(KEY._replace(interval="1M"), 5, rows).to_df(label="close")
    with pytest.raises(ValueError, match="label is"):
        batch.to_df(label="middle")


def test_sequences_are_those_of_the_rows() -> None:
    rows = np.zeros(3, CANDLE)
    counted = Candles(KEY, 5, rows)
    assert counted.sequences.tolist() == [5, 6, 7]
    decoded = codec.decode(codec.encode(sample(CANDLE, 2), KEY, 9))
    assert decoded.sequences.tolist() == [9, 10]
    chosen = Candles(KEY, 2, rows, sequences=np.array([4, 2, 2**63 - 1], np.uint64))
    assert chosen.sequences.tolist() == [4, 2, 2**63 - 1]
    assert (chosen.start_sequence, chosen.end_sequence) == (2, 2**63 - 1)
    for batch in (counted, decoded, chosen):
        assert batch.sequences.dtype == np.uint64
        assert not batch.sequences.flags.writeable
    with pytest.raises(ValueError, match="2 sequences for 3 rows"):
        Candles(KEY, 1, rows, sequences=np.array([1, 2], np.uint64))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda batch: pickle.loads(pickle.dumps(batch))])
@pytest.mark.parametrize("of", ["decoded", "version 1", "own", "chosen", "empty"])
def test_a_copy_is_a_batch_with_read_only_rows_of_its_own(way: Callable[[Batch], Batch], of: str) -> None:
    rows = sample(CANDLE, 5)
    made: dict[str, Callable[[], Any]] = {
        "decoded": lambda: codec.decode(
            codec.encode(rows, KEY, 7, epoch=3, store_id=4, stream_id=5, origin_ns=6)
        ),
        "version 1": lambda: codec.decode(codec.encode(rows, KEY, version=1)),
        "own": lambda: Candles(KEY, 5, rows, epoch=2, cached=True),
        "chosen": lambda: Candles(KEY, 5, rows, sequences=np.array([5, 9, 6, 7, 8], np.uint64)),
        "empty": lambda: Candles(KEY, 5, rows[:0]),
    }
    batch = made[of]()
    copied = way(batch)
    assert type(copied) is Candles
    for name in (*_FROM_FRAME, "cached"):
        if name != "rows":
            assert getattr(copied, name) == getattr(batch, name), name
    assert copied.sequences.tolist() == batch.sequences.tolist()
    assert repr(copied) == repr(batch)
    assert copied.rows.dtype == CANDLE
    assert copied.rows.tobytes() == batch.rows.tobytes()
    assert not copied.rows.flags.writeable
    assert not copied.close.flags.writeable
    assert not np.shares_memory(copied.rows, batch.rows)
    assert way(copied).rows.tobytes() == batch.rows.tobytes(), "a copy of a copy"

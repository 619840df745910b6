"""Batches as Arrow: the structs by a consumer in ctypes, and duckdb, polars, pyarrow and pandas as they come."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys
import threading
from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux import codec
from flux.batch import Batch, Candles, Quotes, Trades
from flux.kernels import arrow as kernel
from flux.model import CANDLE, QUOTE, TRADE, StreamKey
from tests.oracle import arrow as oracle
from tests.oracle.arrow import ArrowArray, ArrowArrayStream, ArrowSchema, Held
from tests.unit.plain_codec import KEY, normal, sample

KINDS = [(Candles, CANDLE, "tsm:UTC"), (Trades, TRADE, "tsn:UTC"), (Quotes, QUOTE, "tsn:UTC")]
FORMATS = {"f8": "g", "u4": "I", "u8": "L"}
DAY_MS = 86_400_000


@pytest.fixture(autouse=True)
def released() -> Any:
    """Each test leaves as many blocks alive as it found: what is exported is released, exactly once."""
    gc.collect()
    before = kernel.live()
    yield
    gc.collect()
    assert kernel.live() == before


def right(rows: np.ndarray[Any, Any], start: int) -> dict[str, list[Any]]:
    names = [name for name in rows.dtype.names if name != "reserved"]
    return {name: rows[name].tolist() for name in names} | {
        "sequence": [(start + i) % 2**64 for i in range(len(rows))]
    }


def read(schema: Any, array: Any) -> dict[str, list[Any]]:
    return oracle.columns(oracle.inside(ArrowSchema, schema), oracle.inside(ArrowArray, array))


def plausible(dtype: np.dtype[np.void], n: int) -> np.ndarray[Any, Any]:
    """Rows that every library can show: finite, with times of this century."""
    rows = np.zeros(n, dtype)
    random = np.random.default_rng(n)
    for name in dtype.names or ():
        rows[name] = random.integers(1, 1000, n)
    time, unit = (dtype.names or ("",))[0], 1 if "ts_ms" in (dtype.names or ()) else 1_000_000
    rows[time] = (1_700_000_000_000 + np.arange(n) * 60_000) * unit
    return rows


# ---- the structs ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "dtype", "time"), KINDS)
@pytest.mark.parametrize("n", [0, 1, 3, 255, 256, 257, 1000])
def test_columns_are_the_rows(made: type[Batch], dtype: np.dtype[np.void], time: str, n: int) -> None:
    rows, start = (
        sample(dtype, n),
        2**64 - 2,
    )  # any bits; sequences wrap as they do in the row's own arithmetic
    schema, array = made(KEY, start, rows).__arrow_c_array__()
    names = dict(oracle.fields(oracle.inside(ArrowSchema, schema)))
    assert names == {
        name: time if name.startswith("ts_") else FORMATS[dtype[name].str[1:]]
        for name in dtype.names or ()
        if name != "reserved"
    } | {"sequence": "L"}
    assert normal(read(schema, array)) == normal(right(rows, start))


@given(st.integers(0, 700), st.integers(1, 7), st.booleans(), st.integers(0, 63), st.sampled_from(KINDS))
def test_rows_may_be_strided_reversed_and_at_any_address(
    n: int, step: int, backwards: bool, offset: int, kind: tuple[Any, Any, str]
) -> None:
    made, dtype, _ = kind
    bytes_ = np.zeros(n * dtype.itemsize + offset, np.uint8)
    rows = bytes_[offset:].view(dtype)
    rows[:] = sample(dtype, n)
    rows = rows[:: -step if backwards else step]
    schema, array = made(KEY, 9, rows).__arrow_c_array__()
    assert normal(read(schema, array)) == normal(right(rows, 9))


@pytest.mark.parametrize("offset", range(8))
@pytest.mark.parametrize("version", [1, 2])
def test_a_frame_at_any_address_is_exported(offset: int, version: int) -> None:
    rows = sample(CANDLE, 70).copy()
    rows["turnover"], rows["trade_count"], rows["flags"] = 0, 0, 1  # what version 1 can say
    frame = memoryview(b"x" * offset + codec.encode(rows, KEY, 5, version=version))[offset:]
    assert normal(read(*codec.decode(frame).__arrow_c_array__())) == normal(right(rows, 5))


def test_what_is_exported_outlives_batch_and_frame() -> None:
    frame = bytearray(codec.encode(sample(CANDLE, 50), KEY, 5))
    schema, array = codec.decode(frame).__arrow_c_array__()
    frame.extend(b"the export holds no view of the frame")
    frame[:] = bytes(len(frame))
    assert normal(read(schema, array)) == normal(right(sample(CANDLE, 50), 5))


def test_metadata_name_the_stream() -> None:
    batch = Candles(StreamKey("SIM", "ÄÖ/USD", "1m"), 1, sample(CANDLE, 1), epoch=3, store_id=2**64 - 1)
    said = {"source_id": "SIM", "symbol": "ÄÖ/USD", "interval": "1m"}
    place = {"epoch": "3", "store_id": str(2**64 - 1)}
    capsule = batch.__arrow_c_schema__()
    assert oracle.metadata(oracle.inside(ArrowSchema, capsule)) == said | place
    capsule = Candles(None, 1, sample(CANDLE, 1)).__arrow_c_schema__()
    assert oracle.metadata(oracle.inside(ArrowSchema, capsule)) == {"epoch": "0", "store_id": "0"}
    capsule = kernel.export_schema(1, b"")
    assert oracle.inside(ArrowSchema, capsule).metadata is None


def test_a_stream_gives_its_schema_often_and_its_array_once() -> None:
    rows = sample(TRADE, 300)
    stream = Held.taken(ArrowArrayStream, Trades(KEY, 4, rows).__arrow_c_stream__())
    schemas = [oracle.called(stream.struct, "get_schema", ArrowSchema) for _ in range(3)]
    array = oracle.called(stream.struct, "get_next", ArrowArray)
    for _ in range(2):
        assert not oracle.called(stream.struct, "get_next", ArrowArray).struct.release
    stream.release()
    for schema in schemas:
        assert oracle.metadata(schema.struct)["symbol"] == KEY.symbol
        assert normal(oracle.columns(schema.struct, array.struct)) == normal(right(rows, 4))
        schema.release()
    array.release()


def test_a_stream_that_is_not_read_releases_its_array() -> None:
    Held.taken(ArrowArrayStream, Trades(KEY, 4, sample(TRADE, 300)).__arrow_c_stream__()).release()


# ---- release -------------------------------------------------------------------------------------------------


def test_a_capsule_that_nobody_takes_releases_itself_and_one_that_is_taken_does_not() -> None:
    before = kernel.live()
    schema, array = Candles(KEY, 1, sample(CANDLE, 10)).__arrow_c_array__()
    assert kernel.live() == before + 2
    held = Held.taken(ArrowArray, array)
    del array
    assert kernel.live() == before + 2
    assert read_of(schema, held)["sequence"] == list(range(1, 11))
    held.release()
    assert kernel.live() == before + 1
    del schema
    assert kernel.live() == before


def read_of(schema: Any, held: Held) -> dict[str, list[Any]]:
    return oracle.columns(oracle.inside(ArrowSchema, schema), held.struct)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_child_may_be_moved_out_and_released_in_any_order(order: tuple[int, ...]) -> None:
    rows = sample(QUOTE, 40)
    before = kernel.live()
    _, array = Quotes(KEY, 1, rows).__arrow_c_array__()
    parent = Held.taken(ArrowArray, array)
    parts = [parent, *(Held(parent.struct.children[i].contents) for i in (1, 5))]
    values, sequences = parts[1].struct.buffers[1], parts[2].struct.buffers[1]
    for done, part in enumerate(order):
        assert kernel.live() == before + 1 + (_ is not None)
        if 1 in order[done:]:
            assert ctypes.string_at(values, 320) == rows["bid"].tobytes()
        if 2 in order[done:]:
            assert ctypes.c_uint64.from_address(sequences + 8 * 39).value == 40
        parts[part].release()
    assert kernel.live() == before + 1  # the schema


def test_a_schemas_child_may_outlive_it() -> None:
    parent = Held.taken(ArrowSchema, Quotes(KEY, 1, sample(QUOTE, 1)).__arrow_c_schema__())
    child = Held(parent.struct.children[0].contents)
    parent.release()
    assert (child.struct.name, child.struct.format) == (b"ts_ns", b"tsn:UTC")
    child.release()


def test_parts_may_be_released_by_many_threads() -> None:
    before = kernel.live()
    for _ in range(50):
        parent = Held.taken(ArrowArray, Candles(KEY, 1, sample(CANDLE, 100)).__arrow_c_array__()[1])
        parts = [Held(parent.struct.children[i].contents) for i in range(parent.struct.n_children)]
        threads = [threading.Thread(target=part.release) for part in [parent, *parts]]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        del parent, parts, threads
    assert kernel.live() == before


def test_a_hundred_thousand_exports_take_no_memory() -> None:
    batch = Candles(KEY, 1, sample(CANDLE, 100))
    consumed = 0

    def some(count: int) -> None:
        nonlocal consumed
        for _ in range(count // 2):
            batch.__arrow_c_stream__()  # its capsule releases it
            Held.taken(ArrowArray, batch.__arrow_c_array__()[1]).release()
            consumed += 2

    some(2_000)
    before = resident()
    some(98_000)
    assert consumed == 100_000
    assert resident() - before < 4 << 20  # they were 700 MB together


def resident() -> int:
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


# ---- requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "given_"),
    [
        ("tsm:", "tsm:"),
        ("tsm:Europe/Berlin", "tsm:Europe/Berlin"),
        ("l", "l"),
        ("tsn:UTC", "tsm:UTC"),  # another unit is another number
        ("g", "tsm:UTC"),
        ("tsm:" + "x" * 76, "tsm:UTC"),  # no zone's name is so long
    ],
)
def test_a_request_is_heeded_where_it_costs_nothing(wanted: str, given_: str) -> None:
    batch = Candles(KEY, 1, sample(CANDLE, 3))
    asked = batch.__arrow_c_schema__()
    text = wanted.encode()
    oracle.inside(ArrowSchema, asked).children[0].contents.format = text
    oracle.inside(ArrowSchema, asked).children[1].contents.format = b"f"
    schema, array = batch.__arrow_c_array__(asked)
    assert oracle.fields(oracle.inside(ArrowSchema, schema))[:2] == [("ts_ms", given_), ("open", "g")]
    assert normal(read(schema, array)) == normal(right(batch.rows, 1))
    stream = Held.taken(ArrowArrayStream, batch.__arrow_c_stream__(requested_schema=asked))
    schema_of = oracle.called(stream.struct, "get_schema", ArrowSchema)
    assert oracle.fields(schema_of.struct)[0] == ("ts_ms", given_)
    schema_of.release()
    stream.release()


def test_a_request_for_other_fields_is_refused() -> None:
    candles = Candles(KEY, 1, sample(CANDLE, 3))
    for method in (candles.__arrow_c_array__, candles.__arrow_c_stream__):
        with pytest.raises(ValueError, match="not of these fields: ts_ms open"):
            method(Trades(KEY, 1, sample(TRADE, 3)).__arrow_c_schema__())
        renamed = candles.__arrow_c_schema__()
        oracle.inside(ArrowSchema, renamed).children[3].contents.name = b"lowest"
        with pytest.raises(ValueError, match="not of these fields"):
            method(renamed)
        with pytest.raises(ValueError, match="PyCapsule"):
            method(candles.__arrow_c_array__()[1])
        with pytest.raises((TypeError, ValueError)):
            method("a schema")
        taken = candles.__arrow_c_schema__()
        Held.taken(ArrowSchema, taken).release()
        with pytest.raises(ValueError, match="is released"):
            method(taken)


def test_the_kernel_checks_what_it_is_given() -> None:
    with pytest.raises(ValueError, match="no rows of kind 0"):
        kernel.export_schema(0, b"")
    with pytest.raises(ValueError, match="of 64 bytes, not 1-d of 40"):
        kernel.export_array(sample(TRADE, 1), 1, 1, b"")
    with pytest.raises(ValueError, match="not 2-d"):
        kernel.export_array(sample(CANDLE, 4).reshape(2, 2), 1, 1, b"")
    with pytest.raises(TypeError):
        kernel.export_stream("rows", 1, 1, b"")
    for wrong in (np.zeros(2, np.uint64), np.zeros(3, np.uint32), np.zeros(8, np.uint8), b"12345678"):
        with pytest.raises(ValueError, match="of sequences for 1 rows"):
            kernel.export_array(sample(CANDLE, 1), 1, wrong, b"")
    with pytest.raises((TypeError, ValueError)):
        kernel.export_array(sample(CANDLE, 2), 1, np.zeros(4, np.uint64)[::2], b"")


@given(st.lists(st.integers(0, 2**64 - 1), max_size=600), st.sampled_from(KINDS))
def test_rows_with_sequences_of_their_own(sequences: list[int], kind: Any) -> None:
    make, dtype, _ = kind
    rows = sample(dtype, len(sequences))
    batch = make(KEY, min(sequences, default=1), rows, sequences=np.array(sequences, np.uint64))
    assert read(*batch.__arrow_c_array__())["sequence"] == sequences


# ---- who reads it --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("made", "dtype", "time"), KINDS)
@pytest.mark.parametrize("n", [0, 1, 1000])
class TestReaders:
    """The same batch by each library, without a word of flux in between."""

    def batch(self, made: type[Batch], dtype: np.dtype[np.void], n: int) -> Batch:
        key = KEY._replace(interval={Candles: "1m", Trades: "trade", Quotes: "quote"}[made])
        return codec.decode(memoryview(b"abc" + codec.encode(plausible(dtype, n), key, 7, epoch=2))[3:])

    def test_pyarrow(self, made: type[Batch], dtype: np.dtype[np.void], time: str, n: int) -> None:
        pyarrow = pytest.importorskip("pyarrow")
        batch = self.batch(made, dtype, n)
        for table in (pyarrow.table(batch), batch.to_arrow(), pyarrow.record_batch(batch)):
            table.validate(full=True)
            unit = "ms" if dtype is CANDLE else "ns"
            assert table.schema[0].type == pyarrow.timestamp(unit, "UTC")
            assert table.schema.metadata[b"symbol"] == KEY.symbol.encode()
            values = {
                name: table.column(name).cast("int64" if not i else table.schema[i].type).to_pylist()
                for i, name in enumerate(table.schema.names)
            }
            assert values == right(batch.rows, 7)
        array = pyarrow.array(batch)
        array.validate(full=True)
        assert pyarrow.types.is_struct(array.type)
        assert len(array) == n
        asked = pyarrow.schema(batch).set(
            0, pyarrow.field("ts_ms" if unit == "ms" else "ts_ns", pyarrow.int64())
        )
        assert pyarrow.table(batch, schema=asked).schema[0].type == pyarrow.int64()
        assert pyarrow.RecordBatchReader.from_stream(batch).read_all().num_rows == n

    def test_polars(self, made: type[Batch], dtype: np.dtype[np.void], time: str, n: int) -> None:
        polars = pytest.importorskip("polars")
        batch = self.batch(made, dtype, n)
        frame = batch.to_polars()
        assert frame.equals(polars.DataFrame(batch))
        unit = "ms" if dtype is CANDLE else "ns"
        assert frame.schema[frame.columns[0]] == polars.Datetime(unit, "UTC")
        values = {name: frame[name].to_physical().to_list() for name in frame.columns}
        assert values == right(batch.rows, 7)

    def test_duckdb(self, made: type[Batch], dtype: np.dtype[np.void], time: str, n: int) -> None:
        duckdb = pytest.importorskip("duckdb")
        batch = self.batch(made, dtype, n)
        with duckdb.connect() as connection:
            for _ in range(2):  # a batch is read as often as it is asked for
                table = connection.sql("select * from batch").fetchnumpy()
            wanted = right(batch.rows, 7)
            times = table.pop(next(iter(table))).astype("datetime64[ns]").astype(np.int64)
            assert times.tolist() == [
                at * (1_000_000 if dtype is CANDLE else 1) for at in wanted.pop(next(iter(wanted)))
            ]
            assert {name: column.tolist() for name, column in table.items()} == wanted
            last = connection.sql("select max(sequence), count(*) from batch where sequence > 3").fetchall()
            assert last == [((n + 6) if n else None, n)]

    def test_pandas(self, made: type[Batch], dtype: np.dtype[np.void], time: str, n: int) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")  # which pandas' own reader of capsules needs; to_df() does not
        batch = self.batch(made, dtype, n)
        frame = pandas.DataFrame.from_arrow(batch)
        values = {
            name: frame[name].astype("int64" if not i else frame[name].dtype).tolist()
            for i, name in enumerate(frame.columns)
        }
        assert values == right(batch.rows, 7)
        ours = batch.to_df()
        assert (frame.set_index(frame.columns[0]) == ours).all().all()
        assert list(ours["sequence"]) == values["sequence"]


def test_batches_of_a_stream_are_one_table() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parts = [Candles(KEY, 1 + 10 * i, plausible(CANDLE, 10), epoch=2) for i in range(3)]
    table = pyarrow.concat_tables([pyarrow.table(part) for part in parts])
    assert table.column("sequence").to_pylist() == list(range(1, 31))
    plain = pyarrow.table({name: table.column(name).to_pylist() for name in table.schema.names}, table.schema)
    assert pyarrow.concat_tables([table, plain]).num_rows == 60


def test_readers_keep_the_memory_that_they_need() -> None:
    pyarrow = pytest.importorskip("pyarrow")
    before = kernel.live()
    close = pyarrow.table(Candles(KEY, 1, plausible(CANDLE, 1000))).column("close")
    gc.collect()
    assert kernel.live() == before + 1  # one column keeps its block
    assert len(close.to_pylist()) == 1000
    del close
    gc.collect()
    assert kernel.live() == before

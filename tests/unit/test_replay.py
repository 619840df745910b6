"""CSV files: what is read is what `float()` says, faults are named exactly, and a position leads back."""

from __future__ import annotations

import csv
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flux.codec import crc32c
from flux.errors import ConfigError, DataError, InvalidNameError, SourceFileError
from flux.feed import replay
from flux.feed.csv_format import Fault, parse, parse_exactly, read_layout
from flux.feed.replay import Chunk, CsvSource, Position
from flux.model import CandleFlag, StreamKey

HEADER = "timestamp,open,high,low,close,volume\n"
START = 1_640_991_660_000
KEY = StreamKey("SIM", "X", "1m")
SHARED = Path(os.environ.get("FLUX_SHARED", Path(__file__).parents[3] / "shared")) / "data"


def line(i: int, price: str = "100.25") -> str:
    moment = datetime.fromtimestamp(START / 1000 + 60 * i, UTC).strftime("%Y-%m-%d %H:%M:%S")
    return f"{moment},{price},{price},{price},{price},{i}.5\n"


def text(n: int) -> str:
    return HEADER + "".join(line(i, f"{100 + i * 0.01:.2f}") for i in range(n))


def written(folder: Path, content: str | bytes, name: str = "BTC.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def all_chunks(source: CsvSource, max_rows: int = 1_000) -> list[Chunk]:
    chunks = []
    while (chunk := source.read(max_rows)) is not None:
        chunks.append(chunk)
    source.close()
    return chunks


def all_rows(source: CsvSource, max_rows: int = 1_000) -> np.ndarray:
    return np.concatenate([chunk.rows for chunk in all_chunks(source, max_rows)])


def test_a_file_becomes_candles(tmp_path: Path) -> None:
    source = CsvSource(written(tmp_path, text(3)), default_source="FEED")
    assert source.key == ("FEED", "BTC", "1m")
    assert source.name == "csv:BTC.csv:FEED/BTC/1m"
    chunk = source.read(10)
    assert chunk is not None
    assert chunk.rows.tolist() == [
        (START + 60_000 * i, *[float(f"{100 + i * 0.01:.2f}")] * 4, i + 0.5, 0.0, 0, int(CandleFlag.CLOSED))
        for i in range(3)
    ]
    assert chunk.position == (3, crc32c(text(3).encode()))
    assert source.read(10) is None
    assert source.position == chunk.position


@pytest.mark.parametrize(
    ("header", "time"),
    [
        ("timestamp", "2021-12-31 23:01:00"),
        ("timestamp_utc", "2021-12-31 23:01:00.000"),
        ("Timestamp", "2021-12-31T23:01:00.000000Z"),
        ("date", "2021-12-31 23:01:00+00:00"),
        ("datetime", "2021-12-31 23:01"),
        ("timestamp", "1640991660"),
        ("ts_ms", "1640991660000"),
        ("open_time", "1640991660000000"),
        ("time", "1640991660000000000"),
    ],
)
def test_forms_of_time(tmp_path: Path, header: str, time: str) -> None:
    path = written(tmp_path, f"{header},open,high,low,close,volume\n{time},1,2,1,2,3\n")
    assert all_rows(CsvSource(path, KEY))["ts_ms"].tolist() == [START]


def test_days_and_months(tmp_path: Path) -> None:
    days = "".join(f"2024-0{month}-01,1,1,1,1,1\n" for month in (1, 2, 3, 4, 5))
    source = CsvSource(written(tmp_path, HEADER + days))
    assert source.key.interval == "1M"
    assert all_rows(source)["ts_ms"][0] == 1_704_067_200_000


def test_an_archive_of_klines_needs_no_header_and_knows_trades(tmp_path: Path) -> None:
    lines = (
        "1637971200000,0.00002853,0.00002854,0.00002851,0.00002854,36304.20000000,1637971259999,"
        "1.03547608,79,19523.00000000,0.55694227,0\n"
        "1637971260000,0.00002854,0.00002860,0.00002854,0.00002859,89196.60000000,1637971319999,"
        "2.54751330,98,59004.20000000,1.68545512,0"
    )
    rows = all_rows(CsvSource(written(tmp_path, lines)))
    traded = int(CandleFlag.CLOSED | CandleFlag.TRADED)
    assert rows[1].tolist() == (
        1637971260000, 0.00002854, 0.00002860, 0.00002854, 0.00002859, 89196.6, 2.5475133, 98, traded,
    )  # fmt: skip


def test_columns_in_any_order_beside_others(tmp_path: Path) -> None:
    content = (
        "symbol,volume,close,low,high,open,trades,note,quote_volume,ts_ms\n"
        f"BTC/USDT,5,1.5,1,2,1.25,7,née 'x',6.25,{START}\n"
    )
    rows = all_rows(CsvSource(written(tmp_path, content), KEY))
    assert rows[0].tolist() == (START, 1.25, 2.0, 1.0, 1.5, 5.0, 6.25, 7, 33)
    only_one = content.replace("trades", "traders")
    assert all_rows(CsvSource(written(tmp_path, only_one), KEY))[0].tolist()[-3:] == (6.25, 0, 65)


HEADER_FAULTS = [
    ("", 0, 0, "is empty"),
    (HEADER, 0, 0, "has no rows"),
    ("timestamp,open,high,low,close\n2021-12-31 23:01:00,1,1,1,1\n", 1, 30, "missing column volume"),
    ("open,high,low,close,volume\n1,1,1,1,1\n", 1, 27, "missing column ts_ms or timestamp"),
    ("\ufeff", 1, 1, "one field"),
    (text(2).replace(",", " "), 1, 1, "one field"),
    (text(2).replace("\n", "\r"), 1, 37, "is not text: byte 0x0d"),
    (b"\x00\x01\x02\xff" * 1_000, 1, 1, "is not text: byte 0x00"),
    (b"PAR1" + bytes(range(256)), 1, 5, "is not text"),
    (text(2).encode("utf-16"), 1, 1, "is not text: byte 0xff"),
    ("1,2,3,4,5,6\n" * 3, 1, 1, "no header"),
    ("2021-12-31 23:01:00,2,3,4,5\n", 1, 1, "no header"),
    ("2021-12-31 23:01:00,2,3,4,5,6,7.5\n", 1, 1, "no count of trades"),
    ("timestamp,open,high,low,close,volume,open\n1,1,1,1,1,1,1\n", 1, 38, "column open is there twice"),
]


@pytest.mark.parametrize(("content", "at", "column", "reason"), HEADER_FAULTS)
@pytest.mark.parametrize("skip", [False, True])
def test_files_that_are_no_csv_of_ours(
    tmp_path: Path, content: str | bytes, at: int, column: int, reason: str, skip: bool
) -> None:
    with pytest.raises(SourceFileError) as caught:
        CsvSource(written(tmp_path, content), skip_bad_rows=skip)
    assert (caught.value.line, caught.value.column) == (at, column)
    assert reason in str(caught.value)
    assert caught.value.exit_code == 2
    assert str(caught.value).startswith(f"{tmp_path}/BTC.csv:")


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for path, reason in ((tmp_path, "is a directory"), (tmp_path / "none.csv", "no such file")):
        with pytest.raises(SourceFileError, match=reason):
            CsvSource(path)
    locked = written(tmp_path, text(3))
    locked.chmod(0)
    if os.access(locked, os.R_OK):
        pytest.skip("this user reads everything")
    with pytest.raises(SourceFileError, match="permission denied"):
        CsvSource(locked)


NOW = "2021-12-31 23:03:00"
ROW_FAULTS = [
    (f"{NOW},1e309,1,1,1,1", 21, "open: '1e309' is too large"),
    (f"{NOW},1,nan,1,1,1", 23, "high: 'nan' is not finite"),
    (f"{NOW},1,1,1,1,-inf", 29, "volume: '-inf' is not finite"),
    (f"{NOW},1,1,1,1,", 29, "volume: '' is no number"),
    (f"{NOW},1, 1,1,1,1", 23, "high: ' 1' is no number"),
    (f"{NOW},1_0,1,1,1,1", 21, "open: '1_0' is no number"),
    (f"{NOW},0x1p3,1,1,1,1", 21, "is no number"),
    (f'{NOW},"1",1,1,1,1', 21, "is no number"),
    (f"{NOW},1,\x1b[31m,1,1,1", 23, r"'\x1b[31m' is no number"),
    (f"{NOW},1,1,1,1", 28, "5 fields instead of 6"),
    (f"{NOW},1,1,1,1,1,7", 31, "7 fields instead of 6"),
    ("\r", 1, "empty line"),
    (f"{NOW},1,1,1,1,1\r\r", 29, r"volume: '1\r' is no number"),
    (f"{NOW},1,\r1,1,1,1", 23, r"high: '\r1' is no number"),
    (f"{NOW},1,1,2,1,1", 23, "high below low"),
    (f"{NOW},3,2,1,1,1", 21, "open outside"),
    (f"{NOW},1,2,1,0.5,1", 27, "close outside"),
    (f"{NOW},1,1,1,1,-0.5", 29, "negative volume"),
    ("2021-12-31 23:03:01,1,1,1,1,1", 1, "not on a whole minute"),
    ("2021-12-31 23:02:00,1,1,1,1,1", 1, "duplicate time"),
    ("2021-12-31 23:01:30,1,1,1,1,1", 1, "before that of the row before"),
    ("1899-12-31 23:59:59,1,1,1,1,1", 1, "outside 1900 to 2100"),
    ("2100-01-01 00:00:00,1,1,1,1,1", 1, "outside 1900 to 2100"),
    ("2021-13-31 23:03:00,1,1,1,1,1", 1, "month must be in"),
    ("2021-12-31 23:03:60,1,1,1,1,1", 1, "second must be in"),
    ("2021-12-31 23:03:00.000001,1,1,1,1,1", 1, "finer than a millisecond"),
    ("31.12.2021 23:03,1,1,1,1,1", 1, "is no time"),
    ("1640991780000,1,1,1,1,1", 1, "is no time"),
]


@pytest.mark.parametrize(("bad", "column", "reason"), ROW_FAULTS)
@pytest.mark.parametrize("place", ["first block", "later block"])
def test_faulty_rows_are_named_or_skipped(
    tmp_path: Path, bad: str, column: int, reason: str, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if place == "later block":
        monkeypatch.setattr(replay, "CSV_BLOCK_BYTES", len(HEADER) + len(line(0)))
    path = written(tmp_path, HEADER + line(0) + line(1) + bad + "\n" + line(5) + line(6))
    with pytest.raises(SourceFileError) as caught:  # noqa: PT012  at once, or when the block is reached
        source = CsvSource(path, KEY)
        assert place == "later block"
        chunks = [source.read(10)]
        while True:
            chunks.append(source.read(10))
    assert (caught.value.line, caught.value.column) == (4, column), str(caught.value)
    assert reason in caught.value.reason
    if place == "later block":
        assert sum(len(chunk.rows) for chunk in chunks if chunk) == 2

    source = CsvSource(path, KEY, skip_bad_rows=True)
    rows = all_rows(source)
    assert ((rows["ts_ms"] - START) // 60_000).tolist() == [0, 1, 5, 6]
    assert source.skipped == 1
    assert [(fault.line, fault.column) for fault in source.faults] == [(4, column)]
    assert source.position == (5, crc32c(path.read_bytes()))


def test_only_the_first_ten_faults_are_listed(tmp_path: Path) -> None:
    path = written(tmp_path, text(3) + "x\n" * 25 + line(9) + "y\n" * 5)
    source = CsvSource(path, skip_bad_rows=True)
    assert len(all_rows(source)) == 4
    assert source.skipped == 30
    assert [fault.line for fault in source.faults] == list(range(5, 15))
    assert source.position.row == 34


def test_a_line_without_end_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(SourceFileError, match=r":3:\d+: the line does not end"):
        CsvSource(written(tmp_path, HEADER + line(0) + "1" * 300_000))


def test_the_name_of_the_stream(tmp_path: Path) -> None:
    assert CsvSource(written(tmp_path, text(3)), StreamKey("A", "B/C", "1m")).key == ("A", "B/C", "1m")
    gaps = HEADER + "".join(line(i) for i in (0, 1, 2, 50, 51, 90, 91))
    assert CsvSource(written(tmp_path, gaps)).key.interval == "1m"
    odd = HEADER + "".join(line(7 * i) for i in range(4))
    with pytest.raises(SourceFileError, match="420000 ms apart"):
        CsvSource(written(tmp_path, odd))
    with pytest.raises(SourceFileError, match="too few rows"):
        CsvSource(written(tmp_path, text(1)))
    with pytest.raises(InvalidNameError):
        CsvSource(written(tmp_path, text(3), "a\nb.csv"))
    with pytest.raises(ConfigError, match="candles"):
        CsvSource(written(tmp_path, text(3)), StreamKey("A", "B", "trade"))


def test_limit_counts_from_the_start_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, text(50))
    chunks = all_chunks(CsvSource(path, limit=23), 10)
    assert [len(chunk.rows) for chunk in chunks] == [10, 10, 3]
    source = CsvSource(path, limit=23)
    source.resume(*chunks[1].position)
    assert len(all_rows(source)) == 3
    source = CsvSource(path, limit=23)
    source.resume(*chunks[2].position)
    assert source.read(5) is None


@pytest.mark.parametrize("newline_at_end", [True, False])
@pytest.mark.parametrize("bad_rows", [False, True])
def test_every_position_leads_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, newline_at_end: bool, bad_rows: bool
) -> None:
    monkeypatch.setattr(replay, "CSV_BLOCK_BYTES", 400)
    lines = text(60).splitlines(keepends=True)
    if bad_rows:
        for at in (7, 20, 21, 22, 40, 60):
            lines.insert(at, "bad\n")
    content = "".join(lines)
    path = written(tmp_path, content if newline_at_end else content.removesuffix("\n"))
    chunks = all_chunks(CsvSource(path, skip_bad_rows=bad_rows), 7)
    rows = np.concatenate([chunk.rows for chunk in chunks])
    assert len(rows) == 60
    done = 0
    for chunk in chunks:
        done += len(chunk.rows)
        source = CsvSource(path, skip_bad_rows=bad_rows)
        source.resume(*chunk.position)
        assert source.position == chunk.position
        rest = all_chunks(source, 7)
        assert sum(len(part.rows) for part in rest) == 60 - done
        if rest:
            assert np.concatenate([part.rows for part in rest]).tobytes() == rows[done:].tobytes()
            assert rest[-1].position == chunks[-1].position


def test_a_file_that_changed_needs_a_decision(tmp_path: Path) -> None:
    path = written(tmp_path, text(50))
    position = all_chunks(CsvSource(path), 20)[1].position
    path.write_text(text(50) + line(50))  # it grew: fine
    source = CsvSource(path)
    source.resume(*position)
    assert len(all_rows(source)) == 11
    for changed in (text(50).replace("100.05", "100.06"), text(30), text(50).replace("open,", "Open,")):
        path.write_text(changed)
        with pytest.raises(DataError, match="first 40 rows differ") as caught:
            CsvSource(path).resume(*position)
        assert caught.value.exit_code == 4


def test_a_resumed_file_still_sees_a_time_that_falls_back(tmp_path: Path) -> None:
    path = written(tmp_path, text(10) + line(3))
    source = CsvSource(path, KEY, skip_bad_rows=True)
    chunk = source.read(10)
    assert chunk is not None
    source = CsvSource(path, KEY, skip_bad_rows=True)
    source.resume(*chunk.position)
    assert source.read(10) is None
    assert source.skipped == 1
    assert source.faults == [Fault(12, 1, "time before that of the row before")]


def test_a_loop_goes_on_later_by_the_span(tmp_path: Path) -> None:
    path = written(tmp_path, text(10))
    source = CsvSource(path, loop=True)
    chunks = [chunk for _ in range(12) if (chunk := source.read(4)) is not None]
    rows = np.concatenate([chunk.rows for chunk in chunks])
    assert np.array_equal(rows["ts_ms"], START + 60_000 * np.arange(len(rows)))
    assert np.array_equal(rows["open"], np.tile(rows["open"][:10], 4)[: len(rows)])
    assert [chunk.position.row for chunk in chunks[:5]] == [4, 8, 10, 14, 18]
    for at, chunk in enumerate(chunks[:-1]):
        resumed = CsvSource(path, loop=True)
        resumed.resume(*chunk.position)
        following = resumed.read(4)
        assert following is not None
        assert following.rows.tobytes() == chunks[at + 1].rows.tobytes()
        assert following.position == chunks[at + 1].position
    assert len(all_rows(CsvSource(path, loop=True, limit=25))) == 25


def test_a_position_of_no_rows() -> None:
    assert Position(0, 0) == (0, 0)


NUMBERS = st.one_of(
    st.floats(0, allow_nan=False, allow_infinity=False).map(repr),
    st.decimals(0, 10**12, places=8).map(str),
    st.sampled_from(["1.", ".5", "+2", "1e5", "1E-5", "2.2250738585072011e-308", "0.1", "-0.0", "5e-324"]),
    st.from_regex(r"[0-9]{1,25}\.[0-9]{1,25}(e-?[0-9]{1,2})?", fullmatch=True),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=20), st.data())
def test_numbers_are_pythons_floats_to_the_bit(numbers: list[str], data: st.DataObject) -> None:
    """The quick pass and the exact pass agree on every block, damaged ones included."""
    body = "".join(
        f"{START + 60_000 * i},{number},{number},{number},{number},{number}\n"
        for i, number in enumerate(numbers)
    ).encode()
    layout = read_layout("x", b"ts_ms,open,high,low,close,volume\n" + body)
    rows = parse(layout, body, 0)
    assert rows is not None
    expected = np.array([float(number) for number in numbers])
    for name in ("open", "high", "low", "close", "volume"):
        assert rows[name].tobytes() == expected.tobytes()
    exact, kept, faults = parse_exactly(layout, body, 2, 0)
    assert (exact.tobytes(), len(kept), faults) == (rows.tobytes(), len(numbers), [])

    damaged = bytearray(body)
    at = data.draw(st.integers(0, len(damaged) - 2))
    damaged[at] = data.draw(st.sampled_from(list(b"0123456789.,-+eE \n\r\x00nZ:;")))
    quick = parse(layout, bytes(damaged), 0)
    exact, kept, faults = parse_exactly(layout, bytes(damaged), 2, 0)
    if quick is None:
        # Only times of another width or a sign that loadtxt does not know may be refused for nothing.
        assert faults or len({len(part.split(b",")[0]) for part in damaged.split(b"\n")[:-1]}) > 1
    else:
        assert (quick.tobytes(), faults) == (exact.tobytes(), [])


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400))
@example(b"timestamp,open,high,low,close,volume\n,,,,,\n")
@example(b"timestamp,open,high,low,close,volume\n\n\n\n")
@example(b"1,2,3,4,5,6,7,8,9,10,11,12\n")
def test_any_bytes_give_rows_or_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = written(tmp_path_factory.mktemp("any"), data)
    for skip in (False, True):
        try:
            all_chunks(CsvSource(path, KEY, skip_bad_rows=skip))
        except SourceFileError:
            continue


@pytest.mark.parametrize("name", ["btc_perp_1m.csv", "6eh4_1m.csv"])
def test_a_real_file_is_read_to_the_bit(name: str) -> None:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    rows = all_rows(CsvSource(path), 4_096)
    with path.open(newline="") as file:
        lines = list(csv.reader(file))[1:]
    assert len(rows) == len(lines)
    for at, column in enumerate(("open", "high", "low", "close", "volume"), 1):
        assert rows[column].tolist() == [float(fields[at]) for fields in lines]
    assert rows["ts_ms"].tolist() == [
        int(datetime.fromisoformat(fields[0]).replace(tzinfo=UTC).timestamp() * 1000) for fields in lines
    ]
    assert np.all(rows["flags"] == CandleFlag.CLOSED)


def test_a_real_archive_of_klines() -> None:
    path = SHARED / "adabtc_binance_klines_1m.csv"
    if not path.exists():
        pytest.skip(f"{path} is not there")
    source = CsvSource(path, default_source="BINANCE")
    assert source.key == ("BINANCE", "adabtc_binance_klines_1m", "1m")
    rows = all_rows(source)
    assert len(rows) == 10
    assert rows["trade_count"][0] == 79
    assert np.all(rows["flags"] == CandleFlag.CLOSED | CandleFlag.TRADED)

"""M3, M4, N3: files as vendors write them are read as they are meant, or refused with what is true."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flux.codec import crc32c
from flux.errors import SourceFileError
from flux.feed.replay import CsvSource
from flux.model import StreamKey

JAN_2 = 1_704_153_600_000  # 2024-01-02 00:00 UTC
MINUTE = 60_000

# name, the first line or "", three rows with their minute as {m}, epoch ms of the first, flags, the last row's volume
READ = {
    "zone in the value": (
        "Datetime,Open,High,Low,Close,Adj Close,Volume",
        "2024-01-01 19:0{m}:00-05:00,5,6,4,5,5,10{m}",
        (JAN_2, 1, 102),
    ),
    "half-hour zone": (
        "date,open,high,low,close,volume",
        "2024-01-02 05:3{m}:00+05:30,5,6,4,5,0",
        (JAN_2, 1, 0),
    ),
    "UTC behind the time": (
        "timestamp,open,high,low,close,volume",
        "2024-01-02 00:0{m}:00 UTC,5,6,4,5,7",
        (JAN_2, 1, 7),
    ),
    "day first": (
        "Gmt time,Open,High,Low,Close,Volume",
        "02.01.2024 00:0{m}:00.000,5,6,4,5,7.5",
        (JAN_2, 1, 7.5),
    ),
    "day first, zoned": (
        "Local time,Open,High,Low,Close,Volume",
        "02.01.2024 01:0{m}:00.000 GMT+0100,5,6,4,5,7.5",
        (JAN_2, 1, 7.5),
    ),
    "date and time apart": (
        "Date,Time,Open,High,Low,Close,Volume",
        "2024.01.02,00:0{m},5,6,4,5,7",
        (JAN_2, 1, 7),
    ),
    "apart, without a header": ("", "2024.01.02,00:0{m},5,6,4,5,7", (JAN_2, 1, 7)),
    "without a header": ("", "2024.01.02 00:0{m},5,6,4,5,7", (JAN_2, 1, 7)),
    "semicolons, compact": ("", "20240102 000{m}00;5;6;4;5;7", (JAN_2, 1, 7)),
    "tabs": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>",
        "2024.01.02\t00:0{m}:00\t5\t6\t4\t5\t7",
        (JAN_2, 1, 7),
    ),
    "seconds and trades": ("", "17041536{s:02},5,6,4,5,7,9", (JAN_2, 129, 7)),
    "quoted": (
        '"timestamp","open","high","low","close","volume"',
        '"17041536{s:02}","5","6","4","5","7"',
        (JAN_2, 1, 7),
    ),
    "long names": (
        "Open time,Open,High,Low,Close,Volume,Close time,Quote asset volume,Number of trades",
        "2024-01-02 00:0{m}:00,5,6,4,5,7,2024-01-02 00:0{m}:59,35,9",
        (JAN_2, 33, 7),
    ),
    "turnover alone": (
        "ts_ms,open,high,low,close,volume,turnover",
        "17041536{s:02}000,5,6,4,5,7,35",
        (JAN_2, 65, 7),
    ),
    "trades alone": (
        "ts_ms,open,high,low,close,volume,trades",
        "17041536{s:02}000,5,6,4,5,7,9",
        (JAN_2, 129, 7),
    ),
    "day as a number": ("date,open,high,low,close,volume", "2024010{d},5,6,4,5,7", (JAN_2, 1, 7)),
}


def written(directory: Path, content: str) -> Path:
    path = directory / "FILE.csv"
    path.write_text(content)
    return path


@pytest.mark.parametrize("name", READ)
def test_a_file_as_it_is_meant(tmp_path: Path, name: str) -> None:
    header, row, (first, flags, volume) = READ[name]
    step = 1_000 if "{s" in row else 86_400_000 if "{d}" in row else MINUTE
    lines = [row.format(m=m, s=m, d=m + 2) for m in range(3)]
    source = CsvSource(written(tmp_path, "\n".join(filter(None, [header, *lines])) + "\n"))
    chunk = source.read(100)
    assert chunk is not None
    assert chunk.rows["ts_ms"].tolist() == [first + step * m for m in range(3)]
    assert set(chunk.rows["flags"].tolist()) == {flags}
    assert chunk.rows["volume"][-1] == volume
    assert chunk.rows["open"].tolist() == [5.0] * 3
    if flags in (33, 65):
        assert chunk.rows["turnover"].tolist() == [35.0] * 3
    if flags in (33, 129):
        assert chunk.rows["trade_count"].tolist() == [9] * 3


@pytest.mark.parametrize("rows", [6, 6_000])
def test_milliseconds_with_a_tail_of_microseconds(tmp_path: Path, rows: int) -> None:
    """The unit is told for each row: within a block, and in blocks of the later unit alone."""
    kline = "{t},5,6,4,5,7,{t},35,9,0,0,0\n"
    times = [JAN_2 + MINUTE * n for n in range(rows)]
    text = "".join(kline.format(t=t if n < 3 else t * 1_000) for n, t in enumerate(times))
    source, found = CsvSource(written(tmp_path, text)), []
    while chunk := source.read(10_000):
        found.append(chunk.rows)
    assert np.concatenate(found)["ts_ms"].tolist() == times


PLAIN = "ts_ms,open,high,low,close,volume{more}\n"

REFUSED = [
    (
        "time,open,high,low,close,volume\n" + "".join(f"{1704067740 - 60 * n},1,1,1,1,1\n" for n in range(5)),
        "newest first",
    ),
    ("".join(f"{1704067740 - 60 * n},1,1,1,1,1\n" for n in range(5)), "newest first: turn it round, tac"),
    ("https://www.example.com\nUnix,Open,High,Low,Close,Volume\n1,1,1,1,1,1\n", "line 1 has one field"),
    (
        "<DATE>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\t<TICKVOL>\t<VOL>\n2024.01.02\t1\t1\t1\t1\t1\t0\n",
        "tickvol and vol",
    ),
    ("Datum;Hoch;Tief;Schluss;Volumen\n02.01.2024;1,1;2,0;0,5;100\n", "missing column ts_ms or timestamp"),
    ("2024.01.02;1,1;2,0;0,5;1,5;100\n", "no header"),
    (PLAIN.format(more=",trades") + "1704067200000,1,1,1,1,1,4294967296\n", "more than a trade_count holds"),
    (PLAIN.format(more=",trades") + "1704067200000,1,1,1,1,1,-1\n", "is no count"),
    ("date,open,high,low,close,volume\n20240102,1,1,1,1,1\n20241332,1,1,1,1,1\n", "month must be in"),
    ("date,open,high,low,close,volume\n02.01.2024,1,1,1,1,1\n2024-01-03,1,1,1,1,1\n", "is no time"),
]


@pytest.mark.parametrize(("content", "said"), REFUSED)
def test_what_is_not_read_is_said(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(SourceFileError, match=said):
        CsvSource(written(tmp_path, content), StreamKey("SIM", "X", "1m"))


def stepped(step_ms: int, count: int = 20) -> str:
    return PLAIN.format(more="") + "".join(f"{JAN_2 + step_ms * n},1,1,1,1,1\n" for n in range(count))


@pytest.mark.parametrize(
    ("step", "interval", "said"),
    [
        (MINUTE, "1d", "60000 ms apart"),
        (MINUTE, "5m", "60000 ms apart"),
        (86_400_000, "1M", "86400000 ms apart"),
        (86_400_000, "1m", "1d apart"),
        (5 * MINUTE, "1m", "5m apart"),
        (3_600_000, "1w", "3600000 ms apart"),
    ],
)
def test_the_step_of_a_file_is_that_of_its_key(tmp_path: Path, step: int, interval: str, said: str) -> None:
    """M4."""
    with pytest.raises(SourceFileError, match=f"{said}, and its key says {interval}"):
        CsvSource(written(tmp_path, stepped(step)), StreamKey("SIM", "X", interval))


def test_a_file_with_holes_keeps_its_key(tmp_path: Path) -> None:
    for step, interval in (
        (MINUTE, "1m"),
        (7 * MINUTE, "1m"),
        (23 * 3_600_000, "1d"),
        (28 * 86_400_000, "1M"),
    ):
        CsvSource(written(tmp_path, stepped(step, 5)), StreamKey("SIM", "X", interval)).close()
    CsvSource(written(tmp_path, stepped(5 * MINUTE, 3)), StreamKey("SIM", "X", "1m")).close()


@pytest.mark.parametrize("before", [0, 3])
@pytest.mark.parametrize(
    ("time", "said"),
    [
        ("2024-01-02 00:03:00+99:99", r"'\+99:99' is no zone: at most 14 hours"),
        ("2024-01-02 00:03:00-5959", "'-5959' is no zone"),
        ("2024-01-02 00:03:00+05:60", "is no zone"),
        ("2024-01-02 00:03:00-14:01", "is no zone"),
        ("2024-01-02-0500", "is no time"),
        ("2024-01-02Z", "is no time"),
        ("2024-01-02 +05:30", "is no time"),
        ("0001-01-01 00:00:00+05:00", "outside 1900 to 2100"),
        ("9999-12-31 23:59:00-05:00", "outside 1900 to 2100"),
    ],
)
def test_a_zone_that_is_none_is_a_fault_of_its_row(tmp_path: Path, time: str, said: str, before: int) -> None:
    """A date alone has no zone; before good rows, and after some."""
    good = "".join(f"2024-01-02 00:0{n}:00,1,1,1,1,1\n" for n in range(before))
    path = written(tmp_path, f"time,open,high,low,close,volume\n{good}{time},1,1,1,1,1\n")
    with pytest.raises(SourceFileError, match=said) as caught:
        CsvSource(path, StreamKey("SIM", "X", "1m"))
    assert (caught.value.line, caught.value.column) == (before + 2, 1)


@pytest.mark.parametrize("mark", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("names", ["", "time,open,high,low,close,volume\n"])
def test_windows_files_are_read_and_their_faults_have_their_place(
    tmp_path: Path, mark: str, end: str, names: str
) -> None:
    """A byte order mark and CR LF: the same rows, the same places, and a source that goes on where it was."""
    lines = names + "".join(f"2024-01-02 00:{n:02}:00,5,6,4,5,7\n" for n in range(40))
    path = tmp_path / "FILE.csv"

    def source(text: str, key: StreamKey | None = None) -> CsvSource:
        path.write_bytes((mark + text.replace("\n", end)).encode())
        return CsvSource(path, key)

    whole = source(lines)
    first, rest = whole.read(15), whole.read(100)
    assert first is not None
    assert rest is not None
    assert [*first.rows["ts_ms"], *rest.rows["ts_ms"]] == [JAN_2 + MINUTE * n for n in range(40)]
    again = source(lines)
    again.resume(*first.position)
    found = again.read(100)
    assert found is not None
    assert found.rows.tobytes() == rest.rows.tobytes()
    assert found.position == rest.position == (40, crc32c(path.read_bytes()))
    with pytest.raises(SourceFileError, match="open: 'x' is no number") as caught:
        source(lines + "2024-01-02 00:40:00,x,6,4,5,7\n", StreamKey("SIM", "X", "1m"))
    assert (caught.value.line, caught.value.column) == (41 + bool(names), 21)

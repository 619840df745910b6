"""`flux sub`, `get` and `demo` as commands: what they print, what they write, and what they say when nothing comes."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import duckdb
import numpy as np
import pytest

from flux.cli.main import main
from flux.feed import synth
from flux.model import CandleFlag, StreamKey
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer, wait_until

pytestmark = pytest.mark.system

KEY = StreamKey("SIM", "SAMPLE", "1m")
ROWS = synth.candles(300, seed=9)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FluxServer]:
    directory = tmp_path_factory.mktemp("rows")
    synth.write_csv(directory / "SAMPLE.csv", ROWS)
    with FluxServer(
        directory / "data", "--replay", directory / "SAMPLE.csv", "--durability", "process"
    ) as made:
        wait_until(
            lambda: f'"latest_sequence": {len(ROWS)},' in flux("streams", made, "--output", "json").stdout,
            "the file is served",
        )
        yield made
        assert made.stop() == 0


def command(verb: str, server: FluxServer, *arguments: str) -> list[str]:
    pub = ["--pub", server.pub] if verb == "sub" else []
    return [sys.executable, "-m", "flux.cli.main", verb, "--rpc", server.rpc, *pub, *arguments]


def flux(verb: str, server: FluxServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(verb, server, *arguments), capture_output=True, text=True, timeout=2 * PATIENCE_S, check=False
    )


def sequences(out: str) -> list[int]:
    return [json.loads(line)["sequence"] for line in out.splitlines()]


def test_sub_gives_each_row_once_from_where_it_is_told(server: FluxServer) -> None:
    done = flux("sub", server, str(KEY), "--oldest", "--count", "300")
    assert (done.returncode, done.stderr) == (0, "")
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["sequence"] for row in told] == list(range(1, 301))
    assert [row["close"] for row in told] == ROWS["close"].tolist()
    done = flux("sub", server, str(KEY), "--from-sequence", "291", "--count", "5", "--output", "csv")
    assert done.returncode == 0
    head, *lines = done.stdout.splitlines()
    assert head.startswith("key,sequence,epoch,ts_ms,open,")
    assert [line.split(",")[1:3] for line in lines] == [[str(291 + i), "1"] for i in range(5)]


def test_sub_with_a_cache_never_repeats(server: FluxServer, tmp_path: Path) -> None:
    cache = str(tmp_path / "mine.duckdb")
    seen: list[int] = []
    for _ in range(3):
        done = flux("sub", server, str(KEY), "--cache", cache, "--count", "100")
        assert (done.returncode, done.stderr) == (0, "")
        seen += sequences(done.stdout)
    assert seen == list(range(1, 301))


def test_sub_with_a_file_that_is_no_cache_says_so(server: FluxServer, tmp_path: Path) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("a,b\n1,2\n")
    done = flux("sub", server, str(KEY), "--cache", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{file} is no cache" in done.stderr
    assert file.read_text() == "a,b\n1,2\n"


@pytest.mark.parametrize(
    ("begin", "said"),
    [
        (
            ("--from-sequence", "99999"),
            r"SIM/SAMPLE/1m has no sequence 99,999 yet: its newest row is 300, of 2024-\S+ \S+Z; waiting for it",
        ),
        (
            ("--since", "1h"),
            r"SIM/SAMPLE/1m has no row since 20\S+ \S+Z: its newest row is 300, of 2024-\S+ \S+Z; waiting for the next",
        ),
    ],
)
def test_sub_says_what_it_waits_for(server: FluxServer, begin: tuple[str, str], said: str) -> None:
    with subprocess.Popen(
        command("sub", server, str(KEY), *begin), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert re.fullmatch(f"flux sub: {said}\n", process.stderr.readline())
            process.send_signal(signal.SIGINT)
            assert process.wait(PATIENCE_S) == 130
        finally:
            process.kill()


@pytest.mark.parametrize("sequence", [str(2**63), "0", str(2**64), "99999999999999999999999999"])
def test_sub_from_a_sequence_that_cannot_be(server: FluxServer, sequence: str) -> None:
    done = flux("sub", server, str(KEY), "--from-sequence", sequence)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_table_fits_a_terminal(server: FluxServer) -> None:
    done = flux("sub", server, str(KEY), "--oldest", "--count", "30", "--output", "table")
    head, *lines = done.stdout.splitlines()
    assert head.split() == ["stream", "time", "(UTC)", "sequence", "open", "high", "low", "close", "volume"]
    assert len(lines) == 30
    assert max(map(len, (head, *lines))) <= 100
    assert lines[0].split()[:2] == [str(KEY), "2024-01-01"]


def test_get_prints_rows_with_their_sequences(server: FluxServer) -> None:
    done = flux("get", server, str(KEY), "--limit", "5", "--start", "2024-01-01T00:10Z")
    assert (done.returncode, done.stderr) == (0, "")
    assert sequences(done.stdout) == [11, 12, 13, 14, 15]
    assert [json.loads(line)["epoch"] for line in done.stdout.splitlines()] == [1] * 5


def test_get_of_an_empty_range_says_so(server: FluxServer) -> None:
    done = flux("get", server, str(KEY), "--start", "2023-01-01", "--end", "2023-01-02")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"flux get: {KEY} has no rows in this range\n"


@pytest.mark.parametrize("name", ["x.csv", "x.ndjson", "x.parquet"])
def test_get_into_a_place_that_is_not_there_names_it_once(
    server: FluxServer, tmp_path: Path, name: str
) -> None:
    file = tmp_path / "none" / name
    done = flux("get", server, str(KEY), "--limit", "1", "-o", str(file))
    assert (done.returncode, done.stderr) == (2, f"flux get: {file}: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("sub", "SIM/a*/1m"), "'SIM/a*/1m': * stands alone, for all symbols of a source and an interval"),
        (("sub", "SIM/**/1m"), "* stands alone"),
        (("get", "SIM/*/1m"), "'SIM/*/1m': a range is of one stream, and * is no symbol"),
        (("get", "SIM/a*/1m"), "a range is of one stream, and * is no symbol"),
        (("get", "SIM/a/1m", "--limit", "-1"), "'-1' is negative"),
        (("sub", "SIM/a/1m", "--count=-1k"), "'-1k' is negative"),
    ],
)
def test_what_cannot_be_asked_for(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], why: str
) -> None:
    """One sentence, before any server is asked."""
    assert main([*arguments, "--rpc", "tcp://127.0.0.1:1"]) == 2
    said = capsys.readouterr().err
    assert why in said
    assert said.count("\n") == 1


def test_get_writes_parquet_with_times_sequences_and_keys(server: FluxServer, tmp_path: Path) -> None:
    file = tmp_path / "it's.parquet"
    done = flux("get", server, str(KEY), "-o", str(file))
    assert done.returncode == 0
    assert done.stderr == f"{file}: 300 rows of {KEY}\n"
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.execute("SELECT * FROM read_parquet($path)", {"path": str(file)})
        kinds = {column[0]: str(column[1]) for column in found.description or ()}
        columns = found.fetchnumpy()
    assert list(kinds)[:5] == ["source_id", "symbol", "interval", "sequence", "ts_ms"]
    assert "TIME" in kinds["ts_ms"].upper()
    assert columns["sequence"].tolist() == list(range(1, 301))
    assert columns["ts_ms"].astype("datetime64[ms]").astype(np.int64).tolist() == ROWS["ts_ms"].tolist()
    assert set(zip(columns["source_id"], columns["symbol"], columns["interval"], strict=True)) == {tuple(KEY)}
    assert columns["close"].tolist() == ROWS["close"].tolist()


def test_get_without_a_server_says_how_long_it_waited() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))  # not listening
        endpoint = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "flux.cli.main", "get", str(KEY), "--rpc", endpoint],
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        waited = time.monotonic() - began
    assert done.returncode == 1
    said = re.search(rf"{endpoint} did not answer \S+ within ([0-9.]+) s", done.stderr)
    assert said is not None, done.stderr
    assert 5 < float(said[1]) <= waited


def test_get_of_an_unknown_stream_names_those_near_it(server: FluxServer) -> None:
    done = flux("get", server, "SIM/SAMPEL/1m")
    assert (done.returncode, done.stdout) == (1, "")
    assert "did you mean SIM/SAMPLE/1m" in done.stderr


def test_demo_ends_with_a_verdict_that_it_computed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flux.cli.main", "demo"],
        capture_output=True,
        text=True,
        timeout=3 * PATIENCE_S,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "PASS" in done.stdout.splitlines()[-1]


def test_flags_are_shown_as_words() -> None:
    from io import StringIO

    from flux.batch import Candles
    from flux.cli import output

    rows = ROWS[:2].copy()
    rows["flags"] = [CandleFlag.CLOSED, CandleFlag.CLOSED | CandleFlag.CORRECTION | CandleFlag.LATE]
    file = StringIO()
    output.writer("table", file).write(Candles(KEY, 1, rows))
    _, plain, noted = file.getvalue().splitlines()
    assert not plain.endswith("closed")
    assert noted.endswith(" correction late")

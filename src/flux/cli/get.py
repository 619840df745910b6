"""`flux get`: a range of one stream, in order of time."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import duckdb

from flux.cli import output
from flux.client.historical import Historical
from flux.config import DEFAULT_CHUNK_REP
from flux.errors import ConfigError
from flux.loadgen.plan import parse_count
from flux.model import StreamKey
from flux.named_files import no_name, plain
from flux.units import range_ns

if TYPE_CHECKING:
    from flux.batch import Batch

BY_SUFFIX: Final = {".csv": "csv", ".ndjson": "ndjson", ".parquet": "parquet"}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux get",
        description="Fetch a range of one stream: the latest revision of every row, in order of time.",
    )
    made.add_argument("key", metavar="KEY", help="SOURCE/SYMBOL/INTERVAL")
    made.add_argument(
        "--start",
        metavar="T",
        help="from this time on (the oldest kept): 2024-01-15, 2024-01-15T10:30Z, epoch s or ms, now-1h, yesterday",
    )
    made.add_argument("--end", metavar="T", help="up to before this time (the newest)")
    made.add_argument("--limit", metavar="N", help="rows at most")
    made.add_argument("--revisions", action="store_true", help="every row, in order of sequence")
    made.add_argument("--rpc", metavar="EP", help=f"where the server answers ({DEFAULT_CHUNK_REP})")
    made.add_argument(
        "-o", "--output", default="-", metavar="FILE", help="FILE.csv, .ndjson or .parquet; - as text"
    )
    return made


def _write_parquet(batch: Batch, key: StreamKey, path: Path) -> None:
    """Times as timestamps in UTC, the sequence of every row, and its key."""
    named = ", ".join(f"{_text(part)} AS {name}" for name, part in key._asdict().items())
    with duckdb.connect() as connection:
        connection.register("fetched", batch)
        rows = f"SELECT {named}, sequence, * EXCLUDE (sequence) FROM fetched"
        connection.execute(f"COPY ({rows}) TO {_text(plain(path))} (FORMAT parquet)")


def _text(value: str) -> str:
    """An SQL literal: COPY takes no parameters inside."""
    return "'" + value.replace("'", "''") + "'"


def _write(batch: Batch, key: StreamKey, path: Path) -> None:
    form = BY_SUFFIX[path.suffix]
    try:
        if form == "parquet":
            path.open("ab").close()  # DuckDB's own sentence about a place that cannot be written is longer
            _write_parquet(batch, key, path)
            return
        with path.open("w", encoding="utf-8", newline="") as file:
            output.writer(form, file).write(batch)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except duckdb.IOException as error:
        raise ConfigError(f"{path}: {error}") from error


def run(arguments: argparse.Namespace) -> int:
    key = StreamKey.parse(arguments.key)
    if "*" in key.symbol:
        raise ConfigError(f"{arguments.key!a}: a range is of one stream, and * is no symbol")
    path = Path(arguments.output)
    if arguments.output != "-" and path.suffix not in BY_SUFFIX:
        raise ConfigError(f"{path} does not end in one of {' '.join(BY_SUFFIX)}")
    if why := no_name(path):
        raise ConfigError(why)
    limit = None if arguments.limit is None else parse_count(arguments.limit)
    range_ns(arguments.start, arguments.end)  # what is no time is an error before a server is asked
    with Historical(rep=arguments.rpc) as server:
        server.get_status(key)  # no server, or no such stream: found out before a range is waited for
        batch = server.get_range(
            key.symbol,
            interval=key.interval,
            source=key.source_id,
            start=arguments.start,
            end=arguments.end,
            limit=limit,
            revisions=arguments.revisions,
            timeout=math.inf,  # as long as pages come: every one has the time of one request
        )
    if arguments.output == "-":
        output.writer(output.default_format(), sys.stdout).write(batch)
    else:
        _write(batch, key, path)
        print(f"{path}: {len(batch):,} rows of {key}", file=sys.stderr)
    if not len(batch):
        print(f"flux get: {key} has no rows in this range", file=sys.stderr)
    return 0

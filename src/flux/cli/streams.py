"""`flux streams [KEY]`: the server's streams, page by page, as a table or for programs."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any, Final

from flux.cli.output import shown_time
from flux.config import DEFAULT_CHUNK_REP
from flux.errors import NotFoundError
from flux.model import INTERVALS_MS, StreamKey

if TYPE_CHECKING:
    from flux.client.historical import Historical, StreamStatus

ANSWER_S: Final = 5.0  # for a person who waits
_COLUMNS = ("KEY", "HEAD", "FIRST", "LATEST", "EPOCH")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux streams",
        description="List the streams of a server: key, newest and oldest sequence, latest time, epoch.",
        epilog="KEY is SOURCE/SYMBOL/INTERVAL as everywhere, or its beginning: `SIM` lists a source, `SIM/BTC` its "
        "symbols that begin so, `SIM/*/1m` all symbols of an interval, `SIM/BTC*/1m` some of them. Exit codes: 0 "
        "listed, 1 no server or no such stream, 2 usage.",
    )
    made.add_argument("key", metavar="KEY", nargs="?", default="", help="only these (all)")
    made.add_argument("--rpc", metavar="EP", help=f"where the server answers requests ({DEFAULT_CHUNK_REP})")
    made.add_argument("--output", choices=("table", "json", "ndjson"), default="table", help="(table)")
    return made


def run(arguments: argparse.Namespace) -> int:
    from flux.client.historical import Historical  # late: --help needs no sockets

    with Historical(rep=arguments.rpc, timeout=ANSWER_S) as server:
        streams = _listed(server, arguments.key)
    if arguments.output == "ndjson":
        for stream in streams:
            print(json.dumps(_record(stream)))
    elif arguments.output == "json":
        print(json.dumps([_record(stream) for stream in streams], indent=2))
    else:
        _print_table([_cells(stream) for stream in streams])
    return 0


def _listed(server: Historical, wanted: str) -> list[StreamStatus]:
    """What the server reports of the streams that are wanted. Raises NotFoundError where there is none."""
    source, _, rest = wanted.partition("/")
    symbol, slash, interval = rest.rpartition("/")
    if not slash or interval not in INTERVALS_MS:  # no whole key
        symbol, interval = rest if rest.endswith("*") or not rest else f"{rest}*", ""
    if interval and not symbol.endswith("*"):
        return [server.get_status(StreamKey.parse(wanted))]
    prefix = f"{source}/{interval}/" if interval else f"{source}/" if rest else source
    begin = symbol.removesuffix("*")
    found = [stream for stream in server.list_streams(prefix) if stream.key.symbol.startswith(begin)]
    if wanted and not found:
        raise NotFoundError(
            f"no stream is {wanted!a} (SOURCE/SYMBOL/INTERVAL or its beginning; * for any symbol)"
        )
    return found


def _record(stream: StreamStatus) -> dict[str, Any]:
    return {
        "key": str(stream.key),
        "source_id": stream.key[0],
        "symbol": stream.key[1],
        "interval": stream.key[2],
        "stream_id": stream.stream_id,
        "latest_sequence": stream.latest_sequence,
        "first_sequence": stream.first_sequence,
        "latest_ts_ms": stream.latest_ts_ms if stream.latest_sequence else None,
        "epoch": stream.epoch,
        "store_id": stream.store_id,
    }


def _cells(stream: StreamStatus) -> tuple[str, ...]:
    latest = "-"
    if stream.latest_sequence:
        latest = f"{shown_time(stream.latest_ts_ms, 'ts_ms').partition('.')[0]}Z"
    return (
        str(stream.key),
        str(stream.latest_sequence),
        str(stream.first_sequence),
        latest,
        str(stream.epoch),
    )


def _print_table(rows: list[tuple[str, ...]]) -> None:
    if not rows:
        print("flux streams: the server has no streams", file=sys.stderr)
        return
    widths = [max(map(len, column)) for column in zip(_COLUMNS, *rows, strict=True)]
    for row in (_COLUMNS, *rows):
        key, head, first, latest, epoch = (
            cell.ljust(width) if name in ("KEY", "LATEST") else cell.rjust(width)
            for cell, width, name in zip(row, widths, _COLUMNS, strict=True)
        )
        print(f"{key}  {head}  {first}  {latest}  {epoch}".rstrip())

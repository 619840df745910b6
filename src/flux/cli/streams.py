"""`flux streams [PREFIX]`: the server's streams, page by page, as a table or for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from typing import Any

from flux.cli.output import shown_time
from flux.config import DEFAULT_CHUNK_REP, endpoints
from flux.errors import NotFoundError
from flux.model import StreamKey

_COLUMNS = ("KEY", "HEAD", "FIRST", "LATEST", "EPOCH")


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux streams",
        description="List the streams of a server: key, newest and oldest sequence, latest time, epoch.",
        epilog="PREFIX is the beginning of SOURCE/INTERVAL/SYMBOL: `SIM/1m/` lists all symbols of an interval. A key "
        "(SOURCE/SYMBOL/INTERVAL) lists that stream alone. Exit codes: 0 listed, 1 no server or no such stream, 2 "
        "usage.",
    )
    made.add_argument("prefix", metavar="PREFIX", nargs="?", default="", help="only these (all)")
    made.add_argument("--rpc", metavar="EP", help=f"where the server answers requests ({DEFAULT_CHUNK_REP})")
    made.add_argument("--output", choices=("table", "json", "ndjson"), default="table", help="(table)")
    return made


def run(arguments: argparse.Namespace) -> int:
    from flux.transport.requester import Requester  # late: --help needs no sockets
    from flux.transport.sockets import Sockets

    with Sockets() as sockets:
        requester = Requester(sockets, endpoints(chunk_rep=arguments.rpc).chunk_rep)
        streams = _listed(requester, arguments.prefix)
        if arguments.output == "ndjson":
            for stream in streams:
                print(json.dumps(_told(stream)))
        elif arguments.output == "json":
            print(json.dumps([_told(stream) for stream in streams], indent=2))
        else:
            _print_table([_cells(stream) for stream in streams])
    return 0


def _listed(requester: Any, prefix: str) -> Iterator[Any]:
    """StreamStatusResponses in order of their number. Raises NotFoundError where nothing fits the prefix."""
    from flux.schema import messages

    after, more = 0, True
    while more:
        page = requester.ask(messages.stream_list_request, prefix=prefix, after_stream_id=after)
        yield from page.streams
        more = page.has_more and len(page.streams) > 0
        after = page.streams[-1].stream_id if more else after
    if prefix and not after and not page.streams:
        if prefix.count("/") < 2:
            raise NotFoundError(f"no stream begins with {prefix!a} (SOURCE/INTERVAL/SYMBOL)")
        # Perhaps a key; if it is none either, the server's answer names those near it.
        yield requester.ask(messages.stream_status_request, key=StreamKey.parse(prefix))


def _told(stream: Any) -> dict[str, Any]:
    return {
        "key": str(StreamKey(*stream.key)),
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


def _cells(stream: Any) -> tuple[str, ...]:
    latest = "-"
    if stream.latest_sequence:
        latest = f"{shown_time(stream.latest_ts_ms, 'ts_ms').partition('.')[0]}Z"
    return (
        str(StreamKey(*stream.key)),
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

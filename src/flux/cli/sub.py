"""`flux sub`: follow streams; every row once, in order, gaps repaired."""

from __future__ import annotations

import argparse
import logging
import sys
from typing import Final

import numpy as np

from flux.cli import output
from flux.client.deliver import StateChange
from flux.client.historical import Historical, StreamStatus
from flux.client.live import Live
from flux.client.starting import Begin
from flux.config import DEFAULT_CHUNK_REP, DEFAULT_LIVE_PUB
from flux.errors import ConfigError, NotFoundError, RequestTimeout, UnavailableError
from flux.loadgen.plan import parse_count
from flux.model import MAX_SEQUENCE, StreamKey
from flux.protocol.stream_state import StreamState
from flux.units import moment_of, time_ns

LOOK_S: Final = 1.5
WORTH_SAYING: Final = (
    StreamState.DISCONNECTED,
    StreamState.CONNECTING,
    StreamState.STALLED,
    StreamState.FAILED,
)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux sub",
        description="Follow streams. Ctrl-C ends it; with --cache the next run goes on where this one ended.",
    )
    made.add_argument(
        "keys", nargs="+", metavar="KEY", help="SOURCE/SYMBOL/INTERVAL; * stands for any symbol"
    )
    made.add_argument("--pub", metavar="EP", help=f"where the server publishes ({DEFAULT_LIVE_PUB})")
    made.add_argument("--rpc", metavar="EP", help=f"where it answers ({DEFAULT_CHUNK_REP})")
    made.add_argument("--count", metavar="N", help="end after so many rows")
    made.add_argument("--cache", metavar="FILE", help="keep rows and cursor here, begin after that cursor")
    begin = made.add_mutually_exclusive_group()
    begin.add_argument(
        "--since",
        metavar="T",
        help="begin with the first row at or after this time: 1h (ago), 2024-01-15, yesterday",
    )
    begin.add_argument("--from-sequence", metavar="N", help="begin at this sequence")
    begin.add_argument("--oldest", action="store_true", help="begin with the oldest row the server keeps")
    made.add_argument("--output", choices=output.FORMATS, help="table on a terminal, else ndjson")
    return made


def _since(text: str) -> np.datetime64:
    """So long ago (1h), or a time as everywhere."""
    try:
        found = time_ns(f"now-{text}")
    except ConfigError:
        found = time_ns(text, "--since")
    return moment_of(found)


def _start(arguments: argparse.Namespace) -> Begin:
    if arguments.from_sequence is not None:
        sequence = parse_count(arguments.from_sequence)
        if not 1 <= sequence <= MAX_SEQUENCE:
            raise ConfigError(f"--from-sequence is 1 to {MAX_SEQUENCE}, not {arguments.from_sequence}")
        return sequence
    if arguments.oldest:
        return "oldest"
    if arguments.since is not None:
        return _since(arguments.since)
    return "cache" if arguments.cache else None


def _key(text: str) -> StreamKey:
    source, _, rest = text.partition("/")
    if rest.startswith("*/"):
        StreamKey(source, "ANY", rest[2:]).checked()
        return StreamKey(source, "*", rest[2:])
    key = StreamKey.parse(text)
    if "*" in key.symbol:
        raise ConfigError(f"{text!a}: * stands alone, for all symbols of a source and an interval (SIM/*/1m)")
    return key


def _look(rpc: str | None, keys: list[StreamKey], start: Begin) -> None:
    """Report what would otherwise be a silent wait: no server, a stream that it does not know (yet), a beginning that
    is still to come.
    """
    with Historical(rep=rpc, timeout=LOOK_S) as server:
        for key in keys:
            try:
                if key.symbol != "*":
                    _report_wait(server.get_status(key), start)
            except NotFoundError as error:
                _report(f"{error}; waiting for it")
            except (RequestTimeout, UnavailableError) as error:
                _report(f"{error}; waiting for it")
                return


def _report_wait(status: StreamStatus, start: Begin) -> None:
    newest = (
        f"its newest row is {status.latest_sequence:,}" if status.latest_sequence else "it has no row yet"
    )
    if status.latest_sequence:
        newest += f", of {output.shown_time(status.latest_ts_ms, 'ts_ms')}Z"
    if isinstance(start, np.datetime64):
        wanted = int(start.astype("datetime64[ms]").astype(np.int64))
        if status.latest_ts_ms < wanted:
            _report(
                f"{status.key} has no row since {output.shown_time(wanted, 'ts_ms')}Z: {newest}; waiting for the next"
            )
    elif isinstance(start, int) and start > status.latest_sequence + 1:
        _report(f"{status.key} has no sequence {start:,} yet: {newest}; waiting for it")


def _report(text: str) -> None:
    print(f"flux sub: {text}", file=sys.stderr, flush=True)


def _say(change: StateChange) -> None:
    """States that a person should know of, on standard error: the rows have standard output to themselves."""
    if change.state in WORTH_SAYING:
        reason = f": {change.reason}" if change.reason else ""
        print(f"flux sub: {change.key} {change.state.name.lower()}{reason}", file=sys.stderr, flush=True)


def run(arguments: argparse.Namespace) -> int:
    logging.getLogger("flux.client").setLevel(logging.WARNING)
    left = None if arguments.count is None else parse_count(arguments.count)
    writer = output.writer(arguments.output or output.default_format(), sys.stdout)
    keys, start = [_key(text) for text in arguments.keys], _start(arguments)
    _look(arguments.rpc, keys, start)
    with Live(cache=arguments.cache, pub=arguments.pub, rep=arguments.rpc) as live:
        live.add_state_callback(_say)
        for key in keys:
            live.subscribe(key.symbol, interval=key.interval, source=key.source_id, start=start)
        for batch in live:
            writer.write(batch, left)
            if left is not None:
                if left <= len(batch):
                    live.ack(batch, upto=batch.start_sequence + left - 1)  # the rest was not shown
                    break
                left -= len(batch)
    return 0

"""`flux serve`: run the server until it is stopped. SIGTERM and Ctrl-C drain; a second Ctrl-C leaves at once."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from flux.config import (
    DEFAULT_CHUNK_REP,
    DEFAULT_INGEST_PULL,
    DEFAULT_LIVE_PUB,
    DEFAULT_SOURCE_ID,
    Replay,
    ServeConfig,
    value,
)
from flux.errors import ConfigError, InvalidNameError
from flux.loadgen.plan import parse_count, parse_duration
from flux.model import StreamKey

_ENVIRONMENT: Final = ""  # what a bare --ingest stands for


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux serve",
        description="Number, keep, broadcast and serve candles, trades and quotes.",
        epilog="Every endpoint also comes from the environment: FLUX_LIVE_PUB, FLUX_CHUNK_REP, and FLUX_INGEST_PULL "
        "of a bare --ingest; "
        "FLUX_DATA, FLUX_DURABILITY and FLUX_SOURCE_ID too. Exit codes: 0 stopped, 1 runtime error, 2 usage, "
        "3 directory or port in use, 4 the data needs a decision, 130 interrupted.",
    )
    made.add_argument("--data", metavar="DIR", help="the data directory (./flux-data)")
    made.add_argument("--pub", metavar="EP", help=f"where to publish ({DEFAULT_LIVE_PUB})")
    made.add_argument("--rpc", metavar="EP", help=f"where to answer requests ({DEFAULT_CHUNK_REP})")
    made.add_argument(
        "--ingest",
        metavar="EP",
        nargs="?",
        const=_ENVIRONMENT,
        help=f"take rows of feeds here (off; without EP FLUX_INGEST_PULL, else {DEFAULT_INGEST_PULL})",
    )
    made.add_argument(
        "--durability", metavar="MODE", help="disk: synced before it is published; process (disk)"
    )
    made.add_argument(
        "--replay", metavar="[KEY=]FILE", action="append", default=[], help="replay a CSV file of candles"
    )
    made.add_argument(
        "--speed", default="max", metavar="N", help="max, or a multiple of the file's times (max)"
    )
    made.add_argument("--tick", metavar="T", help="release rows at this interval, such as 250ms")
    made.add_argument("--batch-rows", default="50", metavar="N", help="rows every tick (50)")
    made.add_argument("--limit", metavar="N", help="rows to replay at most")
    made.add_argument("--loop", action="store_true", help="begin again at the end, later by the file's span")
    made.add_argument("--skip-bad-rows", action="store_true", help="count and list faulty rows, go on")
    made.add_argument("--insecure", action="store_true", help="allow other machines to connect, without keys")
    return made


def _ingest(given: str | None) -> str | None:
    """Where rows of feeds are taken: nowhere without --ingest, whatever the environment holds, since FLUX_INGEST_PULL
    is also where feeds send; a bare --ingest takes it from there, else the default."""
    return value(None, "INGEST_PULL", DEFAULT_INGEST_PULL) if given == _ENVIRONMENT else given


def config_of(arguments: argparse.Namespace) -> ServeConfig:
    """The checked configuration; ConfigError where a value cannot be."""
    durability = value(arguments.durability, "DURABILITY", "disk")
    if durability not in ("disk", "process"):
        raise ConfigError(f"--durability is disk or process, not {durability!a}")
    return ServeConfig(
        data=Path(value(arguments.data, "DATA", "flux-data")),
        live_pub=value(arguments.pub, "LIVE_PUB", DEFAULT_LIVE_PUB),
        chunk_rep=value(arguments.rpc, "CHUNK_REP", DEFAULT_CHUNK_REP),
        ingest=_ingest(arguments.ingest),
        durability="disk" if durability == "disk" else "process",
        replays=tuple(_replay(text, arguments) for text in arguments.replay),
        source_id=value(None, "SOURCE_ID", DEFAULT_SOURCE_ID),
        insecure=arguments.insecure,
    )


def split_replay(text: str) -> tuple[str | None, Path]:
    """The key, where one is given, and the file. A file that exists is a file, whatever its name; else the text is
    split after the first part that is a key, since a symbol and a file's name may hold `=` too.

    Raises ConfigError for a key with `*`: a file is one stream.
    """
    parts = text.split("=")
    if len(parts) == 1 or Path(text).exists():
        return None, Path(text)
    for count in range(1, len(parts)):
        left, right = "=".join(parts[:count]), "=".join(parts[count:])
        try:
            key = StreamKey.parse(left)
        except InvalidNameError:
            continue
        if "*" in key.symbol:
            raise ConfigError(f"--replay {text!a}: a file is one stream, and * is no symbol")
        if not right:
            raise ConfigError(f"--replay {text!a}: there is a key and no file")
        return left, Path(right)
    raise ConfigError(
        f"--replay {text!a}: there is no such file, and what stands before = is no key SOURCE/SYMBOL/INTERVAL"
    )


def _replay(text: str, arguments: argparse.Namespace) -> Replay:
    key, file = split_replay(text)
    try:
        speed = None if arguments.speed == "max" else float(arguments.speed)
    except ValueError as error:
        raise ConfigError(f"--speed is max or a number, not {arguments.speed!a}") from error
    return Replay(
        path=file,
        key=key,
        speed=speed,
        tick_s=None if arguments.tick is None else parse_duration(arguments.tick) / 1e9,
        batch_rows=parse_count(arguments.batch_rows),
        limit=None if arguments.limit is None else parse_count(arguments.limit),
        loop=arguments.loop,
        skip_bad_rows=arguments.skip_bad_rows,
    )


def run(arguments: argparse.Namespace) -> int:
    from flux.server.foreground import serve  # late: --help needs no database

    return serve(config_of(arguments))

"""The flags of `flux-loadgen`, and the plan that they make."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence

from flux.cli import loadgen_output
from flux.errors import ConfigError
from flux.loadgen import find_max
from flux.loadgen.faults import Faults
from flux.loadgen.gates import NAMES
from flux.loadgen.plan import MAX_UNDER_WAY, MODES, Audience, Plan, Servers, parse_count, parse_duration
from flux.loadgen.schedule import Burst, Ramp, Replay

EXIT_CODES = """exit codes: 0 held; 1 error while running; 2 usage; 5 a --fail-if expression was true; 6 the
rate was not held, nothing came, or --find-max found none; 130 interrupted by Ctrl-C or SIGTERM (the report is still
given, with complete: false)"""


def _add_pace(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--rate",
        metavar="N|max",
        help=f"messages per second: 100, 10k, 1.5M; or max: as fast as it goes with {MAX_UNDER_WAY:,} messages sent and"
        " not yet received, a closed loop without a schedule and so without latency from it (pubsub)",
    )
    group.add_argument(
        "--ramp", metavar="FROM:TO:T", help="the rate grows evenly over T: 10k:1M:20s; the warm-up is at FROM"
    )
    group.add_argument("--burst", metavar="N/T", help="N messages at once every T: 5k/100ms")
    group.add_argument("--replay", metavar="FILE", help="a message for every candle of a CSV, at their times")
    group.add_argument("--speed", metavar="X", help="divides the times between the candles (1)")


def _add_size(group: argparse._ArgumentGroup) -> None:
    default = Plan()
    group.add_argument(
        "--mode", default=default.mode, metavar="|".join(MODES), help="what is measured (pubsub)"
    )
    group.add_argument("--duration", metavar="T", help="measured time (30s)")
    group.add_argument("--warmup", metavar="T", help="sent before it, not measured (3s)")
    group.add_argument("--streams", default=str(default.streams), metavar="N", help="streams, in turn (64)")
    group.add_argument("--rows", default=str(default.rows), metavar="N", help="rows per message (1)")
    group.add_argument("--seed", default=str(default.seed), metavar="N", help="seed of the prices (1)")
    group.add_argument("--publishers", default="1", metavar="N", help="processes that share the streams (1)")


def _add_others(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--subscribers", default="1", metavar="N", help="processes that take everything (1)")
    group.add_argument(
        "--slow", default="0", metavar="N", help="more of them, which pause after every drain (0)"
    )
    group.add_argument("--pause", default="10ms", metavar="T", help="how long a slow one pauses (10ms)")
    group.add_argument(
        "--stopped", default="0", metavar="N", help="more of them, which stop reading once (0)"
    )
    group.add_argument(
        "--stop", default="200ms@1s", metavar="T@T", help="for how long, and when in measured time (200ms@1s)"
    )
    group.add_argument("--pub", default="", metavar="EP", help="publisher of a server that runs already")
    group.add_argument("--rpc", default="", metavar="EP", help="where that server takes requests")
    group.add_argument("--ingest", default="", metavar="EP", help="where that server takes rows")
    group.add_argument(
        "--durability",
        default=Plan().durability,
        choices=("process", "disk"),
        help="of the server that mode through starts (process)",
    )
    group.add_argument(
        "--topic",
        action="append",
        default=[],
        metavar="T",
        help="of a publisher that is measured: SOURCE/SYMBOL/INTERVAL, the symbol perhaps *, or the beginning of a"
        " version 1 topic such as candles. (all rows in version 2); may be repeated",
    )
    group.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="KIND=N",
        help="to test the instrument: drop, corrupt, reorder or duplicate every N-th message; may be repeated",
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux-loadgen",
        description="Send messages through libzmq over TCP loopback at a fixed rate, from one process to"
        " another, and account for every one. The schedule is absolute: a message that leaves late is"
        " late, and its latency counts from when it should have left.",
        epilog=f"{EXIT_CODES}. EXPR compares one of {NAMES}.",
    )
    _add_pace(made.add_argument_group("how fast, one of them"))
    _add_size(made.add_argument_group("what"))
    _add_others(made.add_argument_group("who else"))
    loadgen_output.add_outputs(made)
    loadgen_output.add_search(made)
    return made


def _ramp(text: str) -> Ramp:
    first, last, over = _parts("--ramp", text, ":", 3, "10k:1M:20s")
    return Ramp(parse_count(first), parse_count(last), parse_duration(over))


def _burst(text: str) -> Burst:
    messages, period = _parts("--burst", text, "/", 2, "5k/100ms")
    return Burst(parse_count(messages), parse_duration(period))


def _replay(file: str | None, speed: str | None) -> Replay | None:
    if file is None:
        if speed is not None:
            raise ConfigError("--speed is that of a --replay")
        return None
    try:
        return Replay(file, float(speed or 1))
    except ValueError as error:
        raise ConfigError(f"--speed {speed!a} is not a number") from error


def _faults(texts: Sequence[str]) -> Faults:
    kinds = [name.name for name in dataclasses.fields(Faults)]
    every: dict[str, int] = {}
    for text in texts:
        kind, number = _parts("--fault", text, "=", 2, "drop=1000")
        if kind not in kinds or parse_count(number) == 0:
            raise ConfigError(f"--fault {text[:40]!a}: one of {' '.join(kinds)}, = and 1 or more")
        every[kind] = parse_count(number)
    return Faults(**every)


def _parts(flag: str, text: str, sign: str, number: int, example: str) -> list[str]:
    parts = text.split(sign)
    if len(parts) != number:
        raise ConfigError(f"{flag} {text[:40]!a}: write it like {example}")
    return parts


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The checked plan that the flags ask for; ConfigError where they cannot be."""
    stop, stop_at = _parts("--stop", arguments.stop, "@", 2, "200ms@1s")
    saturate = arguments.rate == "max"
    rate = None if arguments.rate is None or saturate else parse_count(arguments.rate)
    if rate == 0:
        raise ConfigError("--rate 0: nothing would be sent")
    default = Plan()
    if arguments.find_max:
        default = find_max.short_runs(default)
        if arguments.ramp or arguments.burst or arguments.replay or saturate:
            raise ConfigError(
                "--find-max searches for a constant rate: no --ramp, --burst, --replay or --rate max"
            )
        if arguments.mode == "sub":
            raise ConfigError("--find-max sets the rate, and the rate of another publisher cannot be set")
    elif arguments.slo is not None:
        raise ConfigError("--slo is what --find-max searches by; for a single trial use --fail-if")
    return Plan(
        rate=rate or default.rate,
        duration_ns=_duration(arguments.duration, default.duration_ns),
        warmup_ns=_duration(arguments.warmup, default.warmup_ns),
        streams=parse_count(arguments.streams),
        rows=parse_count(arguments.rows),
        seed=parse_count(arguments.seed),
        mode=arguments.mode,
        ramp=None if arguments.ramp is None else _ramp(arguments.ramp),
        burst=None if arguments.burst is None else _burst(arguments.burst),
        replay=_replay(arguments.replay, arguments.speed),
        saturate=saturate,
        publishers=parse_count(arguments.publishers),
        audience=Audience(
            steady=parse_count(arguments.subscribers),
            slow=parse_count(arguments.slow),
            pause_ns=parse_duration(arguments.pause),
            stopped=parse_count(arguments.stopped),
            stop_ns=parse_duration(stop),
            stop_at_ns=parse_duration(stop_at),
        ),
        servers=Servers(pub=arguments.pub, rpc=arguments.rpc, ingest=arguments.ingest),
        durability=arguments.durability,
        faults=_faults(arguments.fault),
        topics=tuple(arguments.topic),
    ).checked()


def _duration(text: str | None, default_ns: int) -> int:
    return default_ns if text is None else parse_duration(text)

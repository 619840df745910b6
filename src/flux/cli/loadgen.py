"""`flux-loadgen`: an open-loop load test whose latency counts from the intended send time."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flux.errors import ConfigError, FluxError
from flux.loadgen import report as reports
from flux.loadgen.gates import PLACES, Gate
from flux.loadgen.histogram import distribution
from flux.loadgen.plan import Plan, parse_count, parse_duration

EXIT_CODES = """exit codes: 0 held; 1 error while running; 2 usage; 5 a --fail-if expression was true; 6 the
rate was not held; 130 interrupted (the report is still given, with complete: false)"""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux-loadgen",
        description="Send messages through libzmq over TCP loopback at a fixed rate, from one process to"
        " another, and account for each of them. The schedule is absolute: a message that leaves late is"
        " late, and its latency counts from when it should have left.",
        epilog=f"{EXIT_CODES}. EXPR compares one of: {', '.join(PLACES)}.",
    )
    default = Plan(rate=1)
    made.add_argument("--rate", required=True, metavar="N", help="messages per second: 100, 10k, 1.5M")
    made.add_argument("--duration", default="30s", metavar="T", help="measured time (30s)")
    made.add_argument("--warmup", default="3s", metavar="T", help="sent before it, not measured (3s)")
    made.add_argument("--streams", default=str(default.streams), metavar="N", help="streams, in turn (64)")
    made.add_argument("--rows", default=str(default.rows), metavar="N", help="rows per message (1)")
    made.add_argument("--seed", default=str(default.seed), metavar="N", help="seed of the prices (1)")
    made.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    made.add_argument("--hdr", metavar="FILE", help="write the percentile distribution (.hgrm, µs)")
    made.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="EXPR",
        help="exit 5 when true of the report, such as 'p99>5ms' or 'missing>0'; may be repeated",
    )
    return made


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The checked plan that the flags ask for; ConfigError where they cannot be."""
    return Plan(
        rate=parse_count(arguments.rate),
        duration_ns=parse_duration(arguments.duration),
        warmup_ns=parse_duration(arguments.warmup),
        streams=parse_count(arguments.streams),
        rows=parse_count(arguments.rows),
        seed=parse_count(arguments.seed),
    ).checked()


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _writable(path: str | None) -> None:
    """A run of a minute must not end in a file that cannot be written."""
    if path is not None and path != "-":
        try:
            Path(path).open("a", encoding="utf-8").close()
        except OSError as error:
            raise ConfigError(f"{path}: {error.strerror}") from error


class _Interrupts:
    """The first Ctrl-C is a wish to end with a report, the second leaves at once."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> _Interrupts:
        self._before = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _on_signal(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


def _run(arguments: argparse.Namespace) -> int:
    plan = plan_of(arguments)
    gates = [Gate.parse(text) for text in arguments.fail_if]
    _writable(arguments.json)
    _writable(arguments.hdr)

    from flux.loadgen.run import run  # late: --help and usage errors need no sockets

    with _Interrupts() as interrupts:
        outcome = run(plan, say=_say, interrupted=lambda: interrupts.came)
    made: dict[str, Any] = reports.report(outcome, gates)
    if arguments.hdr is not None:
        _write(arguments.hdr, distribution(outcome.subscriber.from_schedule))
    if arguments.json == "-":
        sys.stdout.write(reports.to_json(made))
        _say(reports.to_text(made).rstrip("\n"))
    else:
        sys.stdout.write(reports.to_text(made))
        if arguments.json is not None:
            _write(arguments.json, reports.to_json(made))
    return reports.exit_code(made)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `flux-loadgen` with these arguments (those of the process by default) and give its exit code."""
    arguments = parser().parse_args(argv)
    try:
        return _run(arguments)
    except FluxError as error:
        _say(f"flux-loadgen: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        _say("flux-loadgen: interrupted")
        return reports.EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())

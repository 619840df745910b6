"""`flux-loadgen`: an open-loop load test whose latency counts from the intended send time."""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from flux.errors import ConfigError, FluxError
from flux.loadgen import find_max
from flux.loadgen import report as reports
from flux.loadgen.environment import Surroundings
from flux.loadgen.find_max import Measured
from flux.loadgen.gates import PLACES, Gate, parse_objective
from flux.loadgen.histogram import distribution
from flux.loadgen.plan import NS_PER_S, Plan, parse_count, parse_duration
from flux.loadgen.plot import check_plot, plot
from flux.loadgen.search import RESOLUTION

EXIT_CODES = """exit codes: 0 held; 1 error while running; 2 usage; 5 a --fail-if expression was true; 6 the
rate was not held, or --find-max found none; 130 interrupted (the report is still given, with complete: false)"""


class _Schema(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(reports.to_json(reports.schema()))
        parser.exit()


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="flux-loadgen",
        description="Send messages through libzmq over TCP loopback at a fixed rate, from one process to"
        " another, and account for each of them. The schedule is absolute: a message that leaves late is"
        " late, and its latency counts from when it should have left.",
        epilog=f"{EXIT_CODES}. EXPR compares one of: {', '.join(PLACES)}.",
    )
    default = Plan(rate=1)
    made.add_argument("--rate", metavar="N", help="messages per second: 100, 10k, 1.5M")
    made.add_argument("--duration", metavar="T", help="measured time (30s)")
    made.add_argument("--warmup", metavar="T", help="sent before it, not measured (3s)")
    made.add_argument("--streams", default=str(default.streams), metavar="N", help="streams, in turn (64)")
    made.add_argument("--rows", default=str(default.rows), metavar="N", help="rows per message (1)")
    made.add_argument("--seed", default=str(default.seed), metavar="N", help="seed of the prices (1)")
    _add_outputs(made)
    _add_search(made)
    return made


def _add_outputs(made: argparse.ArgumentParser) -> None:
    outputs = made.add_argument_group("what comes out", "The JSON's schema: flux-loadgen --schema.")
    outputs.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    outputs.add_argument("--csv", metavar="FILE", help="write the seconds of the run as CSV")
    outputs.add_argument("--hdr", metavar="FILE", help="write the percentile distribution (.hgrm, µs)")
    outputs.add_argument("--plot", metavar="FILE.png", help="draw the percentile curve; needs matplotlib")
    outputs.add_argument(
        "--schema", action=_Schema, nargs=0, help="print the JSON schema of a report, and exit"
    )
    outputs.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="EXPR",
        help="exit 5 when true of the report, such as 'p99>5ms' or 'missing>0'; may be repeated",
    )


def _add_search(made: argparse.ArgumentParser) -> None:
    searching = made.add_argument_group(
        "the highest rate",
        f"Runs of {find_max.TRIAL_NS // NS_PER_S} s (--duration) behind {find_max.WARMUP_NS // NS_PER_S} s"
        f" (--warmup), from --rate ({find_max.START_RATE:,}) doubled until one fails, then between the two"
        f" down to {RESOLUTION:.0%}; what is found is confirmed by a run {find_max.CONFIRMING} times"
        " as long, or lowered until it is. What fails is run once more before it counts.",
    )
    searching.add_argument("--find-max", action="store_true", help="find the highest rate that keeps --slo")
    searching.add_argument(
        "--slo",
        metavar="EXPR,EXPR",
        help=f"what must be true at that rate, beside its being held ({find_max.SLO})",
    )


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The checked plan that the flags ask for; ConfigError where they cannot be."""
    if arguments.rate is None and not arguments.find_max:
        raise ConfigError("--rate is needed, or --find-max, which looks for it")
    default = Plan(rate=find_max.START_RATE)
    if arguments.find_max:
        default = dataclasses.replace(default, duration_ns=find_max.TRIAL_NS, warmup_ns=find_max.WARMUP_NS)
    return Plan(
        rate=default.rate if arguments.rate is None else parse_count(arguments.rate),
        duration_ns=_duration(arguments.duration, default.duration_ns),
        warmup_ns=_duration(arguments.warmup, default.warmup_ns),
        streams=parse_count(arguments.streams),
        rows=parse_count(arguments.rows),
        seed=parse_count(arguments.seed),
    ).checked()


def _duration(text: str | None, default_ns: int) -> int:
    return default_ns if text is None else parse_duration(text)


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


def _check(arguments: argparse.Namespace) -> None:
    """A run of a minute must not end in a file that cannot be written."""
    if arguments.plot is not None:
        check_plot(arguments.plot)
    for path in (arguments.json, arguments.csv, arguments.hdr, arguments.plot):
        _writable(path)
    if arguments.slo is not None and not arguments.find_max:
        raise ConfigError("--slo is what --find-max searches by; for a single run say --fail-if")


def _measured(arguments: argparse.Namespace) -> Measured:
    """Do the run, or all the runs of a search."""
    plan = plan_of(arguments)
    gates = [Gate.parse(text) for text in arguments.fail_if]
    slo = arguments.slo or find_max.SLO
    objective = parse_objective(slo)
    _check(arguments)

    from flux.loadgen.run import run  # late: --help and usage errors need no sockets

    def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Measured:
        around = Surroundings()
        outcome = run(plan, say=say, interrupted=lambda: interrupts.came)
        return Measured(outcome, reports.report(outcome, gates, around.seen()))

    with _Interrupts() as interrupts:
        if not arguments.find_max:
            return measure(plan, _say)
        return find_max.find_max(plan, slo, objective, measure=measure, say=_say)


def _run(arguments: argparse.Namespace) -> int:
    outcome, made = _measured(arguments)
    histograms = {
        "from_schedule": outcome.subscriber.from_schedule,
        "from_send": outcome.subscriber.from_send,
    }
    if arguments.hdr is not None:
        _write(arguments.hdr, distribution(histograms["from_schedule"]))
    if arguments.csv is not None:
        _write(arguments.csv, reports.to_csv(made))
    if arguments.plot is not None:
        plot(arguments.plot, made, histograms)
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

"""What `flux-loadgen` writes and searches for: its flags and files."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

from flux.errors import ConfigError
from flux.loadgen import find_max
from flux.loadgen import report as reports
from flux.loadgen.find_max import Measured
from flux.loadgen.gates import Gate
from flux.loadgen.histogram import Histogram, distribution
from flux.loadgen.plan import NS_PER_S
from flux.loadgen.plot import check_plot, plot
from flux.loadgen.search import CONFIRMED, RESOLUTION, TRIES


class _Schema(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        sys.stdout.write(reports.to_json(reports.schema()))
        parser.exit()


def add_outputs(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("what comes out")
    group.add_argument("--json", metavar="FILE", help="write the report as JSON; - for standard output")
    group.add_argument("--csv", metavar="FILE", help="write a line for every second as CSV")
    group.add_argument("--hdr", metavar="FILE", help="write the percentile distribution (.hgrm, µs)")
    group.add_argument("--plot", metavar="FILE.png", help="draw the percentile curve; needs matplotlib")
    group.add_argument(
        "--schema", action=_Schema, nargs=0, help="print the JSON schema of a report, and exit"
    )
    group.add_argument(
        "--fail-if",
        action="append",
        default=[],
        metavar="EXPR",
        help="exit 5 when true of the report, such as 'p99>5ms' or 'missing>0'; may be repeated",
    )


def add_search(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group(
        "the highest rate",
        f"Trials of {find_max.TRIAL_NS // NS_PER_S} s (--duration) after {find_max.WARMUP_NS // NS_PER_S} s"
        f" (--warmup), from --rate ({find_max.START_RATE:,}) doubled until one fails, then between the two"
        f" down to {RESOLUTION:.0%}; what is found is confirmed by {CONFIRMED} of {TRIES} trials {find_max.CONFIRMING}"
        " times as long, or lowered until it is. A short trial that fails is done once more before it counts.",
    )
    group.add_argument("--find-max", action="store_true", help="find the highest rate that keeps --slo")
    group.add_argument(
        "--slo",
        metavar="EXPR,EXPR",
        help=f"what must be true at that rate, beside its being held ({find_max.SLO})",
    )


def _writable(path: str) -> None:
    """ConfigError where a file could not be written, without leaving one there."""
    try:
        if Path(path).exists():
            Path(path).open("a", encoding="utf-8").close()
        else:
            tempfile.TemporaryFile(dir=Path(path).parent).close()
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def check(arguments: argparse.Namespace) -> list[Gate]:
    """The gates that were asked for; ConfigError where something could not be written or judged.

    A trial of a minute must not end with a file that cannot be written.
    """
    gates = [Gate.parse(text) for text in arguments.fail_if]
    if arguments.plot is not None:
        check_plot(arguments.plot)
    for path in (arguments.json, arguments.csv, arguments.hdr, arguments.plot):
        if path not in (None, "-"):
            _writable(path)
    return gates


def _write(path: str, text: str) -> None:
    """Aside, then renamed: a report that was there before is whole until the new one is."""
    target = Path(path)
    try:
        if target.exists() and not target.is_file():  # a pipe, /dev/stdout
            target.write_text(text, encoding="utf-8")
            return
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        try:
            aside.write_text(text, encoding="utf-8")
            os.replace(aside, target.resolve())
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def write(arguments: argparse.Namespace, measured: Measured) -> None:
    """The report to where the flags say; for people on stdout, or on stderr when stdout has the JSON."""
    outcome, made = measured
    if arguments.hdr is not None:
        _write(arguments.hdr, distribution(next(iter(outcome.curves.values()), Histogram())))
    if arguments.csv is not None:
        _write(arguments.csv, reports.to_csv(made))
    if arguments.plot is not None:
        plot(arguments.plot, made, outcome.curves)
    if arguments.json == "-":
        sys.stdout.write(reports.to_json(made))
        sys.stderr.write(reports.to_text(made))
        return
    sys.stdout.write(reports.to_text(made))
    if arguments.json is not None:
        _write(arguments.json, reports.to_json(made))

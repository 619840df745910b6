"""`flux-loadgen`: an open-loop load test whose latency counts from the intended send time."""

from __future__ import annotations

from flux.cli.terminal import Terminal  # isort: skip  (first, and all else as late as can be: see there)

import signal
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

    from flux.loadgen.find_max import Measured
    from flux.loadgen.plan import Plan


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


class _Interrupts:
    """The first Ctrl-C or SIGTERM is a wish to end with a report, the second leaves at once."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> _Interrupts:
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = [(number, signal.signal(number, self._on_signal)) for number in numbers]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    def _on_signal(self, *_: object) -> None:
        if self.came:
            raise KeyboardInterrupt
        self.came = True


def _measure(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from flux.cli import loadgen_flags, loadgen_output
    from flux.loadgen import find_max
    from flux.loadgen import report as reports
    from flux.loadgen.environment import Surroundings
    from flux.loadgen.find_max import Measured
    from flux.loadgen.gates import parse_objective

    plan = loadgen_flags.plan_of(arguments)
    gates = loadgen_output.check(arguments)
    slo = arguments.slo or find_max.SLO
    objective = parse_objective(slo)

    from flux.loadgen.run import run  # late: usage errors need no sockets

    def measure(plan: Plan, say: Callable[[str], None] = lambda _: None) -> Measured:
        around = Surroundings()
        outcome = run(plan, say=say, interrupted=lambda: interrupts.came)
        return Measured(outcome, reports.report(outcome, gates, around.seen()))

    terminal.loaded()
    with _Interrupts() as interrupts:
        if arguments.find_max:
            measured = find_max.find_max(plan, slo, objective, measure=measure, say=_say)
        else:
            measured = measure(plan, _say)
        loadgen_output.write(arguments, measured)
    return reports.exit_code(measured.report)


def _run(argv: Sequence[str] | None, terminal: Terminal) -> int:
    from flux.cli import loadgen_flags

    return _measure(loadgen_flags.parser().parse_args(argv), terminal)


def main(argv: Sequence[str] | None = None) -> int:
    """Run `flux-loadgen` with these arguments (those of the process by default) and give its exit code."""
    with Terminal("flux-loadgen", whole=argv is None) as terminal:
        return terminal.run(lambda: _run(argv, terminal))


if __name__ == "__main__":
    sys.exit(main())

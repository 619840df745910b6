"""The life of a process that does a mode's work alone: its plan, its seconds, its end. `modes.one_process` is the
parent's side, and draws what the two say.
"""

from __future__ import annotations

from collections.abc import Callable

from flux.errors import ConfigError, FluxError
from flux.loadgen.plan import Plan
from flux.loadgen.process import Commands, Message, tell


class Seconds:
    """Where the worker's seconds end: `passed` gives each end that time has gone by, once."""

    def __init__(self, plan: Plan) -> None:
        self._ends = plan.seconds()

    @property
    def ends_ns(self) -> int:
        """The next end, ns of the run; the run's own end is never passed, only left."""
        return self._ends[0][1]

    def passed(self, now_ns: int) -> list[float]:
        """`t_s` of each second that ended by now."""
        out = []
        while len(self._ends) > 1 and now_ns >= self._ends[0][1]:
            out.append(self._ends.pop(0)[0])
        return out

    @property
    def last(self) -> float:
        """`t_s` of the second that is not over yet."""
        return self._ends[0][0]


def work(body: Callable[[Plan, Message, Commands], None]) -> int:
    """A worker's whole life: `body` gets the plan, the command it came in, and what the parent says; its errors
    are the parent's. The exit code."""
    commands = Commands()
    command = commands.take()
    if commands.stopping:
        return 0
    try:
        body(Plan.of(command["plan"]), command, commands)
    except FluxError as error:
        tell("failed", why=str(error), usage=isinstance(error, ConfigError))
    commands.wait_for_end()
    return 0

"""A run, whatever its mode: each mode is a module of this package that carries a plan out."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final, Protocol, cast

from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import Plan


class Mode(Protocol):
    """What such a module has."""

    def run(self, plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
        """As `run` below."""


# By name and not imported here: a run needs the sockets and processes of its own mode alone.
_MODULES: Final = {
    "pubsub": "flux.loadgen.modes.pubsub",
    "through": "flux.loadgen.modes.through",
    "sub": "flux.loadgen.modes.sub",
    "rpc": "flux.loadgen.modes.rpc",
    "codec": "flux.loadgen.modes.codec",
}


def run(
    plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool] = lambda: False
) -> Outcome:
    """Carry out a checked plan. Blocks for the run and some time to start and drain.

    `say` gets a line each second. Once `interrupted` gives True the run ends early and says so in the outcome
    (before its first message: KeyboardInterrupt). Raises FluxError when a process fails or hangs.
    """
    mode = cast("Mode", importlib.import_module(_MODULES[plan.mode]))
    return mode.run(plan, say=say, interrupted=interrupted)

"""How the server is: what its heartbeats and its health reply say. Written by its threads, read by any."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from flux.limits import LOOP_LATE_MS, MAX_REASON_CHARS
from flux.model import State

_LOG = logging.getLogger("flux.server")


class Vitals:
    """The state as the worst of the conditions that hold now, and when the loop last turned."""

    def __init__(self) -> None:
        self._conditions: dict[str, tuple[State, str]] = {}
        self._changing = threading.Lock()
        self.loop_turned_ns = time.monotonic_ns()
        self._turns = False  # the loop has begun to
        self.also_turned: Callable[[], int] = lambda: 0
        """When the loop last came round without Python (monotonic, ns)."""

    def set(self, name: str, state: State, reason: str) -> None:
        """A condition holds; logged when it is new, and no other one gives the same reason already."""
        with self._changing:
            known = (state, reason) in self._conditions.values()
            self._conditions = {**self._conditions, name: (state, reason)}
        if not known:
            _LOG.log(logging.INFO if state is State.CLOSING else logging.ERROR, "%s: %s", state.name, reason)

    def clear(self, name: str) -> None:
        """A condition holds no more."""
        with self._changing:
            if name not in self._conditions:
                return
            reason = self._conditions[name][1]
            self._conditions = {k: v for k, v in self._conditions.items() if k != name}
            stays = any(reason == other for _, other in self._conditions.values())
        if not stays:
            _LOG.warning("no longer: %s", reason)

    def has(self, name: str) -> bool:
        """Whether a condition holds."""
        return name in self._conditions

    @property
    def state(self) -> State:
        return max((state for state, _ in self._all()), default=State.OK)

    @property
    def reason(self) -> str:
        """The reasons of all conditions, each once, the worst first, cut at MAX_REASON_CHARS; empty: all is well."""
        found = dict.fromkeys(reason for _, reason in sorted(self._all(), reverse=True))
        return "; ".join(found)[:MAX_REASON_CHARS]

    def turned(self) -> None:
        """The loop came round."""
        self.loop_turned_ns = time.monotonic_ns()
        self._turns = True

    def ended(self) -> None:
        """The loop has ended, as it was told to."""
        self._turns = False

    def _all(self) -> list[tuple[State, str]]:
        """What holds now: a loop that hangs cannot report it itself."""
        found = list(self._conditions.values())
        if self._turns and (age := self.loop_age_ms()) >= LOOP_LATE_MS:
            found.append(
                (State.UNHEALTHY, f"no rows are taken: the loop has not come round for {age // 1_000} s")
            )
        return found

    def loop_age_ms(self) -> int:
        """How long ago that was."""
        turned = max(self.loop_turned_ns, self.also_turned())
        return max(0, time.monotonic_ns() - turned) // 1_000_000

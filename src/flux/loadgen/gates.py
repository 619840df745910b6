"""`--fail-if EXPR`: one number of the report, a comparison, a bound, such as `p99>5ms` or `missing>0`.

A gate passes when its expression is false of the report.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from flux.errors import ConfigError
from flux.loadgen.plan import parse_count, parse_duration

_COMPARE: Final[dict[str, Callable[[float, float], bool]]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_EXPRESSION = re.compile(r"\s*([a-z_][a-z0-9_.]*)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")

_TIMES: Final = ("min", "mean", "p50", "p90", "p99", "p99.9", "p99.99", "max")
_COUNTS: Final = (
    "scheduled",
    "sent",
    "received",
    "missing",
    "duplicate",
    "reordered",
    "corrupt",
    "unread",
    "send_blocked",
)
PLACES: Final[dict[str, tuple[str, ...]]] = {
    **{name: ("latency_ns", "from_schedule", name) for name in _TIMES},
    **{f"send.{name}": ("latency_ns", "from_send", name) for name in _TIMES},
    **{f"slip.{name}": ("generator", "slip_ns", name) for name in ("p99", "max")},
    **{name: ("counts", name) for name in _COUNTS},
    "achieved": ("rate", "achieved"),
}
"""What an expression may name, and where it stands in the report."""


@dataclass(frozen=True, slots=True)
class Gate:
    """`name` `sign` `bound`: what must not be true of a report. Times are ns."""

    text: str
    name: str
    sign: str
    bound: int

    @classmethod
    def parse(cls, text: str) -> Gate:
        """Raises ConfigError for an unknown name, a missing comparison, or a bound of the wrong kind."""
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise ConfigError(
                f"--fail-if {text[:80]!a} is not NAME OP BOUND, such as 'p99>5ms' or 'missing>0'"
            )
        name, sign, bound = match.groups()
        if name not in PLACES:
            raise ConfigError(f"--fail-if {text[:80]!a}: {name} is none of {' '.join(PLACES)}")
        parse = parse_count if PLACES[name][0] in ("counts", "rate") else parse_duration
        try:
            return cls(text.strip(), name, sign, parse(bound))
        except ConfigError as error:
            raise ConfigError(f"--fail-if {text[:80]!a}: {error}") from error

    def judged(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The report's entry for this gate: {"expr", "value", "pass"}."""
        value: Any = report
        for step in PLACES[self.name]:
            value = value[step]
        return {"expr": self.text, "value": value, "pass": not _COMPARE[self.sign](value, self.bound)}

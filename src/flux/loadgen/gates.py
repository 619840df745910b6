"""What a report must or must not be: `NAME OP BOUND`, such as `p99>5ms`, `missing==0` or `cpu.subscriber<90%`.

`--fail-if` names what must be false of a report (a gate), `--slo` what must be true, several with commas. A
name is one of PLACES, or the keys on the way to the number with dots between: `latency_ns.from_send.p99`.
A number that a run's mode does not give is neither: it fails a gate and an objective alike.
"""

from __future__ import annotations

import difflib
import operator
import re
from collections.abc import Callable, Mapping, Sequence
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
_EXPRESSION = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*")
_SHARE = re.compile(r"(\d+(?:\.\d+)?)(%?)")

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


def _times(prefix: str, *place: str) -> dict[str, tuple[str, ...]]:
    return {prefix + name: (*place, name) for name in _TIMES}


PLACES: Final[dict[str, tuple[str, ...]]] = {
    **_times("", "latency_ns", "from_schedule"),
    **_times("send.", "latency_ns", "from_send"),
    **{f"slip.{name}": ("generator", "slip_ns", name) for name in ("p50", "p99", "max")},
    **{name: ("counts", name) for name in _COUNTS},
    **{name: ("rate", name) for name in ("achieved", "target", "rows_per_s", "bytes_per_s")},
    "errors": ("counts", "errors"),
    "cpu.publisher": ("generator", "cpu", "publisher"),
    "cpu.subscriber": ("generator", "cpu", "subscriber"),
    **{name: ("env", name) for name in ("other_cpu", "stolen_cpu", "load_1m", "cores")},
    # Of one mode alone: through, sub, rpc, codec.
    "cpu.server": ("server", "cpu"),
    **{name: ("server", name) for name in ("journalled", "stored")},
    **_times("recorded.", "latency_ns", "from_recorded"),
    **_times("origin.", "latency_ns", "from_origin"),
    **_times("backfill.", "rpc", "kinds", "backfill", "from_schedule_ns"),
    **_times("status.", "rpc", "kinds", "status", "from_schedule_ns"),
    **_times("cursor.", "rpc", "kinds", "cursor", "from_schedule_ns"),
    **_times("encode.", "codec", "encode", "message_ns"),
    **_times("decode.", "codec", "decode", "message_ns"),
}
"""What an expression may name, and where it stands in the report."""

NAMES: Final = (
    f"{' '.join(_TIMES)} (from the intended send; send.p99 and so on: from the actual one; recorded. origin."
    f" backfill. status. cursor. encode. decode. of the modes that have them), slip.p50 slip.p99 slip.max,"
    f" {' '.join(_COUNTS)}, journalled stored, achieved target rows_per_s bytes_per_s, cpu.publisher"
    " cpu.subscriber cpu.server other_cpu stolen_cpu load_1m cores"
)
"""The same for people."""

_BY_KEYS: Final = {".".join(place): place for place in PLACES.values()}


def _parse_share(text: str) -> float:
    """A share of one core: `0.9` or `90%`. Raises ConfigError."""
    match = _SHARE.fullmatch(text)
    if match is None:
        raise ConfigError(f"{text[:40]!a} is not a number or a share; write it like 0.9 or 90%")
    return float(match[1]) / (100 if match[2] else 1)


def _unit(place: tuple[str, ...]) -> str:
    if place[0] in ("counts", "rate") or place[-1] in ("journalled", "stored"):
        return "count"
    return "ns" if any(step.endswith("_ns") for step in place) else "share"


_PARSE: Final[dict[str, Callable[[str], float]]] = {
    "count": parse_count,
    "ns": parse_duration,
    "share": _parse_share,
}


def _place(name: str) -> tuple[str, ...]:
    place = PLACES.get(name) or _BY_KEYS.get(name)
    if place is None:
        near = difflib.get_close_matches(name, [*PLACES, *_BY_KEYS], n=3)
        which = f"did you mean {' or '.join(near)}?" if near else f"it has {NAMES}"
        raise ConfigError(f"a report has no {name}: {which}")
    return place


@dataclass(frozen=True, slots=True)
class Gate:
    """`name` `sign` `bound`: what must not be true of a report, or, in an objective, must be. Times are ns."""

    text: str
    name: str
    sign: str
    bound: float

    @classmethod
    def parse(cls, text: str, flag: str = "--fail-if") -> Gate:
        """Raises ConfigError for an unknown name, a missing comparison, or a bound of the wrong kind."""
        match = _EXPRESSION.fullmatch(text)
        if match is None:
            raise ConfigError(f"{flag} {text[:80]!a} is not NAME OP BOUND, such as 'p99>5ms' or 'missing>0'")
        name, sign, bound = match.groups()
        try:
            return cls(text.strip(), name, sign, _PARSE[_unit(_place(name))](bound))
        except ConfigError as error:
            raise ConfigError(f"{flag} {text[:80]!a}: {error}") from error

    @property
    def unit(self) -> str:
        """What `bound` and the report's number are in: `ns`, `count` or `share` of one core (1.0 = all of it)."""
        return _unit(_place(self.name))

    def value(self, report: Mapping[str, Any]) -> float | None:
        """The number of the report that the expression is about; None where the report has none."""
        found: Any = report
        for step in _place(self.name):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found if isinstance(found, (int, float)) else None

    def true_of(self, value: float | None) -> bool | None:
        """Whether the expression is true of such a value; None where there is none."""
        return None if value is None else _COMPARE[self.sign](value, self.bound)

    def judged(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The report's entry for this gate: {"expr", "value", "pass"}."""
        value = self.value(report)
        return {"expr": self.text, "value": value, "pass": self.true_of(value) is False}


def parse_objective(text: str) -> list[Gate]:
    """What `--slo` asks for: one expression or several with commas between. Raises ConfigError."""
    return [Gate.parse(part, "--slo") for part in text.split(",")]


def met(objective: Sequence[Gate], report: Mapping[str, Any]) -> bool:
    """Whether all of an objective is true of a report."""
    return all(part.true_of(part.value(report)) is True for part in objective)

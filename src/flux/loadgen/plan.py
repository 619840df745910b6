"""What to send when: the plan of a run, and how its numbers are written on a command line.

Message k (from 0) is intended at k / rate after the run's start. It goes to stream k mod streams and carries
the next `rows` sequences of that stream, so both sides can say of any (stream, sequence) when it was intended
and what must be in it: nothing has to be told from one process to the other but the plan.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from flux.errors import ConfigError
from flux.limits import MAX_LIVE_ROWS, MAX_STREAMS

NS_PER_S: Final = 1_000_000_000
HWM: Final = 200_000  # messages: two seconds at 100k, so that a stall shows as latency and not as loss
TICK_NS: Final = 100_000  # the publisher sends each 100 µs what is due

MAX_RATE: Final = 100_000_000  # messages per second
MAX_RUN_NS: Final = 24 * 3_600 * NS_PER_S  # intended times in ns stay exact in a double by far
_NUMBER = re.compile(r"(\d+(?:_\d+)*(?:\.\d+)?)([A-Za-zµ]*)")
_COUNT_UNITS: Final = {"": 1, "k": 1_000, "K": 1_000, "M": 1_000_000}
_TIME_UNITS: Final = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
}


def _parse(text: str, units: dict[str, int], what: str, example: str) -> int:
    match = _NUMBER.fullmatch(text.strip())
    if match is None or match[2] not in units:
        raise ConfigError(f"{text[:40]!a} is not {what}; write it like {example}")
    whole, _, part = match[1].replace("_", "").partition(".")
    scale: int = 10 ** len(part)
    scaled, rest = divmod(int(whole + part) * units[match[2]], scale)
    if rest:
        raise ConfigError(f"{text[:40]!a} is not {what} in whole units")
    return scaled


def parse_count(text: str) -> int:
    """A whole number, with k or M: `100`, `10k`, `1.5M`. Raises ConfigError."""
    return _parse(text, _COUNT_UNITS, "a whole number", "100, 10k or 1.5M")


def parse_duration(text: str) -> int:
    """ns of a time with its unit: `20s`, `500ms`, `1.5m`, `1h`, `100us`, `20ns`. Raises ConfigError."""
    return _parse(text, _TIME_UNITS, "a time", "1h, 20s, 500ms or 100us")


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of the load generator. `checked` says what is wrong with it."""

    rate: int  # messages per second, over all streams
    duration_ns: int = 30 * NS_PER_S  # measured time, behind the warm-up
    streams: int = 64
    rows: int = 1  # per message
    warmup_ns: int = 3 * NS_PER_S  # sent and accounted for like the rest, but its times are not measured
    seed: int = 1  # of the prices
    drop_every: int = 0  # a test's fault: every n-th message is numbered but not sent; 0 = none

    def checked(self) -> Plan:
        """This plan, once its numbers are known to be possible; else ConfigError."""
        _within("--rate", self.rate, 1, MAX_RATE, "messages per second")
        _within("--duration", self.duration_ns, NS_PER_S // 10, MAX_RUN_NS, "ns (100ms to 24 hours)")
        _within("--warmup", self.warmup_ns, 0, MAX_RUN_NS, "ns")
        _within("--streams", self.streams, 1, MAX_STREAMS, "streams")
        _within("--rows", self.rows, 1, MAX_LIVE_ROWS, "rows per message")
        _within("--seed", self.seed, 0, 2**63 - 1, "as a seed")
        if self.drop_every < 0 or (self.drop_every and self.rows != 1):
            raise ConfigError("drop_every drops messages of one row")
        if self.messages == 0:
            raise ConfigError("no message is due within --warmup and --duration: raise --rate or --duration")
        return self

    @property
    def run_ns(self) -> int:
        """From the run's start to the end of the measured time."""
        return self.warmup_ns + self.duration_ns

    def messages_before(self, elapsed_ns: int) -> int:
        """How many messages are intended before this many ns have passed (those at 0 to elapsed_ns - 1)."""
        return -(-elapsed_ns * self.rate // NS_PER_S)

    @property
    def messages(self) -> int:
        """All messages of the run, warm-up included."""
        return self.messages_before(self.run_ns)

    @property
    def warmup_messages(self) -> int:
        return self.messages_before(self.warmup_ns)

    def heads(self, messages: int) -> list[int]:
        """The last sequence of each stream once the first `messages` messages are numbered; 0 = none."""
        whole, rest = divmod(messages, self.streams)
        return [(whole + (stream < rest)) * self.rows for stream in range(self.streams)]

    def seconds(self) -> list[tuple[float, int]]:
        """Where each second of a report ends: (s of measured time, ns since the run's start), ascending.

        The warm-up's end is at 0; the last is the end of the run, a second or less behind the one before.
        """
        ends = [
            (float(t), self.warmup_ns + t * NS_PER_S)
            for t in range(-((self.warmup_ns - 1) // NS_PER_S), -(-self.duration_ns // NS_PER_S))
        ]
        return [*ends, (self.duration_ns / NS_PER_S, self.run_ns)]

    def config(self) -> dict[str, Any]:
        """The plan as a report shows it."""
        return {
            "mode": "pubsub",
            "rate": self.rate,
            "duration_s": self.duration_ns / NS_PER_S,
            "warmup_s": self.warmup_ns / NS_PER_S,
            "streams": self.streams,
            "rows": self.rows,
            "seed": self.seed,
            "hwm": HWM,
            "tick_us": TICK_NS / 1_000,
            "transport": "tcp loopback",
            "drop_every": self.drop_every,
        }


def _within(what: str, value: int, low: int, high: int, unit: str) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{what}: {value:,} is not {low:,} to {high:,} {unit}")

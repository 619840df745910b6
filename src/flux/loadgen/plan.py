"""What to send when: the plan of a run, and how its numbers are written on a command line.

Message k (from 0) is intended when `schedule` says for the plan's shape; at a constant rate, at k / rate after
the run's start. It goes to stream k mod streams and carries the next `rows` sequences of that stream, so both
sides can say of any (stream, sequence) when it was intended and what must be in it: nothing has to be told from
one process to the other but the plan.
"""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import Any, Final

from flux.errors import ConfigError
from flux.limits import MAX_LIVE_ROWS, MAX_STREAMS
from flux.loadgen.faults import Faults
from flux.loadgen.histogram import Load, Schedule
from flux.loadgen.schedule import NS_PER_S as NS_PER_S
from flux.loadgen.schedule import Burst, Ramp, Replay

MODES: Final = ("pubsub", "through", "sub", "rpc", "codec")
_PACED: Final = ("pubsub", "through")  # they must be told how fast
_REACHING: Final = ("through", "sub", "rpc")  # they may use a server that runs already
HWM: Final = 200_000  # messages: two seconds at 100k, so that a stall shows as latency and not as loss
TICK_NS: Final = 100_000  # the publisher sends each 100 µs what is due
FEED_TICK_NS: Final = 200_000  # of `through`: a wake-up of eight threads costs more than the rows
MAX_UNDER_WAY: Final = 100_000  # messages, in a closed loop
CLOSED_HWM: Final = 4 * MAX_UNDER_WAY  # libzmq tells a sender of room only once half a queue was read
GIVE_UP_NS: Final = 20 * NS_PER_S  # behind the plan's end a sender that is late sends no more

MAX_RATE: Final = 100_000_000  # messages per second
MAX_RUN_NS: Final = 24 * 3_600 * NS_PER_S  # intended times in ns stay exact in a double by far
MAX_PUBLISHERS: Final = 64  # processes
MAX_SUBSCRIBERS: Final = 64  # processes, all kinds together
MAX_SPEED: Final = 1e9
MAX_STOP_NS: Final = 60 * NS_PER_S
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
    if match is None and text.strip().startswith("-") and _NUMBER.fullmatch(text.strip()[1:]):
        raise ConfigError(f"{text[:40]!a} is negative; write it like {example}")
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
class Audience:
    """The subscribers, each of which takes everything in a process of its own. The report's own numbers are
    those of the steady ones; slow and stopped ones stand beside them."""

    steady: int = 1
    slow: int = 0
    pause_ns: int = 10_000_000  # of a slow one, behind each drain
    stopped: int = 0
    stop_ns: int = 200_000_000  # a stopped one does not read for so long
    stop_at_ns: int = NS_PER_S  # of measured time

    @property
    def kinds(self) -> list[str]:
        """`steady`, `slow` or `stopped` of each process."""
        return ["steady"] * self.steady + ["slow"] * self.slow + ["stopped"] * self.stopped


@dataclass(frozen=True, slots=True)
class Servers:
    """Endpoints of a server that runs already; empty where one is to be started."""

    pub: str = ""
    rpc: str = ""
    ingest: str = ""


@dataclass(frozen=True, slots=True)
class Plan:
    """A run of the load generator. `checked` says what is wrong with it. At most one of `rate`, `ramp`, `burst`,
    `replay` and `saturate` says how fast."""

    rate: int = 0  # messages per second, over all streams; 0 = not constant, or not asked for
    duration_ns: int = 30 * NS_PER_S  # measured time, behind the warm-up
    streams: int = 64
    rows: int = 1  # per message
    warmup_ns: int = 3 * NS_PER_S  # sent and accounted for like the rest, but its times are not measured
    seed: int = 1  # of the prices
    mode: str = "pubsub"
    ramp: Ramp | None = None
    burst: Burst | None = None
    replay: Replay | None = None
    saturate: bool = False  # as fast as it goes with MAX_UNDER_WAY messages under way
    publishers: int = 1  # processes; each has its share of the streams
    audience: Audience = field(default_factory=Audience)
    servers: Servers = field(default_factory=Servers)
    durability: str = "process"  # of a server that `through` starts
    faults: Faults = field(default_factory=Faults)
    topics: tuple[str, ...] = ()  # of mode sub; none = all rows in version 2

    @classmethod
    def of(cls, told: dict[str, Any]) -> Plan:
        """The plan that `dataclasses.asdict` took apart, as it comes out of JSON."""
        parts: dict[str, Any] = {
            "ramp": Ramp,
            "burst": Burst,
            "replay": Replay,
            "audience": Audience,
            "servers": Servers,
            "faults": Faults,
        }
        made = {name: kind(**told[name]) for name, kind in parts.items() if told[name] is not None}
        return cls(**{**told, **made, "topics": tuple(told["topics"])})

    def checked(self) -> Plan:
        """This plan, once its numbers are known to be possible; else ConfigError.

        A replayed file that ends before `duration_ns` does shortens it.
        """
        if self.mode not in MODES:
            raise ConfigError(f"--mode {self.mode[:40]!a} is none of {' '.join(MODES)}")
        _within("--duration", self.duration_ns, NS_PER_S // 10, MAX_RUN_NS, "ns (100ms to 24 hours)")
        _within("--warmup", self.warmup_ns, 0, MAX_RUN_NS, "ns")
        _within("--streams", self.streams, 1, MAX_STREAMS, "streams")
        _within("--rows", self.rows, 1, MAX_LIVE_ROWS, "rows per message")
        _within("--seed", self.seed, 0, 2**63 - 1, "as a seed")
        self._check_pace()
        self._check_processes()
        self.faults.checked(self.rows)
        plan = self._until_file_ends() if self.replay else self
        if plan.paced and plan.messages == 0:
            raise ConfigError("no message is due within --warmup and --duration: raise --rate or --duration")
        return plan

    def _check_pace(self) -> None:
        said = [name for name in ("rate", "ramp", "burst", "replay") if getattr(self, name) is not None]
        if self.rate == 0:
            said.remove("rate")
        if self.saturate:
            said.append("rate max")
            self._check_saturation()
        if len(said) > 1:
            raise ConfigError(f"--{said[0]} and --{said[1]} both say how fast: give one of them")
        if not said and self.mode in _PACED:
            raise ConfigError("say how fast: --rate, --ramp, --burst or --replay")
        if self.rate:
            _within("--rate", self.rate, 1, MAX_RATE, "messages per second")
        if self.ramp:
            _within("--ramp", self.ramp.first, 1, MAX_RATE, "messages per second")
            _within("--ramp", self.ramp.last, 1, MAX_RATE, "messages per second")
            _within("--ramp", self.ramp.over_ns, 1, MAX_RUN_NS, "ns")
        if self.burst:
            _within("--burst", self.burst.messages, 1, MAX_RATE, "messages")
            _within("--burst", self.burst.period_ns, TICK_NS, MAX_RUN_NS, "ns (100us to 24 hours)")
            if self.burst.messages * NS_PER_S > MAX_RATE * self.burst.period_ns:
                raise ConfigError(f"--burst: more than {MAX_RATE:,} messages per second")
        if self.replay and not 1 / MAX_SPEED <= self.replay.speed <= MAX_SPEED:
            raise ConfigError(f"--speed: {self.replay.speed:g} is not {1 / MAX_SPEED:g} to {MAX_SPEED:g}")

    def _check_saturation(self) -> None:
        if self.mode != "pubsub":
            raise ConfigError(f"--rate max is of --mode pubsub, not of {self.mode}")
        if self.audience.slow or self.audience.stopped:
            raise ConfigError(
                "--rate max goes by the slowest subscriber: no --slow and no --stopped beside it"
            )
        if self.faults:
            raise ConfigError("--rate max waits for what was sent: no --fault beside it")

    def _check_processes(self) -> None:
        _within("--publishers", self.publishers, 1, MAX_PUBLISHERS, "processes")
        if self.streams % self.publishers:
            raise ConfigError(f"--publishers {self.publishers} cannot share --streams {self.streams} evenly")
        audience = self.audience
        _within("--subscribers", audience.steady, 1, MAX_SUBSCRIBERS, "processes")
        _within("--slow", audience.slow, 0, MAX_SUBSCRIBERS, "processes")
        _within("--stopped", audience.stopped, 0, MAX_SUBSCRIBERS, "processes")
        _within(
            "--subscribers with --slow and --stopped", len(audience.kinds), 1, MAX_SUBSCRIBERS, "processes"
        )
        _within("--pause", audience.pause_ns, 1, NS_PER_S, "ns (up to 1s)")
        _within("--stop", audience.stop_ns, 1, MAX_STOP_NS, "ns (up to 60s)")
        if audience.stopped and audience.stop_at_ns + audience.stop_ns > self.duration_ns:
            raise ConfigError("--stop ends behind --duration")
        if self.topics and self.mode != "sub":
            raise ConfigError("--topic is what --mode sub measures")
        if any(dataclasses.astuple(self.servers)) and self.mode not in _REACHING:
            raise ConfigError(f"--mode {self.mode} has its own sockets: no --pub, --rpc or --ingest")

    def _until_file_ends(self) -> Plan:
        assert self.replay is not None
        last_ns = int(self.replay.times()[-1])
        duration_ns = min(self.duration_ns, last_ns + 1 - self.warmup_ns)
        if duration_ns < NS_PER_S // 10:
            raise ConfigError(
                f"--replay: at this speed the file lasts {last_ns / NS_PER_S:g} s, warm-up and 100ms are more:"
                " lower --speed or --warmup"
            )
        return dataclasses.replace(self, duration_ns=duration_ns)

    @property
    def paced(self) -> bool:
        """Whether the plan says how fast."""
        return bool(self.rate or self.ramp or self.burst or self.replay or self.saturate)

    @property
    def target(self) -> float | None:
        """Messages per second asked for: the constant rate, else the mean over the measured time; None: no rate was."""
        if self.saturate:
            return None
        return self.rate or round((self.messages - self.warmup_messages) * NS_PER_S / self.duration_ns, 1)

    @property
    def run_ns(self) -> int:
        """From the run's start to the end of the measured time."""
        return self.warmup_ns + self.duration_ns

    def schedule(self, start_ns: int = 0) -> Schedule:
        """When message k is intended, for a run that starts at `start_ns` (CLOCK_MONOTONIC)."""
        if self.ramp:
            return Schedule.ramp(self.ramp.first, self.ramp.last, self.warmup_ns, self.ramp.over_ns, start_ns)
        if self.burst:
            return Schedule.burst(self.burst.messages, self.burst.period_ns, start_ns)
        if self.replay:
            return Schedule.replay(self.replay.times(), start_ns)
        if self.saturate:
            return Schedule.at_once(start_ns)
        return Schedule(self.rate, start_ns)

    def load(self) -> Load:
        """What message k is, for a side that has all streams."""
        return Load(self.schedule(), self.streams, self.rows, self.seed)

    def share(self, part: int) -> Load:
        """What message j of publisher `part` (from 0) is; `shared` says how many it has."""
        return Load(self.schedule(), self.streams, self.rows, self.seed, part=part, parts=self.publishers)

    def shared(self, messages: int, part: int) -> int:
        """How many of the run's first `messages` messages are publisher `part`'s."""
        return max(0, messages - part + self.publishers - 1) // self.publishers

    def messages_before(self, elapsed_ns: int) -> int:
        """How many messages are intended before this many ns have passed (those at 0 to elapsed_ns - 1)."""
        return self.schedule().due(elapsed_ns - 1) if self.paced else 0

    @property
    def hwm(self) -> int:
        """High-water mark of the queues, in messages."""
        return CLOSED_HWM if self.saturate else HWM

    @property
    def sending_ns(self) -> int:
        """How long is sent at most, warm-up included. What was due and is not sent by then counts as scheduled."""
        return self.run_ns + (0 if self.saturate else GIVE_UP_NS)

    @property
    def messages(self) -> int:
        """All messages of the run, warm-up included; of one that saturates, more than will ever be sent."""
        return self.messages_before(self.run_ns)

    @property
    def warmup_messages(self) -> int:
        return self.messages_before(self.warmup_ns)

    def heads(self, *messages: int) -> list[int]:
        """The last sequence of each stream (0 = none) once each publisher has numbered so many messages."""
        streams = self.streams // self.publishers
        heads = []
        for stream in range(self.streams):
            whole, rest = divmod(messages[stream % self.publishers], streams)
            heads.append((whole + (stream // self.publishers < rest)) * self.rows)
        return heads

    def all_heads(self) -> list[int]:
        """The same once the run is done."""
        return self.heads(*(self.shared(self.messages, part) for part in range(self.publishers)))

    def seconds(self) -> list[tuple[float, int]]:
        """Where each second of a report ends: (s of measured time, ns since the run's start), ascending.

        The warm-up's end is at 0; the last is the end of the run, a second or less behind the one before.
        """
        ends = [
            (float(t), self.warmup_ns + t * NS_PER_S)
            for t in range(-((self.warmup_ns - 1) // NS_PER_S), -(-self.duration_ns // NS_PER_S))
        ]
        return [*ends, (self.duration_ns / NS_PER_S, self.run_ns)]

    def _schedule(self) -> dict[str, Any]:
        if self.ramp:
            over_s = self.ramp.over_ns / NS_PER_S
            return {"shape": "ramp", "from": self.ramp.first, "to": self.ramp.last, "over_s": over_s}
        if self.burst:
            period_s = self.burst.period_ns / NS_PER_S
            return {"shape": "burst", "messages": self.burst.messages, "period_s": period_s}
        if self.replay:
            return {"shape": "replay", "file": self.replay.file, "speed": self.replay.speed}
        if self.saturate:
            return {"shape": "closed", "under_way": MAX_UNDER_WAY}
        return {"shape": "constant"}

    def config(self) -> dict[str, Any]:
        """The plan as a report shows it."""
        return {
            "mode": self.mode,
            "rate": self.target,
            "schedule": self._schedule(),
            "duration_s": self.duration_ns / NS_PER_S,
            "warmup_s": self.warmup_ns / NS_PER_S,
            "streams": self.streams,
            "rows": self.rows,
            "seed": self.seed,
            "publishers": self.publishers,
            "audience": dataclasses.asdict(self.audience),
            "hwm": self.hwm,
            "tick_us": (FEED_TICK_NS if self.mode == "through" else TICK_NS) / 1_000,
            "transport": "tcp loopback",
            "faults": dataclasses.asdict(self.faults),
        }


def _within(what: str, value: int, low: int, high: int, unit: str) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{what}: {value:,} is not {low:,} to {high:,} {unit}")

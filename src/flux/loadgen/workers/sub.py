"""The process of mode `sub`: measure somebody else's publisher, of which nothing is known but its endpoint.

It subscribes, learns the streams as they appear and accounts for them by sequence in compiled code
(`ext/loadgen/watch.h`): the first sequence seen of a stream is its start, so what was lost before it is not known and
not counted. What was lost behind the last that came is known as far as the publisher's heartbeats reach (`marks`):
what a mark says was numbered, and never came, is missing too. Marks are those heard until the end, and are compared
once what was still under way is here. So a loss behind the last heartbeat is not seen, nor a stream of which no row
came; a publisher without heartbeats, and version 1, show losses only where a later row tells of them.

No schedule is known either: latency counts from the times in the head of a version 2 frame, `recorded_ns` (when the
publisher encoded it) and `origin_ns` (when the source says that its first row happened). Both are the publisher's wall
clock and are taken from ours, so across two machines they hold the difference of the clocks. Version 1 frames carry no
time.

`python -m flux.loadgen.workers.sub`, started by mode `sub`; talks as `modes.one_process` says.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

from flux.errors import ConfigError, FluxError, InvalidNameError
from flux.limits import MAX_LIST_STREAMS, MAX_STREAMS, ring_rows
from flux.loadgen.histogram import Histogram, Watch, percentile
from flux.loadgen.marks import Marks
from flux.loadgen.plan import HWM, NS_PER_S, Plan
from flux.loadgen.process import Commands, Message, Usage, packed, settle, tell
from flux.loadgen.workers.work import Seconds, work
from flux.model import RowKind, StreamKey
from flux.transport.pump import UNREADABLE, Drained, Receiver, Streams
from flux.transport.sockets import Link, LinkEvent, Poller, Socket, Sockets, libzmq_version
from flux.transport.topics import BEAT, TopicKind, v2_prefix

LINK_LIMIT_S: Final = 5.0
OPENING_NS: Final = NS_PER_S // 10  # so long the window waits until what came before it is read
UNDER_WAY_S: Final = 0.5  # behind the end: rows older than a mark may come so long after it
BACKLOG_LIMIT_S: Final = 10.0  # and so long while there is always more to read
WINDOW_MIN: Final = 16_384  # sequences that are told apart: more than any one message has rows
_NOBODY: Final = (2**64 - 1, 2**32 - 1)  # a store and an epoch that no frame has: so no row is kept in a ring
_KINDS: Final[dict[RowKind, TopicKind]] = {
    RowKind.CANDLE: "candles",
    RowKind.TRADE: "trades",
    RowKind.QUOTE: "quotes",
}


def prefix_of(topic: str) -> bytes:
    """What to subscribe to: `SOURCE/SYMBOL/INTERVAL`, the symbol perhaps `*`, is a version 2 topic; any other text
    is the beginning of a version 1 topic, as it stands: `candles.` is all of them."""
    if "/" not in topic:
        if not topic.startswith("candles."):
            raise ConfigError(
                f"--topic {topic[:80]!a} is neither SOURCE/SYMBOL/INTERVAL nor, for version 1, candles.…"
            )
        return topic.encode()
    source, _, rest = topic.partition("/")
    symbol, _, interval = rest.rpartition("/")
    key = StreamKey(source, "X" if symbol == "*" else symbol, interval).checked()
    return v2_prefix(_KINDS[key.kind], source, interval, None if symbol == "*" else symbol)


def prefixes_of(plan: Plan) -> list[bytes]:
    """The plan's topics (without any, all rows in version 2), and heartbeats beside rows in version 2."""
    rows = [prefix_of(topic) for topic in plan.topics] or [v2_prefix(kind) for kind in _KINDS.values()]
    return rows if all(prefix.startswith(b"candles.") for prefix in rows) else [*rows, BEAT]


class Watching:
    """A run of the process: counts in rows and messages, times in ns since the run's start."""

    def __init__(self, plan: Plan, socket: Socket) -> None:
        self.plan = plan
        self.recorded, self.origin = Histogram(), Histogram()
        self.watch = Watch(MAX_STREAMS)
        self.unlearned = 0  # messages of streams whose names break the grammar, or beyond the limit
        self._interval = Histogram()
        self._streams = Streams()
        self._receiver = Receiver(socket, self._streams)
        self._others = 0
        self._told = 0
        self._measuring_ns = -1  # since when; -1 = not yet
        self._measured = [0, 0]  # messages, rows
        self._bytes_before = self._bytes = 0
        self._marks = Marks()
        self._awaited: dict[int, tuple[int, int]] | None = (
            None  # behind the end: by slot the mark, and restarts
        )

    def drain(self, start_ns: int) -> bool:
        """Take what waits, or a part of it; whether there may be more."""
        began_ns = time.monotonic_ns() - start_ns
        going = self._awaited is None
        measured = going and self._measuring_ns >= 0
        arrivals, status = self._receiver.receive()
        late_ns = began_ns - self.plan.warmup_ns
        if going and not measured and late_ns >= 0 and (status == Drained.EMPTY or late_ns > OPENING_NS):
            # The window opens at a time, and what had come by then is not in it: a window that an arrival opens, with
            # that arrival in it, has one message too many.
            self._measuring_ns = began_ns
            self._bytes_before = self._receiver.counters["bytes"]
        if len(arrivals):
            self._marks.follow(arrivals)
            fresh = self.watch.account(
                arrivals, time.time_ns(), measured, self.recorded, self.origin, self._interval
            )
            if measured:
                self._measured[0] += len(arrivals)
                self._measured[1] += fresh
        for payload in self._receiver.others:
            self._others += 1
            if going:
                self._marks.hear(payload)
        if status == Drained.UNKNOWN_STREAM:
            self._learn()
        return status != Drained.EMPTY

    @property
    def measuring(self) -> bool:
        """Whether the measured time has begun."""
        return self._measuring_ns >= 0

    def _learn(self) -> None:
        found = self._receiver.unknown
        assert found is not None
        source, symbol, interval = found.key
        try:
            key = StreamKey(source.decode(), symbol.decode(), interval.decode()).checked()
        except InvalidNameError:
            key = None
        if key is None or len(self._streams) >= MAX_STREAMS:
            self.unlearned += 1
            self._receiver.discard()
            return
        window = max(WINDOW_MIN, ring_rows(len(self._streams)))
        slot = self._streams.add(key, ring_rows=1)
        self._streams.expect(slot, *_NOBODY)
        watched = self.watch.add(window)
        assert watched == slot
        self._marks.add(found.store_id, found.epoch, found.stream_id)

    def end(self) -> None:
        """The measured time is over: from now on rows are counted and not timed, and no more marks are taken."""
        self._awaited = {
            slot: (head, self.watch.stream(slot)["restarts"]) for slot, head in self._marks.heads().items()
        }
        self._bytes = self._receiver.counters["bytes"] - self._bytes_before if self._measuring_ns >= 0 else 0

    def behind(self) -> dict[int, int]:
        """By slot the rows that a mark says were numbered behind the last that came; for use behind the end."""
        assert self._awaited is not None
        found = {}
        for slot, (head, restarts) in list(self._awaited.items()):
            now = self.watch.stream(slot)
            if (
                now["last"] >= head or now["restarts"] > restarts
            ):  # a mark of an epoch that is over says no more
                del self._awaited[slot]
            elif now["received"]:
                found[slot] = head - now["last"]
        return found

    def tell_second(self, t_s: float) -> None:
        interval, watch = self._interval, self.watch
        timed = interval.total > 0
        tell(
            "second",
            t_s=t_s,
            sent=None,
            received=watch.received - self._told,
            missing=watch.missing,
            p50=percentile(interval, 50.0) if timed else None,
            p99=percentile(interval, 99.0) if timed else None,
            max=interval.max if timed else None,
        )
        self._told = watch.received
        interval.reset()

    def result(self, end_ns: int) -> Message:
        counters, watch, behind = self._receiver.counters, self.watch, self.behind()
        streams: list[dict[str, Any]] = [
            {"key": str(key), **watch.stream(slot)} for slot, key in enumerate(self._streams.keys())
        ]
        for slot, rows in behind.items():
            streams[slot]["missing"] += rows
        totals = {
            name: sum(stream[name] for stream in streams)
            for name in ("duplicate", "reordered", "outside", "foreign", "restarts")
        }
        streams.sort(key=lambda s: -(s["missing"] + s["duplicate"] + s["reordered"] + s["outside"]))
        refused = {name: counters[name] for name in UNREADABLE if counters[name]}
        return {
            "received": watch.received,
            "missing": watch.missing + sum(behind.values()),
            "missing_at_end": sum(behind.values()),
            "heartbeats": self._marks.heartbeats,
            "corrupt": sum(refused.values()),
            "measured_ns": end_ns - self._measuring_ns if self._measuring_ns >= 0 else 0,
            "measured_messages": self._measured[0],
            "measured_rows": self._measured[1],
            "measured_bytes": self._bytes,
            "streams": streams[:MAX_LIST_STREAMS],
            "streams_seen": len(streams),
            "refused": refused,
            "unlearned": self.unlearned,
            "other_messages": self._others,
            "untimed": watch.untimed,
            "behind": watch.behind,
            "recorded": packed(self.recorded),
            "origin": packed(self.origin),
            **totals,
        }


def watch(run: Watching, socket: Socket, start_ns: int, commands: Commands) -> int:
    """Receive until the plan's end or until told to stop; when that was, ns of the run."""
    poller, seconds = Poller(socket, commands.wake), Seconds(run.plan)
    more, now = False, time.monotonic_ns() - start_ns
    while now < run.plan.run_ns and not commands.stopping:
        due_ns = seconds.ends_ns if run.measuring else min(seconds.ends_ns, max(run.plan.warmup_ns, now))
        wait_ns = 0 if more else min(max(due_ns - now, NS_PER_S // 1000), NS_PER_S)
        ready = poller.wait(wait_ns / NS_PER_S)
        if commands.wake in ready:
            commands.taken()
        more = run.drain(start_ns)
        now = time.monotonic_ns() - start_ns
        for t_s in seconds.passed(now):
            run.tell_second(t_s)
    run.tell_second(seconds.last)
    run.end()
    take_what_is_under_way(run, socket, start_ns)
    return now


def take_what_is_under_way(run: Watching, socket: Socket, start_ns: int) -> None:
    """Behind the end: read on while a stream is behind its mark, until nothing is left that was sent before."""
    poller, ended = Poller(socket), time.monotonic()
    passed, more = 0.0, True
    while run.behind() and (passed < UNDER_WAY_S or (more and passed < BACKLOG_LIMIT_S)):
        if not more:
            poller.wait(UNDER_WAY_S - passed)
        more = run.drain(start_ns)
        passed = time.monotonic() - ended


def linked(link: Link, endpoint: str, commands: Commands) -> bool:
    """Wait until the publisher has answered; False when told to stop before, FluxError where none does in time."""
    poller, until = Poller(link.socket, commands.wake), time.monotonic() + LINK_LIMIT_S
    while LinkEvent.UP not in link.events():
        if time.monotonic() > until:
            raise FluxError(f"no publisher at {endpoint} within {LINK_LIMIT_S:g} s")
        if commands.stopping:
            return False
        poller.wait(until - time.monotonic())
        commands.taken()
    return True


def measure(plan: Plan, _: Message, commands: Commands) -> None:
    """The process's work."""
    with Sockets() as sockets:
        socket, link = sockets.watched_subscriber(plan.servers.pub, prefixes_of(plan), hwm=HWM)
        run = Watching(plan, socket)
        if not linked(link, plan.servers.pub, commands):
            return
        tell("ready")
        go = commands.take()
        if go["command"] == "go":
            settle()
            usage = Usage()
            end_ns = watch(run, socket, go["start_ns"], commands)
            tell("done", cpu=usage.share(), libzmq=libzmq_version(), **run.result(end_ns))


if __name__ == "__main__":
    sys.exit(work(measure))

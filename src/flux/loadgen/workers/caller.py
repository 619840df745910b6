"""The calling process of mode `rpc`: each request leaves when it is due, over the first connection with room.

What is due and finds no room waits, and its latency goes on counting from when it was due. A request ends as a right
answer, a wrong one, an error or a time-out. The time of an answer is taken when it is decoded, before it is checked.
`python -m flux.loadgen.workers.caller`, started by `rpc`; talks as `modes.one_process` says.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from typing import Final

from flux.errors import ConfigError, RequestTimeout
from flux.limits import ASK_TIMEOUT_MS, MAX_ASKS
from flux.loadgen.histogram import (
    Histogram,
    Schedule,
    percentile,
    sharpen_sleep,
    summary,
    wait_readable,
)
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.process import Commands, Message, Usage, packed, settle, tell
from flux.loadgen.requests import KINDS, Asking, Request, Target, error_class, fault_of
from flux.loadgen.sample import Sample
from flux.loadgen.workers.work import Seconds, work
from flux.schema import messages
from flux.transport.requester import Outcome, Requester
from flux.transport.sockets import Sockets, libzmq_version

CONNECTIONS: Final = 8
AT_ONCE: Final = 16  # requests sent before answers are looked at again
LIST_LIMIT_S: Final = (
    30.0  # for the list of streams before the run: a server that has just started may take long
)
GRACE_NS: Final = ASK_TIMEOUT_MS * 1_000_000  # behind the plan's end: what is late may still be asked


class Connection:
    """One DEALER, and when its requests in flight were due and left (ns of the run)."""

    def __init__(self, requester: Requester) -> None:
        self.requester = requester
        self.asked: dict[int, tuple[Request, int, int]] = {}


class Calling:
    """A run: counts in requests, times in ns since the run's start. Measured are the right answers that came behind
    the warm-up, and the slip of the requests that were due behind it."""

    def __init__(
        self, plan: Plan, requesters: list[Requester], asking: Asking, sample: Sample | None
    ) -> None:
        self.plan = plan
        self.connections = [Connection(requester) for requester in requesters]
        self.sent = self.blocked = self.received = self.missing = 0
        self.errors: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.slip, self.schedule, self.send = Histogram(), Histogram(), Histogram()
        self.by_kind = {kind: Histogram() for kind in KINDS}
        self.answered: Counter[str] = Counter()
        self.rows = self.measured = self.last_ns = 0
        self._measured_rows = self._measured_bytes = 0
        self._interval = Histogram()
        self._told = [0, 0]
        self._asking, self._sample = asking, sample
        self._due = Schedule(plan.rate, 0)
        self._late_from = 0  # requests before this one are known to have been blocked

    def due(self, now_ns: int) -> int:
        """How many requests are due by now."""
        return min(self._due.due(now_ns), self.plan.messages)

    def next_ns(self) -> int:
        """When the next request is due."""
        return self._due.intended(self.sent)

    @property
    def in_flight(self) -> int:
        return sum(connection.requester.in_flight for connection in self.connections)

    def ask(self, upto: int, start_ns: int) -> None:
        """Send requests until `upto` of the run have left, AT_ONCE did, or no connection has room."""
        for _ in range(min(upto - self.sent, AT_ONCE)):
            connection = min(self.connections, key=lambda c: c.requester.in_flight)
            if connection.requester.in_flight >= MAX_ASKS:
                if self.sent >= self._late_from:
                    self.blocked += 1
                    self._late_from = self.sent + 1
                return
            k = self.sent
            request = self._asking.request(k)
            now = time.monotonic_ns() - start_ns
            number = connection.requester.send(request.build, **request.slots)
            connection.asked[number] = (request, self._due.intended(k), now)
            self.sent += 1
            if k >= self.plan.warmup_messages:
                self.slip.record(now - self._due.intended(k))

    def listen(self, start_ns: int) -> bool:
        """Take the answers that are here; whether there were any."""
        any_came = False
        for connection in self.connections:
            before = connection.requester.bytes_received
            ended = connection.requester.receive()
            now = time.monotonic_ns() - start_ns
            for outcome in ended:
                self._end(connection, outcome, now)
            if now >= self.plan.warmup_ns:
                self._measured_bytes += connection.requester.bytes_received - before
            any_came = any_came or bool(ended)
        return any_came

    def _end(self, connection: Connection, outcome: Outcome, now: int) -> None:
        request, intended, sent = connection.asked.pop(outcome.id)
        if outcome.error is not None:
            if isinstance(outcome.error, RequestTimeout):
                self.missing += 1
            self.errors[error_class(outcome.error)] += 1
            return
        fault = fault_of(request, outcome.reply, self._sample)
        if fault is not None:
            self.faults[fault] += 1
            return
        self.received += 1
        self.answered[request.kind] += 1
        rows = len(outcome.reply.rows) if request.kind == "backfill" else 0
        self.rows += rows
        self._interval.record(now - intended)
        if now >= self.plan.warmup_ns:
            self._measured_rows += rows
            self.measured += 1
            self.last_ns = now
            self.schedule.record(now - intended)
            self.send.record(now - sent)
            self.by_kind[request.kind].record(now - intended)

    def tell_second(self, t_s: float) -> None:
        interval = self._interval
        tell(
            "second",
            t_s=t_s,
            sent=self.sent - self._told[0],
            received=self.received - self._told[1],
            missing=self.missing,
            p50=percentile(interval, 50.0),
            p99=percentile(interval, 99.0),
            max=interval.max,
        )
        self._told = [self.sent, self.received]
        interval.reset()

    def result(self, due: int) -> Message:
        requesters = [connection.requester for connection in self.connections]
        return {
            "scheduled": due,
            "sent": self.sent,
            "send_blocked": self.blocked,
            "received": self.received,
            "missing": self.missing,
            "corrupt": self.faults.total() + sum(requester.bad_frames for requester in requesters),
            "measured": self.measured,
            "measured_rows": self._measured_rows,
            "measured_bytes": self._measured_bytes,
            "last_ns": self.last_ns,
            "slip": packed(self.slip),
            "from_schedule": packed(self.schedule),
            "from_send": packed(self.send),
            "answered": {kind: self.answered[kind] for kind in KINDS},
            "by_kind": {kind: summary(times) for kind, times in self.by_kind.items()},
            "errors": dict(self.errors),
            "faults": dict(self.faults),
            "rows": self.rows,
            "strays": sum(requester.strays for requester in requesters),
            "bad_frames": sum(requester.bad_frames for requester in requesters),
            "reconnects": sum(requester.reopened for requester in requesters),
        }


def call(run: Calling, start_ns: int, commands: Commands) -> int:
    """Ask until the plan is done or the parent says stop, then hear the rest; how many requests were due."""
    seconds, end_ns = Seconds(run.plan), run.plan.run_ns + GRACE_NS
    now = time.monotonic_ns() - start_ns
    while now < end_ns and not commands.stopping and (run.sent < run.plan.messages or run.in_flight):
        run.ask(run.due(now), start_ns)
        came = run.listen(start_ns)
        now = time.monotonic_ns() - start_ns
        for t_s in seconds.passed(now):
            run.tell_second(t_s)
        if not came and run.sent == run.due(now):
            until = min(seconds.ends_ns if now < run.plan.run_ns else end_ns, end_ns)
            if run.sent < run.plan.messages:
                until = min(until, run.next_ns())
            wait(run, commands, until - now)
        elif not came and run.in_flight:
            wait(run, commands, NS_PER_S // 1000)  # no room: until somebody answers
    due = run.due(now)  # by the loop's end: a stall of this process may have left some of them unasked
    while run.in_flight:  # each ends by an answer or by its deadline
        if not run.listen(start_ns):
            wait(run, None, NS_PER_S // 100)
    run.tell_second(seconds.last)
    return due


def wait(run: Calling, commands: Commands | None, limit_ns: int) -> None:
    """Until there may be an answer, at most so long; to the microsecond, which a zmq poll is not."""
    sources = [connection.requester.socket.fileno() for connection in run.connections]
    if commands is not None:
        sources.append(commands.wake.fileno())
    wait_readable(sources, limit_ns)
    if commands is not None:
        commands.taken()


def targets_of(requester: Requester, most: int) -> list[Target]:
    """The server's first streams that hold rows; ConfigError where there are none."""
    found: list[Target] = []
    after, more = 0, True
    while more and len(found) < most:
        reply = requester.ask(messages.stream_list_request, timeout=LIST_LIMIT_S, after_stream_id=after)
        for stream in reply.streams:
            after = stream.stream_id
            if stream.latest_sequence >= stream.first_sequence >= 1:
                found.append(
                    Target(
                        stream.key,
                        stream.first_sequence,
                        stream.latest_sequence,
                        stream.epoch,
                        stream.store_id,
                    )
                )
        more = reply.has_more and bool(reply.streams)
    if not found:
        raise ConfigError(f"{requester.endpoint} has no stream with rows to ask for")
    return found[:most]


def measure(plan: Plan, command: Message, commands: Commands) -> None:
    """The process's work."""
    with Sockets() as sockets:
        requesters = [Requester(sockets, command["endpoint"]) for _ in range(CONNECTIONS)]
        targets = targets_of(requesters[0], plan.streams)
        sample = Sample(plan.seed) if command["sampled"] else None
        run = Calling(plan, requesters, Asking(plan.seed, targets), sample)
        tell("ready")
        go = commands.take()
        if go["command"] == "go":
            sharpen_sleep()
            settle()
            usage = Usage()
            due = call(run, go["start_ns"], commands)
            tell(
                "done",
                cpu=usage.share(),
                libzmq=libzmq_version(),
                streams=len(targets),
                **run.result(due),
            )


if __name__ == "__main__":
    sys.exit(work(measure))

"""The process of mode `codec`: no sockets; rows to frames and back, from Python, as a service would call it.

The process encodes a message with `codec.Encoder` into a buffer of its own and decodes it with `codec.decode`, one call
each a message, its streams in turn. Every message is compared with what was put in, outside of what is timed.

Without a rate, as fast as it goes: a block of BLOCK messages is encoded, then decoded, each under one pair of
clock readings, and a block counts as one time, its mean per message: a tail within a block is not seen. With a
rate, in an open loop: each 100 µs what is due, one message at a time, its latency from the intended time to the
decoded batch. What is done behind the warm-up is measured.

`python -m flux.loadgen.workers.codec`, started by mode `codec`; talks as `modes.one_process` says.
"""

from __future__ import annotations

import sys
import time
from typing import Any, Final

import numpy as np

from flux import codec
from flux.limits import MAX_HEAD_BYTES
from flux.loadgen.histogram import Histogram, Schedule, percentile, sharpen_sleep, sleep_until, summary
from flux.loadgen.plan import NS_PER_S, TICK_NS, Plan
from flux.loadgen.process import Commands, Message, Usage, packed, settle, tell
from flux.loadgen.sample import Sample, key_of
from flux.loadgen.workers.work import Seconds, work
from flux.transport.sockets import libzmq_version

BLOCK: Final = 64  # messages
GRACE_NS: Final = NS_PER_S
DIRECTIONS: Final = ("encode", "decode")


class Coding:
    """A run: counts in messages, times in ns; message k is of stream k mod streams, as in `plan`."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.messages = self.wrong = self.measured = self.last_ns = 0
        self.slip = Histogram()
        self.schedule, self.whole = Histogram(), Histogram()
        self.times = {name: Histogram() for name in DIRECTIONS}  # of a message
        self.spent = dict.fromkeys(DIRECTIONS, 0)
        self._interval = Histogram()
        self._told = 0
        sample = Sample(plan.seed)
        self._rows = [sample.rows(stream, 1, plan.rows) for stream in range(plan.streams)]
        self._bytes = [rows.tobytes() for rows in self._rows]
        self._encoders = [codec.Encoder(key_of(stream)) for stream in range(plan.streams)]
        size = MAX_HEAD_BYTES + len(self._bytes[0]) + 8
        self._frames = [memoryview(bytearray(size)) for _ in range(BLOCK)]
        made = self._encoders[0].encode(self._rows[0], 1)
        assert isinstance(made, bytes)
        self.frame_bytes = len(made)

    def block(self, count: int, start_ns: int) -> None:
        """Encode and decode the next `count` messages, at most BLOCK, each direction in one go."""
        plan, clock, decode = self.plan, time.perf_counter_ns, codec.decode
        first, streams = self.messages, plan.streams
        calls = [
            (self._encoders[k % streams].encode, self._rows[k % streams], k // streams * plan.rows + 1)
            for k in range(first, first + count)
        ]
        frames = self._frames
        t0 = clock()
        sizes = [
            encode(rows, sequence, out=frame)
            for (encode, rows, sequence), frame in zip(calls, frames, strict=False)
        ]
        t1 = clock()
        sent = [frame[:size] for frame, size in zip(frames, sizes, strict=False)]
        t2 = clock()
        batches = [decode(frame) for frame in sent]
        t3 = clock()
        self.messages += count
        now = time.monotonic_ns() - start_ns
        self._interval.record((t1 - t0 + t3 - t2) // count)
        if now >= plan.warmup_ns:
            for name, spent in zip(DIRECTIONS, (t1 - t0, t3 - t2), strict=True):
                self.times[name].record(spent // count)
                self.spent[name] += spent
            self.whole.record((t1 - t0 + t3 - t2) // count)
            self.measured += count
            self.last_ns = now
        for k, batch in zip(range(first, first + count), batches, strict=True):
            self._check(k, batch)

    def single(self, intended_ns: int, start_ns: int) -> None:
        """Encode and decode the next message, which was due at `intended_ns` of the run."""
        plan, clock, k = self.plan, time.monotonic_ns, self.messages
        stream, frame = k % plan.streams, self._frames[0]
        encoder, rows, sequence = (
            self._encoders[stream],
            self._rows[stream],
            k // plan.streams * plan.rows + 1,
        )
        t0 = clock()
        size = encoder.encode(rows, sequence, out=frame)
        t1 = clock()
        batch = codec.decode(frame[:size])
        t2 = clock()
        self.messages += 1
        now = t2 - start_ns
        self._interval.record(now - intended_ns)
        if now >= plan.warmup_ns:
            self.slip.record(t0 - start_ns - intended_ns)
            self.schedule.record(now - intended_ns)
            for name, spent in zip(DIRECTIONS, (t1 - t0, t2 - t1), strict=True):
                self.times[name].record(spent)
                self.spent[name] += spent
            self.whole.record(t2 - t0)
            self.measured += 1
            self.last_ns = now
        self._check(k, batch)

    def _check(self, k: int, batch: Any) -> None:
        stream = k % self.plan.streams
        right = (
            batch.key == key_of(stream)
            and batch.start_sequence == k // self.plan.streams * self.plan.rows + 1
            and np.asarray(batch.rows).tobytes() == self._bytes[stream]
        )
        self.wrong += not right

    def tell_second(self, t_s: float) -> None:
        interval, rows = self._interval, (self.messages - self._told) * self.plan.rows
        tell(
            "second",
            t_s=t_s,
            sent=rows,
            received=rows,
            missing=0,
            p50=percentile(interval, 50.0),
            p99=percentile(interval, 99.0),
            max=interval.max,
        )
        self._told = self.messages
        interval.reset()


def code_fast(run: Coding, start_ns: int, commands: Commands) -> None:
    """Without a rate: block after block until the plan's end or until told to stop."""
    seconds, now = Seconds(run.plan), 0
    sleep_until(start_ns)
    while now < run.plan.run_ns and not commands.stopping:
        run.block(BLOCK, start_ns)
        now = time.monotonic_ns() - start_ns
        for t_s in seconds.passed(now):
            run.tell_second(t_s)
    run.tell_second(seconds.last)


def code_paced(run: Coding, start_ns: int, commands: Commands) -> int:
    """At the plan's rate; how many messages were due. What is more than GRACE_NS late at the plan's end is left."""
    plan, schedule, seconds = run.plan, Schedule(run.plan.rate, 0), Seconds(run.plan)
    due = now = 0
    sleep_until(start_ns)
    while now < plan.run_ns + GRACE_NS and run.messages < plan.messages and not commands.stopping:
        due = min(schedule.due(now), plan.messages)
        for _ in range(min(due - run.messages, BLOCK)):
            run.single(schedule.intended(run.messages), start_ns)
        now = time.monotonic_ns() - start_ns
        for t_s in seconds.passed(now):
            run.tell_second(t_s)
        if run.messages == due:
            sleep_until(start_ns + (now // TICK_NS + 1) * TICK_NS)
            now = time.monotonic_ns() - start_ns
    run.tell_second(seconds.last)
    return due


def measure(plan: Plan, _: Message, commands: Commands) -> None:
    """The process's work."""
    run = Coding(plan)
    tell("ready")
    go = commands.take()
    if go["command"] != "go":
        return
    sharpen_sleep()
    settle()
    usage = Usage()
    due: int | None = None
    if plan.rate:
        due = code_paced(run, go["start_ns"], commands)
    else:
        code_fast(run, go["start_ns"], commands)
    tell(
        "done",
        cpu=usage.share(),
        libzmq=libzmq_version(),
        due=due,
        messages=run.messages,
        wrong=run.wrong,
        measured=run.measured,
        last_ns=run.last_ns,
        spent=run.spent,
        times={name: summary(times) for name, times in run.times.items()},
        frame_bytes=run.frame_bytes,
        slip=packed(run.slip),
        schedule=packed(run.schedule),
        whole=packed(run.whole),
    )


if __name__ == "__main__":
    sys.exit(work(measure))

"""The load generator's loops over real sockets: what goes out, what comes in, and why they come back.

Runs begin in the past, so that what a loop has to do is due at once and no test waits for a schedule.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flux import codec
from flux.kernels import drive as kernel
from flux.loadgen.drive import (
    BITE,
    PIECE,
    Drove,
    FeederLoop,
    Flight,
    PublisherLoop,
    SubscriberLoop,
    piece_of,
)
from flux.loadgen.faults import Faults
from flux.loadgen.histogram import Histogram, Tally
from flux.loadgen.plan import GIVE_UP_NS, MAX_UNDER_WAY, NS_PER_S, Plan
from flux.loadgen.streams import INTERVAL, SOURCE, streams_of
from flux.transport.pump import Receiver, Sender
from flux.transport.sockets import Poller, Publisher, Socket, Sockets, Wake, endpoint_of, receive
from flux.transport.topics import v2_prefix
from tests.oracle import load as oracle
from tests.patience import PATIENCE_S

STORE = 77
EVERYTHING = v2_prefix("candles", SOURCE, INTERVAL)
PLAN = Plan(rate=1_000, duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 10, streams=6, rows=2, seed=9)


def later(seconds: float = PATIENCE_S) -> int:
    return time.monotonic_ns() + round(seconds * NS_PER_S)


def long_ago(plan: Plan) -> int:
    """A start that makes all of a plan due."""
    return time.monotonic_ns() - plan.run_ns - NS_PER_S


class Pair:
    """A publisher and a subscriber of everything, connected."""

    def __init__(self, sockets: Sockets) -> None:
        self.publisher: Publisher = sockets.publisher("tcp://127.0.0.1:*", hwm=100_000)
        self.subscriber: Socket = sockets.subscriber(
            endpoint_of(self.publisher.socket), [EVERYTHING], hwm=100_000
        )
        poller = Poller(self.publisher.socket)
        until = later()
        while EVERYTHING not in self.publisher.subscriptions.prefixes:
            assert time.monotonic_ns() < until, "no subscription came"
            poller.wait(0.1)
            self.publisher.drain()

    def frames(self, count: int) -> list[bytes]:
        """The payloads of so many messages, and that there are no more."""
        poller, until = Poller(self.subscriber), later()
        got: list[bytes] = []
        while len(got) < count:
            assert time.monotonic_ns() < until, f"{len(got)} of {count} messages came"
            poller.wait(0.1)
            while (frames := receive(self.subscriber)) is not None:
                got.append(frames[1])
        assert len(got) == count
        return got


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    with Sockets() as made:
        yield made


@pytest.fixture
def pair(sockets: Sockets) -> Pair:
    return Pair(sockets)


def publishing(
    plan: Plan, pair: Pair, *, part: int = 0, start_ns: int | None = None, flight: Flight | None = None
) -> tuple[PublisherLoop, Histogram]:
    slip = Histogram()
    loop = PublisherLoop(
        plan,
        part,
        pair.publisher.socket,
        streams_of(plan, piece_of(plan), part=part),
        slip,
        store_id=STORE,
        start_ns=long_ago(plan) if start_ns is None else start_ns,
        flight=flight,
    )
    return loop, slip


class Receiving:
    """The subscriber's loop with all that it writes into."""

    def __init__(self, plan: Plan, pair: Pair, start_ns: int, **more: Any) -> None:
        streams = streams_of(plan, store_id=STORE)
        self.receiver = Receiver(pair.subscriber, streams)
        rings = [streams.ring(slot)._address for slot in range(plan.streams)]
        self.tally = Tally(plan.load(), rings, plan.warmup_messages)
        self.times = (Histogram(), Histogram(), Histogram())
        self.wake = Wake()
        self.loop = SubscriberLoop(
            plan,
            pair.subscriber,
            self.receiver,
            self.tally,
            self.times,
            self.wake,
            start_ns=start_ns,
            **more,
        )


@pytest.mark.parametrize("parts", [1, 3])
def test_a_publisher_sends_its_share_as_the_oracle_has_it(pair: Pair, parts: int) -> None:
    plan = Plan(rate=1_000, duration_ns=NS_PER_S, warmup_ns=0, streams=6, rows=2, seed=9, publishers=parts)
    part = parts - 1
    loop, slip = publishing(plan, pair, part=part)
    assert loop.run(later()) is Drove.DONE
    own = plan.shared(plan.messages, part)
    assert (loop.messages, loop.due) == (own, own)
    assert slip.total == own * plan.rows
    twin = oracle.Load(plan.rate, plan.streams, plan.rows, plan.seed)
    sequences: dict[int, int] = {}
    sent: list[float] = []
    for frame in pair.frames(own):
        message = codec.decode(frame)
        stream = int(message.key.symbol.removeprefix("S"))
        assert stream % parts == part
        assert message.start_sequence == sequences.get(stream, 0) + 1
        for at, row in enumerate(message.rows):
            assert row.item() == twin.row(stream, message.start_sequence + at, float(row["volume"]))
        sequences[stream] = message.start_sequence + plan.rows - 1
        sent.append(float(message.rows[0]["volume"]))
    assert [sequences[stream] for stream in sorted(sequences)] == [
        head for stream, head in enumerate(plan.all_heads()) if stream % parts == part
    ]
    assert sent == sorted(sent)
    assert max(sent.count(at) for at in set(sent)) <= PIECE, "a piece has one send time"


def test_slip_is_of_what_is_measured(pair: Pair) -> None:
    loop, slip = publishing(PLAN, pair)
    assert loop.run(later()) is Drove.DONE
    assert slip.total == (PLAN.messages - PLAN.warmup_messages) * PLAN.rows
    assert slip.min >= NS_PER_S, "the last was due a second before the loop began"


def test_a_publisher_comes_back_at_its_time(pair: Pair) -> None:
    plan = Plan(rate=1, duration_ns=3_600 * NS_PER_S, warmup_ns=0, streams=1)
    loop, _ = publishing(plan, pair, start_ns=time.monotonic_ns())
    until = later(0.01)
    assert loop.run(until) is Drove.TIME
    assert time.monotonic_ns() >= until
    assert loop.messages >= 1, "the first is due at the start"
    before = loop.messages
    assert loop.run(time.monotonic_ns() - 1) is Drove.TIME
    assert loop.messages == before


def test_with_faults_python_sends_what_is_laid_down(pair: Pair) -> None:
    plan = Plan(rate=700, duration_ns=NS_PER_S, warmup_ns=0, streams=6, faults=Faults(drop=10))
    loop, slip = publishing(plan, pair)
    sender = Sender(pair.publisher.socket, streams_of(plan, 1))
    numbers: list[int] = []
    while (drove := loop.run(later())) is Drove.LAID:
        assert loop.numbers is not None
        assert loop.group.count <= PIECE
        numbers += loop.numbers[: loop.group.count].tolist()
        sender.send(loop.group)
    assert drove is Drove.DONE
    assert sorted(numbers) == list(range(700))
    assert slip.total == len(pair.frames(700)) == 700


def test_what_is_sent_is_received_to_the_row(pair: Pair) -> None:
    start_ns = long_ago(PLAN)
    loop, _ = publishing(PLAN, pair, start_ns=start_ns)
    here = Receiving(PLAN, pair, start_ns)
    assert loop.run(later()) is Drove.DONE
    rows = PLAN.messages * PLAN.rows
    assert here.loop.run(later(), rows) is Drove.DONE
    tally, measured = here.tally, rows - PLAN.warmup_messages * PLAN.rows
    assert (tally.received, tally.reached, tally.measured) == (rows, rows, measured)
    assert (tally.duplicate, tally.reordered, tally.corrupt, tally.unread) == (0, 0, 0, 0)
    assert [each.total for each in here.times] == [measured, measured, rows]
    assert here.loop.messages == PLAN.messages
    assert here.loop.run(time.monotonic_ns()) is Drove.TIME, "and nothing more"


def test_what_comes_again_with_another_send_time_is_corrupt(pair: Pair) -> None:
    start_ns, rows = long_ago(PLAN), PLAN.messages * PLAN.rows
    for _ in range(2):  # the second numbers the same again, at another time
        loop, _ = publishing(PLAN, pair, start_ns=start_ns)
        assert loop.run(later()) is Drove.DONE
    here = Receiving(PLAN, pair, start_ns)
    until = later()
    while here.loop.messages < 2 * PLAN.messages:
        assert time.monotonic_ns() < until
        here.loop.run(later(0.01))
    assert (here.tally.received, here.tally.duplicate, here.tally.corrupt) == (rows, 0, rows)


def test_a_subscriber_comes_back_for_what_it_is_told_to(pair: Pair) -> None:
    start_ns = long_ago(PLAN)
    here = Receiving(PLAN, pair, start_ns, bite=5)
    until = later(0.02)
    assert here.loop.run(until) is Drove.TIME
    assert time.monotonic_ns() >= until
    here.wake.set()
    assert here.loop.run(later()) is Drove.WOKEN
    here.wake.clear()
    loop, _ = publishing(PLAN, pair, start_ns=start_ns)
    loop.run(later())
    assert here.loop.run(later(), once=True) is Drove.TAKEN
    assert 1 <= here.loop.messages <= 5, "a bite and no more"
    assert here.loop.run(later(), PLAN.messages) is Drove.DONE
    assert PLAN.messages <= here.tally.reached <= PLAN.messages * PLAN.rows
    assert here.loop.run(time.monotonic_ns() - 1, PLAN.messages) is Drove.DONE, "it is there already"


def test_a_message_of_no_stream_here_is_pythons(pair: Pair) -> None:
    other = Plan(rate=100, duration_ns=NS_PER_S, warmup_ns=0, streams=2)
    loop, _ = publishing(Plan(rate=100, duration_ns=NS_PER_S, warmup_ns=0, streams=3), pair)
    here = Receiving(other, pair, long_ago(other))
    loop.run(later())
    refused = 0
    while here.loop.messages < 100 or here.receiver.unknown is not None:
        if here.loop.run(later()) is Drove.HELD:
            refused += 1
            here.receiver.discard()
            if here.loop.messages == 100:
                break
    assert refused >= 33
    assert here.receiver.counters["refused_stream"] == refused


def test_who_is_hopelessly_late_gives_up_and_owes_the_rest(pair: Pair) -> None:
    late = long_ago(PLAN) - GIVE_UP_NS
    loop, _ = publishing(PLAN, pair, start_ns=late)
    assert loop.run(later()) is Drove.DONE
    assert (loop.messages, loop.due) == (0, PLAN.messages)


def test_a_closed_loop_stops_where_enough_is_under_way(pair: Pair) -> None:
    plan = Plan(saturate=True, duration_ns=3_600 * NS_PER_S, warmup_ns=0, streams=8)
    with Flight.shared(2) as fd:
        flight = Flight(fd, 2)
        loop, slip = publishing(plan, pair, start_ns=time.monotonic_ns() - 1, flight=flight)
        while loop.run(later(0.01)) is Drove.TIME and loop.messages <= MAX_UNDER_WAY - PIECE:
            pass
        assert loop.messages == loop.due == MAX_UNDER_WAY // PIECE * PIECE
        loop.run(later(0.01))
        assert loop.messages <= MAX_UNDER_WAY, "nobody has received any"
        assert slip.total == 0, "nothing is due, so nothing is late"
        counts = np.frombuffer(os.pread(fd, kernel.COUNT_BYTES, 0), np.int64)
        assert counts[0] == loop.messages
        ended, _ = publishing(plan, pair, start_ns=long_ago(plan), flight=flight)
        assert ended.run(later()) is Drove.DONE, "its time is over"
        assert ended.messages == 0


def test_the_slowest_subscriber_counts_and_several_publishers_share(pair: Pair) -> None:
    counts = np.zeros(3 * kernel.COUNT_BYTES // 8, np.int64)
    flight = kernel.Flight(counts, 2, 100)
    line = kernel.COUNT_BYTES // 8
    assert flight.take(60)
    assert not flight.take(41)
    assert flight.take(40)
    counts[line] = 50  # one subscriber has 50, the other none
    assert not flight.take(1)
    counts[2 * line] = 10
    assert flight.take(10)
    assert not flight.take(1)
    assert counts[0] == 110
    taken = [0, 0]

    def take(who: int) -> None:
        for _ in range(20_000):
            taken[who] += kernel.Flight(counts, 2, 10_000).take(1)

    threads = [threading.Thread(target=take, args=(who,)) for who in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert 110 + sum(taken) == counts[0] == 10_010


def test_in_a_closed_loop_the_time_of_receipt_says_what_is_measured(pair: Pair) -> None:
    plan = Plan(saturate=True, duration_ns=3_600 * NS_PER_S, warmup_ns=NS_PER_S, streams=8)
    with Flight.shared(1) as fd:
        flight = Flight(fd, 1)
        start_ns = time.monotonic_ns()
        loop, _ = publishing(plan, pair, start_ns=start_ns, flight=flight)
        warm = Receiving(plan, pair, start_ns, flight=flight)
        while loop.messages == 0:
            loop.run(later(0.001))
        first = loop.messages
        assert warm.loop.run(later(), first) is Drove.DONE
        in_warmup = time.monotonic_ns() - start_ns < plan.warmup_ns
        assert warm.tally.measured == 0 or not in_warmup
        assert (
            np.frombuffer(os.pread(fd, 2 * kernel.COUNT_BYTES, 0), np.int64)[[0, 8]].tolist() == [first] * 2
        )
        before = warm.tally.measured
        while time.monotonic_ns() - start_ns < plan.warmup_ns:
            time.sleep(0.01)
        while loop.messages == first:
            loop.run(later(0.001))
        assert warm.loop.run(later(), loop.messages) is Drove.DONE
        assert warm.tally.measured - before == loop.messages - first
        assert warm.tally.last_ns >= plan.warmup_ns
        assert warm.tally.corrupt == 0
        assert warm.times[1].total == warm.tally.measured


def test_a_feeder_is_held_back_and_loses_nothing(sockets: Sockets) -> None:
    plan = Plan(rate=5_000, duration_ns=NS_PER_S, warmup_ns=NS_PER_S // 5, streams=5, rows=3, mode="through")
    puller = sockets.puller("tcp://127.0.0.1:*")
    pusher = sockets.pusher(endpoint_of(puller), hwm=100)
    slip = Histogram()
    loop = FeederLoop(plan, pusher, streams_of(plan, 1), slip, run=31, start_ns=long_ago(plan))
    poller, until, got = Poller(puller), later(), 0
    while got < plan.messages:
        assert time.monotonic_ns() < until, f"{got} of {plan.messages} messages came"
        drove = loop.run(later(0.001))
        assert drove is Drove.DONE or loop.messages < plan.messages
        poller.wait(0.001)
        while (frames := receive(puller)) is not None:
            message = codec.decode(frames[0])
            assert message.start_sequence == got * plan.rows + 1
            assert (message.store_id, len(message.rows)) == (31, plan.rows)
            assert message.key.symbol == f"S{got % plan.streams}"
            assert message.rows["trade_count"].tolist() == [got] * plan.rows
            got += 1
    assert loop.run(later()) is Drove.DONE
    assert (loop.messages, loop.due) == (plan.messages, plan.messages)
    assert loop.blocked > 0, "nobody was there at first"
    assert slip.total == (plan.messages - plan.warmup_messages) * plan.rows


def test_what_cannot_be_is_refused(pair: Pair) -> None:
    with pytest.raises(ValueError, match="a bite is"):
        Receiving(PLAN, pair, 0, bite=0)
    with pytest.raises(ValueError, match="somebody"):
        kernel.Flight(np.zeros(64, np.int64), 0, 1)
    with pytest.raises(ValueError, match="needed"):
        kernel.Flight(np.zeros(15, np.int64), 1, 1)
    with Flight.shared(1) as fd, pytest.raises(IndexError, match="subscriber 1 of 1"):
        Receiving(PLAN, pair, 0, flight=Flight(fd, 1), number=1)
    with pytest.raises(ValueError, match="streams for a share"):
        PublisherLoop(
            PLAN,
            0,
            pair.publisher.socket,
            streams_of(Plan(rate=1, streams=3), 1),
            Histogram(),
            store_id=1,
            start_ns=0,
            flight=None,
        )


def test_bites_and_pieces_are_handfuls() -> None:
    assert BITE <= PIECE
    assert piece_of(Plan(rate=1)) == PIECE
    assert piece_of(Plan(rate=1, rows=64, publishers=64)) == 4

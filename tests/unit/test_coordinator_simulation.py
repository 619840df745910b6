"""The coordinator against a whole world of faults, in virtual time: nothing lost, repeated or reordered,
ever.

`FLUX_SIMULATIONS=N` runs N seeds instead of CI's share; `FLUX_SIMULATION_SEED=S` runs one again.
"""

from __future__ import annotations

import os

import pytest

from flux.model import StreamKey
from flux.protocol import effects as fx
from flux.protocol.replies import TimedOut
from tests.unit.simulated import MS, SECOND, Client, Faults, Server, World

KEYS = [StreamKey("SIM", symbol, "1m") for symbol in ("A", "B", "C", "D", "E", "F")]

_ONE = os.environ.get("FLUX_SIMULATION_SEED")
SEEDS = [int(_ONE)] if _ONE else range(int(os.environ.get("FLUX_SIMULATIONS", "24")))


def _feed(world: World, server: Server, client: Client, until: int) -> None:
    """Rows at random moments, in bursts now and then, until a moment."""

    def more() -> None:
        if server.up:
            key = world.random.choice(KEYS)
            count = world.random.choice((1, 1, 1, 3, 20, 200))
            while count:
                size = min(count, 1 + world.random.randrange(16))
                client.live(key, *server.produce(key, size))
                count -= size
        if world.now < until:
            world.after(int(world.random.expovariate(1 / 30) * MS), more)

    def beat() -> None:
        if server.up:
            client.beat()
        world.after(SECOND, beat)

    more()
    beat()


def _trouble(world: World, server: Server, client: Client, until: int) -> None:
    """Restarts of either side, links that break, consumers that slow down."""
    random = world.random

    def come_back(lose: int) -> None:
        server.restart(lose)
        server.up = True
        world.after(random.randrange(200) * MS, lambda: client.link(True))

    def act() -> None:
        what = random.choice(("server", "epoch", "client", "link", "pace", "retention"))
        if what in ("server", "epoch") and server.up:
            server.up = False
            client.link(False)
            lose = 1 + random.randrange(40) if what == "epoch" else 0
            world.after(random.randrange(3_000) * MS, lambda: come_back(lose))
        elif what == "client":
            client.restart()
        elif what == "link" and server.up:
            client.link(False)
            world.after(random.randrange(2_000) * MS, lambda: client.link(True) if server.up else None)
        elif what == "pace":
            client.pace = random.choice((1, 5, 10**9))
        elif what == "retention":
            key = random.choice(KEYS)
            server.first[key] = max(server.first.get(key, 1), server.head(key) - 150)
        if world.now < until:
            world.after(random.randrange(200, 4_000) * MS, act)

    world.after(SECOND, act)


def _run(seed: int, make: type[Client] = Client) -> tuple[Client, dict[StreamKey, str | int | None]]:
    """A world of faults, then quiet, a last row of every stream, and time to repair: the client, and how each
    stream was begun.
    """
    world = World(seed)
    random = world.random
    server = Server(world)
    for key in KEYS:
        server.rows[key] = {}
        server.produce(key, random.choice((0, 0, 5, 300)))
    faults = Faults(
        random.choice((0, 0.01, 0.05, 0.3)), random.choice((0, 0.2)), 0.2, random.choice((0, 5, 80))
    )
    client = make(world, server, faults, capacity=random.choice((16, 64, 1024)))
    starts = {key: random.choice((None, "oldest", "cache", 1, 50)) for key in KEYS}
    for key, start in starts.items():
        client.follow(key, start)
    client.link(True)
    end = world.now + 20 * SECOND
    _feed(world, server, client, end)
    if seed % 4:
        _trouble(world, server, client, end - 5 * SECOND)
    world.run(end, client)

    # Quiet: no more faults, and time for the slowest back-off.
    client.faults = Faults()
    client.pace = 10**9
    server.up = True
    client.link(True)
    world.run(world.now + 60 * SECOND, client)
    # By now every stream has joined: whatever its start, these rows are its consumer's.
    for key in KEYS:
        client.live(key, *server.produce(key, max(1, 60 - server.head(key))))
    world.run(world.now + 60 * SECOND, client)
    return client, starts


def _begins_by(client: Client, key: StreamKey, start: str | int | None) -> int:
    """The sequence at which, or before which, a consumer's rows or gaps have to begin."""
    kept = client.server.first.get(key, 1)
    if start is None:
        return max(kept, client.joined[key] + 1)
    return max(kept, start) if isinstance(start, int) else kept


def _judge(client: Client, starts: dict[StreamKey, str | int | None]) -> None:
    """Every consumer is at the head, and every row from its beginning on was given or accounted for."""
    server = client.server
    assert not client.failed
    for key in KEYS:
        consumer, truth = client.consumers[key], server.rows[key]
        assert all(truth[s] == value for s, value in consumer.rows.items()), f"{key}: a row of a lost epoch"
        assert consumer.last == server.head(key), f"{key}: stopped at {consumer.last} of {server.head(key)}"
        begin = min([*consumer.rows, *(lost[0] for lost in consumer.lost)])
        least = _begins_by(client, key, starts[key])
        assert begin <= least, f"{key}, start {starts[key]}: begins at {begin}, not by {least}"
        missing = set(range(begin, consumer.last + 1)) - consumer.rows.keys()
        told = {s for first, last, _ in consumer.lost for s in range(first, last + 1)}
        assert missing <= told, f"{key}: {sorted(missing - told)[:5]} missing without a word"
        assert all(s < server.first.get(key, 1) for s in missing)
    assert client.asks_sent < 20_000, "a hot loop of requests"


@pytest.mark.parametrize("seed", SEEDS)
def test_consumers_see_each_row_once_in_order_whatever_happens(seed: int) -> None:
    _judge(*_run(seed))


class Undelivered(Client):
    """Nothing is ever handed over."""

    def _hand_over(self) -> bool:
        return False


class Unanswered(Client):
    """No request is answered: rows come live only."""

    def _ask(self, ask: fx.Ask) -> None:
        self.world.after(2 * SECOND, lambda: self.coordinator.answer(ask.number, TimedOut(), self.world.now))


class Skipping(Client):
    """One row in a hundred does not reach the consumer, without a gap."""

    def _hand_over(self) -> bool:
        moved = super()._hand_over()
        for consumer in self.consumers.values():
            for sequence in range(57, self.server.value, 100):
                consumer.rows.pop(sequence, None)
        return moved


@pytest.mark.parametrize("faulty", [Undelivered, Unanswered, Skipping])
def test_the_judge_finds_a_fault_in_every_world(faulty: type[Client]) -> None:
    for seed in (0, 1):
        with pytest.raises(AssertionError):
            _judge(*_run(seed, faulty))

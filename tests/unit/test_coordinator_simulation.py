"""The coordinator against a whole world of faults, in virtual time: nothing lost, repeated or reordered,
ever.

`FLUX_SIMULATIONS=N` runs N seeds instead of CI's share; `FLUX_SIMULATION_SEED=S` runs one again.
"""

from __future__ import annotations

import os

import pytest

from flux.model import StreamKey
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


@pytest.mark.parametrize("seed", SEEDS)
def test_consumers_see_each_row_once_in_order_whatever_happens(seed: int) -> None:
    world = World(seed)
    random = world.random
    server = Server(world)
    for key in KEYS:
        server.rows[key] = {}
        server.produce(key, random.choice((0, 0, 5, 300)))
    faults = Faults(
        random.choice((0, 0.01, 0.05, 0.3)), random.choice((0, 0.2)), 0.2, random.choice((0, 5, 80))
    )
    client = Client(world, server, faults, capacity=random.choice((16, 64, 1024)))
    for key in KEYS:
        client.follow(key, random.choice((None, "oldest", "cache", 1, 50)))
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
    world.run(end + 60 * SECOND, client)

    assert not client.failed
    for key in KEYS:
        consumer, truth = client.consumers[key], server.rows[key]
        assert all(truth[s] == value for s, value in consumer.rows.items()), f"{key}: a row of a lost epoch"
        if consumer.last is not None:
            assert consumer.last == server.head(key), f"{key}: stopped at {consumer.last}"
            begin = min([*consumer.rows, *(lost[0] for lost in consumer.lost)])
            missing = set(range(begin, consumer.last + 1)) - consumer.rows.keys()
            told = {s for first, last, _ in consumer.lost for s in range(first, last + 1)}
            assert missing <= told, f"{key}: {sorted(missing - told)[:5]} missing without a word"
            assert all(s < server.first.get(key, 1) for s in missing)
    assert client.asks_sent < 20_000, "a hot loop of requests"

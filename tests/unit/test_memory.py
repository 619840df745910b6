"""When the watch on the memory drops a connection, and when all is well again: its looks one by one."""

from __future__ import annotations

import pytest

from flux import limits
from flux.model import State
from flux.server import memory
from flux.server.memory import AGAIN_S, CALM_LOOKS, GROWN_BYTES, Connections, MemoryWatch
from flux.server.vitals import Vitals

BOUND = sum(limits.server_bytes(3).values())


class Scripted(Connections):
    """Has these peers to drop, and notes what it is asked."""

    def __init__(self, *peers: str) -> None:
        super().__init__([])
        self.peers = list(peers)
        self.asked: list[int | None] = []
        self.marks = 0

    def mark(self) -> None:
        self.marks += 1

    def drop(self, came_by: int | None = None) -> str:
        self.asked.append(came_by)
        return self.peers.pop(0) if self.peers else ""


class Watched(MemoryWatch):
    """With an amount of memory and a time that the test sets, and what giving back brings."""

    def __init__(self, connections: Connections) -> None:
        self.vitals = Vitals()
        self.taken, self.freed, self.now = 0, 0, 1_000.0
        self.given_back: list[int] = []
        super().__init__(connections, self.vitals, lambda: 3)
        self._trim = self._note

    def _note(self, padding: int) -> None:
        self.given_back.append(padding)
        self.taken -= self.freed

    def _taken(self) -> int:
        return self.taken

    def looks(self, times: int = 1) -> None:
        for _ in range(times):
            self.look()


@pytest.fixture
def connections() -> Scripted:
    return Scripted("a:1", "b:2", "c:3")


@pytest.fixture
def watch(connections: Scripted, monkeypatch: pytest.MonkeyPatch) -> Watched:
    made = Watched(connections)
    monkeypatch.setattr(memory.time, "monotonic", lambda: made.now)
    return made


def test_within_its_bound_nobody_is_dropped(watch: Watched, connections: Scripted) -> None:
    watch.taken = BOUND
    watch.looks(3)
    assert (connections.asked, watch.given_back, watch.dropped, watch.vitals.state) == ([], [], 0, State.OK)


def test_what_only_has_to_be_given_back_costs_nobody_a_connection(
    watch: Watched, connections: Scripted
) -> None:
    watch.taken, watch.freed = BOUND + 10, 10
    watch.looks()
    assert (connections.asked, watch.given_back, watch.vitals.state) == ([], [0], State.OK)


def test_over_its_bound_one_is_dropped_and_waited_for(watch: Watched, connections: Scripted) -> None:
    watch.taken = BOUND + 1
    watch.looks(2)
    assert (connections.asked, watch.dropped) == ([None], 1), "what was dropped is still being freed"
    assert watch.vitals.state is State.DEGRADED
    assert "the connection from a:1 was dropped" in watch.vitals.reason
    assert f"bound of {BOUND // limits.MIB} MiB" in watch.vitals.reason
    watch.now += AGAIN_S - 0.001
    watch.looks()
    assert len(connections.asked) == 1
    watch.now += 0.001
    watch.looks()
    assert connections.asked == [None, 1], "who was there at the first look over the bound"
    assert watch.dropped == 2


def test_memory_that_goes_on_growing_is_not_waited_for(watch: Watched, connections: Scripted) -> None:
    watch.looks(4)
    watch.taken = BOUND + 1
    watch.looks()
    watch.taken += GROWN_BYTES - 1
    watch.looks()
    assert connections.asked == [None]
    watch.taken += 1
    watch.looks()
    assert connections.asked == [None, None], "then who sends most, whenever it came"
    watch.now += AGAIN_S
    watch.looks()
    assert connections.asked == [None, None, 5]


def test_when_none_is_left_that_is_said(watch: Watched, connections: Scripted) -> None:
    connections.peers.clear()
    watch.taken = BOUND + 1
    watch.looks()
    assert watch.dropped == 0
    assert "no connection is left to drop" in watch.vitals.reason


def test_all_is_well_after_some_looks_within_the_bound(watch: Watched, connections: Scripted) -> None:
    watch.taken = BOUND + 1
    watch.looks()
    watch.taken = BOUND
    watch.looks(CALM_LOOKS - 1)
    assert watch.vitals.state is State.DEGRADED
    watch.taken = BOUND + 1
    watch.looks()
    watch.taken, watch.given_back = BOUND, []
    watch.looks(CALM_LOOKS - 1)
    assert (watch.vitals.state, connections.marks) == (State.DEGRADED, 0), "in a row"
    watch.looks()
    assert (watch.vitals.state, connections.marks, watch.given_back) == (State.OK, 1, [0])
    watch.looks(CALM_LOOKS)
    assert (connections.marks, watch.given_back) == (2, [0]), "only what counts is marked anew"
    watch.taken = BOUND + 1
    watch.looks()
    assert connections.asked == [None, None], "another time, from its beginning"

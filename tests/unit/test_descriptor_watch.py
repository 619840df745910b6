"""The watch on descriptors: whom it drops, and what it says of that."""

from __future__ import annotations

import resource

import pytest

from flux.model import State
from flux.server import descriptors
from flux.server.descriptors import CALM_LOOKS, DescriptorWatch
from flux.server.memory import Connections
from flux.server.vitals import Vitals
from flux.transport.connections import Connection
from tests.no_descriptors import no_descriptors

MOST = 128  # so that 16 are to be free


class Known(Connections):
    """Connections that are no descriptors of this process."""

    def __init__(self, count: int) -> None:
        super().__init__([])
        self.left = count

    def __len__(self) -> int:
        return self.left

    def drop_newest(self, count: int) -> list[Connection]:
        ended = min(count, self.left)
        self.left -= ended
        return [Connection(-1, 0, "peer")] * ended


@pytest.mark.parametrize(
    ("files", "known", "kept"),
    [
        (40, 72, 72),  # all fit
        (40, 80, 72),
        (40, 88, 72),
        (118, 2, 2),  # files take more than they should: half of what they leave is for connections
        (118, 10, 5),
        (128, 0, 0),
    ],
)
def test_it_drops_the_newest_beyond_what_files_leave(
    monkeypatch: pytest.MonkeyPatch, files: int, known: int, kept: int
) -> None:
    connections, vitals = Known(known), Vitals()
    monkeypatch.setattr(resource, "getrlimit", lambda _: (MOST, MOST))
    monkeypatch.setattr(descriptors, "count_open", lambda: files + len(connections))
    watch = DescriptorWatch(connections, vitals)
    for _ in range(3):
        watch.look()
    assert (len(connections), watch.dropped) == (kept, known - kept)
    short = files + known > MOST - 16
    assert (vitals.state is State.DEGRADED) is short
    assert ("are dropped" in vitals.reason) is (kept < known)
    assert ("no connection is dropped" in vitals.reason) is (short and kept == known)
    files = 10
    for _ in range(CALM_LOOKS):
        watch.look()
    assert vitals.reason == ""


def test_where_files_take_all_nothing_is_said_to_be_dropped() -> None:
    vitals = Vitals()
    watch = DescriptorWatch(Connections([]), vitals)
    with no_descriptors():
        watch.look()
    assert vitals.state is State.DEGRADED
    assert "no connection is dropped" in vitals.reason
    assert watch.dropped == 0

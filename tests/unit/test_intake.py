"""The watch on what a server makes libzmq keep for a client: what a drop is counted as, and when."""

from __future__ import annotations

import threading

import pytest

from flux.transport import intake
from flux.transport.connections import Connection
from flux.transport.intake import Taken, Watched

HELD_S = 0.2  # for which the end of a connection is held up: nothing of it can be seen before


@pytest.fixture
def watched() -> Watched:
    return Watched("tcp://127.0.0.1:1", list, Taken)


def test_a_drop_is_counted_when_its_end_is_seen(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the end of a connection and its count another thread looked: the next connection that went, an innocent
    one, was said to have been dropped."""
    seen: list[tuple[int, str]] = []
    loop = threading.Thread(target=lambda: seen.append((watched.dropped, watched.why)))

    def end(_: Connection) -> bool:
        loop.start()
        loop.join(HELD_S)
        return True

    monkeypatch.setattr(intake, "end", end)
    watched._drop(Connection(1, 2, "a:1"), 1 << 20, "for a test")
    loop.join()
    assert seen == [(1, "tcp://127.0.0.1:1 sent 1.0 MiB, for a test: its connection was dropped")]


def test_one_that_went_by_itself_is_no_drop(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "end", lambda _: False)
    watched._drop(Connection(1, 2, "a:1"), 1 << 20, "for a test")
    assert (watched.dropped, watched.why) == (0, "")

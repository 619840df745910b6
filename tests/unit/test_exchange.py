"""The two groups between loop and committer: never a third, nothing lost between them."""

from __future__ import annotations

import threading

import pytest

from flux import journal
from flux.journal.records import StreamRecord
from flux.server.pipeline.exchange import Exchange
from tests.patience import PATIENCE_S

BODY = bytes(100)
RECORD_BYTES = 120  # header 12, body 100, checksum 4, padding 4


def append(exchange: Exchange, count: int = 1, label: int = 0) -> None:
    with exchange.fill() as filled:
        for _ in range(count):
            filled.group.append(journal.SOURCE, BODY, label)


def test_what_was_filled_is_taken_once() -> None:
    exchange = Exchange(4_096)
    assert exchange.empty
    append(exchange, 3)
    assert not exchange.empty
    taken = exchange.take(0)
    assert taken is not None
    assert taken.group.count == 3
    assert exchange.take(0) is None
    assert not exchange.empty, "it is being committed"
    exchange.give_back(taken)
    assert exchange.empty


def test_the_loop_fills_one_while_the_other_is_committed() -> None:
    exchange = Exchange(4_096)
    append(exchange, label=1)
    first = exchange.take(0)
    append(exchange, label=2)
    append(exchange, label=3)
    assert first is not None
    assert first.group.entries["label"].tolist() == [1]
    exchange.give_back(first)
    second = exchange.take(0)
    assert second is not None
    assert second.group.entries["label"].tolist() == [2, 3]
    assert second is not first


def test_a_group_comes_back_empty() -> None:
    exchange = Exchange(4_096)
    with exchange.fill() as filled:
        filled.group.append(journal.SOURCE, BODY)
        filled.sources["feed"] = (1, 0)
        filled.streams.append(StreamRecord(1, "S", "X", "1m"))
    taken = exchange.take(0)
    assert taken is not None
    exchange.give_back(taken)
    assert (taken.group.count, taken.sources, taken.streams) == (0, {}, [])


def test_taking_twice_without_giving_back_is_a_fault_of_ours() -> None:
    exchange = Exchange(4_096)
    append(exchange)
    exchange.take(0)
    append(exchange)
    with pytest.raises(AssertionError):
        exchange.take(0)


def test_room_is_that_of_the_group_being_filled() -> None:
    exchange = Exchange(4_096)
    assert exchange.wait_for_room(4_096, 1, 0)
    append(exchange)
    assert not exchange.wait_for_room(4_096, 1, 0)
    assert exchange.wait_for_room(4_096 - RECORD_BYTES, 1, 0)
    assert exchange.take(0) is not None
    assert exchange.wait_for_room(4_096, 1, 0)


def test_who_waits_is_woken() -> None:
    """A committer that waits for rows, a loop that waits for room, a committer that waits when it is closed."""
    exchange = Exchange(4_096)
    found: list[object] = []

    def after(wait: object) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(wait()))  # type: ignore[operator]  # any callable
        thread.start()
        return thread

    taking = after(lambda: exchange.take(PATIENCE_S))
    append(exchange)
    taking.join(PATIENCE_S)
    assert exchange.wait_for_room(4_096, 1, 0)
    append(exchange)
    waiting = after(lambda: exchange.wait_for_room(4_096, 1, PATIENCE_S))
    exchange.give_back(found[0])  # type: ignore[arg-type]  # what take() gave
    assert exchange.take(0) is not None
    waiting.join(PATIENCE_S)
    closed = after(lambda: exchange.take(PATIENCE_S))
    exchange.close()
    closed.join(PATIENCE_S)
    assert found[1:] == [True, None]


def test_closed_what_was_filled_is_still_taken() -> None:
    exchange = Exchange(4_096)
    append(exchange)
    exchange.close()
    taken = exchange.take(0)
    assert taken is not None
    exchange.give_back(taken)
    assert exchange.take(PATIENCE_S) is None

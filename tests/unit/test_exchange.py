"""The two groups between loop and committer: never a third, nothing lost between them."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading

import pytest

from flux import journal
from flux.journal.records import StreamRecord
from flux.server.pipeline.exchange import Exchange, Filled
from tests.patience import PATIENCE_S

BODY = bytes(100)
PATIENCE_NS = round(PATIENCE_S * 1e9)
RECORD_BYTES = 120  # header 12, body 100, checksum 4, padding 4


def append(exchange: Exchange, count: int = 1, label: int = 0) -> None:
    with exchange.fill() as filled:
        for _ in range(count):
            filled.group.append(journal.SOURCE, BODY, label)


def take(exchange: Exchange) -> Filled:
    assert exchange.handover.kernel.take(0)
    return exchange.taken()


def test_what_was_filled_is_taken_once() -> None:
    exchange = Exchange(4_096)
    assert exchange.empty
    append(exchange, 3)
    assert not exchange.empty
    taken = take(exchange)
    assert taken.group.count == 3
    assert not exchange.empty, "it is being committed"
    exchange.handover.kernel.give_back()
    assert exchange.empty
    assert not exchange.handover.kernel.take(0)


def test_the_loop_fills_one_while_the_other_is_committed() -> None:
    exchange = Exchange(4_096)
    append(exchange, label=1)
    first = take(exchange).group
    append(exchange, label=2)
    append(exchange, label=3)
    assert first.entries["label"].tolist() == [1]
    exchange.handover.kernel.give_back()
    second = take(exchange).group
    assert second.entries["label"].tolist() == [2, 3]
    assert second is not first


def test_what_stands_beside_a_group_is_handed_out_once() -> None:
    exchange = Exchange(4_096)
    with exchange.fill() as filled:
        filled.group.append(journal.SOURCE, BODY)
        filled.sources["feed"] = (1, 0)
        filled.streams.append(StreamRecord(1, "S", "X", "1m"))
    taken = take(exchange)
    assert (taken.sources, taken.streams) == ({"feed": (1, 0)}, [StreamRecord(1, "S", "X", "1m")])
    exchange.handover.kernel.give_back()
    assert taken.group.count == 0
    append(exchange)
    append(exchange)
    again = take(exchange)
    assert (again.group.count, again.sources, again.streams) == (2, {}, [])


@pytest.mark.parametrize(
    ("calls", "said"),
    [
        ("fill(); x.take(0); fill(); x.take(0)", "from state 4 to 1"),  # TAKEN, and WAITING
        ("x.give_back()", "from state 0 to 0"),
        ("fill(); x.take(0); x.give_back(); x.give_back()", "from state 0 to 0"),
    ],
)
def test_a_state_that_cannot_follow_ends_the_process(calls: str, said: str) -> None:
    """Taken twice, or given back without being taken: a group would be lost, or committed twice."""
    code = f"""
from flux import journal
from flux.server.pipeline.exchange import Exchange
exchange = Exchange(4_096)
x = exchange.handover.kernel
def fill():
    with exchange.fill() as filled:
        filled.group.append(journal.SOURCE, b"")
{calls}
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (-signal.SIGABRT, f"flux: the exchange goes {said}\n")


def test_room_is_that_of_the_group_being_filled() -> None:
    exchange = Exchange(4_096)
    assert exchange.wait_for_room(4_096, 1, 0)
    append(exchange)
    assert not exchange.wait_for_room(4_096, 1, 0)
    assert exchange.wait_for_room(4_096 - RECORD_BYTES, 1, 0)
    take(exchange)
    assert exchange.wait_for_room(4_096, 1, 0)


def test_who_waits_is_woken() -> None:
    """A committer that waits for rows, a loop that waits for room, a committer that waits when it is closed."""
    exchange = Exchange(4_096)
    found: list[object] = []

    def after(wait: object) -> threading.Thread:
        thread = threading.Thread(target=lambda: found.append(wait()))  # type: ignore[operator]  # any callable
        thread.start()
        return thread

    taking = after(lambda: exchange.handover.kernel.take(PATIENCE_NS))
    append(exchange)
    taking.join(PATIENCE_S)
    assert exchange.wait_for_room(4_096, 1, 0)
    append(exchange)
    waiting = after(lambda: exchange.wait_for_room(4_096, 1, PATIENCE_S))
    exchange.handover.kernel.give_back()
    take(exchange)
    waiting.join(PATIENCE_S)
    exchange.handover.kernel.give_back()
    closed = after(lambda: exchange.handover.kernel.take(PATIENCE_NS))
    exchange.close()
    closed.join(PATIENCE_S)
    assert found == [True, True, False]


def test_closed_what_was_filled_is_still_taken() -> None:
    exchange = Exchange(4_096)
    append(exchange)
    exchange.close()
    take(exchange)
    exchange.handover.kernel.give_back()
    assert not exchange.handover.kernel.take(PATIENCE_NS)

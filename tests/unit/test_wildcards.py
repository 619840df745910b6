"""Every symbol of a source and an interval: what is asked of the server, and when it is asked no more."""

from __future__ import annotations

import pytest

from flux.limits import BACKOFF_MIN_MS, MAX_ASKS, MAX_LIST_STREAMS
from flux.model import StreamKey
from flux.protocol.effects import Ask, AskKind, Fail, Join, Speak
from flux.protocol.replies import Listing, Refusal, RefusalStatus, Reply, Status, TimedOut
from tests.unit.coordinator_bench import EPOCH, STORE, Bench
from tests.unit.simulated import MS, SECOND

OTHER_VERSION = Refusal("unsupported schema_version 2", 400)


def listed(*stream_ids: int, more: bool = False) -> Listing:
    found = (Status(StreamKey("SIM", f"S{n}", "1h"), 5, 1, STORE, EPOCH, n) for n in stream_ids)
    return Listing(tuple(found), more)


def asks(bench: Bench, ns: int = 0) -> list[Ask]:
    """What is asked for lists within a time."""
    bench.wait(ns)
    return [ask for ask in bench.of(Ask) if ask.kind is AskKind.LIST]


def test_pages_follow_at_once_and_the_last_one_ends_it() -> None:
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1h", "oldest", bench.now)
    (ask,) = asks(bench)
    assert (ask.prefix, ask.limit, ask.after_stream_id) == ("SIM/1h/", MAX_LIST_STREAMS, 0)
    bench.answer(ask, listed(12, 40, 31, more=True))
    assert [join.key.symbol for join in bench.of(Join)] == ["S12", "S40", "S31"]
    (ask,) = asks(bench)
    assert ask.after_stream_id == 40
    bench.answer(ask, listed(41))
    assert bench.of(Join) == [Join(StreamKey("SIM", "S41", "1h"), "oldest")]
    bench.machine.link_down(bench.now)
    bench.machine.link_up(bench.now)
    bench.beat()
    assert asks(bench, 60 * SECOND) == [], "what is listed once shows itself live"


def test_a_page_without_streams_ends_it_whatever_it_says() -> None:
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1h", "oldest", bench.now)
    bench.answer(asks(bench)[0], listed(more=True))
    assert asks(bench, 60 * SECOND) == []


def test_a_stream_that_is_followed_already_is_not_joined() -> None:
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1m", "oldest", bench.now)
    (ask,) = asks(bench)
    followed = Status(bench.machine.stream(0).key, 5, 1, STORE, EPOCH, 9)
    bench.answer(ask, Listing((followed,), False))
    assert bench.of(Join) == []


def test_without_a_start_one_stream_is_asked_for_on_every_link() -> None:
    """Only an answer shows which version the server speaks."""
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1h", None, bench.now)
    (ask,) = asks(bench)
    assert ask.limit == 1
    bench.answer(ask, listed(12, more=True))
    assert (bench.of(Join), asks(bench, 60 * SECOND)) == ([], [])
    bench.machine.link_down(bench.now)
    bench.machine.link_up(bench.now)
    bench.beat()
    (ask,) = asks(bench)
    bench.answer(ask, OTHER_VERSION)
    assert bench.of(Speak) == [Speak(1)]
    bench.machine.link_down(bench.now)
    bench.machine.link_up(bench.now)
    bench.beat()
    assert asks(bench, 60 * SECOND) == [], "version 1 has no list"


@pytest.mark.parametrize(
    "reply",
    [
        OTHER_VERSION,
        Refusal("no such request", 501, RefusalStatus.UNIMPLEMENTED),
        Refusal("no such prefix", 400, RefusalStatus.INVALID_ARGUMENT),
    ],
    ids=["version", "unimplemented", "invalid"],
)
def test_a_server_that_has_no_list_is_not_asked_again(reply: Reply) -> None:
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1h", "oldest", bench.now)
    bench.answer(asks(bench)[0], reply)
    assert (asks(bench, 60 * SECOND), bench.of(Fail)) == ([], [])


@pytest.mark.parametrize("reply", [TimedOut(), Refusal("busy", 503, RefusalStatus.UNAVAILABLE), Refusal("?")])
def test_after_a_failure_the_same_page_is_asked_for_with_longer_and_longer_pauses(reply: Reply) -> None:
    bench = Bench().join()
    bench.machine.subscribe_all("SIM", "1h", "oldest", bench.now)
    bench.answer(asks(bench)[0], listed(12, more=True))
    (ask,) = asks(bench)
    for failures in range(1, 5):
        bench.answer(ask, reply)
        full = (BACKOFF_MIN_MS << (failures - 1)) * MS
        assert asks(bench, full // 2 - 1) == []
        (ask,) = asks(bench, full // 2 + 1)
        assert ask.after_stream_id == 12
    bench.answer(ask, listed(13, more=True))
    (ask,) = asks(bench)
    bench.answer(ask, reply)
    (ask,) = asks(bench, BACKOFF_MIN_MS * MS)
    assert ask.after_stream_id == 13, "an answer ends the row of failures"


def test_it_waits_for_its_turn_when_all_requests_are_under_way() -> None:
    bench = Bench().join()
    for n in range(MAX_ASKS + 1):
        bench.machine.subscribe_all("SIM", f"{n + 1}h", "oldest", bench.now)
    under_way = asks(bench)
    assert len(under_way) == MAX_ASKS
    bench.answer(under_way[0], listed())
    assert asks(bench, BACKOFF_MIN_MS * MS - 1) == []
    (last,) = asks(bench, 1)
    assert {last.prefix, *(ask.prefix for ask in under_way)} == {
        f"SIM/{n + 1}h/" for n in range(MAX_ASKS + 1)
    }


def test_nothing_is_asked_without_a_link_and_once_while_an_answer_is_under_way() -> None:
    bench = Bench()
    bench.machine.subscribe_all("SIM", "1h", "oldest", bench.now)
    assert asks(bench, 60 * SECOND) == []
    bench.machine.link_up(bench.now)
    bench.beat()
    assert [ask.prefix for ask in asks(bench)] == ["SIM/1h/"]
    bench.machine.subscribe_all("SIM", "2h", "oldest", bench.now)
    bench.beat()
    assert [ask.prefix for ask in asks(bench)] == ["SIM/2h/"]

"""What was dropped is logged by reason, each at most once a second, however many there are (B1)."""

from __future__ import annotations

import logging
import threading

import pytest

import flux
from flux import codec
from flux.feed.synth import candles
from flux.limits import LOG_REPEAT_NS
from flux.model import StreamKey
from flux.transport.drops import DropLog, Seldom
from flux.transport.topics import stream_topic
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import KEY


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 10**12
        monkeypatch.setattr("flux.transport.drops.time.monotonic_ns", lambda: self.now)


class Counts:
    def __init__(self) -> None:
        self.counters = {"messages": 0, "checksum": 0, "verify": 0}

    def last_refused(self) -> dict[str, tuple[StreamKey, int]]:
        return {}


def test_each_reason_once_a_second_with_all_that_were_dropped_meanwhile(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock, counts = Clock(monkeypatch), Counts()
    drops = DropLog(counts, "here")
    drops.look()
    assert not caplog.messages
    clock.now += LOG_REPEAT_NS
    for _ in range(1_000):
        counts.counters["messages"] += 2
        counts.counters["checksum"] += 1
        drops.look()
        clock.now += LOG_REPEAT_NS // 500
    said = [record for record in caplog.messages if "checksum" in record]
    assert 2 <= len(said) <= 3
    clock.now += LOG_REPEAT_NS
    drops.look()
    assert "(1000 since the start)" in caplog.messages[-1]
    assert not any("messages" in record for record in caplog.messages), "what is in order is no drop"
    before = len(caplog.messages)
    clock.now += LOG_REPEAT_NS
    drops.look()
    assert len(caplog.messages) == before, "nothing new"


def test_a_reason_is_due_once_a_second_and_others_are_not_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, seldom = Clock(monkeypatch), Seldom()
    assert [seldom.due("a"), seldom.due("a"), seldom.due("b")] == [True, False, True]
    clock.now += LOG_REPEAT_NS - 1
    assert not seldom.due("a")
    clock.now += 1
    assert seldom.due("a")


def test_a_client_logs_and_counts_what_it_drops(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "flux.transport")
    frame = codec.Encoder(KEY).encode(candles(1, 1), 11)
    assert isinstance(frame, bytes)
    flipped = bytearray(frame)
    flipped[60] ^= 1
    spoilt = {"checksum": bytes(flipped), "short": b"abc"}
    with LiveServer() as server:
        server.add(KEY, 10)
        with flux.Live(pub=server.pub, rep=server.rep) as live:
            live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id)
            live.start()
            server.subscribed(stream_topic(KEY))
            for bad in spoilt.values():
                for _ in range(200):
                    server.publisher.socket.send_multipart([stream_topic(KEY), bad])
            eventually(lambda: all(live.counters()[reason] == 200 for reason in spoilt))
            woken = threading.Event()
            eventually(lambda: (live._wake.set(), woken.wait(0.02), len(caplog.messages) >= 2)[2])
    for reason in spoilt:
        said = [record for record in caplog.messages if f": {reason} (" in record]
        assert 1 <= len(said) <= 20, "once a second at most"

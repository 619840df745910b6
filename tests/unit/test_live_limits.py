"""Bounds of a client that nothing else looks at: state changes that wait, how often it connects again, and how soon a
wrong version is an error.
"""

from __future__ import annotations

import socket
import time

import pytest
import zmq
from zmq.utils.monitor import parse_monitor_message

from flux.client.deliver import Notices, StateChange
from flux.errors import VersionError
from flux.limits import MAX_NOTICES, RECONNECT_MAX_MS, RECONNECT_MIN_MS
from flux.protocol.stream_state import StreamState
from flux.schema import messages
from flux.transport.sockets import Sockets
from flux.transport.topics import BEAT
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY, live_of
from tests.unit.live_server import LiveServer
from tests.unit.test_live import of_version


def test_state_changes_that_nobody_takes_are_bounded_and_the_oldest_go() -> None:
    notices = Notices()
    for number in range(MAX_NOTICES + 5):
        notices.put(StateChange(KEY, StreamState.IDLE, str(number)))
    notices.close()
    reasons = []
    while (change := notices.take()) is not None:
        reasons.append(int(change.reason))
    assert reasons == list(range(5, MAX_NOTICES + 5))
    assert MAX_NOTICES <= 10_000


def test_a_publisher_that_is_away_is_tried_again_with_growing_pauses() -> None:
    """100 ms to 5 s (C5), as libzmq reports its own waits."""
    assert (RECONNECT_MIN_MS, RECONNECT_MAX_MS) == (100, 5_000)
    with socket.socket() as holder, Sockets() as sockets:
        holder.bind(("127.0.0.1", 0))  # not listening: refused
        made = sockets.subscriber(f"tcp://127.0.0.1:{holder.getsockname()[1]}", [b""])
        assert made.getsockopt(zmq.RECONNECT_IVL) == RECONNECT_MIN_MS
        assert made.getsockopt(zmq.RECONNECT_IVL_MAX) == RECONNECT_MAX_MS
        watch = made.get_monitor_socket(zmq.EVENT_CONNECT_RETRIED)
        pauses: list[int] = []
        while len(pauses) < 4:
            assert watch.poll(int(PATIENCE_S * 1_000)), pauses
            pauses.append(int(parse_monitor_message(watch.recv_multipart())["value"]))
        made.disable_monitor()
        watch.close()
    assert RECONNECT_MIN_MS <= pauses[0] <= 2 * RECONNECT_MIN_MS
    assert pauses[-1] > 2 * pauses[0], pauses
    assert max(pauses) <= RECONNECT_MAX_MS


def test_a_wrong_version_is_an_error_within_a_second() -> None:
    """C10. The best of three, for the machine may be busy; a time-out of any kind would be in all of them."""
    took = []
    for _ in range(3):
        with LiveServer() as server:
            server.add(KEY, 1)
            with live_of(server) as live:
                live.subscribe("BTCUSDT", interval="1m")
                live.start()
                server.subscribed(BEAT)
                began = time.monotonic()
                server.publisher.socket.send_multipart([BEAT, of_version(99, messages.health_request())])
                with pytest.raises(VersionError):
                    next(live)
                took.append(time.monotonic() - began)
        if took[-1] < 1:
            return
    raise AssertionError(f"it took {took} s")

"""`flux.Historical` against servers whose answers never end: the call's time bounds all of them together."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import zmq

from flux import codec
from flux.client.historical import Historical
from flux.errors import RequestTimeout
from flux.model import CANDLE, StreamKey
from flux.protocol.replies import PageStatus
from flux.schema import messages
from tests.patience import PATIENCE_S

KEY = StreamKey("SIM", "BTCUSDT", "1m")


class Lying:
    """A server that answers every request as `answer` makes it, for ever."""

    def __init__(self, answer: Callable[[Any], bytes]) -> None:
        self._answer = answer
        self._sockets = zmq.Context()
        self._router = self._sockets.socket(zmq.ROUTER)
        self._router.linger = 0
        self._router.bind("tcp://127.0.0.1:*")
        self.rep = self._router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        self.asked = 0
        self._stopping = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stopping:
            if self._router.poll(20):
                *route, payload = self._router.recv_multipart()
                self.asked += 1
                self._router.send_multipart([*route, self._answer(codec.decode(payload))])

    def __enter__(self) -> Lying:
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping = True
        self._thread.join()
        self._sockets.destroy(0)


def always_one_further(request: Any) -> bytes:
    """A hole after every sequence that is asked for, one sequence long."""
    after = request.from_sequence_exclusive
    return codec.encode_backfill(
        KEY,
        after + 1,
        np.empty(0, CANDLE),
        status=PageStatus.HOLE,
        first_available_sequence=after + 2,
        watermark_sequence=2**62,
        correlation_id=request.correlation_id,
    )


def always_one_more_stream(request: Any) -> bytes:
    streams = [{"key": KEY, "latest_sequence": 1, "stream_id": request.after_stream_id + 1}]
    return messages.stream_list_response(
        streams=streams, has_more=True, correlation_id=request.correlation_id
    )


@pytest.mark.parametrize(
    ("answer", "ask"),
    [
        (always_one_further, lambda hist: hist.get_range("BTCUSDT", interval="1m")),
        (always_one_further, lambda hist: list(hist.iter_range("BTCUSDT", interval="1m"))),
        (always_one_more_stream, Historical.list_streams),
    ],
    ids=["range", "batches", "list"],
)
def test_a_server_that_leads_on_for_ever_is_left_when_the_time_is_over(
    answer: Callable[[Any], bytes], ask: Callable[[Historical], object]
) -> None:
    """Each answer is quick and may be true; the call's time bounds all of them."""
    with Lying(answer) as server, Historical(rep=server.rep, timeout=0.5) as hist:
        failed: list[Exception] = []

        def call() -> None:
            try:
                ask(hist)
            except RequestTimeout as error:
                failed.append(error)

        calling = threading.Thread(target=call, daemon=True)
        calling.start()
        calling.join(PATIENCE_S / 3)
        assert failed, "it asks for ever"
        assert server.asked > 2

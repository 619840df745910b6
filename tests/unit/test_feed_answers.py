"""A feed believes no position that cannot be."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zmq

from flux import codec
from flux.errors import AnswerError
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.limits import MAX_REFUSED_LISTED
from flux.model import REFUSED
from flux.schema import messages
from tests.patience import PATIENCE_S


class Liar:
    """Registers a run, and answers every question for its position with `said`, once rows have come."""

    def __init__(self) -> None:
        self.said: dict[str, Any] = {}
        self._registered = False
        self._over = threading.Event()
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._requests, self._rows = self._context.socket(zmq.ROUTER), self._context.socket(zmq.PULL)
        self.chunk_rep, self.ingest = (
            f"tcp://127.0.0.1:{socket.bind_to_random_port('tcp://127.0.0.1')}"
            for socket in (self._requests, self._rows)
        )
        self._thread = threading.Thread(target=self._answer)
        self._thread.start()

    def _answer(self) -> None:
        while not self._over.is_set():
            if not self._requests.poll(50):
                continue
            *envelope, payload = self._requests.recv_multipart()
            asked: Any = codec.decode(payload)
            head = {"correlation_id": asked.correlation_id, "schema_version": 2}
            if asked.claim:
                self._registered = True
            elif self._registered:
                self._rows.poll(int(PATIENCE_S * 1_000))  # what it says is judged by what was sent
            said = {"committed": 0, "incarnation": 1} | (
                self.said if self._registered and not asked.claim else {}
            )
            reply = messages.source_position_response(source_id="SIM", run=asked.run, **said, **head)
            self._requests.send_multipart([*envelope, reply])
        self._context.destroy(linger=0)

    def close(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def liar() -> Iterator[Liar]:
    made = Liar()
    yield made
    made.close()


def refused(*rows: int) -> np.ndarray[Any, Any]:
    out = np.zeros(len(rows), REFUSED)
    out["row"], out["reason"] = rows, 4
    return out


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"committed": 11}, "11 rows of this run are committed; 10 were sent"),
        ({"committed": 2**63 - 1}, "10 were sent"),
        ({"committed": 10, "refused": refused(5, 11)}, "2 refused rows that cannot be"),
        ({"committed": 10, "refused": refused(2**64 - 1)}, "1 refused rows that cannot be"),
        ({"committed": 10, "refused": refused(5, 3)}, "out of order"),
        ({"committed": 10, "refused": refused(*range(MAX_REFUSED_LISTED + 1))}, "257 refused rows that"),
    ],
    ids=["more", "most", "beyond", "highest", "order", "many"],
)
def test_a_position_that_cannot_be_is_an_error(liar: Liar, said: dict[str, Any], why: str) -> None:
    liar.said = said
    with (  # noqa: PT012  closing raises it too
        pytest.raises(AnswerError, match=why),
        Feed("SIM", ingest=liar.ingest, chunk_rep=liar.chunk_rep) as feed,
    ):
        feed.send("BTC", "1m", candles(10, 1))
        feed.flush(PATIENCE_S)

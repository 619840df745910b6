"""The list of streams: health and other requests are answered while a prefix is looked for among many."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import zmq

from flux import codec, limits
from flux.model import StreamKey
from flux.schema import messages
from flux.server.requests.view import StreamView
from tests.patience import PATIENCE_S
from tests.unit.served import Served, Stream, rows_at
from tests.unit.test_router import WAIT_MS, health, serving


class Many(Served):
    """More streams than one turn looks at; `reached` is called by the request thread at each of them."""

    def __init__(self, count: int) -> None:
        super().__init__(
            *(Stream(StreamKey("SIM", f"S{n}", "1m"), n, rows_at([])) for n in range(1, count + 1))
        )
        self.reached: Callable[[int], None] = lambda _: None

    def streams_after(self, stream_id: int) -> Iterator[StreamView]:
        for view in super().streams_after(stream_id):
            self.reached(view.stream_id)
            yield view


def test_health_does_not_wait_for_a_long_list_of_streams() -> None:
    last = 3 * limits.LIST_STREAMS_PER_TURN
    server = Many(last)
    began, replied_at_the_end = threading.Event(), []
    with serving(server) as made:

        def reached(number: int) -> None:
            if number == 1:
                began.set()
            if number == limits.LIST_STREAMS_PER_TURN + 1 and not made.requests.counts.replied:
                assert made.requests.socket.poll(WAIT_MS), "the other client's request never came"
            if number == last:
                replied_at_the_end.append(made.requests.counts.replied)

        server.reached = reached
        lister, other = made.client(zmq.DEALER), made.client(zmq.DEALER)
        lister.send(messages.stream_list_request(prefix=f"SIM/1m/S{last}", correlation_id="L"))
        assert began.wait(PATIENCE_S)
        other.send(health())
        assert codec.decode(other.recv()).ok
        found = codec.decode(lister.recv())
        assert ([s.stream_id for s in found.streams], found.has_more) == ([last], False)
        assert found.correlation_id == "L"
    assert replied_at_the_end == [1], "the list was made in one piece"


def test_a_list_that_meets_a_fault_of_the_servers_is_internal() -> None:
    server = Many(2 * limits.LIST_STREAMS_PER_TURN)

    def reached(number: int) -> None:
        if number > limits.LIST_STREAMS_PER_TURN:
            raise OverflowError("unforeseen")

    server.reached = reached
    with serving(server) as made:
        client = made.client(zmq.REQ)
        client.send(messages.stream_list_request(prefix="SIM/none", correlation_id="7"))
        refused = codec.decode(client.recv())
        assert isinstance(refused, codec.ErrorResponse)
        assert (refused.code, refused.status, refused.correlation_id) == (500, 6, "7")
        client.send(health())
        assert codec.decode(client.recv()).ok

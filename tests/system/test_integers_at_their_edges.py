"""Each field of each message at its edges, to a running server and to running clients: one answer, nobody dies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

import flux
from flux import codec
from flux.errors import FluxError
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.limits import MAX_CORRELATION_BYTES, MAX_REQUEST_BYTES, MIB
from flux.model import MARK, QUOTE, TRADE, StreamKey
from flux.server.requests.answers import Answers
from flux.transport.topics import BEAT, stream_topic
from tests.patience import PATIENCE_S
from tests.system.edges import BATCHES, REQUESTS, SHAPES, Edge, correlations, edges, honest
from tests.system.neighbour import Neighbour, memory
from tests.system.processes import FluxServer
from tests.unit.live_server import LiveServer, eventually
from tests.unit.served import KEY, STORE_ID

BAD = StreamKey("EDGE", "BTC/USDT", "1m")
GROWTH = 50 * MIB
WAIT_MS = int(PATIENCE_S * 1_000)

_NAMES = {"source_id": BAD.source_id, "symbol": BAD.symbol, "interval": BAD.interval}


def known(tag: int, **more: Any) -> dict[str, Any]:
    """An honest message about BAD."""
    rows = {19: np.ones(2, TRADE), 20: np.ones(2, QUOTE)}.get(tag, candles(2, 1))
    marks = np.zeros(2, MARK)
    marks["stream_id"], marks["latest_sequence"] = (1, 2), 3
    said = {"key": _NAMES, "source_id": BAD.source_id, "start_sequence": 1, "rows": rows, "marks": marks}
    return honest(tag, **{**said, **more})


def all_edges(tags: Sequence[int], **more: Any) -> Iterator[Edge]:
    for tag in tags:
        yield from edges(tag, known(tag, **more))
        yield from correlations(tag, known(tag, **more))


def test_the_tables_here_have_every_slot_of_the_schema() -> None:
    """They may know more: what a newer minor version appended."""
    text = re.sub("//.*", "", (Path(__file__).parents[2] / "schemas/market_data.fbs").read_text())
    bodies = dict(re.findall(r"table (\w+) \{(.*?)\}", text, re.DOTALL))
    union = re.search(r"union \w+ \{(.*?)\}", text, re.DOTALL)
    assert union is not None
    members = [name.strip() for name in union[1].split(",") if name.strip()]
    assert list(SHAPES) == list(range(1, len(members) + 1))
    for tag, name in enumerate(members, 1):
        slots = [slot.partition(":")[0].strip() for slot in bodies[name].split(";") if ":" in slot]
        assert [slot for slot, _ in SHAPES[tag]][: len(slots)] == slots, name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FluxServer]:
    with FluxServer(tmp_path_factory.mktemp("edges") / "d", "--ingest", "tcp://127.0.0.1:*") as made:
        with Feed(BAD.source_id, ingest=made.ingest, chunk_rep=made.rpc) as feed:
            feed.send(BAD.symbol, BAD.interval, candles(100, 2))
            feed.flush(PATIENCE_S)
        yield made
        assert made.process.poll() is None, made.errors()
        assert made.stop() == 0


def socket_to(context: zmq.Context[Any], kind: int, endpoint: str) -> zmq.Socket[bytes]:
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, WAIT_MS)
    socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    socket.connect(endpoint)
    return socket


def test_each_request_gets_one_answer(server: FluxServer) -> None:
    with Neighbour(server), zmq.Context() as context, socket_to(context, zmq.DEALER, server.rpc) as peer:
        before = memory(server.pid)
        for edge in all_edges((*REQUESTS, *(tag for tag in SHAPES if tag not in REQUESTS))):
            for version in (1, 2):
                sent = edge.frame(version)
                peer.send_multipart([b"", sent])
                reply = codec.decode(peer.recv_multipart()[-1])
                wanted = edge.envelope.get("correlation_id", "1")
                readable = (
                    len(sent) <= MAX_REQUEST_BYTES and len((wanted or "").encode()) <= MAX_CORRELATION_BYTES
                )
                if readable:
                    assert reply.correlation_id == wanted, edge.what
                assert type(reply).__name__.endswith(("Response", "Ack")), edge.what
                assert not (isinstance(reply, codec.ErrorResponse) and reply.code == 500), edge.what
        assert peer.poll(0) == 0, "more answers than requests"
        assert memory(server.pid) < before + GROWTH


def test_rows_at_their_edges_end_nobody(server: FluxServer) -> None:
    with Neighbour(server), zmq.Context() as context, socket_to(context, zmq.PUSH, server.ingest) as peer:
        before = memory(server.pid)
        for number, edge in enumerate(all_edges((*BATCHES, 16, 23))):
            for version in (1, 2):
                peer.send(edge.frame(version))
                run = {**edge.slots, "store_id": edge.slots.get("store_id") or 1 + number % 100}
                peer.send(edge._replace(slots=run).frame(version))  # as a run of its own
        assert memory(server.pid) < before + GROWTH


def test_subscriptions_of_any_bytes_end_nobody(server: FluxServer) -> None:
    with Neighbour(server), zmq.Context() as context, socket_to(context, zmq.XSUB, server.pub) as peer:
        for size in (0, 1, 4_094, 4_095, 4_096, 65_536):
            for first in (0, 1, 2, 255):
                peer.send(bytes([first]) + b"\xff" * size)
                peer.send(bytes([first]) + b"candles." + b"A" * size)


# Clients


class Lying(Answers):
    """Answers honestly, but for BAD: there the next of `lies` that answers such a request."""

    def __init__(self, view: Any) -> None:
        super().__init__(view)
        self.lies: dict[type, list[Edge]] = {}
        self.told = 0

    def lie(self, asked: str, edges_of: Sequence[Edge]) -> None:
        self.lies[getattr(codec, asked)] = list(edges_of)

    @property
    def left(self) -> int:
        return sum(map(len, self.lies.values()))

    def answer(self, body: Sequence[bytes]) -> Any:
        request = codec.decode(body[0])
        about = getattr(request, "source_id", None) or getattr(request, "prefix", None) or ""
        key = getattr(request, "key", None)
        lies = self.lies.get(type(request), [])
        if lies and (key == BAD or about.startswith(BAD.source_id)):
            self.told += 1
            edge = lies.pop()
            return edge.frame(request.schema_version, request.correlation_id)
        return super().answer(body)


@pytest.fixture
def lying() -> Iterator[tuple[LiveServer, Lying]]:
    with LiveServer() as made:
        made.add(KEY, 10)
        made.add(BAD, 10)
        answers = made.requests._answers = Lying(made.served)
        yield made, answers


def replies(tag: int) -> list[Edge]:
    whole = {
        "store_id": STORE_ID, "epoch": 1, "latest_sequence": 10, "first_sequence": 1, "watermark_sequence": 10,
        "first_available_sequence": 1, "row_count": 2, "stream_id": 2, "interval_ms": 1_000, "run": 1,
        "cursor": {"latest_sequence": 10, "latest_ts_ms": 1}, "candles": [{"ts_ms": 1, "open": 1.0}],
        "streams": [{"key": _NAMES, "stream_id": 2, "latest_sequence": 10, "store_id": STORE_ID, "epoch": 1}],
    }  # fmt: skip
    return [*edges(tag, known(tag, **whole)), *correlations(tag, known(tag, **whole))]


def test_historical_gives_rows_or_an_error_of_ours(lying: tuple[LiveServer, Lying]) -> None:
    server, answers = lying
    before = memory(os.getpid())
    with flux.Historical(rep=server.rep, timeout=0.05) as historical:
        asks = (
            ("StreamStatusRequest", (12, 10, 2), lambda: historical.get_status(BAD)),
            ("StreamListRequest", (18, 10), lambda: historical.list_streams(f"{BAD.source_id}/")),
            ("BackfillRowsRequest", (15, 10, 12), lambda: get(historical, BAD)),
        )
        for asked, tags, ask in asks:
            for tag in tags:
                for edge in replies(tag):
                    if "correlation_id" in edge.envelope and tag != tags[0]:
                        continue  # each of them costs a deadline
                    answers.lie(asked, [edge])
                    try:
                        ask()
                    except FluxError:
                        pass
                    except Exception as error:
                        raise AssertionError(f"{asked}: {edge.what}") from error
                    answers.lies.clear()
                    historical._requester.version = 2
        with flux.Historical(rep=server.rep) as honest_one:
            assert len(get(honest_one, KEY)) == 10
    assert memory(os.getpid()) < before + GROWTH


def get(historical: flux.Historical, key: StreamKey) -> Any:
    return historical.get_range(key.symbol, interval=key.interval, source=key.source_id)


def test_live_goes_on_beside_a_stream_of_lies(lying: tuple[LiveServer, Lying]) -> None:
    server, answers = lying
    with flux.Live(pub=server.pub, rep=server.rep) as live:
        live.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        live.subscribe(BAD.symbol, interval=BAD.interval, source=BAD.source_id, start="oldest")
        live.subscribe("*", interval="5m", source=BAD.source_id)
        batches = iter(live)
        server.subscribed(stream_topic(BAD))
        server.beat()
        answers.lie("StreamListRequest", replies(18))
        before, good = memory(os.getpid()), taken(batches, 10)
        for tag in (*BATCHES, 16, 23, 12, 15):
            for edge in edges(tag, known(tag, store_id=STORE_ID, epoch=1, stream_id=2, interval_ms=1_000)):
                if edge.what.split()[2].startswith("schema_version") and edge.envelope["version"] > 2:
                    continue  # of another major version it says so and ends, on purpose
                for version in (1, 2):
                    topic = BEAT if tag == 16 else stream_topic(BAD)
                    server.publisher.socket.send_multipart([topic, edge.frame(version)])
            answers.lie("BackfillRowsRequest", replies(15)[:: 1 + len(replies(15)) // 8])
            answers.lie("StreamStatusRequest", replies(12)[:: 1 + len(replies(12)) // 8])
            server.publish(KEY, 5)
            good += taken(batches, 5)
        assert good == 10 + 5 * (len(BATCHES) + 4)
        assert live.counters()["bounds"] > 0
        assert memory(os.getpid()) < before + GROWTH


def taken(batches: Iterator[Any], count: int) -> int:
    """Rows of the good stream, at least `count`, in order."""
    got = 0
    while got < count:
        batch = next(batches)
        if batch.key == KEY:
            got += len(batch)
    return got


@pytest.mark.parametrize("version_error", [False, True])
def test_a_feed_goes_on_or_fails_and_says_so(tmp_path: Path, version_error: bool) -> None:
    with LiveServer() as server:
        answers = server.requests._answers = Lying(server.served)
        for edge in replies(25) + [edge for edge in replies(10) if not edge.envelope] + replies(12)[:1]:
            if (
                edge.envelope.get("version", 2) not in (1, 2)
            ) != version_error or "correlation_id" in edge.envelope:
                continue
            with Feeding(server) as feed:
                answers.lie("SourcePositionRequest", [edge] * 3)
                with suppress(FluxError):  # it may have been lied to before
                    feed.send(BAD.symbol, BAD.interval, candles(2, 1))
                eventually(lambda: answers.told >= 1 or feed._delivery.failure)
                with suppress(FluxError):
                    feed.flush(0.01)
                answers.lies.clear()
                answers.told = 0


class Feeding:
    """A feed whose end may be an error of ours, and nothing else."""

    def __init__(self, server: LiveServer) -> None:
        self._feed = Feed(BAD.source_id, ingest="tcp://127.0.0.1:9", chunk_rep=server.rep)

    def __enter__(self) -> Feed:
        self._feed._delivery.run = 1
        return self._feed

    def __exit__(self, *_: object) -> None:
        self._feed._delivery.committed = (
            self._feed._delivery.outbox.kernel.queued
        )  # nobody takes its rows: there is nothing to wait for
        try:
            self._feed.close()
        except FluxError:
            return

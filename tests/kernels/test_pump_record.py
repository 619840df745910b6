"""Recorded, published, gathered: rows of the inbox as journal records, as messages, and as rows again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from flux import codec, journal, limits
from flux.batch import Candles
from flux.journal import Group, Journal
from flux.kernels import pump as kernel
from flux.model import RUN, RowKind, StreamKey
from flux.transport.pump import Sender, record
from flux.transport.sockets import Sockets, endpoint_of
from flux.transport.topics import stream_topic, v1_topic
from tests.kernels.pumped import FREE_PORT, KEY, QUOTES, TRADES, Pumped, payloads, rows_of
from tests.patience import PATIENCE_S

ETH = StreamKey("SIM", "ETH", "1m")


pytestmark = pytest.mark.usefixtures("both_ways")


@pytest.fixture
def server() -> Iterator[Pumped]:
    with Pumped(server=True, tcp=False) as made:
        yield made


def offer(server: Pumped, slot: int, first: int, *counts: int) -> None:
    """Rows from `first` on, as one arrival for each count."""
    kind = server.streams.key(slot).kind
    for count in counts:
        server.receiver.kernel.offer(slot, rows_of(kind, first, count))
        first += count


def record_turn(server: Pumped, **options: int) -> NDArray[np.void]:
    """Record what was offered and begin the next turn; the runs."""
    runs = server.record(server.receiver.arrivals[: server.receiver.kernel.arrival_count], **options)
    server.receiver.kernel.begin()
    return runs


def batches(group: Group) -> list[Candles]:
    return [codec.decode(payload) for payload in payloads(group)]


def shape(group: Group) -> list[tuple[str, int, int]]:
    return [(batch.key.symbol, batch.start_sequence, len(batch.rows)) for batch in batches(group)]


class TestRecord:
    def test_rows_that_wait_go_as_one_message(self, server: Pumped) -> None:
        btc, eth = server.add(stream_id=41), server.add(ETH, stream_id=42)
        offer(server, btc, 1, 1, 1)
        offer(server, eth, 1, 2)
        offer(server, btc, 3, 3)
        runs = record_turn(server, store_id=9, epoch=3)
        assert runs[["stream", "first", "rows"]].tolist() == [
            (btc, 1, 1),
            (btc, 2, 1),
            (btc, 3, 3),
            (eth, 1, 2),
        ]
        assert shape(server.group) == [("BTC/USDT", 1, 5), ("ETH", 1, 2)]
        batch = batches(server.group)[1]
        assert (batch.store_id, batch.epoch, batch.stream_id, batch.schema_version) == (9, 3, 42, 2)
        assert batch.rows.tobytes() == rows_of(RowKind.CANDLE, 1, 2).tobytes()
        assert server.group.entries[["label", "label2"]].tolist() == [(btc, 5), (eth, 2)]

    def test_never_more_than_max_rows_in_one(self, server: Pumped) -> None:
        slot = server.add(rows=1_024)
        offer(server, slot, 1, 100, 50, 3)
        record_turn(server)
        assert [count for _, _, count in shape(server.group)] == [64, 64, 25]
        assert limits.MAX_LIVE_ROWS == 64

    def test_never_across_the_rings_end(self, server: Pumped) -> None:
        """A message is one piece of the ring: sequence 16 lies in slot 0 of 16."""
        slot = server.add(rows=16)
        offer(server, slot, 1, 10)
        record_turn(server)
        server.streams.ring(slot).keep = 10
        offer(server, slot, 11, 12)
        record_turn(server)
        assert shape(server.group) == [("BTC/USDT", 1, 10), ("BTC/USDT", 11, 5), ("BTC/USDT", 16, 7)]
        rows = np.concatenate([batch.rows for batch in batches(server.group)])
        assert rows.tobytes() == rows_of(RowKind.CANDLE, 1, 22).tobytes()
        assert server.streams.kernel.head(slot) == 22

    def test_across_the_end_of_a_ring_that_is_mapped_twice(self, server: Pumped) -> None:
        """There the rows of any message are one piece."""
        rows = limits.MAPPED_RING_ROWS
        slot = server.add(TRADES, rows=rows)
        ring = server.streams.ring(slot)
        assert ring.mapped
        ring.reset(rows - 9)
        server.streams.kernel.restore(slot, rows - 10, 0, 0)
        offer(server, slot, 1, 40)
        record_turn(server)
        (batch,) = batches(server.group)
        assert (batch.start_sequence, len(batch.rows)) == (rows - 9, 40)
        assert batch.rows.tobytes() == rows_of(RowKind.TRADE, 1, 40).tobytes()
        assert ring.window(rows - 9, rows + 30).tobytes() == batch.rows.tobytes()

    def test_a_late_row_is_known_across_the_end(self, server: Pumped) -> None:
        """The look back goes over the wrap in either kind of memory."""
        for key, rows in ((KEY, limits.MAPPED_RING_ROWS), (ETH, 1_024)):
            slot = server.add(key, rows=rows)
            server.streams.ring(slot).reset(rows - 9)
            server.streams.kernel.restore(slot, rows - 10, 0, 0)
            offer(server, slot, 1, 40)
            record_turn(server)
            counts = server.receiver.counters
            offer(server, slot, 1, 40)
            assert server.receiver.counters["repeats"] - counts["repeats"] == 40
            server.receiver.kernel.begin()

    def test_the_origin_is_that_of_the_messages_first_row(self, server: Pumped) -> None:
        slot = server.add(rows=256)
        offer(server, slot, 1, 40, 40, 40)
        arrivals = server.receiver.arrivals[: server.receiver.kernel.arrival_count]
        arrivals["origin_ns"] = [111, 222, 333]
        record_turn(server)
        assert [(batch.start_sequence, batch.origin_ns) for batch in batches(server.group)] == [
            (1, 111),
            (65, 222),
        ]

    def test_trades_and_quotes(self, server: Pumped) -> None:
        for key in (TRADES, QUOTES):
            offer(server, server.add(key), 1, 5)
        record_turn(server)
        for batch, key in zip(batches(server.group), (TRADES, QUOTES), strict=True):
            assert batch.rows.tobytes() == rows_of(key.kind, 1, 5).tobytes()

    def test_without_room_it_says_so(self, server: Pumped) -> None:
        slot = server.add(rows=16)
        runs = np.zeros(1, RUN)
        runs[["rows", "first"]] = (20, 1)
        with pytest.raises(AssertionError, match="room"):
            record(server.streams, server.group, server.receiver.inbox, runs, store_id=1, epoch=1)
        small = Group(512)
        server.streams.ring(slot).keep = 0
        offer(server, slot, 1, 16)
        runs["rows"] = 16
        with pytest.raises(AssertionError, match="room"):
            record(server.streams, small, server.receiver.inbox, runs, store_id=1, epoch=1)
        assert small.used <= small.capacity

    def test_a_turn_of_the_worst_kind_fits_what_is_kept_free_for_it(self) -> None:
        """Longest names, every message of another stream, every ring wrapping: under limits.TURN_BYTES."""
        streams, each = limits.MAX_ARRIVALS, limits.INBOX_BYTES // 64 // limits.MAX_ARRIVALS
        with Pumped(server=True, tcp=False, limit=streams) as server:
            server.group = Group(limits.TURN_BYTES)
            for i in range(streams):
                slot = server.add(StreamKey("S" * 32, f"{i:064}", "15m"), rows=16)
                server.streams.ring(slot).reset(17 - each // 2)
                server.streams.kernel.restore(slot, 16 - each // 2, 0, 0)
                offer(server, slot, 1, each)
            record_turn(server)
            assert server.group.count == 2 * streams
            assert server.group.used < limits.TURN_BYTES


class Wire:
    """An XPUB socket with a Sender, and a SUB socket that takes everything."""

    def __init__(self, server: Pumped, *prefixes: bytes) -> None:
        self.made = Sockets()
        self.publisher = self.made.publisher(FREE_PORT)
        self.subscriber = self.made.subscriber(endpoint_of(self.publisher.socket), prefixes or [b""])
        while len(self.publisher.subscriptions.prefixes) < len(prefixes or [b""]):
            assert self.publisher.socket.poll(PATIENCE_S * 1_000)
            self.publisher.drain()
        self.sender = Sender(self.publisher.socket, server.streams)

    def take(self, count: int) -> list[tuple[bytes, bytes]]:
        found = []
        for _ in range(count):
            assert self.subscriber.poll(PATIENCE_S * 1_000), f"{len(found)} of {count} messages"
            topic, payload = self.subscriber.recv_multipart()
            found.append((topic, payload))
        assert not self.subscriber.poll(50)
        return found


class TestPublish:
    @pytest.fixture
    def slot(self, server: Pumped) -> int:
        slot = server.add()
        for first in (1, 2, 3, 4):
            offer(server, slot, first, 1)
            record_turn(server)
        server.group.append(journal.SOURCE, b"not sent")
        return slot

    @pytest.fixture
    def wire(self, server: Pumped) -> Iterator[Wire]:
        wire = Wire(server)
        yield wire
        wire.made.close()

    def test_the_records_payloads_go_out_as_they_are(self, server: Pumped, slot: int, wire: Wire) -> None:
        sent = wire.sender.send(server.group)
        assert (sent.sent, sent.sent_v1) == (4, 0)
        got = wire.take(4)
        assert got == [(stream_topic(KEY), payload) for payload in payloads(server.group)]
        assert sent.bytes == sum(len(topic) + len(payload) for topic, payload in got)
        assert server.streams.kernel.committed(slot) == (0, 0), "sent is not yet shown"

    def test_left_out_twice_and_out_of_order(self, server: Pumped, slot: int, wire: Wire) -> None:
        order = np.array([3, 0, 0, 2, 4], np.uint32)
        assert wire.sender.send(server.group, order).sent == 4
        assert [codec.decode(payload).start_sequence for _, payload in wire.take(4)] == [4, 1, 1, 3]

    def test_spoilt_on_the_wire_alone(self, server: Pumped, slot: int, wire: Wire) -> None:
        before = bytes(server.group.data)
        order, spoilt = np.arange(4, dtype=np.uint32), np.array([0, 1, 0, 0], np.uint8)
        wire.sender.send(server.group, order, spoilt)
        assert bytes(server.group.data) == before
        got = [payload for _, payload in wire.take(4)]
        with pytest.raises(codec.DecodeError, match="checksum"):
            codec.decode(got[1])
        assert [codec.decode(got[i]).start_sequence for i in (0, 2, 3)] == [1, 3, 4]

    def test_orders_that_cannot_be(self, server: Pumped, slot: int, wire: Wire) -> None:
        with pytest.raises(IndexError, match="entry 5 of 5"):
            wire.sender.send(server.group, np.array([5], np.uint32))
        with pytest.raises(ValueError, match="shorter"):
            wire.sender.send(server.group, np.array([0, 1], np.uint32), np.zeros(1, np.uint8))

    def test_version_1_while_it_is_wanted(self, server: Pumped, slot: int, wire: Wire) -> None:
        trades = server.add(TRADES)
        offer(server, trades, 1, 2)
        record_turn(server)
        for stream in (slot, trades):
            server.streams.kernel.want_v1(stream, True)
        assert wire.sender.send(server.group)[:2] == (9, 4)
        v1 = [codec.decode(payload) for topic, payload in wire.take(9) if topic == v1_topic(KEY)]
        assert [(batch.schema_version, batch.start_sequence, len(batch.rows)) for batch in v1] == [
            (1, sequence, 1) for sequence in (1, 2, 3, 4)
        ]
        closes = np.concatenate([batch.rows["close"] for batch in v1])
        assert closes.tolist() == rows_of(RowKind.CANDLE, 1, 4)["close"].tolist()
        server.streams.kernel.want_v1(slot, False)
        assert wire.sender.send(server.group).sent_v1 == 0

    def test_the_committed_marks(self, server: Pumped, slot: int, wire: Wire) -> None:
        trades = server.add(TRADES, stream_id=8)
        late = rows_of(RowKind.TRADE, 1, 3)
        late["trade_id"] = [2**63, 7, 2**63 + 5]
        late["ts_ns"][2] -= 1_000
        server.receiver.kernel.offer(trades, late)
        record_turn(server)
        assert server.streams.heads()["committed"].tolist() == [0, 0]
        kernel.mark_committed(server.streams.kernel, server.group._address)
        heads = server.streams.heads()
        assert heads["committed"].tolist() == [4, 3]
        assert heads["committed_ts"].tolist() == [rows_of(RowKind.CANDLE, 4, 1)["ts_ms"][0], late["ts_ns"][2]]
        assert heads["highest"].view(np.uint64).tolist()[1] == 2**63 + 5
        assert heads[["stream_id", "kind", "first"]].tolist() == [(0, 1, 1), (8, 2, 1)]
        assert (heads["moved_ns"] > 0).all()
        assert server.streams.kernel.committed(trades) == (3, late["ts_ns"][2])


class TestGather:
    @pytest.fixture
    def file(self, server: Pumped, tmp_path: Path) -> tuple[bytes, int]:
        """A journal file with three groups of all kinds, and where the last ends."""
        log = Journal.create(tmp_path, b"heads", file_bytes=1 << 20)
        slots = [server.add(key, rows=256, stream_id=5 + i) for i, key in enumerate((KEY, TRADES, QUOTES))]
        for first in (1, 71, 141):
            server.group.clear()
            server.group.append(journal.SOURCE, b"position")
            for slot in slots:
                offer(server, slot, first, 70)
            record_turn(server, epoch=2)
            log.commit(server.group, sync=False)
        end = log.position.offset
        log.close(clean=False)
        return journal.path_of(tmp_path, 1).read_bytes(), end

    def test_round_trip(self, file: tuple[bytes, int]) -> None:
        data, end = file
        found = journal.Gatherer(1_000)(data, journal.FILE_HEADER_BYTES)
        assert found.stopped == end
        for kind in (RowKind.CANDLE, RowKind.TRADE, RowKind.QUOTE):
            assert found.rows[kind].tobytes() == rows_of(kind, 1, 210).tobytes()
        mine = found.records[found.records["kind"] == RowKind.TRADE]
        assert mine[["stream_id", "first", "count", "epoch"]].tolist()[:3] == [
            (6, 1, 64, 2), (6, 65, 6, 2), (6, 71, 64, 2),
        ]  # fmt: skip
        others = found.records[found.records["kind"] == 0]
        assert [
            (int(one["epoch"]), data[int(one["first"]) : int(one["first"] + one["count"])])
            for one in others
            if one["epoch"] != journal.COMMIT
        ] == [(journal.HEADS, b"heads")] + 3 * [(journal.SOURCE, b"position")]

    def test_in_pieces(self, file: tuple[bytes, int]) -> None:
        data, end = file
        at, rows, steps = journal.FILE_HEADER_BYTES, [], 0
        while at < end:
            found = journal.Gatherer(64)(data, at)
            assert len(found.rows[RowKind.CANDLE]) <= 64
            at, steps = found.stopped, steps + 1
            rows.append(found.rows[RowKind.CANDLE])
        assert np.concatenate(rows).tobytes() == rows_of(RowKind.CANDLE, 1, 210).tobytes()
        assert steps > 3

    def test_a_torn_tail_ends_it_at_any_byte(self, file: tuple[bytes, int]) -> None:
        data, end = file
        ends = {
            journal.Gatherer(1_000)(data[:cut], journal.FILE_HEADER_BYTES).stopped
            for cut in range(24, end, 37)
        }
        assert max(ends) < end
        assert all(end % 8 == 0 for end in ends)

    def test_a_batch_that_does_not_verify_is_said(self, file: tuple[bytes, int]) -> None:
        data, _ = file
        spoilt = bytearray(data)
        spoilt[data.index(b"FLX2") + 100] ^= 1
        with pytest.raises(ValueError, match="record 3 behind byte 24"):
            journal.Gatherer(1_000)(bytes(spoilt), journal.FILE_HEADER_BYTES)

    def test_a_record_of_another_kind_that_lies_is_said(self, file: tuple[bytes, int]) -> None:
        data, _ = file
        with pytest.raises(ValueError, match="record 2 behind byte 24"):
            journal.Gatherer(1_000)(data.replace(b"position", b"posItion"), journal.FILE_HEADER_BYTES)

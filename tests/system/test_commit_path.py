"""The order of a commit as others see it (S2), by the kernel: a mark of the fence, then the head, then the message."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from flux import codec
from flux.codec import crc32c
from flux.feed import synth
from flux.feed.push import Feed
from flux.model import StreamKey
from flux.schema import messages
from flux.transport.requester import Requester
from flux.transport.sockets import Poller, Sockets, receive
from flux.transport.topics import v2_prefix
from tests.patience import PATIENCE_S
from tests.system.processes import FluxServer

pytestmark = pytest.mark.system

SLOT = struct.Struct("<QIIQII")  # store_id, epoch, file, offset, serial, CRC: flux/journal/fence.py
PAGE = 4096


def slots(data: Path) -> list[tuple[int, int]]:
    """(serial, offset) of both slots of the fence, each of which must be whole."""
    content = (data / "fence").read_bytes()
    found = []
    for at in (0, PAGE):
        _, _, _, offset, serial, crc = SLOT.unpack_from(content, at)
        assert crc == crc32c(content[at : at + SLOT.size - 4])
        found.append((serial, offset))
    return found


def test_the_fence_is_written_in_turn_and_goes_on_with_every_group(tmp_path: Path) -> None:
    """A slot that is torn by a kill leaves the other, which is the mark before."""
    rows = synth.candles(40, seed=2)
    with (
        FluxServer(tmp_path, "--ingest", "tcp://127.0.0.1:*") as server,
        Feed("SIM", ingest=server.ingest, chunk_rep=server.rpc) as feed,
    ):
        before = (0, 0)
        for at in range(0, len(rows), 4):
            feed.send("X", "1m", rows[at : at + 4])
            feed.flush(PATIENCE_S)
            older, newer = sorted(slots(tmp_path))
            assert newer[0] == older[0] + 1, "both slots belong to the last two groups"
            assert older[1] < newer[1]
            assert before < newer, "a group without its mark"
            before = newer


def test_no_subscriber_is_ahead_of_the_head(tmp_path: Path) -> None:
    """Who asks at once behind the first message of a large group gets a head that has it."""
    key = StreamKey("SIM", "X", "1m")
    rows = synth.candles(60_000, seed=2)
    asked = 0
    with (
        FluxServer(tmp_path, "--ingest", "tcp://127.0.0.1:*", "--durability", "process") as server,
        Sockets() as sockets,
        Feed("SIM", ingest=server.ingest, chunk_rep=server.rpc) as feed,
    ):
        requester = Requester(sockets, server.rpc)
        socket = sockets.subscriber(server.pub, [v2_prefix("candles"), b"candles."])
        poller = Poller(socket)
        sent = last = 0
        while last < len(rows):
            if last == sent:  # one burst, so one group or few: to publish it takes longer than to ask
                feed.send("X", "1m", rows[sent : sent + 20_000])
                sent += 20_000
            assert poller.wait(PATIENCE_S), "a message did not come"
            while (frames := receive(socket)) is not None:
                batch = codec.decode(frames[-1])
                last = max(last, batch.start_sequence + len(batch.rows) - 1)
                if asked % 16 == 0:
                    head = requester.ask(messages.stream_status_request, key=key).latest_sequence
                    assert head >= last
                asked += 1

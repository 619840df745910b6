"""A stream that has used all its sequences (S1): refused loudly, never an overflow, also after a restart."""

from __future__ import annotations

from pathlib import Path

import pytest

from flux import testing
from flux.feed import synth
from flux.feed.push import Feed
from flux.journal.records import StreamHead, StreamRecord, pack
from flux.model import MAX_SEQUENCE, StreamKey
from flux.schema import messages
from flux.server.storage.recover import recover
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.system.processes import wait_until

KEY = StreamKey("FEED", "LAST", "1m")
FILE_BYTES = 1 << 20


def nearly_done(data: Path, left: int) -> None:
    """A data directory whose stream has `left` sequences to give: the HEADS of its newest file say so."""
    recovered = recover(data, disk=True, file_bytes=FILE_BYTES)
    head = StreamHead(StreamRecord(1, *KEY), MAX_SEQUENCE - left, 0, 0)
    position = recovered.journal.rotate(pack(recovered.identity.heads([head], {})))
    recovered.fence.store(recovered.identity.store_id, recovered.identity.epoch, *position)
    recovered.store.close()
    recovered.journal.close()
    recovered.fence.close()
    recovered.projected.close()
    recovered.lock.release()


def test_the_last_sequence_is_the_last(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = synth.candles(10)
    nearly_done(tmp_path, left=3)
    for sent, spent in ((rows[:5], 2), (rows[5:], 5)):
        with testing.server(data=tmp_path) as server, Sockets() as sockets:
            with Feed(KEY.source_id, ingest=server.ingest, chunk_rep=server.chunk_rep) as feed:
                feed.send(KEY.symbol, KEY.interval, sent)
                feed.flush(PATIENCE_S)
            assert server.loop.counters["spent"] == spent
            wait_until(lambda n=spent: f"spent ({n} since the start)" in caplog.text, "said in the log")
            assert f"the last of {KEY}" in caplog.text
            assert {told.reason for told in feed.refused} == {"spent"}
            caplog.clear()
            requester = Requester(sockets, server.chunk_rep)
            (stream,) = requester.ask(messages.stream_list_request, timeout=PATIENCE_S).streams
            assert stream.latest_sequence == MAX_SEQUENCE
            page = requester.ask(
                messages.backfill_rows_request,
                timeout=PATIENCE_S,
                key=KEY,
                from_sequence_exclusive=MAX_SEQUENCE - 3,
            )
            assert page.start_sequence == MAX_SEQUENCE - 2
            assert page.rows.tobytes() == rows[:3].tobytes()
            assert not page.has_more

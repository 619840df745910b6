"""A consumer as a process of its own, to be killed: follows one stream from its cache and writes down what it
is given.

    python -m tests.system.client_run PUB RPC CACHE LOG KEY UPTO

LOG gets 80 bytes for each row: its sequence, its epoch and the row, written before the next batch is asked for; a first
record with sequence 0 for each run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from flux.client.live import Live
from flux.model import CANDLE, StreamKey

RECORD = np.dtype([("sequence", "<u8"), ("epoch", "<u8"), ("row", CANDLE)])


def main(pub: str, rpc: str, cache: str, log: str, key_text: str, upto: str) -> None:
    key = StreamKey.parse(key_text)
    with Path(log).open("ab", buffering=0) as out, Live(cache=cache, pub=pub, rep=rpc) as live:
        out.write(np.zeros(1, RECORD).tobytes())
        live.subscribe(key.symbol, interval=key.interval, source=key.source_id, start="cache")
        for batch in live:
            records = np.zeros(len(batch), RECORD)
            records["sequence"] = np.arange(batch.start_sequence, batch.end_sequence + 1)
            records["epoch"] = batch.epoch
            records["row"] = batch.rows
            out.write(records.tobytes())
            if batch.end_sequence >= int(upto):
                return


if __name__ == "__main__":
    main(*sys.argv[1:])

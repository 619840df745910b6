"""A feed as a process of its own, to be killed: asks where its streams stand, and goes on there, in a durable run.

python -m tests.system.feed_run INGEST RPC SEED COUNT
"""

from __future__ import annotations

import random
import sys

import numpy as np

from flux.feed.push import Feed
from flux.model import RowKind
from tests.patience import PATIENCE_S
from tests.system.feeding import SOURCE, Feeding, truth_of

RUN = "killed"


def main(ingest: str, rpc: str, seed: str, count: str) -> None:
    """Send what the server does not have of `truth_of(count, seed)`, and wait until it has it."""
    with Feed(SOURCE, run=RUN, ingest=ingest, chunk_rep=rpc) as feed:
        rest = {}
        for key, rows in truth_of(int(count), int(seed)).items():
            order = "trade_id" if key.kind is RowKind.TRADE else "ts_ms"
            last = feed.position(key, timeout=PATIENCE_S)
            begin = 0 if last is None else int(np.searchsorted(rows[order], last.row[order], "right"))
            if begin < len(rows):
                rest[key] = rows[begin:]
        before = feed.committed  # of the feeds before it in this run
        with Feeding(feed, rest, random.Random(), window=500, before=before) as feeding:
            feeding.join()
        feed.flush(PATIENCE_S)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""A server with the fault dials as a process of its own, which can be killed.

python -m flux.testing --data DIR --replay FILE --drop 0.05 ...
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from flux.config import Replay, ServeConfig
from flux.server.foreground import serve
from flux.testing.faults import Faults
from flux.testing.server import ANY_PORT


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m flux.testing", description="A server with fault dials.")
    made.add_argument("--data", type=Path, required=True)
    made.add_argument("--pub", default=ANY_PORT)
    made.add_argument("--rpc", default=ANY_PORT)
    made.add_argument("--replay", type=Path)
    made.add_argument("--tick-ms", type=float, help="let --batch-rows rows go at this interval")
    made.add_argument("--batch-rows", type=int, default=50)
    made.add_argument("--durability", choices=("disk", "process"), default="disk")
    for dial in ("drop", "duplicate", "reorder", "corrupt"):
        made.add_argument(f"--{dial}", type=float, default=0.0, metavar="SHARE")
    made.add_argument("--gap-every", type=int, default=0, metavar="N")
    made.add_argument("--seed", type=int, default=0)
    return made


def main(argv: Sequence[str]) -> int:
    """The process; it ends as `flux serve` does."""
    asked = _parser().parse_args(argv)
    tick_s = None if asked.tick_ms is None else asked.tick_ms / 1_000
    replay = asked.replay and Replay(asked.replay, tick_s=tick_s, batch_rows=asked.batch_rows)
    config = ServeConfig(
        data=asked.data,
        live_pub=asked.pub,
        chunk_rep=asked.rpc,
        ingest=ANY_PORT,
        durability=asked.durability,
        replays=(replay,) if replay else (),
    )
    dials = {
        name: getattr(asked, name)
        for name in ("drop", "gap_every", "duplicate", "reorder", "corrupt", "seed")
    }
    faults = Faults(**dials)
    code = serve(config, faults)
    print(f"messages lost on purpose since its start: {faults.injected.dropped}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

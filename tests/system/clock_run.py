"""A consumer as a process of its own whose wall clock is made to jump: prints what it is given and what it is told.

    python -m tests.system.clock_run PUB REP

A line for each batch (`rows FIRST LAST WALL_CLOCK_S`) and for each state (`state NAME`).
"""

from __future__ import annotations

import os
import sys
import time

from flux.client.live import Live


def main(pub: str, rep: str) -> None:
    with Live(pub=pub, rep=rep) as live:
        live.add_state_callback(lambda change: say(f"state {change.state.name}"))
        live.subscribe("BTCUSDT", interval="1m", source="SIM", start="oldest")
        for batch in live:
            say(f"rows {batch.start_sequence} {batch.end_sequence} {int(time.time())}")


def say(line: str) -> None:
    """A whole line at once: two threads report."""
    os.write(1, f"{line}\n".encode())


if __name__ == "__main__":
    main(*sys.argv[1:])

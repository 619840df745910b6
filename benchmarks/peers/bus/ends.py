"""One end of a bus, a process of its own: `python -m benchmarks.peers.bus.ends ROLE MODULE SPEC BOARD ADDRESS`.

The subscriber waits until the publisher has said where it is bound, if it binds at all. Each says at its end, on
standard output, one JSON object: the publisher its CPU time, the subscriber what it counted.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

from benchmarks.peers.bus.board import Board, Place
from benchmarks.peers.bus.pace import OPEN_LIMIT_NS, Pace
from benchmarks.peers.bus.spec import Spec
from benchmarks.peers.bus.tally import Tally
from flux.loadgen.process import settle


def wait_for_endpoint(board: Board) -> None:
    limit = time.monotonic_ns() + OPEN_LIMIT_NS
    while not board[Place.ENDPOINT]:
        if time.monotonic_ns() > limit:
            raise TimeoutError("the publisher is not bound")
        time.sleep(0.002)


def main(role: str, module: str, spec_json: str, board_path: str, address: str) -> None:
    peer = importlib.import_module(f"benchmarks.peers.bus.{module}")
    spec, board = Spec(**json.loads(spec_json)), Board(Path(board_path))
    if role == "publisher":
        pace = Pace(spec, board)
        peer.run_publisher(pace, address)
        print(json.dumps({"cpu_s": pace.cpu_s}), flush=True)
    else:
        if not address:
            wait_for_endpoint(board)
        tally = Tally(spec, board)
        settle()
        peer.run_subscriber(tally, address)
        print(json.dumps(tally.result()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

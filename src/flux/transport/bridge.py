"""The door of the bridge: the server's loop and committer on their ordinary way, and a feed's pushing.

What is ordinary runs in compiled code without the GIL, for as long as nothing is to be decided (`ext/bridge.h` draws
it). So nothing that Python does meanwhile, a projection or a request, holds up a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from flux import limits
from flux.kernels import bridge as kernel
from flux.kernels import pump as _pump
from flux.transport.pump import NATIVE, Streams, _error, _handle

if TYPE_CHECKING:
    import zmq
    from numpy.typing import NDArray


class Pusher:
    """Pushes rows of one feed's run through a PUSH socket; used by the thread that owns the socket."""

    def __init__(self, socket: zmq.Socket[bytes], streams: Streams, run: int) -> None:
        self._socket = socket
        self._streams = streams
        self._run = run
        self._scratch = np.zeros(limits.MAX_HEAD_BYTES + limits.MAX_INGEST_ROWS * 64 + 128, np.uint8)
        self.rows = 0
        """Rows that the socket took: the run goes on behind them."""

    def push(
        self, rows: NDArray[np.void], slots: NDArray[np.uint32], count: int, origin_ns: int = 0
    ) -> int:
        """Send `count` messages of equally many of `rows`, message i of the stream in slots[i]; never waits.

        How many the socket took: the others are to be pushed again. Raises `zmq.ZMQError` on a socket error.
        """
        each = len(rows) // count
        taken, error = kernel.push(
            _pump.calls(NATIVE),
            _handle(self._socket, NATIVE),
            self._streams.kernel.address(),
            rows.view(np.uint8),
            slots,
            count,
            each,
            self.rows + 1,
            self._run,
            origin_ns,
            self._scratch,
        )
        self.rows += taken * each
        if error:
            raise _error(error)
        return taken

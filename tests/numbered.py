"""Numbering as the server does it, in compiled code, beside its oracle."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flux.kernels import bridge as kernel
from flux.model import RUN
from flux.transport.pump import Streams
from tests.oracle.sequencer import Sequencer


def number(streams: Streams, arrivals: NDArray[np.void]) -> NDArray[np.void]:
    """The kernel's runs for these arrivals, sorted by stream: the same that the oracle makes from the same heads."""
    oracle = Sequencer()
    for slot in range(len(streams)):
        oracle.add(streams.kernel.head(slot))
    given, out = arrivals.copy(), np.zeros(len(arrivals), RUN)
    made = out[: kernel.number(streams.kernel.address(), given.view(np.uint8), out.view(np.uint8))]
    made = made[np.argsort(made["stream"], kind="stable")]  # the kernel's come in order of first arrival
    assert given.tobytes() == arrivals.tobytes(), "the arrivals were changed"
    assert np.array_equal(made, oracle.number(arrivals))
    return made

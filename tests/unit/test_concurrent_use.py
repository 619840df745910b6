"""H9: what one thread may use at a time says so to a second one; nothing is corrupted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flux.indicator import SMA
from flux.model import CANDLE
from flux.ring import Ring
from flux.window import Window

PUSHES = 60
ROWS = 40_000


def rows_of() -> np.ndarray:
    rows = np.zeros(ROWS, CANDLE)
    rows["ts_ms"] = np.arange(ROWS) * 60_000
    rows["close"] = 1.0
    return rows


def window() -> Callable[[np.ndarray], Any]:
    made = Window("1h", keep=1_000)
    return lambda rows: (made.push(rows), made.partial())


def indicator() -> Callable[[np.ndarray], Any]:
    made = SMA(1_000)
    return made.push


def ring() -> Callable[[np.ndarray], Any]:
    made = Ring(1 << 16)
    return lambda rows: made.place(1, rows)


@pytest.mark.parametrize("make", [window, indicator, ring])
def test_a_second_thread_gets_an_error(make: Callable[[], Callable[[np.ndarray], Any]]) -> None:
    """Both push until one has met the other: the kernels work without the GIL, so that they do."""
    use, rows, found = make(), rows_of(), list[str]()
    begin, met = threading.Barrier(2), threading.Event()

    def push() -> None:
        begin.wait()
        for _ in range(PUSHES * 100):
            if met.is_set():
                return
            try:
                use(rows)
            except RuntimeError as error:
                found.append(str(error))
                met.set()

    threads = [threading.Thread(target=push) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found
    assert all("one thread at a time" in text for text in found)
    use(rows)  # and it goes on for the first one

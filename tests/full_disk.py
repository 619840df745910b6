"""A disk without space, for one descriptor of this process: compiled code meets it as Python does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def refusing(descriptor: int, wanted: bool = True) -> Iterator[None]:
    """While it lasts whatever is written to `descriptor` meets a disk that is full (`wanted`: or nothing changes)."""
    kept, full = os.dup(descriptor), os.open("/dev/full", os.O_RDWR)
    try:
        if wanted:
            os.dup2(full, descriptor)
        yield
    finally:
        os.dup2(kept, descriptor)
        for each in (kept, full):
            os.close(each)


def descriptor_of(path: Path) -> int:
    """Under which number this process has a file open."""
    here = Path("/proc/self/fd")
    return next(int(name) for name in os.listdir(here) if (here / name).resolve() == path)

"""Descriptors above 1,023, where `select.select` ends: all below are taken meanwhile."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SELECT_ENDS: int = 1_024


@contextmanager
def low_descriptors_taken() -> Iterator[None]:
    """What is opened inside has a number above 1,023."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = SELECT_ENDS + 512
    if before[1] != resource.RLIM_INFINITY and before[1] < wanted:
        pytest.skip(f"this process may have {before[1]} descriptors, fewer than {wanted}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], wanted), before[1]))
    taken = [os.open(os.devnull, os.O_RDONLY)]
    try:
        while taken[-1] < SELECT_ENDS:
            taken.append(os.dup(taken[0]))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)

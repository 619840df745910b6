"""How long a thread may keep a core that another one wants: its slice, where the kernel lets one choose it.

On Linux a thread that wakes takes the core of one that computes at once only if its own slice is shorter (EEVDF). With
the usual slice of some milliseconds rows under way wait for whatever computes beside them, whatever its priority. So
threads that carry rows have one of 0.1 ms (`limits.SLICE_NS`), and those that compute keep the usual one.

A thread's slice is inherited by the threads and processes that it makes. Linux takes it from 6.12 on; elsewhere nothing
of this does anything.
"""

from __future__ import annotations

import ctypes
import os
import platform
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from flux.limits import SLICE_NS

_NUMBERS: Final = {"x86_64": (314, 315), "aarch64": (274, 275)}
"""sched_setattr, sched_getattr, which the C library has only of late."""

NICE: Final = 19


class _Attributes(ctypes.Structure):
    """struct sched_attr of linux/sched/types.h, its first version."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


_SCHED_OTHER: Final = 0


def _calls() -> tuple[int, int] | None:
    return _NUMBERS.get(platform.machine()) if sys.platform == "linux" else None


def _attributes(thread: int = 0) -> _Attributes | None:
    """Those of a thread, 0 for the calling one; None where they cannot be had."""
    calls = _calls()
    if calls is None:
        return None
    found = _Attributes()
    done = ctypes.CDLL(None).syscall(calls[1], thread, ctypes.byref(found), ctypes.sizeof(found), 0)
    return found if done == 0 else None


def _set(runtime: int) -> int | None:
    """The calling thread's slice, 0 for the usual one: what it was before; None where it cannot be chosen."""
    calls, found = _calls(), _attributes()
    if calls is None or found is None or found.policy != _SCHED_OTHER:
        return None
    before, found.runtime, found.size, found.flags = found.runtime, runtime, ctypes.sizeof(found), 0
    if ctypes.CDLL(None).syscall(calls[0], 0, ctypes.byref(found), 0) != 0:
        return None
    return int(before)


def slice_ns(thread: int = 0) -> int | None:
    """The slice of a thread by its native id, 0 for the calling one; None where the kernel does not say, or keeps
    none."""
    found = _attributes(thread)
    return None if found is None or found.policy != _SCHED_OTHER or not found.runtime else int(found.runtime)


def granted() -> bool:
    """Whether this kernel gives a thread the slice that it asks for."""
    with short_slices():
        return slice_ns() == SLICE_NS


@contextmanager
def short_slices() -> Iterator[None]:
    """Threads that are made in here carry rows. The calling thread's own slice is the short one meanwhile."""
    before, ours = slice_ns(), _set(SLICE_NS)
    try:
        yield
    finally:
        if ours is not None:
            _set(before or 0)


def usual_slice() -> None:
    """The calling thread computes: from now on it has the slice that others have, whoever made it."""
    _set(0)


def low_priority() -> None:
    """The calling thread computes, and nobody waits for it: it takes a core when no other thread wants it."""
    usual_slice()
    os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)

"""Calls into the user's code."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final, TypeAlias, TypeVar

from flux.batch import Batch
from flux.client.deliver import StateChange
from flux.model import Gap

BatchCallback: TypeAlias = Callable[[Batch], object]
ExceptionCallback: TypeAlias = Callable[[Exception], object]
GapCallback: TypeAlias = Callable[[Gap], object]
StateCallback: TypeAlias = Callable[[StateChange], object]

_LOG: Final = logging.getLogger("flux.client")

T = TypeVar("T")


def guarded(
    callback: Callable[[T], object], item: T, exception_callback: Callable[[Exception], object] | None
) -> None:
    """Call into the user's code, whose faults end neither the stream nor the thread."""
    try:
        callback(item)
    except Exception as error:  # the user's code may raise anything
        if exception_callback is None:
            _LOG.exception("a callback failed on %r", item)
        else:
            exception_callback(error)

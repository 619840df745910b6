"""The wire contract: what flatc makes of `schemas/market_data.fbs`, and `messages`, which builds with it.

Reading a message, hostile or not, is `flux.codec` alone. Importing this checks the versions it needs.
"""

from __future__ import annotations

from typing import Final

import flatbuffers

from flux.schema.generated import FLATC_VERSION, SCHEMA_SHA256

SCHEMA_VERSION: Final = 2
"""The version we speak among ourselves; 1 is spoken to those who speak nothing else."""
SCHEMA_VERSIONS: Final = (1, 2)
FILE_IDENTIFIER: Final = b"FLX2"
"""Bytes 4 to 7 of every frame of version 2."""

_NEEDED: Final = (25, 12, 19)  # the runtime that pyproject.toml asks for and the tests ran with


def version_of(text: str) -> tuple[int, ...]:
    """`25.12.19` as numbers that compare; what is not a number ends it."""
    numbers: list[int] = []
    for part in text.split("."):
        if not part.isdecimal():
            break
        numbers.append(int(part))
    return tuple(numbers)


if version_of(flatbuffers.__version__) < _NEEDED:
    raise ImportError(
        f"flux.schema needs flatbuffers {'.'.join(map(str, _NEEDED))} or later, "
        f"this is {flatbuffers.__version__}: python -m pip install -U flatbuffers"
    )

__all__ = [
    "FILE_IDENTIFIER",
    "FLATC_VERSION",
    "SCHEMA_SHA256",
    "SCHEMA_VERSION",
    "SCHEMA_VERSIONS",
    "version_of",
]

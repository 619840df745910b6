"""A consumer of Arrow capsules in plain ctypes: what the structs of the C data interface say, and their release.

Nothing is shared with `ext/arrow.h`. `Held` takes a struct out of its capsule, as a consumer does: it copies the
struct and clears the capsule's `release`, and from then on releases by itself.
"""

from __future__ import annotations

import ctypes
import struct
from typing import Any


class ArrowSchema(ctypes.Structure):
    """struct ArrowSchema."""


class ArrowArray(ctypes.Structure):
    """struct ArrowArray."""


class ArrowArrayStream(ctypes.Structure):
    """struct ArrowArrayStream."""


_POINTER = ctypes.c_void_p

ArrowSchema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", _POINTER),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(ArrowSchema))),
    ("dictionary", _POINTER),
    ("release", _POINTER),
    ("private_data", _POINTER),
]
ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(_POINTER)),
    ("children", ctypes.POINTER(ctypes.POINTER(ArrowArray))),
    ("dictionary", _POINTER),
    ("release", _POINTER),
    ("private_data", _POINTER),
]
ArrowArrayStream._fields_ = [
    ("get_schema", _POINTER),
    ("get_next", _POINTER),
    ("get_last_error", _POINTER),
    ("release", _POINTER),
    ("private_data", _POINTER),
]

NAMES = {
    ArrowSchema: b"arrow_schema",
    ArrowArray: b"arrow_array",
    ArrowArrayStream: b"arrow_array_stream",
}
ITEMS = {"g": "d", "l": "q", "t": "q", "I": "I", "L": "Q"}  # by the format's first letter

_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def inside(kind: Any, capsule: Any) -> Any:
    """The struct in a capsule, where it stands."""
    return kind.from_address(_pointer(capsule, NAMES[kind]))


class Held:
    """A struct that a consumer owns: moved out of a capsule, out of a parent, or filled by a stream."""

    def __init__(self, struct_there: Any) -> None:
        self.kind = type(struct_there)
        self.struct = self.kind.from_buffer_copy(struct_there)
        struct_there.release = None

    @classmethod
    def taken(cls, kind: Any, capsule: Any) -> Held:
        """What the capsule holds; afterwards it holds nothing."""
        return cls(inside(kind, capsule))

    def release(self) -> None:
        """By the struct's own callback; without the GIL, as a foreign thread would call it."""
        callback = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(self.struct.release)
        callback(ctypes.addressof(self.struct))
        assert not self.struct.release, "release clears release"


def called(stream: Any, name: str, kind: Any) -> Held:
    """`get_schema` or `get_next` of a stream."""
    out = kind()
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)(getattr(stream, name))
    assert function(ctypes.addressof(stream), ctypes.addressof(out)) == 0
    return Held(out)


def fields(schema: Any) -> list[tuple[str, str]]:
    """(name, format) of each column; also that the structs are as the specification wants them."""
    assert (schema.format, schema.name, schema.dictionary) == (b"+s", b"", None)
    made = []
    for i in range(schema.n_children):
        child = schema.children[i].contents
        assert (child.n_children, child.dictionary, child.flags, child.metadata) == (0, None, 2, None)
        made.append((child.name.decode(), child.format.decode()))
    return made


def metadata(schema: Any) -> dict[str, str]:
    """The schema's metadata, decoded."""
    at = schema.metadata
    if not at:
        return {}

    def number() -> int:
        nonlocal at
        at += 4
        return int(ctypes.c_int32.from_address(at - 4).value)

    def text() -> str:
        nonlocal at
        size = number()
        at += size
        return ctypes.string_at(at - size, size).decode()

    return {text(): text() for _ in range(number())}


def columns(schema: Any, array: Any) -> dict[str, list[Any]]:
    """The values of each column, read with `struct` from where its buffer says."""
    assert (array.n_buffers, array.buffers[0], array.offset, array.null_count) == (1, None, 0, 0)
    assert array.n_children == schema.n_children
    out = {}
    for i, (name, form) in enumerate(fields(schema)):
        child = array.children[i].contents
        assert (child.length, child.n_buffers, child.n_children) == (array.length, 2, 0)
        assert (child.offset, child.null_count, child.dictionary) == (0, 0, None)
        assert child.buffers[0] is None, "no validity bitmap"
        assert child.buffers[1] % 64 == 0, f"{name} is not 64-byte aligned"
        item = f"<{child.length}{ITEMS[form[0]]}"
        out[name] = list(struct.unpack(item, ctypes.string_at(child.buffers[1], struct.calcsize(item))))
    return out

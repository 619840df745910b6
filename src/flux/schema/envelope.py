"""A control message as a tree of tables, and the envelope around it: what `flux.schema.messages` is built with.

Table(module, slots)    slots by CamelCase name: numbers as they are, text, rows, a Table, a list of Tables
└─► finish()            the envelope with that table in it; version 2 ends in FLX2's checksum
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import ModuleType
from typing import Any, Final, TypedDict

import flatbuffers
import numpy as np

from flux.kernels import codec as _kernel
from flux.model import StreamKey
from flux.schema import FILE_IDENTIFIER, SCHEMA_VERSION, SCHEMA_VERSIONS
from flux.schema.generated import Envelope, MessageBody, MessageType
from flux.schema.generated import StreamKey as StreamKeyTable

Key = StreamKey | tuple[str, str, str]
Rows = np.ndarray[Any, np.dtype[np.void]]

_TAGS: Final[dict[str, int]] = {
    name: tag for name, tag in vars(MessageBody.MessageBody).items() if name[0] != "_"
}


class EnvelopeSlots(TypedDict, total=False):
    """What every builder takes beside its own slots: correlation_id (None) and schema_version (2)."""

    correlation_id: str | None
    schema_version: int


class Table:
    """A table to come: its generated module and its slots by CamelCase name."""

    def __init__(self, module: ModuleType, slots: Mapping[str, Any]) -> None:
        self.module = module
        self.slots = slots

    def build(self, builder: flatbuffers.Builder) -> int:
        # Children first: FlatBuffers cannot begin one while a table is open.
        ready = {name: _child(builder, value) for name, value in self.slots.items() if value is not None}
        self.module.Start(builder)
        for name, value in ready.items():
            getattr(self.module, f"Add{name}")(builder, value)
        return int(self.module.End(builder))


def _child(builder: flatbuffers.Builder, value: Any) -> Any:
    """What a slot is given: an offset for what is not a number."""
    if isinstance(value, str):
        return builder.CreateString(value)
    if isinstance(value, Table):
        return value.build(builder)
    if isinstance(value, np.ndarray):
        return _structs(builder, value)
    if isinstance(value, list):
        offsets = [table.build(builder) for table in value]
        builder.StartVector(4, len(offsets), 4)
        for offset in reversed(offsets):
            builder.PrependUOffsetTRelative(offset)
        return builder.EndVector()
    return value


def _structs(builder: flatbuffers.Builder, rows: Rows) -> int:
    data = rows.tobytes()
    builder.StartVector(rows.dtype.itemsize, len(rows), 8)
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    return int(builder.EndVector())


def key_table(key: Key | None) -> Table | None:
    """(source, symbol, interval) as the table of that name."""
    if key is None:
        return None
    return Table(StreamKeyTable, {"SourceId": key[0], "Symbol": key[1], "Interval": key[2]})


def checked_rows(rows: Rows | None, dtype: np.dtype[np.void]) -> Rows | None:
    """The same rows. Raises `TypeError` unless they are 1-d and of that dtype."""
    if rows is not None and (rows.dtype != dtype or rows.ndim != 1):
        raise TypeError(f"rows are {rows.ndim}-d {rows.dtype}, not 1-d {dtype}")
    return rows


def finish(table: Table, correlation_id: str | None = None, schema_version: int = SCHEMA_VERSION) -> bytes:
    """The finished frame of a message. Raises `ValueError` for a schema version that this flux does not write."""
    if schema_version not in SCHEMA_VERSIONS:
        raise ValueError(f"schema version {schema_version}: this flux writes {SCHEMA_VERSIONS}")
    name = table.module.__name__.rpartition(".")[2]
    tag = _TAGS[name]
    builder = flatbuffers.Builder(256)
    correlation = None if correlation_id is None else builder.CreateString(correlation_id)
    message = table.build(builder)
    root_table: Any = Envelope  # flatc writes no types
    root_table.Start(builder)
    root_table.AddSchemaVersion(builder, schema_version)
    hint = MessageType.MessageType.ERROR_RESPONSE if tag == 10 else tag - (tag > 10)
    root_table.AddTypeHint(builder, hint)
    if correlation is not None:
        root_table.AddCorrelationId(builder, correlation)
    root_table.AddMessageType(builder, tag)
    root_table.AddMessage(builder, message)
    root = root_table.End(builder)
    if schema_version == 1:
        builder.Finish(root)
        return bytes(builder.Output())
    builder.Finish(root, FILE_IDENTIFIER)
    body = bytes(builder.Output())
    return body + struct.pack("<I", _kernel.crc32c(body))

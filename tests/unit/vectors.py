"""The wire vectors of other builders (`shared/wire/vectors` beside or above this checkout), as requests."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flux import codec

_REPLIES = {
    "HealthRequest": codec.HealthResponse,
    "GetCursorRequest": codec.GetCursorResponse,
    "BackfillCandlesRequest": codec.BackfillCandlesResponse,
}

_SERVED_HERE = {5: codec.SubscribeCandlesAck, 11: codec.StreamStatusResponse}


@dataclass(frozen=True)
class Case:
    """One payload frame, and what the existing version 1 server answers when it arrives as a request."""

    name: str
    frame: bytes
    service: str
    policy: str
    tag: int


def _load() -> list[Case]:
    roots = [parent / "shared" for parent in Path(__file__).resolve().parents]
    if said := os.environ.get("FLUX_SHARED"):
        roots = [Path(said)]
    folder = next((path for root in roots if (path := root / "wire" / "vectors").is_dir()), None)
    if folder is None:
        return []
    cases = []
    for path in sorted(folder.glob("*.json")):
        told = json.loads(path.read_text())
        frame = path.with_suffix(".bin").read_bytes()[told["offset"] :]
        tag = (told["expected"] or {}).get("message_type", 0)
        cases.append(Case(told["name"], frame, told["flux_service"], told["policy"], tag))
    return cases


CASES = _load()


def expect(case: Case, reply: Any) -> None:
    """The reply is of the class that the case names, but for what wire.md says is different here."""
    assert reply.schema_version == 1, case.name
    kind, _, text = case.service.partition(" ")
    if case.tag in _SERVED_HERE:
        told = isinstance(reply, codec.ErrorResponse) and reply.message != "unsupported message_type"
        assert told or isinstance(reply, _SERVED_HERE[case.tag]), case.name
    elif kind == "dispatch":
        unknown = isinstance(reply, codec.ErrorResponse) and reply.message == "unknown stream key"
        assert unknown or isinstance(reply, _REPLIES[text]), case.name
    else:
        assert isinstance(reply, codec.ErrorResponse), case.name
        both = {(int(kind), text)}
        if case.policy == "either":  # a reader may refuse it or not
            both |= {(400, "invalid flatbuffer envelope"), (404, "unsupported message_type")}
        assert (reply.code, reply.message) in both, case.name

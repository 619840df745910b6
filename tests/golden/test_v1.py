"""Version 1, frozen: the cases of tests/golden/v1 were made by other FlatBuffers builders, and each is decoded as its
policy says, by the kernel and by the oracle. What a server answers to them: tests/system/test_vectors_on_server.py."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flux import codec
from flux.errors import DecodeError
from tests.oracle import codec as oracle
from tests.unit.plain_codec import by_oracle, ours

VECTORS = Path(__file__).resolve().parent / "v1"
CASES = sorted(path.stem for path in VECTORS.glob("*.json"))


def case(name: str) -> tuple[dict[str, Any], bytes]:
    about = json.loads((VECTORS / f"{name}.json").read_text())
    return about, (VECTORS / about["file"]).read_bytes()[about["offset"] :]


def wanted(expected: dict[str, Any]) -> dict[str, Any]:
    """A case's `expected` in the words of plain_codec: key as a tuple, null names "", null vectors empty, and
    the slots that version 2 appended at their defaults."""
    message = expected["message"]
    if message is not None:
        message = {
            name: tuple(text or "" for text in value.values())
            if name == "key" and value is not None
            else value
            for name, value in message.items()
        }
        if "candles" in message:
            message["candles"] = [tuple(candle) for candle in message["candles"] or []]
        if expected["message_type"] == 2:
            appended = {"state": 0, "version": None, "store_id": 0, "epoch": 0, "schema_version_max": 0}
            message |= appended | {"parent_store_id": 0}
        if expected["message_type"] == 10:
            message |= {"status": 0, "retry_after_ms": 0}
        if message.get("cursor") is not None:
            message["cursor"] = dict(message["cursor"])
    return {**expected, "message": message}


def placed(frame: bytes, offset: int) -> dict[str, Any]:
    """The frame as each kind of bytes-like, its first byte at `offset` of a larger buffer."""
    padded = b"\xa5" * offset + frame + b"\x5a" * 8
    writable = bytearray(padded)
    return {
        "bytes": frame,
        "bytearray": bytearray(frame),
        "memoryview of bytes": memoryview(padded)[offset : offset + len(frame)],
        "memoryview of bytearray": memoryview(writable)[offset : offset + len(frame)],
    }


def test_all_cases_are_there() -> None:
    """Frozen: none is ever taken away."""
    assert len(CASES) == 75
    assert {path.stem for path in VECTORS.glob("*.bin")} == set(CASES)
    policies = [case(name)[0]["policy"] for name in CASES]
    assert {policy: policies.count(policy) for policy in set(policies)} == {
        "accept": 52,
        "reject": 18,
        "either": 5,
    }


def judged(read: Callable[[], dict[str, Any]]) -> Any:
    """What a reader says, or the word of its refusal."""
    try:
        return read()
    except DecodeError as error:
        return error.reason
    except oracle.Refused as refused:
        return refused.args[0]


@pytest.mark.parametrize("name", CASES)
def test_case(name: str) -> None:
    about, frame = case(name)
    assert judged(lambda: by_oracle(frame)) == judged(lambda: ours(codec.decode(frame)))
    for offset in range(8):
        for kind, given in placed(frame, offset).items():
            seen = judged(lambda given=given: ours(codec.decode(given)))  # type: ignore[misc]  # bound per turn
            where = f"{kind} at {offset}"
            if about["policy"] == "accept":
                assert seen == wanted(about["expected"]), where
            elif about["policy"] == "reject":
                assert seen in codec.REASONS, where
            else:
                assert isinstance(seen, dict) or seen in codec.REASONS, where

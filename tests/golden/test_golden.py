"""Frozen bytes of every version 2 message: what was written once must be read for ever, and is written the
same today.

`python tests/golden/test_golden.py --write` makes the files that are missing (and, with --again, all): do
that only when a message is new, or in a commit that says why its bytes change.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":  # pytest has the project's root on its path, a script has its own folder
    sys.path.insert(0, str(HERE.parents[1]))

import pytest  # noqa: E402  behind the path

from flux import codec  # noqa: E402  behind the path
from tests.unit.plain_codec import by_flatc, by_oracle, examples, ours  # noqa: E402  behind the path

VERSION = 2
EXAMPLES = examples(VERSION)


def as_json(value: Any) -> Any:
    """Values as a JSON file holds them: no tuples, bytes as hex."""
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: as_json(item) for name, item in value.items()}
    return [as_json(item) for item in value] if isinstance(value, list | tuple) else value


def frozen(name: str) -> tuple[bytes, Any]:
    path = HERE / f"v{VERSION}_{name}.bin"
    if not path.is_file():
        pytest.fail(
            f"{path.name} is missing: frozen bytes stay; new ones: tests/golden/test_golden.py --write"
        )
    return path.read_bytes(), json.loads(path.with_suffix(".json").read_text())


@pytest.mark.parametrize("name", EXAMPLES)
def test_frozen_bytes_are_read(name: str) -> None:
    frame, values = frozen(name)
    assert as_json(ours(codec.decode(frame))) == values
    assert as_json(by_flatc(frame)) == as_json(by_oracle(frame)) == values


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_same_bytes_are_written_today(name: str) -> None:
    frame, _ = frozen(name)
    assert EXAMPLES[name] == frame


def test_every_frozen_file_belongs_to_an_example() -> None:
    files = {path.stem.removeprefix(f"v{VERSION}_") for path in HERE.glob(f"v{VERSION}_*.bin")}
    assert files == set(EXAMPLES)


def test_every_message_is_frozen() -> None:
    tags = {codec.decode(frame).message_type for frame in EXAMPLES.values()}
    assert tags == set(range(1, 26)) - {7, 9}  # those two exist in version 1 alone


def write(again: bool) -> None:
    for name, frame in EXAMPLES.items():
        path = HERE / f"v{VERSION}_{name}.bin"
        if path.exists() and not again:
            continue
        path.write_bytes(frame)
        path.with_suffix(".json").write_text(json.dumps(as_json(ours(codec.decode(frame))), indent=1) + "\n")
        print(f"wrote {path.name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="freeze the bytes of new messages")
    parser.add_argument("--write", action="store_true", required=True)
    parser.add_argument("--again", action="store_true", help="also those that are frozen already")
    write(parser.parse_args().again)

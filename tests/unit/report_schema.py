"""A report against `schemas/loadgen_report.schema.json`: what is wrong with it, and what the schema does not name."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "schemas" / "loadgen_report.schema.json").read_text()
)


def resolved(part: Mapping[str, Any]) -> dict[str, Any]:
    """A part of the schema with what its $ref names."""
    if "$ref" not in part:
        return dict(part)
    return SCHEMA["$defs"][part["$ref"].removeprefix("#/$defs/")] | part


def unnamed(value: Any, part: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Keys of a report that the schema does not name: it allows them, but ours are all named."""
    part = resolved(part)
    if isinstance(value, dict) and "additionalProperties" not in part:
        for key, inner in value.items():
            if key in part.get("properties", {}):
                yield from unnamed(inner, part["properties"][key], f"{at}/{key}")
            else:
                yield f"{at}/{key}"
    elif isinstance(value, list):
        for inner in value:
            yield from unnamed(inner, part["items"], f"{at}/*")


def check(made: Mapping[str, Any]) -> None:
    """Fails unless the report follows the schema and has no key that it does not name."""
    found = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(made)
    ]
    assert not found
    assert not set(unnamed(made, SCHEMA))

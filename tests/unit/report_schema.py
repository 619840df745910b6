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
    """A part of the schema with what its $ref names, also where null may stand instead."""
    refs = [each["$ref"] for each in (part, *part.get("anyOf", ())) if "$ref" in each]
    if not refs:
        return dict(part)
    return SCHEMA["$defs"][refs[0].removeprefix("#/$defs/")] | part


def unnamed(value: Any, part: Mapping[str, Any], at: str = "") -> Iterator[str]:
    """Keys of a report that the schema does not name: it allows them, but ours are all named."""
    part = resolved(part)
    if isinstance(value, dict):
        for key, inner in value.items():
            named = part.get("properties", {}).get(key, part.get("additionalProperties"))
            if named is None:
                yield f"{at}/{key}"
            else:
                yield from unnamed(inner, named, f"{at}/{key}")
    elif isinstance(value, list):
        for inner in value:
            yield from unnamed(inner, part["items"], f"{at}/*")


def check(made: Mapping[str, Any]) -> None:
    """Fails unless the report follows the schema and has no key that it does not name."""
    found = [
        f"{error.json_path}: {error.message}" for error in Draft202012Validator(SCHEMA).iter_errors(made)
    ]
    assert not found
    assert sorted(unnamed(made, SCHEMA)) == []

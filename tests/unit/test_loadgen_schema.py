"""The published schema of a report: complete, installed, and true of what the load generator makes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from flux.cli.loadgen import main
from flux.loadgen import report as reports
from flux.loadgen.environment import Surroundings
from flux.loadgen.gates import Gate
from flux.loadgen.plan import Plan
from flux.loadgen.schedule import Burst, Ramp
from tests.unit.outcomes import closed, outcome
from tests.unit.report_schema import SCHEMA, check, resolved


def parts(part: Mapping[str, Any], at: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every key that the schema names, with what it says of it."""
    part = resolved(part)
    yield at, part
    for key, inner in part.get("properties", {}).items():
        yield from parts(inner, f"{at}/{key}")
    if "items" in part:
        yield from parts(part["items"], f"{at}/*")


def test_the_schema_is_one_and_says_of_every_key_what_it_is() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for at, part in parts(SCHEMA):
        assert part["type"], at
        assert part["description"].endswith("."), at
        assert part.get("additionalProperties") is not False, f"{at}: other keys may join"
        if at.endswith("_ns") and part["type"] == "integer":
            assert "ns" in part["description"], f"{at} without its unit"


def test_the_schema_is_installed_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert reports.schema() == SCHEMA
    with pytest.raises(SystemExit) as left:
        main(["--schema"])
    assert left.value.code == 0
    assert json.loads(capsys.readouterr().out) == SCHEMA


@pytest.mark.parametrize("expression", ["p99>5ms", "missing>0", "other_cpu>50%"])
def test_reports_follow_it(expression: str) -> None:
    ran = outcome()
    gates = [Gate.parse(expression)]
    check(reports.report(ran))
    check(json.loads(reports.to_json(reports.report(ran, gates, Surroundings().seen()))))
    ran.complete = False
    check(reports.report(ran, gates))


@pytest.mark.parametrize(
    "plan", [Plan(ramp=Ramp(10, 1_000, 2_000_000_000)), Plan(burst=Burst(500, 100_000_000))]
)
def test_shapes_follow_it(plan: Plan) -> None:
    check(reports.report(dataclasses.replace(outcome(), plan=plan)))


def test_a_closed_loop_follows_it() -> None:
    made = reports.report(closed())
    check(made)
    check(json.loads(reports.to_json(made)))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("schema_version",), 2),
        (("complete",), "yes"),
        (("latency_ns", "from_send", "p99"), -1),
        (("latency_ns", "from_schedule", "p50"), 1.5),
        (("rate", "held"), "yes"),
        (("counts", "missing"), "0"),
        (("env", "started"), 5),
        (("intervals",), {}),
    ],
)
def test_what_does_not_follow_it_is_seen(place: tuple[str, ...], value: Any) -> None:
    made = reports.report(outcome())
    inner: Any = made
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    with pytest.raises(AssertionError):
        check(made)


@pytest.mark.parametrize("gone", SCHEMA["required"])
def test_a_key_that_is_gone_is_seen(gone: str) -> None:
    made = reports.report(outcome())
    del made[gone]
    with pytest.raises(AssertionError):
        check(made)


def test_other_keys_may_join() -> None:
    made = reports.report(outcome()) | {"weather": "fair"}
    assert Draft202012Validator(SCHEMA).is_valid(made)

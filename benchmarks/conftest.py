"""What `python -m pytest benchmarks` measures with, and what a saved run says of the machine.

The defaults of pytest-benchmark are for one run in a terminal: rounds of 5 µs, hundreds of thousands of them, each kept
in the JSON. Ours are rounds that a timer measures to a thousandth. The command line says otherwise where it names them.
They stand here and not in pyproject's `addopts`, so that the tests do not need the plugin.
"""

from __future__ import annotations

from typing import Any, Final

import pytest

DEFAULTS: Final[dict[str, tuple[Any, Any]]] = {
    "benchmark_min_time": ("0.000005", "0.0005"),
    "benchmark_max_time": ("1.0", "0.5"),
    "benchmark_columns": (None, ["min", "median", "stddev", "rounds", "iterations"]),
}
"""Options: what they are when nobody named them, and what they are here."""


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    for name, (theirs, ours) in DEFAULTS.items():
        if config.getoption(name, theirs) == theirs:
            setattr(config.option, name, ours)


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """Without the host's name, and without the clock rate of that moment: two runs of one machine say the same."""
    machine_info.pop("node", None)
    for name in [name for name in machine_info["cpu"] if name.startswith("hz_")]:
        del machine_info["cpu"][name]

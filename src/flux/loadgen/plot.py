"""`--plot`: the percentile curve as a picture, on HdrHistogram's scale: every nine is as wide as the one before.

matplotlib serves nothing else, and is imported only when a picture is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from flux.errors import ConfigError
from flux.loadgen.histogram import Histogram, curve
from flux.loadgen.report import duration_text, verdict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SIZE_INCHES: Final = (9.0, 5.4)
_DPI: Final = 120
_HEADROOM: Final = 1.15  # above the curves, for the legend
_COLOURS: Final = ("#0b5fa5", "#d9822b")
_LABELS: Final = {
    "from_schedule": "from the intended send time",
    "from_send": "from the actual send time",
    "from_recorded": "from the time of encoding, by the publisher's clock",
    "from_origin": "from the source's time, by its clock",
}


def check_plot(path: str) -> None:
    """Raises ConfigError when no picture could be made at `path`: before a run, not behind it."""
    if Path(path).suffix.lower() != ".png":
        raise ConfigError(f"--plot {path[:200]!a}: the picture is a PNG, so its name ends in .png")
    try:
        import matplotlib.figure  # noqa: F401  only to know before the run that it is there
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'flux-marketdata[plot]'") from error


def _percent(nines: int) -> str:
    return f"{100 - 100 / 10**nines:.{max(0, nines - 2)}f} %"


def _draw(axes: Axes, histogram: Histogram, label: str, colour: str) -> None:
    """One latency in ms over 1 / (1 - percentile), its maximum as a dot where no percentile is above it."""
    steps = [(1 / (1 - point.percentile / 100), point.value / 1e6) for point in curve(histogram)]
    most = (2.0 * max(histogram.total, 1), histogram.max / 1e6)
    axes.plot(*zip(*steps, most, strict=True), color=colour, linewidth=1.6, label=label)
    axes.plot(*most, "o", color=colour, markersize=5)


def plot(path: str, made: Mapping[str, Any], histograms: Mapping[str, Histogram]) -> None:
    """Write the picture of a report: `histograms` by the names that the report's `latency_ns` gives them.

    Raises ConfigError when the file cannot be written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    for (name, histogram), colour in zip(histograms.items(), _COLOURS, strict=False):
        times = made["latency_ns"][name]
        shown = ", ".join(f"{p} {duration_text(times[p])}" for p in ("p50", "p99", "p99.9", "max"))
        _draw(axes, histogram, f"{_LABELS[name]}: {shown}", colour)
    nines = max([2, *(len(str(2 * histogram.total)) for histogram in histograms.values())])
    axes.set_xscale("log")
    axes.set_xlim(1, 10**nines)
    axes.set_xticks([10**n for n in range(nines + 1)], [_percent(n) for n in range(nines + 1)], minor=False)
    axes.set_ylim(0, _HEADROOM * max(axes.get_ylim()[1], 1e-3))
    axes.set_xlabel("percentile, as 1 / (1 - p)")
    axes.set_ylabel("latency, ms")
    axes.grid(True, alpha=0.3)
    if histograms:
        axes.legend(loc="upper left", fontsize="small")
    axes.set_title(_title(made), loc="left", fontsize="medium")
    try:
        figure.savefig(path, format="png")
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error


def _title(made: Mapping[str, Any]) -> str:
    config, counts = made["config"], made["counts"]
    streams = "" if config["streams"] is None else f", {config['streams']:,} streams"
    of = "" if counts["scheduled"] is None else f" of {counts['scheduled']:,}"
    lost = "" if counts["missing"] is None else f", {counts['missing']:,}{of} missing"
    return f"flux-loadgen {config['mode']}, {config['duration_s']:g} s{streams}\n{verdict(made)}{lost}"

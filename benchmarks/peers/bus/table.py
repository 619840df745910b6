"""The table, in markdown: a line for each peer, those that keep what they carry below those that do not."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping
from typing import Any, Final

from benchmarks.peers.bus.measure import SLO_P99_NS, Measured, Size
from benchmarks.peers.bus.peers import PEERS, versions
from benchmarks.peers.bus.spec import STREAMS, WINDOW, Result, frame, topics
from flux.loadgen.environment import cpu_name
from flux.loadgen.report import duration_text

KEEPING: Final = ("through", "streams", "streams-aof", "jetstream")  # compared with `flux through`
NONE: Final = "–"


def rate_text(rate: float) -> str:
    """Three digits: 1.48 M, 262 k, 950."""
    for unit, scale in ((" M", 1e6), (" k", 1e3)):
        if rate >= scale:
            return f"{rate / scale:.3g}{unit}"
    return f"{rate:.3g}"


def times_text(result: Result) -> str:
    """p50 / p99 / p99.9."""
    return " / ".join(duration_text(ns) for ns in (result.p50, result.p99, result.p999))


def at_rate(measured: Measured, rate: int) -> str:
    """The latency at a rate, or that it was not held."""
    result = measured.at(rate)
    if result is None:
        return NONE
    if not result.held:
        return f"not held ({rate_text(result.achieved)})"
    lost = f", {result.missing:,} missing" if result.missing else ""
    return times_text(result) + lost


def against(ours: float, theirs: float) -> str:
    """How many times a peer's figure ours is."""
    return f" ({ours / theirs:.2f}×)" if ours and theirs and ours != theirs else ""


def best_rate(measured: Measured) -> float:
    return measured.best.rate if measured.best else 0.0


def cpu_text(result: Result | None) -> str:
    """µs per message of all processes, and of each."""
    if result is None or not result.cpu_us:
        return NONE
    parts = " + ".join(f"{us:.3g}" for us in result.cpu_us.values())
    return f"{result.cpu_us_all:.3g} = {parts}"


def line(name: str, all_measured: dict[str, Measured], size: Size) -> str:
    """One peer's."""
    peer, measured = PEERS[name], all_measured[name]
    ours = all_measured.get("through" if name in KEEPING else "flux", Measured())
    carried = measured.carried
    saturated = max(measured.saturation, key=lambda result: result.achieved)
    cells = [peer.name, peer.keeps, rate_text(carried) + against(ours.carried, carried)]
    if size.search_ns:
        found, best = best_rate(measured), measured.best
        cells.append(f"{rate_text(found)}{against(best_rate(ours), found)}" if best else "none")
        cells.append(times_text(best) if best else NONE)
    cells += [at_rate(measured, rate) for rate in size.rates]
    cells += [cpu_text(measured.at(size.rates[0])), cpu_text(saturated)]
    return f"| {' | '.join(cells)} |"


def table(all_measured: dict[str, Measured], left_out: dict[str, str], size: Size) -> str:
    """All lines, and who is not in it and why."""
    slo = f"highest rate with p99 < {duration_text(SLO_P99_NS)}, none missing"
    heads = ["bus", "keeps", "saturation, messages/s"]
    heads += [slo, "p50 / p99 / p99.9 there"] if size.search_ns else []
    heads += [f"p50 / p99 / p99.9 at {rate_text(rate)}/s" for rate in size.rates]
    heads += [f"CPU µs a message at {rate_text(size.rates[0])}/s", "CPU µs a message at saturation"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    good = [name for name in all_measured if not all_measured[name].error]
    lines += [line(name, all_measured, size) for name in sorted(good, key=lambda name: name in KEEPING)]
    left_out = left_out | {name: found.error for name, found in all_measured.items() if found.error}
    lines += [f"\n{PEERS[name].name}: left out: {why}" for name, why in left_out.items()]
    return "\n".join(lines) + "\n"


HEADING: Final = """# flux and its peers under the same load

`{command}` at {commit}, {date}, {minutes:.0f} minutes; {cores} cores of {cpu},
Linux {kernel}, Python {python}; {versions}.
Beside it other processes took {others:.0%} of a core, and the host of a virtual machine {stolen:.0%}.

A publisher process and a subscriber process, and a broker where there is one, over TCP loopback. Each message is a
topic of {topic} bytes and a frame of {frame}, which is what flux sends for one candle, of {streams} streams in turn.
Open loop: what is due goes out each 100 µs (`flux through`: 200), and latency counts from the intended send time in the
message, so that a
publisher that is late is late in it. Rounds of all in turn: latency and CPU are medians, saturation is the best; the
search for the highest rate is that of `flux-loadgen --find-max`. At saturation a peer has at most {window:,} messages
under way, so that none is measured at what it drops or hoards. In brackets: how many times the line's figure flux's is
(`flux through` for the lines below it, `flux pubsub` for the others). CPU is of publisher + broker + subscriber. What
each peer was given, and why, stands at the head of `benchmarks/peers/bus/over_*.py`.

"""


def heading(commit: str, minutes: float, command: str, seen: Mapping[str, Any]) -> str:
    """Of the written file: where, when and how."""
    return HEADING.format(
        command=command,
        commit=commit or "no commit",
        date=time.strftime("%Y-%m-%d"),
        minutes=minutes,
        others=seen["other_cpu"],
        stolen=seen["stolen_cpu"],
        cores=len(os.sched_getaffinity(0)),
        cpu=cpu_name(),
        kernel=platform.release(),
        python=platform.python_version(),
        versions=", ".join(f"{name} {version}" for name, version in versions().items()),
        topic=len(topics()[0]),
        frame=len(frame()),
        streams=STREAMS,
        window=WINDOW,
    )

"""Several publishers and subscribers: what each says as an entry of the report, and all of them as one.

Publishers add up: their rows, their CPU; the slips of all in one distribution. Steady subscribers each take everything,
so their rows add up to as many times what was sent, and the rate that counts is that of the slowest.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from flux.loadgen.histogram import Histogram, percentile, summary
from flux.loadgen.outcome import Received, Sent


def _merged(histograms: Iterable[Histogram]) -> Histogram:
    made = Histogram()
    for each in histograms:
        made.merge(each)
    return made


def merged_sent(publishers: Sequence[Sent]) -> Sent:
    """All publishers as one."""
    blocked = [each.send_blocked for each in publishers if each.send_blocked is not None]
    return dataclasses.replace(
        publishers[0],
        scheduled=sum(each.scheduled for each in publishers),
        sent=sum(each.sent for each in publishers),
        send_blocked=sum(blocked) if blocked else None,
        slip=_merged(each.slip for each in publishers),
        cpu=sum(each.cpu for each in publishers),
    )


def merged_received(subscribers: Sequence[Received]) -> Received:
    """Subscribers of one kind as one: `measured` and `last_ns`, which decide the rate, are those of the slowest."""
    counts = ("received", "missing", "duplicate", "reordered", "corrupt", "unread", "refused")
    return dataclasses.replace(
        subscribers[0],
        **{name: sum(getattr(each, name) for each in subscribers) for name in counts},
        measured=min(each.measured for each in subscribers),
        last_ns=max(each.last_ns for each in subscribers),
        from_schedule=_merged(each.from_schedule for each in subscribers),
        from_send=_merged(each.from_send for each in subscribers),
        cpu=sum(each.cpu for each in subscribers),
    )


def slips(slip: Histogram) -> dict[str, int]:
    """How late the generator itself was, in ns."""
    return {"p50": percentile(slip, 50.0), "p99": percentile(slip, 99.0), "max": slip.max}


def counts_of(got: Received) -> dict[str, int]:
    """The receiving side's counts, in rows."""
    names = ("received", "missing", "duplicate", "reordered", "corrupt", "unread")
    return {name: getattr(got, name) for name in names}


def publisher_entry(sent: Sent, *, paced: bool = True) -> dict[str, Any]:
    """One publisher in the report: rows, ns, a share of one core, and messages for `faults`. Without a schedule (not
    `paced`) nothing was late."""
    return {
        "counts": {"scheduled": sent.scheduled, "sent": sent.sent, "send_blocked": sent.send_blocked},
        "slip_ns": slips(sent.slip) if paced else None,
        "cpu": round(sent.cpu, 3),
        "faults": sent.faults,
    }


def subscriber_entry(got: Received, *, paced: bool = True) -> dict[str, Any]:
    """One subscriber in the report: rows, ns, a share of one core; `stopped_ns` is when it did not read. Without a
    schedule (not `paced`) there is no latency from it."""
    return {
        "kind": got.kind,
        "counts": counts_of(got) | {"refused": got.refused},
        "latency_ns": {
            "from_schedule": summary(got.from_schedule) if paced else None,
            "from_send": summary(got.from_send),
        },
        "cpu": round(got.cpu, 3),
        "stopped_ns": got.stopped,
        "faulty_streams": got.faulty_streams,
        "streams": got.streams,
    }

"""Mode `rpc`: requests under load, in an open loop, against a server that is started and filled, or a given one.

    rpc_server   serve ► serving ─► (filled) ─► serve ► serving ───────────────────► stdin closed
    caller                                                └► plan ► ready ► go ► second ... ► done
    this process              Feed: the sample                       Feed: background rows

The started server is filled with SAMPLE_ROWS rows a stream and started again, so that its rings hold the newest
half and older pages come out of the database; while it is asked, live rows flow in at BACKGROUND rows a second.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Callable
from typing import Any, Final

from flux.errors import ConfigError, FluxError, RequestTimeout
from flux.feed.push import Feed
from flux.limits import MAX_LIVE_ROWS
from flux.loadgen.modes.one_process import Following, Told, check_alone, counts, generator, outcome_of
from flux.loadgen.outcome import Outcome
from flux.loadgen.plan import NS_PER_S, Plan
from flux.loadgen.process import Child, Children, Message, unpacked
from flux.loadgen.report import HELD_SHARE, second_line
from flux.loadgen.requests import KINDS, MIX, PAGE_ROWS
from flux.loadgen.sample import SAMPLE_ROWS, SOURCE, Sample, key_of
from flux.loadgen.workers.caller import CONNECTIONS

BACKGROUND: Final = 1_000  # rows a second into a started server, over all streams in turn
MAX_FILLED: Final = 256  # streams of a started server
SERVE_LIMIT_S: Final = 60.0
FILL_LIMIT_S: Final = 120.0


class Background:
    """Live rows of a started server, behind its sample; called often, sends what is due."""

    def __init__(self, feed: Feed, plan: Plan, sample: Sample) -> None:
        self.sent = 0
        self._feed, self._plan, self._sample = feed, plan, sample
        self._next = [SAMPLE_ROWS + 1] * plan.streams
        self._turn = 0
        self._began = 0.0

    def send(self) -> None:
        """The rows that are due by now; where the server takes none, they stay due."""
        now = time.monotonic()
        self._began = self._began or now
        due = int((now - self._began) * BACKGROUND) - self.sent
        while due > 0:
            stream, count = self._turn, min(due, MAX_LIVE_ROWS)
            key, rows = key_of(stream), self._sample.rows(stream, self._next[stream], count)
            try:
                self._feed.send(key.symbol, key.interval, rows, timeout=0)
            except RequestTimeout:
                return
            self._next[stream] += count
            self._turn = (stream + 1) % self._plan.streams
            self.sent += count
            due -= count

    def said(self) -> dict[str, float]:
        """Rows per second asked for, and as they became committed."""
        seconds = max(time.monotonic() - self._began, 1e-9)
        return {"asked": BACKGROUND, "committed": round(self._feed.committed / seconds, 1)}


def _served(children: Children, server: Child, interrupted: Callable[[], bool]) -> Message:
    """The endpoints of the started server."""
    deadline = time.monotonic() + SERVE_LIMIT_S
    server.tell("serve")

    def idle() -> None:
        if time.monotonic() > deadline:
            raise FluxError("the server did not start in time")
        if interrupted():
            raise KeyboardInterrupt

    for child, event in children.events(idle):
        if child is server:
            if event["event"] == "failed":
                raise FluxError(f"the server did not start: {event['why']}")
            return event
    raise AssertionError("events end by an exception")


def _fill(plan: Plan, sample: Sample, at: Message, interrupted: Callable[[], bool]) -> None:
    with Feed(SOURCE, ingest=at["ingest"], chunk_rep=at["rpc"]) as feed:
        for stream in range(plan.streams):
            key = key_of(stream)
            feed.send(key.symbol, key.interval, sample.rows(stream, 1, SAMPLE_ROWS), timeout=FILL_LIMIT_S)
            if interrupted():
                raise KeyboardInterrupt
        feed.flush(FILL_LIMIT_S)


def _line(second: Message) -> str:
    return second_line(second, warmup=False)


def _check(plan: Plan) -> None:
    check_alone(plan)
    if not plan.rate:
        raise ConfigError("--mode rpc asks at a constant rate: say --rate N, requests per second")
    if plan.rows != 1:
        raise ConfigError(f"--mode rpc asks for pages of {PAGE_ROWS:,} rows: no --rows")
    if plan.servers.pub or plan.servers.ingest:
        raise ConfigError("--mode rpc asks at one endpoint: --rpc, no --pub and no --ingest")
    if not plan.servers.rpc and plan.streams > MAX_FILLED:
        raise ConfigError(f"--mode rpc fills at most {MAX_FILLED} streams: lower --streams or give --rpc")


def _more(done: Message, background: Background | None) -> dict[str, Any]:
    """What the report says of the requests themselves."""
    answered, times = done["answered"], done["by_kind"]
    return {
        "kinds": {kind: {"answered": answered[kind], "from_schedule_ns": times[kind]} for kind in KINDS},
        **{name: done[name] for name in ("errors", "faults", "rows", "strays", "bad_frames", "reconnects")},
        "background_rows_per_s": None if background is None else background.said(),
    }


def _config(plan: Plan, done: Message) -> dict[str, Any]:
    started = not plan.servers.rpc
    return {
        "transport": plan.servers.rpc or "tcp loopback",
        "server": "started" if started else "given",
        "durability": "process" if started else None,
        "streams": done["streams"],
        "sample_rows": SAMPLE_ROWS if started else None,
        "mix": {kind: MIX.count(kind) for kind in KINDS},
        "page_rows": PAGE_ROWS,
        "connections": CONNECTIONS,
        **dict.fromkeys(("rows", "publishers", "audience", "hwm", "tick_us", "faults")),
    }


def _rate(plan: Plan, complete: bool, done: Message) -> dict[str, Any]:
    """Right answers behind the warm-up, per second until the last of them was here, and their rows and bytes. HELD: all
    that was due was asked, and so many were right in that time."""
    least_ns = plan.duration_ns if complete else 1
    seconds = max(done["last_ns"] - plan.warmup_ns, least_ns) / NS_PER_S
    achieved = done["measured"] / seconds
    held = complete and done["sent"] == done["scheduled"] and achieved >= HELD_SHARE * plan.rate
    return {
        "target": plan.rate,
        "achieved": round(achieved, 1),
        "held": held,
        "rows_per_s": round(done["measured_rows"] / seconds, 1),
        "bytes_per_s": round(done["measured_bytes"] / seconds, 1),
    }


def own_words(plan: Plan, told: Told, background: Background | None) -> dict[str, dict[str, Any]]:
    """What the calling process said, in the report's form: counts are requests, `missing` those without an answer
    in time, `corrupt` wrong answers. Answers have no order, and a second one to a request is a stray."""
    done = told.done
    names = ("scheduled", "sent", "send_blocked", "received", "missing", "corrupt")
    return {
        "config": _config(plan, done),
        "rate": _rate(plan, told.complete, done),
        "counts": counts(errors=sum(done["errors"].values()), **{name: done[name] for name in names}),
        "generator": generator({"publisher": done["cpu"]}, unpacked(done["slip"])),
        "rpc": _more(done, background),
    }


def run(plan: Plan, *, say: Callable[[str], None], interrupted: Callable[[], bool]) -> Outcome:
    """Carry out a plan of this mode, as `flux.loadgen.run.run` says."""
    _check(plan)
    with contextlib.ExitStack() as stack:
        background: Background | None = None
        endpoint = plan.servers.rpc
        if not endpoint:
            left = stack.enter_context(
                contextlib.ExitStack()
            )  # goes behind the server: should that be killed
            servers = Children("rpc_server")
            (server,) = stack.enter_context(servers)
            at = _served(servers, server, interrupted)
            left.callback(shutil.rmtree, at["directory"], ignore_errors=True)
            sample = Sample(plan.seed)
            _fill(plan, sample, at, interrupted)
            at = _served(servers, server, interrupted)
            feed = Feed(SOURCE, ingest=at["ingest"], chunk_rep=at["rpc"])
            stack.callback(_leave, feed)
            background, endpoint = Background(feed, plan, sample), at["rpc"]
        callers = Children("caller")
        (caller,) = stack.enter_context(callers)
        config = dataclasses.asdict(plan)
        caller.tell("plan", plan=config, endpoint=endpoint, sampled=background is not None)
        following = Following(plan, caller, say=say, line=_line, interrupted=interrupted)
        told = following.follow(callers, background.send if background else _nothing)
        times = {name: unpacked(told.done[name]) for name in ("from_schedule", "from_send")}
        return outcome_of(plan, told, latency=times, own=own_words(plan, told, background))


def _nothing() -> None:
    """A given server gets no rows from us."""


def _leave(feed: Feed) -> None:
    with contextlib.suppress(RequestTimeout):  # rows of the background that are not committed are nobody's
        feed.close()

"""What has sockets, in a process that was forked since it was made: one error for every use, an end at once."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import flux
from flux.client.historical import Historical
from flux.client.live import Live
from flux.errors import FluxError
from flux.feed.push import Feed
from flux.feed.synth import candles
from flux.transport.forked import OfOneProcess
from flux.transport.requester import Requester
from flux.transport.sockets import Sockets
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY
from tests.unit.live_server import LiveServer

ENDINGS = {"close", "stop", "terminate"}


def in_child(act: Callable[[], object]) -> str:
    """What `act` returned, or raised, in a process that is forked for it; one that does not end is killed."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        try:
            said = repr(act())
        except BaseException:
            said = traceback.format_exc()
        os.write(writer, said.encode()[-60_000:])
        os._exit(0)
    os.close(writer)
    try:
        waiting = select.poll()
        waiting.register(reader, select.POLLIN)
        ready = waiting.poll(PATIENCE_S * 1_000)
        return os.read(reader, 65_536).decode() if ready else "no end"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reader)


def said_of(use: Callable[[], object]) -> str:
    """The error of one use."""
    try:
        use()
    except FluxError as error:
        return str(error)
    return "no error"


def use_of(one: object, name: str) -> object:
    """A property's value, or what a method gives, whose arguments are not looked at."""
    found = getattr(one, name)
    return found() if callable(found) else found


def check(use: Callable[[], object], what: str) -> None:
    said = in_child(lambda: said_of(use))
    assert f"this {what} was made in process {os.getpid()}, and this is process " in said, said


@pytest.fixture
def live(server: LiveServer, cache: Path) -> Iterator[Live]:
    with Live(cache=cache, pub=server.pub, rep=server.rep) as made:
        made.subscribe(KEY.symbol, interval=KEY.interval, source=KEY.source_id, start="oldest")
        next(made)
        yield made


@pytest.fixture
def asked(server: LiveServer) -> Iterator[Historical]:
    with Historical(rep=server.rep, timeout=PATIENCE_S) as made:
        made.get_status(KEY)
        yield made


@pytest.fixture
def feed() -> Iterator[Feed]:
    """Nobody is at its endpoints."""
    made = Feed("FEED", ingest="tcp://127.0.0.1:1", chunk_rep="tcp://127.0.0.1:1")
    yield made
    made._delivery.end()


def public(kind: type) -> list[str]:
    return [name for name in dir(kind) if not name.startswith("_") and name not in ENDINGS]


def test_every_class_that_has_sockets_is_known() -> None:
    """All that the package offers and that is closed."""
    offered = [getattr(flux, name) for name in flux.__all__]
    closed = {kind for kind in offered if isinstance(kind, type) and hasattr(kind, "__exit__")}
    assert closed == {Live, Historical, Feed}
    assert all(issubclass(kind, OfOneProcess) for kind in closed)


def test_each_public_name_of_an_inherited_historical_is_one_error(asked: Historical) -> None:
    for name in public(Historical):
        check(partial(use_of, asked, name), "Historical")
    bound = asked.get_range
    check(lambda: bound(KEY.symbol, interval=KEY.interval, source=KEY.source_id), "Historical")
    check(lambda: type(asked).__enter__(asked), "Historical")
    assert asked.get_status(KEY).latest_sequence == 100, "the parent's is as it was"


def test_an_iteration_that_began_before_the_fork(asked: Historical) -> None:
    batches = asked.iter_range(KEY.symbol, interval=KEY.interval, source=KEY.source_id)
    check(lambda: next(batches), "Historical")
    assert sum(map(len, batches)) == 100


def test_each_public_name_of_an_inherited_live_is_one_error(live: Live) -> None:
    for name in public(Live):
        check(partial(use_of, live, name), "Live")
    for use in (lambda: next(live), lambda: iter(live), lambda: type(live).__enter__(live)):
        check(use, "Live")
    check(lambda: type(live).__anext__(live), "Live")
    assert live.status(KEY).delivered >= 1, "the parent's is as it was"


def test_each_public_name_of_an_inherited_feed_is_one_error(feed: Feed) -> None:
    for name in public(Feed):
        check(partial(use_of, feed, name), "Feed")
    bound = feed.send
    check(lambda: bound("BTC", "1m", candles(1, 1)), "Feed")
    assert feed._outbox.kernel.queued == 0


@pytest.mark.parametrize("which", ["live", "asked", "feed"])
def test_an_inherited_one_ends_at_once(which: str, request: pytest.FixtureRequest, cache: Path) -> None:
    """However it is ended; a database that it has is not closed, which would write into the parent's file."""
    held: list[Any] = [request.getfixturevalue(which)]
    kind, gone = type(held[0]), weakref.ref(held[0])
    bound = [getattr(held[0], name) for name in ENDINGS if hasattr(kind, name)]
    stack, loop_stack = ExitStack(), AsyncExitStack()
    stack.push(held[0])
    before = cache.read_bytes() if cache.exists() else b""

    async def leave() -> None:
        async with loop_stack:
            pass

    if hasattr(kind, "__aexit__"):
        loop_stack.push_async_exit(held[0])

    def end() -> str:
        for method in bound:
            method()
        for name in ENDINGS:
            if hasattr(kind, name):
                getattr(held[0], name)()
        stack.close()
        asyncio.run(leave())
        held.clear()
        bound.clear()
        return "ended" if gone() is not None else "given back"

    assert in_child(end) == "'ended'"
    stack.pop_all()
    loop_stack.pop_all()
    assert (cache.read_bytes() if cache.exists() else b"") == before


def test_a_subclass_of_ones_own_is_no_way_around() -> None:
    class Mine(Feed):
        closed = 0

        def twice(self) -> None:
            self.send("BTC", "1m", candles(1, 1))

        def close(self) -> None:
            self.closed += 1
            super().close()

    mine = Mine("FEED", ingest="tcp://127.0.0.1:1", chunk_rep="tcp://127.0.0.1:1")
    check(mine.twice, "Mine")
    assert in_child(lambda: mine.close()) == "None"
    mine._delivery.end()


def test_a_fork_of_a_fork_names_the_process_that_made_it(feed: Feed) -> None:
    here = os.getpid()
    said = in_child(lambda: in_child(lambda: said_of(feed.flush)))
    assert f"this Feed was made in process {here}, and" in said, said


def test_one_that_is_made_after_the_fork_works(server: LiveServer) -> None:
    def ask() -> int:
        with Historical(rep=server.rep, timeout=PATIENCE_S) as own:
            return own.get_status(KEY).latest_sequence

    assert in_child(ask) == "100"


def test_what_asks_by_itself_gets_the_error_too(server: LiveServer) -> None:
    """Below the classes that users see: a requester, and sockets."""
    with Sockets() as sockets:
        requester = Requester(sockets, server.rep)
        check(lambda: requester.receive(1.0), "connection")
        check(lambda: sockets.dealer(server.rep), "connection")
        requester.close()

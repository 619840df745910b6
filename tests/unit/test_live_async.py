"""`flux.Live` in an event loop closes its cache like one in a thread: after `async with`, and after a loop that was
left in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from flux.client.live import Live
from flux.transport.topics import stream_topic
from tests.patience import PATIENCE_S
from tests.unit.followed import KEY, check, live_of, rows_until
from tests.unit.live_server import LiveServer


async def first(server: LiveServer, live: Live) -> int:
    """The last sequence of the first batch; the loop is left there."""
    live.subscribe(KEY.symbol, interval=KEY.interval, start="oldest")
    live.start()
    await asyncio.to_thread(server.subscribed, stream_topic(KEY))
    server.beat()
    async for batch in live:
        return batch.end_sequence
    raise AssertionError("it ended")


def goes_on(server: LiveServer, cache: Path, after: int) -> None:
    """Another one has the cache, while the first still exists, and goes on after what was handled."""
    with live_of(server, cache) as other:
        other.subscribe(KEY.symbol, interval=KEY.interval, start="cache")
        other.start()
        server.publish(KEY, 3)
        server.beat()
        check(rows_until(other, 103), server, after + 1, 103)


def test_async_with_closes_it_and_what_was_given_is_handled(server: LiveServer, cache: Path) -> None:
    live = live_of(server, cache)

    async def main() -> int:
        async with live as entered:
            assert entered is live
            return await first(server, live)

    goes_on(server, cache, asyncio.run(main()))
    assert live.block_for_close(PATIENCE_S)


def test_async_with_left_by_an_error_gives_the_batch_again(server: LiveServer, cache: Path) -> None:
    live = live_of(server, cache)

    async def main() -> None:
        async with live:
            await first(server, live)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        asyncio.run(main())
    goes_on(server, cache, 0)


def test_async_with_closes_one_that_never_began(server: LiveServer, cache: Path) -> None:
    async def main() -> None:
        async with live_of(server, cache):
            pass

    asyncio.run(main())
    live_of(server, cache).__exit__(None, None, None)


@pytest.mark.parametrize("end", [Live.stop, Live.terminate])
def test_a_loop_that_was_left_lets_go_of_the_cache(
    end: Callable[[Live], None], server: LiveServer, cache: Path
) -> None:
    live = live_of(server, cache)

    async def main() -> int:
        last = await first(server, live)
        end(live)
        await asyncio.wait_for(live.wait_for_close(), PATIENCE_S)
        return last

    asyncio.run(main())
    goes_on(server, cache, 0)  # it was never said to be handled

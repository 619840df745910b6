"""The codec inside a web service: an ASGI application that takes frames and gives the latest candles.

    python -m flux.examples.asgi_app                 a server, a client, and what they said; ends by itself
    uvicorn flux.examples.asgi_app:app --port 8000   the service

    POST /frames                                     one frame of candles, either version of the wire, as the body
    GET  /candles/SOURCE/SYMBOL/INTERVAL?limit=100   the newest candles, as JSON
         with `Accept: application/octet-stream`     the same as a frame of version 2, for `flux.codec.decode`

The application is plain ASGI and needs no framework; in FastAPI or Starlette, `post` and `get` are what stands in
the two routes. A frame is bytes from a stranger: `decode` believes nothing that it has not checked and says in
`DecodeError` what is wrong and where, which becomes the answer 400. What the codec does not judge is judged here:
names and numbers.

Each stream is a `flux.Ring` of the newest candles: a frame that is sent twice adds nothing, frames may overtake each
other, and what is missing can be named. The body is gone after the request; the ring has copied its rows.
"""

from __future__ import annotations

import json
import socket
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qs

import numpy as np

import flux
from flux.codec import Candles, DecodeError
from flux.errors import InvalidNameError
from flux.model import MAX_SEQUENCE
from flux.threads import WatchedThread

KEPT: Final = 1_024  # candles of a stream
STREAMS: Final = 1_000
FRAME: Final = "application/octet-stream"
JSON: Final = "application/json"
NUMBERS: Final = ("open", "high", "low", "close", "volume", "turnover")

Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


class RefusedError(Exception):
    """A request that is answered with `status` and the message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class App:
    """The application. It lives in one event loop, so nothing needs a lock."""

    def __init__(self) -> None:
        self._rings: dict[flux.StreamKey, flux.Ring] = {}

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """What an ASGI server calls for each request, and once for its own start and end."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"{scope['type']}: this application speaks HTTP alone")
        try:
            status, kind, body = await self._handle(scope, receive)
        except DecodeError as error:
            told = {"error": str(error), "reason": error.reason, "offset": error.offset}
            status, kind, body = 400, JSON, json.dumps(told).encode()
        except (RefusedError, InvalidNameError) as error:
            status, kind = getattr(error, "status", 400), JSON
            body = json.dumps({"error": str(error)}).encode()
        headers = [(b"content-type", kind.encode()), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _handle(self, scope: Message, receive: Receive) -> tuple[int, str, bytes]:
        method, path = scope["method"], scope["path"]
        if path == "/frames" and method == "POST":
            return 200, JSON, json.dumps(self.post(await _body(receive))).encode()
        if path.startswith("/candles/") and method == "GET":
            query = parse_qs(scope["query_string"].decode("latin-1"))
            accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
            kind = FRAME if FRAME in accept else JSON
            return 200, kind, self.get(path.removeprefix("/candles/"), query.get("limit", ["100"])[0], kind)
        raise RefusedError(404, "POST /frames or GET /candles/SOURCE/SYMBOL/INTERVAL")

    def post(self, frame: bytes) -> dict[str, object]:
        """Keeps the candles of a frame; says what became of them.

        Raises `DecodeError`, `InvalidNameError` or `RefusedError`.
        """
        batch = flux.codec.decode(frame)
        if not isinstance(batch, Candles) or batch.key is None or batch.key.checked().kind != Candles.kind:
            raise RefusedError(400, f"candles are taken here, not {type(batch).__name__}")
        if not all(np.isfinite(batch.rows[name]).all() for name in NUMBERS):
            raise RefusedError(400, "a price or volume that is no number")
        if not 1 <= batch.start_sequence <= MAX_SEQUENCE - len(batch):
            raise RefusedError(400, f"sequence {batch.start_sequence}")
        ring = self._ring(batch.key, batch.start_sequence)
        placed = ring.place(batch.start_sequence, np.ascontiguousarray(batch.rows))
        return {"stream": str(batch.key), **placed._asdict(), "missing": ring.gaps(10).tolist()}

    def _ring(self, key: flux.StreamKey, sequence: int) -> flux.Ring:
        ring = self._rings.get(key)
        if ring is None:
            if len(self._rings) == STREAMS:
                raise RefusedError(503, f"{STREAMS} streams are kept already")
            ring = self._rings[key] = flux.Ring(KEPT, first=sequence)
        elif sequence - ring.contiguous > KEPT:
            ring.reset(sequence)  # so far ahead that the hole before it would be all that is kept
        return ring

    def get(self, name: str, limit: str, kind: str) -> bytes:
        """The newest `limit` candles of a stream as `kind`. Raises `InvalidNameError` or `RefusedError`."""
        key = flux.StreamKey.parse(name)
        ring = self._rings.get(key)
        if ring is None:
            raise RefusedError(404, f"{key} is unknown here")
        if not (limit.isascii() and limit.isdigit() and len(limit) < 5 and 1 <= int(limit) <= KEPT):
            raise RefusedError(400, f"limit is 1 to {KEPT}")
        first = max(ring.first, ring.contiguous - int(limit) + 1)
        rows = ring.window(first, ring.contiguous)
        if kind == FRAME:
            frame = flux.codec.encode(rows, key, first)
            assert isinstance(frame, bytes)  # without `out`, encode gives bytes
            return frame
        candles = [dict(zip(flux.CANDLE.names or (), row, strict=True)) for row in rows.tolist()]
        return json.dumps({"stream": str(key), "start_sequence": first, "candles": candles}).encode()


app = App()


async def _body(receive: Receive) -> bytes:
    """All of the request's body, which is never larger than a frame may be."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise RefusedError(400, "the client left")
        body += message.get("body", b"")
        if len(body) > flux.limits.MAX_FRAME_BYTES:
            raise RefusedError(413, f"a frame has at most {flux.limits.MAX_FRAME_BYTES} bytes")
        if not message.get("more_body"):
            return bytes(body)


async def _lifespan(receive: Receive, send: Send) -> None:
    """There is nothing to open or close; a server wants to hear so."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


def sample(rows: int = 120) -> bytes:
    """A frame with two hours of one-minute candles."""
    candles = np.zeros(rows, flux.CANDLE)
    candles["ts_ms"] = 1_700_002_800_000 + 60_000 * np.arange(rows)
    for name in ("open", "high", "low", "close"):
        candles[name] = 100 + np.arange(rows)
    candles["flags"] = flux.CandleFlag.CLOSED
    frame = flux.codec.encode(candles, flux.StreamKey("SIM", "BTCUSDT", "1m"))
    assert isinstance(frame, bytes)
    return frame


def call(url: str, body: bytes | None = None, accept: str = JSON) -> tuple[int, bytes]:
    """Status and body of one request: a POST where there is a body to send."""
    request = urllib.request.Request(url, body, {"Accept": accept, "Content-Type": FRAME})
    try:
        with urllib.request.urlopen(request, timeout=60) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def talk(base: str) -> None:
    """A client: one frame, the same again, one that lost a bit; then the newest candles in both shapes."""
    frame = sample()
    damaged = frame[:-8] + bytes([frame[-8] ^ 1]) + frame[-7:]
    for what, body in (("frame", frame), ("the same again", frame), ("a damaged one", damaged)):
        status, said = call(f"{base}/frames", body)
        print(f"POST {what}: {status} {said.decode()}")
    path = f"{base}/candles/SIM/BTCUSDT/1m?limit=2"
    status, said = call(path)
    print(f"GET as JSON: {status}, closes {[candle['close'] for candle in json.loads(said)['candles']]}")
    status, said = call(path, accept=FRAME)
    print(f"GET as a frame: {status} {flux.codec.decode(said)}")


def main() -> None:
    """Runs the application under uvicorn on a free port and talks to it. Needs `pip install uvicorn`."""
    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        # The socket listens already: a client that comes before the server is ready just waits.
        thread = WatchedThread(
            lambda: server.run(sockets=[listening]), name="uvicorn", failed=lambda _: listening.close()
        )
        thread.start()
        try:
            talk(f"http://127.0.0.1:{listening.getsockname()[1]}")
        finally:
            server.should_exit = True
            thread.join()


if __name__ == "__main__":
    main()

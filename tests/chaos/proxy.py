"""A proxy between each node and the homeserver, with bad weather of its own: one port a node."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

import aiohttp
from aiohttp import web
from yarl import URL

from tests.chaos.plan import Kind

_HOP: Final = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "upgrade"}
_BYTES_MAX: Final = 64 * 1024 * 1024
_EVENTS = 2  # of a timeline that is cut
_PART = 0.4  # of the requests that a fault befalls


@dataclass
class Way:
    """One node's way to the homeserver."""

    dice: random.Random
    lease_s: float
    port: int = 0
    weather: set[Kind] = field(default_factory=set)
    clear: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """All ways, in a thread of its own. `change` may be called from any thread."""

    def __init__(self, upstream: str, nodes: list[str], seed: int, lease_s: float) -> None:
        self._upstream = upstream
        self._ways = {name: Way(random.Random(f"proxy {seed} {name}"), lease_s) for name in nodes}
        self.befallen: Counter[str] = Counter()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runners: list[web.AppRunner] = []
        self._late: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession

    def __enter__(self) -> Self:
        self._thread.start()
        self._wait(asyncio.run_coroutine_threadsafe(self._open(), self._loop))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._wait(asyncio.run_coroutine_threadsafe(self._close(), self._loop))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def address(self, node: str) -> str:
        """Where the node finds the homeserver."""
        return f"http://127.0.0.1:{self._ways[node].port}"

    def change(self, node: str, kind: Kind, *, on: bool) -> None:
        """A fault of the network begins or ends."""

        def do() -> None:
            way = self._ways[node]
            (way.weather.add if on else way.weather.discard)(kind)
            if not on:
                way.clear.set()
                way.clear = asyncio.Event()

        self._loop.call_soon_threadsafe(do)

    @staticmethod
    def _wait(future: Future[None]) -> None:
        future.result(30)

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(total=None),
            connector=aiohttp.TCPConnector(limit=0),
        )
        self._session._retry_connection = False  # a request is one request
        for way in self._ways.values():
            app = web.Application(client_max_size=_BYTES_MAX)
            app.router.add_route("*", "/{path:.*}", self._handler(way))
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            way.port = runner.addresses[0][1]
            self._runners.append(runner)

    async def _close(self) -> None:
        for task in list(self._late):
            task.cancel()
        for way in self._ways.values():
            way.weather.clear()
            way.clear.set()
        for runner in self._runners:
            await runner.cleanup()
        await self._session.close()

    def _handler(self, way: Way):  # type: ignore[no-untyped-def]
        async def handle(request: web.Request) -> web.StreamResponse:
            try:
                return await self._pass(way, request)
            except (aiohttp.ClientError, OSError):
                return _abort(request)

        return handle

    async def _pass(self, way: Way, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        weather, dice = set(way.weather), way.dice
        url = request.rel_url
        if Kind.CUT in weather:
            return self._hit(Kind.CUT, request)
        if Kind.LATE in weather and request.method != "GET" and dice.random() < _PART:
            task = self._loop.create_task(self._later(request, body, dice.uniform(0.1, 2.5) * way.lease_s))
            self._late.add(task)
            task.add_done_callback(self._late.discard)
            return self._hit(Kind.LATE, request)
        if Kind.DELAY in weather:
            self.befallen[Kind.DELAY] += 1
            await _sleep(dice.uniform(0.0, 0.3) * way.lease_s)
        syncs = request.path.endswith("/sync")
        if Kind.GAP in weather and syncs:
            self.befallen[Kind.GAP] += 1
            url = _cut(url)
        answer = await self._ask(request, url, body)
        if Kind.HANG in way.weather and syncs:
            self.befallen[Kind.HANG] += 1
            await way.clear.wait()
        if Kind.DROP in weather and dice.random() < _PART:
            return self._hit(Kind.DROP, request)
        return answer

    def _hit(self, kind: Kind, request: web.Request) -> web.Response:
        self.befallen[kind] += 1
        return _abort(request)

    async def _later(self, request: web.Request, body: bytes, seconds: float) -> None:
        await _sleep(seconds)
        with contextlib.suppress(aiohttp.ClientError, OSError):
            await self._ask(request, request.rel_url, body)

    async def _ask(self, request: web.Request, url: URL, body: bytes) -> web.Response:
        target = URL(self._upstream + str(url), encoded=True)
        async with self._session.request(
            request.method, target, data=body, headers=_kept(request.headers), allow_redirects=False
        ) as answer:
            content = await answer.read()
            return web.Response(status=answer.status, body=content, headers=_kept(answer.headers))


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name.lower() not in _HOP}


def _cut(url: URL) -> URL:
    """The same question for a timeline of two events, so that the answer is limited."""
    asked = json.loads(url.query.get("filter", "{}"))
    asked.setdefault("room", {}).setdefault("timeline", {})["limit"] = _EVENTS
    return url.update_query(filter=json.dumps(asked))


def _abort(request: web.Request) -> web.Response:
    """Close the connection without a word."""
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _sleep(seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.Event().wait(), seconds)

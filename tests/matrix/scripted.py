"""A homeserver that does as it is told: each request takes the next answer of its script."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from cisbot.core.inputs import Input

ROOM = "!room"
NODE = "@node-1:test"


@dataclass(frozen=True)
class Request:
    """What came in."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]


Reply = Callable[[Request], Awaitable[web.StreamResponse]]


def answer(body: object, status: int = 200) -> Reply:
    """Answer with JSON."""

    async def reply(_: Request) -> web.StreamResponse:
        return web.json_response(body, status=status)

    return reply


def text(body: str, status: int = 200, kind: str = "text/html") -> Reply:
    """Answer with something else."""

    async def reply(_: Request) -> web.StreamResponse:
        return web.Response(text=body, status=status, content_type=kind)

    return reply


def limited(ms: int) -> Reply:
    """Answer 429."""
    return answer({"errcode": "M_LIMIT_EXCEEDED", "error": "slow", "retry_after_ms": ms}, 429)


def refused(status: int, errcode: str) -> Reply:
    """Answer with an error of Matrix."""
    return answer({"errcode": errcode, "error": "no"}, status)


class Lose(Exception):
    """The connection breaks instead of an answer."""


async def lose(_: Request) -> web.StreamResponse:
    """Take the request, then break the connection."""
    raise Lose


def hang(until: asyncio.Event) -> Reply:
    """Don't answer before `until` is set."""

    async def reply(_: Request) -> web.StreamResponse:
        await until.wait()
        return web.json_response({})

    return reply


@dataclass
class Scripted:
    """Rules are (method, part of the path); each has its answers, the last of which stays."""

    rules: list[tuple[str, str, list[Reply]]] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    url: str = ""
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    def on(self, method: str, part: str, *replies: Reply) -> None:
        """Answer requests whose path has `part`; a later rule goes before an earlier one."""
        self.rules.insert(0, (method, part, list(replies)))

    def of(self, method: str, part: str) -> list[Request]:
        """The requests so far."""
        return [r for r in self.requests if r.method == method and part in r.path]

    async def until(self, count: int, method: str, part: str) -> list[Request]:
        """Wait until that many came."""
        while len(found := self.of(method, part)) < count:
            self.arrived.clear()
            async with asyncio.timeout(10):
                await self.arrived.wait()
        return found

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Take the request, answer by the first rule that matches."""
        raw = await request.read()
        seen = Request(
            request.method,
            request.path,
            dict(request.query),
            json.loads(raw) if raw else None,
            dict(request.headers),
        )
        self.requests.append(seen)
        self.arrived.set()
        for method, part, replies in self.rules:
            if method == seen.method and part in seen.path:
                reply = replies.pop(0) if len(replies) > 1 else replies[0]
                try:
                    return await reply(seen)
                except Lose:
                    assert request.transport is not None
                    request.transport.abort()
                    return web.Response()
        return web.json_response({"errcode": "M_NOT_FOUND", "error": "no rule"}, status=404)


async def serve(scripted: Scripted) -> TestServer:
    """Start it on loopback."""
    app = web.Application(client_max_size=10 * 1024 * 1024)
    app.router.add_route("*", "/{tail:.*}", scripted.handle)
    server = TestServer(app)
    await server.start_server()
    scripted.url = str(server.make_url("/")).rstrip("/")
    return server


def message(number: int, *, sender: str = "@alice:test") -> dict[str, Any]:
    """A raw message event, `$m<number>`."""
    return {
        "event_id": f"$m{number}",
        "type": "m.room.message",
        "sender": sender,
        "origin_server_ts": number,
        "content": {"msgtype": "m.text", "body": f"message {number}"},
    }


def synced(
    cursor: str,
    events: list[dict[str, Any]],
    *,
    is_limited: bool = False,
    state: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """A raw answer to a sync."""
    timeline = {"events": events, "limited": is_limited, "prev_batch": f"before-{cursor}"}
    room = {"timeline": timeline, "state": {"events": state or []}}
    return {"next_batch": cursor, "rooms": {"join": {ROOM: room}}}


class Inbox:
    """What was emitted, and a way to wait for more."""

    def __init__(self) -> None:
        self.items: list[Input] = []
        self._more = asyncio.Event()

    def __call__(self, item: Input) -> None:
        self.items.append(item)
        self._more.set()

    async def until(self, count: int) -> list[Input]:
        """Wait until that many came."""
        while len(self.items) < count:
            self._more.clear()
            async with asyncio.timeout(10):
                await self._more.wait()
        return self.items

"""What one event costs Synapse when many bots follow the room, by how they ask: `make bench-sync`.

Accounts follow a room and one of them speaks; the next event is sent when all have seen the last. The cost is
the CPU time of Synapse's process. The last line is one JSON object: seconds an event, and each way's ratio to
`/sync` without a filter.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp

from cisbot.core.ids import RoomId
from cisbot.core.room.wire import STATE_TYPES, TIMELINE_TYPES
from cisbot.matrix.sync import sync_filter
from homeserver.accounts import Account
from homeserver.synapse import Synapse

V3 = "/_matrix/client/v3"
SLIDING = "/_matrix/client/unstable/org.matrix.simplified_msc3575/sync"
Json = Mapping[str, object]


@dataclass(frozen=True)
class Way:
    """One way to follow a room: `/sync` with this filter (None: without), or sliding sync."""

    name: str
    filter: Json | None = None
    sliding: bool = False
    silent: bool = False  # the account's push rules are switched off
    stored: bool = False  # the filter is stored at the homeserver and named, not sent


def ways(room: str) -> list[Way]:
    """All that is tried; the first one is what the others are compared with."""
    product = json.loads(sync_filter(RoomId(room)))
    types = {"types": [*STATE_TYPES, *TIMELINE_TYPES, "m.room.message", "m.reaction"]}
    nothing = {"not_types": ["*"]}
    return [
        Way("no filter"),
        Way("types alone", {"room": {"timeline": types}}),
        Way("no presence, receipts, typing, account data", _without(product, "timeline", "state")),
        Way("lazy members", {"room": {"state": {"lazy_load_members": True}}}),
        Way("no state", {**product, "room": {**product["room"], "state": nothing}}),
        Way("cisbot's", product),
        Way("cisbot's, stored", product, stored=True),
        Way("cisbot's, push rules off", product, silent=True),
        Way("simplified sliding sync", sliding=True),
        Way("simplified sliding sync, push rules off", sliding=True, silent=True),
    ]


def _without(product: Json, *parts: str) -> Json:
    room = product["room"]
    assert isinstance(room, dict)
    return {**product, "room": {key: value for key, value in room.items() if key not in parts}}


class Follower:
    """One account that follows the room; `seen` counts the events of the speaker."""

    def __init__(self, session: aiohttp.ClientSession, account: Account, room: str, way: Way) -> None:
        self._session, self._room, self._way = session, room, way
        self._headers = {"Authorization": f"Bearer {account.access_token}"}
        self._user = account.user_id
        self._filter = json.dumps(way.filter, separators=(",", ":")) if way.filter is not None else None
        self._conn = f"bench-{way.name.partition(',')[0]}-{way.silent}"
        self._place: str | None = None
        self.seen = 0

    async def begin(self) -> None:
        """Learn where the room stands."""
        if self._way.stored:
            path = f"{V3}/user/{quote(self._user)}/filter"
            async with self._session.post(path, json=self._way.filter, headers=self._headers) as answer:
                self._filter = (await answer.json())["filter_id"]
        self._place = await (self._slide(0) if self._way.sliding else self._sync(0))
        self.seen = 0

    async def follow(self, moved: Callable[[], None]) -> None:
        """Follow until cancelled."""
        while True:
            self._place = await (self._slide(20_000) if self._way.sliding else self._sync(20_000))
            moved()

    async def _sync(self, wait_ms: int) -> str:
        query = {"timeout": str(wait_ms), "set_presence": "offline"}
        if self._place is not None:
            query["since"] = self._place
        if self._filter is not None:
            query["filter"] = self._filter
        async with self._session.get(f"{V3}/sync", params=query, headers=self._headers) as answer:
            told = await answer.json()
        room = told.get("rooms", {}).get("join", {}).get(self._room, {})
        self.seen += len(room.get("timeline", {}).get("events", []))
        return str(told["next_batch"])

    async def _slide(self, wait_ms: int) -> str:
        query = {"timeout": str(wait_ms), "set_presence": "offline"}
        if self._place is not None:
            query["pos"] = self._place
        sub: Json = {"timeline_limit": 100 if self._place else 0, "required_state": []}
        body = {"conn_id": self._conn, "room_subscriptions": {self._room: sub}}
        async with self._session.post(SLIDING, params=query, json=body, headers=self._headers) as answer:
            told = await answer.json()
        self.seen += len(told.get("rooms", {}).get(self._room, {}).get("timeline", []))
        return str(told["pos"])


class Bench:
    """A Synapse, a room, and its bots."""

    def __init__(self, synapse: Synapse, session: aiohttp.ClientSession, bots: list[Account]) -> None:
        self._synapse, self._session, self._bots = synapse, session, bots
        self.room = ""
        self._txn = 0

    async def open(self) -> None:
        """Make the room; all join."""
        made = await self._ask("POST", f"{V3}/createRoom", {"preset": "public_chat"}, self._bots[0])
        self.room = str(made["room_id"])
        for bot in self._bots[1:]:
            await self._ask("POST", f"{V3}/join/{quote(self.room)}", {}, bot)

    async def cost(self, way: Way, bots: int, events: int) -> float:
        """CPU seconds of Synapse for one event that so many bots see in this way."""
        await self._silence(way.silent)
        followers = [Follower(self._session, bot, self.room, way) for bot in self._bots[:bots]]
        await asyncio.gather(*(one.begin() for one in followers))
        moved = asyncio.Event()
        tasks = [asyncio.ensure_future(one.follow(moved.set)) for one in followers]
        try:
            await self._spread(followers, moved, 2)
            before = cpu_s(self._synapse.pid)
            await self._spread(followers, moved, events)
            return (cpu_s(self._synapse.pid) - before) / events
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _spread(self, followers: list[Follower], moved: asyncio.Event, events: int) -> None:
        """Half are heartbeats, half messages that mention nobody."""
        goal = followers[0].seen
        for number in range(events):
            self._txn += 1
            kind = "m.room.message" if number % 2 else "io.cisbot.heartbeat"
            content = (
                {"msgtype": "m.text", "body": "hello", "m.mentions": {}} if number % 2 else {"n": number}
            )
            path = f"{V3}/rooms/{quote(self.room)}/send/{kind}/{os.getpid()}.{self._txn}"
            await self._ask("PUT", path, content, self._bots[0])
            goal += 1
            async with asyncio.timeout(60):
                while any(one.seen < goal for one in followers):
                    moved.clear()
                    await moved.wait()

    async def _silence(self, silent: bool) -> None:
        for bot in self._bots:
            path = f"{V3}/pushrules/global/override/.m.rule.master/enabled"
            await self._ask("PUT", path, {"enabled": silent}, bot)

    async def _ask(self, method: str, path: str, body: Json, account: Account) -> Json:
        headers = {"Authorization": f"Bearer {account.access_token}"}
        async with self._session.request(method, path, json=body, headers=headers) as answer:
            told = await answer.json()
            assert answer.status == 200, told
            return dict(told)


def cpu_s(pid: int) -> float:
    """The CPU seconds that a process has used, in user and kernel mode."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measure(synapse: Synapse, bots: int, events: int, only: str) -> dict[str, float]:
    """CPU seconds an event, by way."""
    names = [f"bot-{number}" for number in range(bots)]
    accounts = [synapse.accounts.create(name, "secret word") for name in names]
    connector = aiohttp.TCPConnector(limit=0)
    found: dict[str, float] = {}
    async with aiohttp.ClientSession(synapse.base_url, connector=connector) as session:
        bench = Bench(synapse, session, accounts)
        await bench.open()
        tried = [way for way in ways(bench.room) if only in way.name]
        for way in tried:
            found[way.name] = await bench.cost(way, bots, events)
            base = next(iter(found.values()))
            print(
                f"{way.name:48} {found[way.name] * 1000:7.1f} ms  {found[way.name] / base:5.2f}", flush=True
            )
        alone = found["cisbot's, stored, one bot"] = await bench.cost(ways(bench.room)[6], 1, events)
        print(f"{'the same, one bot':48} {alone * 1000:7.1f} ms")
    return found


def main() -> None:
    """Print a table, and one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bots", type=int, default=50)
    parser.add_argument("--events", type=int, default=20)
    parser.add_argument("--only", default="", help="the ways whose name has this in it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, Synapse.start(folder, limits="lifted") as synapse:
        found = asyncio.run(measure(synapse, args.bots, args.events, args.only))
    first = next(iter(found.values()))
    told = {name: {"cpu_s": round(cost, 4), "ratio": round(cost / first, 2)} for name, cost in found.items()}
    print(json.dumps({"bots": args.bots, "events": args.events, "ways": told}))


if __name__ == "__main__":
    main()

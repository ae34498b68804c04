"""What a long past costs: `make bench-state RUNS=10000`.

The product's own events, of so many runs of 20 DAGs, are put into a room of a real Synapse. Then a new node
joins that room: how large is its state, how long until the node is there, and how many requests is that?
With `--data` what is there already is kept, so that a long past can be put there in parts. The last line is
one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from pydantic import SecretStr
from typing_extensions import override
from yarl import URL

from cisbot.core.ids import NodeId
from cisbot.core.settings import Matrix, Node, Settings
from cisbot.matrix.http import Api, Method
from cisbot.node.build import Node as RunningNode
from cisbot.node.standalone import follow
from homeserver.accounts import Account
from homeserver.api import call
from homeserver.synapse import Synapse
from tests.bench.past import Past, dag_files, story
from tests.integration.nodes import Nodes
from tests.world.room import HOME, OPERATOR

V3 = "/_matrix/client/v3"
DAGS = 20
EARLY = 100
EVENTS_OF_A_RUN = 4
QUIET_S = 1.0


class Counting(Api):
    """Counts requests by kind; `busy` are those under way, syncs left out."""

    def __init__(self, homeserver: str, token: str, user_id: str, say: Callable[[str], None]) -> None:
        super().__init__(homeserver, token, user_id=user_id, say=say)
        self.counts: Counter[str] = Counter()
        self.busy = 0
        self.moved = asyncio.Event()
        self.there = asyncio.Event()

    @override
    async def _send(
        self, method: Method, url: URL, content: Any, query_params: dict[str, str], headers: dict[str, str]
    ) -> tuple[Any, aiohttp.ClientResponse]:
        kind = kind_of(str(method), url.path)
        self.counts[kind] += 1
        waits = kind != "GET sync"
        self.busy += waits
        self.moved.set()
        try:
            return await super()._send(method, url, content, query_params, headers)
        finally:
            self.busy -= waits
            self.moved.set()
            if kind == "PUT state/io.cisbot.node":
                self.there.set()

    async def quiet(self) -> None:
        """Until nothing was under way for a second."""
        while True:
            self.moved.clear()
            try:
                async with asyncio.timeout(None if self.busy else QUIET_S):
                    await self.moved.wait()
            except TimeoutError:
                return


def kind_of(method: str, path: str) -> str:
    """The request without its ids."""
    parts = path.partition("/client/")[2].split("/")[1:]
    kept = parts[2:] if parts[0] == "rooms" else parts
    return f"{method} {'/'.join(kept[:2] if kept[0] == 'state' else kept[:1])}"


async def join_anew(settings: Settings) -> tuple[float, Counter[str]]:
    """Seconds from the start of a node without a database until its record is sent, and all its requests."""
    token = settings.matrix.access_token
    assert token is not None
    said: list[str] = []
    api = Counting(settings.matrix.homeserver, token.get_secret_value(), settings.matrix.user_id, said.append)
    async with api:
        node = RunningNode(settings, api, said.append)
        began = time.monotonic()
        serving = asyncio.ensure_future(node.serve(follow))
        there = asyncio.ensure_future(api.there.wait())
        await asyncio.wait({serving, there}, return_when=asyncio.FIRST_COMPLETED)
        took_s = time.monotonic() - began
        assert there.done(), (said, serving)
        await api.quiet()
        counts = Counter(api.counts)
        node.stop()
        await serving
        return took_s, counts


def settings_of(nodes: Nodes, account: Account, name: str) -> Settings:
    """A node's settings, with a data directory of its own."""
    return Settings(
        node=Node(id=NodeId(name), data_dir=nodes.root / name / "data", dags=(nodes.dags,)),
        matrix=Matrix(
            homeserver=nodes.synapse.base_url,
            user_id=account.user_id,
            access_token=SecretStr(account.access_token),
            room=nodes.room,
        ),
    )


def state_of(nodes: Nodes) -> tuple[int, int]:
    """How many events the room's state has, and how many bytes of JSON."""
    url = f"{nodes.synapse.base_url}{V3}/rooms/{nodes.room}/state"
    headers = {"Authorization": f"Bearer {nodes.operator.access_token}"}

    async def read() -> bytes:
        async with aiohttp.ClientSession(headers=headers) as session, session.get(url) as answer:
            return await answer.read()

    raw = asyncio.run(read())
    return len(json.loads(raw)), len(raw)


async def fill(nodes: Nodes, runs: int, ids: list[str], until: float) -> list[str]:
    """Put the runs there that are not there yet, until the time is up; the ids of all events so far."""
    teller = nodes.accounts["node-1"]
    joined, _ = call("POST", f"{nodes.synapse.base_url}{V3}/join/{nodes.room}", {}, token=teller.access_token)
    assert joined == 200
    accounts = {
        OPERATOR: (nodes.operator.user_id, nodes.operator.access_token),
        f"@node-1:{HOME}": (teller.user_id, teller.access_token),
    }
    async with aiohttp.ClientSession(nodes.synapse.base_url) as session:
        past = Past(session, nodes.room, accounts)
        past.ids = ids

        def moved(count: int) -> None:
            if time.monotonic() > until:
                raise TimeoutError
            if count % 2000 == 0:
                print(f"{count} events", flush=True)

        try:
            await past.put(story(runs, DAGS), moved)
        except TimeoutError:
            print(f"{len(ids)} events so far", flush=True)
        return past.ids


class Room:
    """The room of this benchmark, kept from an earlier time or made."""

    def __init__(self, nodes: Nodes, kept: Path) -> None:
        self._nodes, self._kept = nodes, kept
        told: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
        self._ids: list[str] = told.get("ids", [])
        self.early: list[int] = told.get("early", [])
        nodes.accounts = {name: nodes.make_account(name) for name in ("node-1",)}
        if told:
            nodes.room = told["room"]
        else:
            nodes.make_room()
            nodes.person.stop()
        for name, text in dag_files(DAGS).items():
            nodes.write_dag(name, text)

    def fill(self, runs: int, seconds: float) -> None:
        """Put the runs there, as many as the time allows."""
        until = time.monotonic() + seconds
        for most in (EARLY, runs):
            self._ids = asyncio.run(fill(self._nodes, most, self._ids, until))
            if most == EARLY and not self.early:
                self.early = list(state_of(self._nodes))
        told = {"room": self._nodes.room, "ids": self._ids, "early": self.early}
        self._kept.write_text(json.dumps(told))

    @property
    def events(self) -> int:
        """How many were put there."""
        return len(self._ids)


def measure(root: Path, runs: int, seconds: float) -> dict[str, object]:
    """Fill the room, as far as the time allows, and join it."""
    with Synapse.start(root / "synapse", limits="lifted") as synapse, tempfile.TemporaryDirectory() as folder:

        def account(prefix: str, *, admin: bool = False) -> Account:
            return synapse.accounts.create(prefix, "secret word", admin=admin)

        with Nodes(synapse, account, Path(folder)) as nodes:
            room = Room(nodes, root / "past.json")
            room.fill(runs, seconds)
            events, size = state_of(nodes)
            fresh = f"fresh-{room.events}"
            nodes.accounts[fresh] = account(fresh)
            nodes.make_room()  # completes it: the fresh account is invited
            joins = {
                what: asyncio.run(join_anew(settings_of(nodes, nodes.accounts[name], name)))
                for what, name in (("new", fresh), ("without_database", "node-1"))
            }
            early, early_size = room.early
            return {
                "runs": room.events // EVENTS_OF_A_RUN,
                "events": room.events,
                "state_events": {"early": early, "end": events},
                "state_bytes": {"early": early_size, "end": size},
                "join_s": {what: round(took_s, 2) for what, (took_s, _) in joins.items()},
                "requests": {what: dict(sorted(counts.items())) for what, (_, counts) in joins.items()},
            }


def main() -> None:
    """Print one JSON object as the last line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--data", type=Path, help="keep the homeserver there, to go on later")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop to fill the room after that")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root: Path = args.data or Path(folder)
        root.mkdir(parents=True, exist_ok=True)
        found = measure(root, args.runs, args.seconds)
    print(json.dumps(found))


if __name__ == "__main__":
    main()

"""A room with a past: what real coordinators said in the model room, put into a room of a real homeserver."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import quote

import aiohttp

from cisbot.core.room.events import Json
from cisbot.core.room.wire import T_CHARTER
from tests.world.machine import dag
from tests.world.room import HOME, OPERATOR, Raw
from tests.world.world import World

V3 = "/_matrix/client/v3"
ROOMS_OWN = ("m.room.create", "m.room.power_levels", T_CHARTER)
SHELL = "scope: proj-a\ntasks:\n  a: {shell: 'true'}\n  b: {shell: 'true', needs: [a]}\n"


def dag_files(dags: int) -> dict[str, str]:
    """So many DAGs, by name."""
    return {f"dag-{number:02}": SHELL for number in range(dags)}


def story(runs: int, dags: int) -> Iterator[Raw]:
    """The room's events, run after run, as a lone node and a person make them."""
    world = World([dag(f"id: {name}\n{text}") for name, text in dag_files(dags).items()], nodes=1)
    told = 0
    for number in range(runs):
        world.boot += 1
        world.room.boot, world.room.wall_ms = world.boot, world.room.wall_ms + 1000
        world.room.say(OPERATOR, f"!dag publish dag-{number % dags:02}")
        world.settle()
        yield from world.room.stream[told:]
        told = len(world.room.stream)


class Past:
    """Puts a story into a room, one event after the other, under real accounts and with real ids."""

    def __init__(
        self, session: aiohttp.ClientSession, room: str, accounts: Mapping[str, tuple[str, str]]
    ) -> None:
        self._session, self._room = session, room
        self._accounts = accounts  # the model's user -> user and token here
        self.ids: list[str] = []  # of the events that are in the room, in the story's order

    async def put(self, events: Iterator[Raw], moved: Callable[[int], None] = lambda _: None) -> None:
        """Put what is not there yet."""
        for place, raw in enumerate(events):
            if place >= len(self.ids):
                own = raw["type"] in ROOMS_OWN
                self.ids.append("" if own else await self._send(raw, len(self.ids)))
                moved(len(self.ids))

    async def _send(self, raw: Raw, number: int) -> str:
        user, token = self._accounts[str(raw["sender"])]
        kind, content = str(raw["type"]), self._real(raw["content"])
        path = f"{V3}/rooms/{quote(self._room)}"
        if "state_key" in raw:
            key = quote(str(self._real(raw["state_key"])), safe="")
            path += f"/state/{kind}/{key}"
        else:
            path += f"/send/{kind}/past.{number}"
        headers = {"Authorization": f"Bearer {token}"}
        async with self._session.put(path, json=content, headers=headers) as answer:
            told = await answer.json()
            assert answer.status == 200, (user, told)
            return str(told["event_id"])

    def _real(self, value: Json) -> Json:
        text = json.dumps(value)
        for user, (real, _) in self._accounts.items():
            text = text.replace(user, real)
        found: Json = json.loads(re.sub(r"\$event(\d+)", lambda match: self.ids[int(match[1]) - 1], text))
        assert HOME not in text
        return found

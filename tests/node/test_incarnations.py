"""The host's side of delayed ends: one incarnation after the other, and none for ever in vain."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr
from typing_extensions import override

from cisbot.core.claims import armed
from cisbot.core.ids import NodeId, RoomId
from cisbot.core.inputs import EndAnswer, Input, RoomBatch
from cisbot.core.room.decode import decode
from cisbot.core.settings import END_DELAY_S_MIN, Coordinator, Matrix, Settings
from cisbot.core.settings import Node as NodeSection
from cisbot.errors import CisbotError
from cisbot.matrix import waiting
from cisbot.matrix.delayed import CAPABILITY
from cisbot.matrix.http import Api
from cisbot.node.build import VAIN_MAX, Node
from tests.matrix.scripted import NODE, ROOM, Scripted, answer, limited, lose, refused, serve

STATE = [
    {
        "type": kind, "state_key": "", "event_id": f"${kind}", "sender": NODE, "origin_server_ts": 1,
        "content": content,
    }
    for kind, content in (
        ("m.room.create", {"room_version": "11"}),
        ("m.room.power_levels", {"users": {NODE: 100}}),
        ("io.cisbot.charter", {"version": 1, "home": "test"}),
    )
]  # fmt: skip


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pauses between attempts are a thousandth as long."""
    whole = waiting.Backoff.next_s
    monkeypatch.setattr(waiting.Backoff, "next_s", lambda self: whole(self) / 1000)
    yield


@pytest.fixture
async def homeserver() -> AsyncIterator[Scripted]:
    """A homeserver with delayed events, in which one node has a room."""
    script = Scripted()
    script.on("POST", "/join/", answer({"room_id": ROOM}))
    script.on("GET", "/state", answer(STATE))
    script.on("GET", "/state/m.room.encryption", refused(404, "M_NOT_FOUND"))
    script.on("GET", "/capabilities", answer({"capabilities": {CAPABILITY: {"max_delay_ms": 60_000}}}))
    script.on("PUT", "/rooms/", answer({"event_id": "$there"}))
    server = await serve(script)
    yield script
    await server.close()


class WatchedNode(Node):
    """Tells when the homeserver has answered about the delayed end."""

    def __init__(self, settings: Settings, api: Api, said: list[str]) -> None:
        super().__init__(settings, api, said.append)
        self.answered = asyncio.Event()

    @override
    def emit(self, item: Input) -> None:
        super().emit(item)
        if isinstance(item, EndAnswer):
            self.answered.set()


class Host:
    """A node and the room that it follows: `lives` counts its incarnations."""

    def __init__(self, homeserver: Scripted, api: Api, folder: Path, end_delay: float = 30.0) -> None:
        settings = Settings(
            coordinator=Coordinator(end_delay=end_delay),
            node=NodeSection(id=NodeId("node-1"), data_dir=folder / "data", dags=()),
            matrix=Matrix(
                homeserver=homeserver.url, user_id=NODE, access_token=SecretStr("token"), room=ROOM
            ),
        )
        self.said: list[str] = []
        self.lives = 0
        self.armed = 0  # incarnations that ask for a delayed end
        self.stop_in = 0  # the incarnation in which it is stopped once it has said who it is
        self._homeserver = homeserver
        self.node = WatchedNode(settings, api, self.said)

    async def follow(self, room_id: RoomId, cursor: str | None, node: Node) -> None:
        """Tell the node of its room; then nothing happens."""
        self.lives += 1
        self.node.answered.clear()
        events = tuple(event for raw in STATE if (event := decode(raw)) is not None)
        first = RoomBatch(f"s{self.lives}", (), gap=True, initial=True, state=events)
        node.emit(first if cursor is None else RoomBatch(f"s{self.lives}", ()))
        if self.lives == self.stop_in:
            await self._homeserver.until(1, "PUT", "/state/io.cisbot.node")
            if self.lives <= self.armed:
                await self.node.answered.wait()
            node.stop()
        await asyncio.Event().wait()


@pytest.fixture
async def api(homeserver: Scripted) -> AsyncIterator[Api]:
    """The node's way to it."""
    async with Api(homeserver.url, "token", user_id=NODE) as made:
        yield made


async def test_whose_arming_is_never_answered_does_without_in_the_end(
    homeserver: Scripted, api: Api, tmp_path: Path
) -> None:
    arms = [*[lose] * VAIN_MAX, answer({"event_id": "$end"})]
    homeserver.on("PUT", "/send/io.cisbot.end/", *arms)
    host = Host(homeserver, api, tmp_path)
    host.stop_in = VAIN_MAX + 1
    await host.node.serve(host.follow)
    assert host.lives == VAIN_MAX + 1
    ends = homeserver.of("PUT", "/send/io.cisbot.end/")
    assert len([end for end in ends if "org.matrix.msc4140.delay" in end.query]) == VAIN_MAX
    assert len({end.body["incarnation"] for end in ends}) == VAIN_MAX + 1
    assert sum("going on as a new one" in line for line in host.said) == VAIN_MAX
    records = [request.body for request in homeserver.of("PUT", "/state/io.cisbot.node")]
    assert [record["gone"] for record in records] == [False, True], "nobody hears of those that never lived"


async def test_whose_restarts_are_always_refused_does_without_in_the_end(
    homeserver: Scripted, api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A proxy that knows the stable paths only, say: no run could outlive the delay."""
    monkeypatch.setattr(armed, "RESTARTS_PER_DELAY", 100)
    homeserver.on("PUT", "/send/io.cisbot.end/", answer({"delay_id": "d", "event_id": "$end"}))
    homeserver.on("POST", "/delayed_events/d/restart", refused(404, "M_UNRECOGNIZED"))
    host = Host(homeserver, api, tmp_path, end_delay=END_DELAY_S_MIN)
    host.stop_in = VAIN_MAX + 1
    await host.node.serve(host.follow)
    ends = homeserver.of("PUT", "/send/io.cisbot.end/")
    assert len([end for end in ends if "org.matrix.msc4140.delay" in end.query]) == VAIN_MAX
    assert sum("going on as a new one" in line for line in host.said) == VAIN_MAX


async def test_off_by_the_settings_nothing_is_asked(homeserver: Scripted, api: Api, tmp_path: Path) -> None:
    host = Host(homeserver, api, tmp_path, end_delay=0.0)
    host.stop_in = 1
    await host.node.serve(host.follow)
    assert homeserver.of("GET", "/capabilities") == []
    (end,) = homeserver.of("PUT", "/send/io.cisbot.end/")
    assert end.query == {}


async def test_a_homeserver_that_is_away_between_two_incarnations_is_waited_for(
    homeserver: Scripted, api: Api, tmp_path: Path
) -> None:
    homeserver.on("PUT", "/send/io.cisbot.end/", lose, answer({"delay_id": "d"}), answer({"event_id": "$e"}))
    homeserver.on("POST", "/delayed_events/d/cancel", answer({}))
    joined = answer({"room_id": ROOM})
    homeserver.on("POST", "/join/", joined, limited(3_600_000), joined)
    host = Host(homeserver, api, tmp_path)
    host.stop_in = host.armed = 2
    await host.node.serve(host.follow)
    assert host.lives == 2
    assert [line for line in host.said if line.startswith("can't go on yet")]
    assert len(homeserver.of("POST", "/delayed_events/d/cancel")) == 1, "taken back after the end itself"


async def test_what_can_not_go_on_says_why(homeserver: Scripted, api: Api, tmp_path: Path) -> None:
    homeserver.on("PUT", "/send/io.cisbot.end/", lose)
    homeserver.on("POST", "/join/", answer({"room_id": ROOM}), refused(403, "M_FORBIDDEN"))
    host = Host(homeserver, api, tmp_path)
    with pytest.raises(CisbotError, match="must invite it"):
        await host.node.serve(host.follow)

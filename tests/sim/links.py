"""What is under way between homeservers: each direction in order; a cut link keeps it for later."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from tests.sim.homeserver import Homeserver, Written

if TYPE_CHECKING:
    from tests.sim.world import World

WAY_S = 0.03
Link = tuple[str, str]


class Links:
    """All links between the servers of a world."""

    def __init__(self, world: World, servers: list[Homeserver]) -> None:
        self._world = world
        self._servers = servers
        self._way: dict[Link, deque[Written]] = {}
        self._cut: set[Link] = set()

    @property
    def idle(self) -> bool:
        """Whether every server has all events."""
        return not any(self._way.values())

    def send(self, source: Homeserver, written: Written) -> None:
        """To all other servers."""
        for other in self._servers:
            if other is not source:
                link = (source.name, other.name)
                self._way.setdefault(link, deque()).append(written)
                self._world.after(WAY_S, lambda link=link: self._deliver(link))  # type: ignore[misc]

    def cut(self, link: Link) -> None:
        """One direction is cut."""
        self._cut.add(link)

    def heal(self) -> None:
        """All links are whole, and what waited comes."""
        self._cut.clear()
        for link in self._way:
            self._deliver(link)

    def _deliver(self, link: Link) -> None:
        way = self._way[link]
        target = next(server for server in self._servers if server.name == link[1])
        while way and link not in self._cut:
            self._world.received(target, way.popleft())

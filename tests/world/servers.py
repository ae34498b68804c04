"""Several homeservers of one room: each with a stream of its own, links that are cut, late backlogs.

Self-contained: a `Server` is a `ModelRoom`, and `Links` hand on what it was told, in order, when it is up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from typing_extensions import override

from cisbot.core.dags.definition import Definition
from cisbot.core.ids import RunId
from cisbot.core.room.events import Json
from tests.world.delays import Delays
from tests.world.machine import Machine
from tests.world.room import HOME, ModelRoom, Raw
from tests.world.world import World


class Server(ModelRoom):
    """One server's view of the room. What is put here goes out to the others."""

    def __init__(
        self,
        name: str,
        links: Links,
        home: Server | None = None,
        *,
        lease_s_max: int = 60,
        mode: str = "consistent",
    ) -> None:
        self.name = name
        self.links: Links | None = None
        super().__init__(lease_s_max, mode)
        if home is not None:
            self.stream, self.times, self.state = list(home.stream), list(home.times), dict(home.state)
            self.wall_ms, self.boot = home.wall_ms, home.boot
        self.links = links
        links.servers.append(self)

    @override
    def put(
        self,
        sender: str,
        kind: str,
        content: Mapping[str, Json],
        *,
        state_key: str | None = None,
        txn: str | None = None,
    ) -> str:
        """As before; a new event goes out."""
        before = len(self.stream)
        event_id = super().put(sender, kind, content, state_key=state_key, txn=txn)
        if self.links is not None and len(self.stream) > before:
            self.links.send(self, self.stream[-1])
        return event_id

    @override
    def event_name(self, number: int) -> str:
        """Unlike those of other servers."""
        return f"$event{number}.{self.name}"

    def receive(self, raw: Raw) -> None:
        """An event of another server. Of two states the later one stays, alike everywhere."""
        self.stream.append(raw)
        self.times.append(self.boot)
        if "state_key" in raw:
            place = (str(raw["type"]), str(raw["state_key"]))
            known = self.state.get(place)
            if known is None or _age(known) < _age(raw):
                self.state[place] = raw


def _age(raw: Raw) -> tuple[int, str]:
    ts = raw["origin_server_ts"]
    assert isinstance(ts, int)
    return ts, str(raw["event_id"])


class Links:
    """What is under way between servers, each pair and direction by itself."""

    def __init__(self, delay_s: float) -> None:
        self.servers: list[Server] = []
        self.delay_s = delay_s
        self.boot = 0.0
        self._way: dict[tuple[str, str], deque[tuple[float, Raw]]] = {}
        self._cut: set[tuple[str, str]] = set()

    def send(self, source: Server, raw: Raw) -> None:
        """To all others."""
        for other in self.servers:
            if other is not source:
                way = self._way.setdefault((source.name, other.name), deque())
                way.append((self.boot + self.delay_s, raw))

    def deliver(self, boot: float) -> bool:
        """Hand on what is due; whether there was something."""
        self.boot = boot
        moved = False
        for (source, target), way in self._way.items():
            while way and way[0][0] <= boot and (source, target) not in self._cut:
                next(s for s in self.servers if s.name == target).receive(way.popleft()[1])
                moved = True
        return moved

    def cut(self, source: str, target: str) -> None:
        """One direction; what is sent meanwhile waits."""
        self._cut.add((source, target))

    def heal(self, source: str, target: str) -> None:
        """The backlog comes now."""
        self._cut.discard((source, target))


class Federation(World):
    """A world of several servers; the first is the room's home. `nodes`: how many each server has."""

    def __init__(
        self,
        dags: list[Definition],
        nodes: Sequence[int] = (1, 1),
        *,
        lease_s_max: int = 60,
        mode: str = "consistent",
        delay_s: float = 0.25,
        execute_at_home: bool = True,
    ) -> None:
        self.boot = 1_000.0
        self.links = Links(delay_s)
        self.room = home = Server(HOME, self.links, lease_s_max=lease_s_max, mode=mode)
        home.boot = self.boot
        self.delays = Delays(home)
        self.servers = [home, *(Server(f"hs{n}", self.links, home) for n in range(2, len(nodes) + 1))]
        self.machines = [
            Machine(
                server, f"{server.name.replace('.', '-')}-{n + 1}", dags, server=server.name,
                execute=execute_at_home or server is not home,
            )
            for server, count in zip(self.servers, nodes, strict=True)
            for n in range(count)
        ]  # fmt: skip
        for machine in self.machines:
            machine.start(self.now)
        self.settle()
        self.wait(4 * delay_s)

    @override
    def deliver(self) -> bool:
        """What is due on the links."""
        return self.links.deliver(self.boot)

    @override
    def tick(self, seconds: float) -> None:
        """All servers' clocks go alike."""
        super().tick(seconds)
        for server in self.servers:
            server.wall_ms, server.boot = self.room.wall_ms, self.boot

    def cut(self, *names: str) -> None:
        """These servers (without names: the home) neither hear the others nor are heard."""
        self._all(names or (HOME,), self.links.cut)

    def heal(self, *names: str) -> None:
        """The links of these servers are back."""
        self._all(names or (HOME,), self.links.heal)

    def _all(self, names: Sequence[str], change: Callable[[str, str], None]) -> None:
        for name in names:
            for other in self.servers:
                if other.name != name:
                    change(name, other.name)
                    change(other.name, name)

    @override
    def check(self) -> None:
        """After every move; a test overrides it or looks at `overlaps` itself."""

    def overlaps(self) -> list[tuple[str, list[str]]]:
        """Keys whose tasks run on more than one node at this very moment."""
        running: dict[str, set[str]] = {}
        for machine in self.machines:
            for run, _, _ in machine.running:
                key = machine.coordinator.board.runs[RunId(run)].key
                running.setdefault(str(key), set()).add(machine.name)
        return [(key, sorted(names)) for key, names in running.items() if len(names) > 1]

    def holders(self) -> list[str]:
        """The nodes that run something."""
        return [machine.name for machine in self.machines if machine.running]


class Consistent(Federation):
    """Where two nodes at once are an error at any moment."""

    @override
    def check(self) -> None:
        """Never two."""
        assert self.overlaps() == []

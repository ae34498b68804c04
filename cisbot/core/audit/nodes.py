"""Who spoke: whether accounts, node ids and incarnations were what they said. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from cisbot.core.audit.found import Breach, Finding, Reading, Remark
from cisbot.core.ids import Incarnation, NodeId, UserId
from cisbot.core.room.events import (
    Asker,
    End,
    Heartbeat,
    Intent,
    MemoryWrite,
    NodeRecord,
    Probe,
    Rejected,
    Release,
    Restate,
    Take,
)
from cisbot.core.room.wire import T_INTENT

LATE_MS = 20_000  # how long a request of a process that is over may have been on its way
Spoken = Take | Release | Heartbeat | Probe | End | Intent | Restate | MemoryWrite | NodeRecord
Process = tuple[UserId, Incarnation]


@dataclass(slots=True)
class _Life:
    """From a process's first to its last word, as which node, and when it ended, if that was said."""

    node: NodeId | None
    first_ms: int
    last_ms: int
    ended_ms: int | None = None
    awake_ms: int | None = None  # its first word after that


class Nodes:
    """All that is known of nodes. Feed it the whole reading, its state too, then ask."""

    def __init__(self, reading: Reading) -> None:
        self._events = [event for event in reading.events if isinstance(event, Spoken)]
        asked = [event for event in self._events if isinstance(event, Intent)]
        self._askers = {Asker(e.sender, e.node, e.incarnation, e.nonce) for e in asked}
        bare = [e for e in reading.events if isinstance(e, Rejected) and e.redacted and e.type == T_INTENT]
        self._hidden = {event.sender for event in bare}  # who may have asked all the same
        self._whole = reading.whole
        self._owners: dict[NodeId, set[UserId]] = defaultdict(set)
        self._processes: dict[Incarnation, set[UserId]] = defaultdict(set)
        for event in (*self._events, *reading.state):
            if isinstance(event, NodeRecord):
                self._owners[event.node].add(event.sender)
                self._processes[event.incarnation].add(event.sender)

    def accounts(self) -> frozenset[UserId]:
        """All accounts that ever were a node's."""
        return frozenset(user for users in self._owners.values() for user in users)

    def judge(self) -> Iterator[Finding]:
        """Everything that contradicts what nodes say of themselves."""
        lives: dict[Process, _Life] = {}
        for event in self._events:
            yield from self._spoke_for(event)
            if isinstance(event, Take) and event.asker is not None:
                yield from self._granted_to(event, event.asker)
            yield from self._lived(event, lives)
        yield from _twins(lives)

    def _spoke_for(self, event: Spoken) -> Iterator[Finding]:
        if isinstance(event, NodeRecord):
            return
        node = None if isinstance(event, Restate | MemoryWrite) else event.node
        if (another := self._another(event.sender, node, event.incarnation)) is not None:
            yield _finding(Breach.SPEAKS_FOR_ANOTHER, event, f"{event.sender} speaks as {another}")

    def _another(self, account: UserId, node: NodeId | None, incarnation: Incarnation) -> str | None:
        """The name that is not this account's, and whose it is."""
        owners = self._owners.get(node, set()) if node is not None else set()
        real = self._processes.get(incarnation, set())
        for whose, name in ((owners, f"node {node}"), (real, f"incarnation {incarnation}")):
            if whose and account not in whose:
                return f"{name}, which is {', '.join(sorted(whose))}"
        return None

    def _granted_to(self, grant: Take, asker: Asker) -> Iterator[Finding]:
        """A grant repeats what its asker says of itself: a lie in that is its intent's, and told there."""
        if asker in self._askers:
            return
        to = f"{grant.sender} grants to {asker.account}"
        if (another := self._another(asker.account, asker.node, asker.incarnation)) is not None:
            yield _finding(Breach.SPEAKS_FOR_ANOTHER, grant, f"{to} as {another}")
        elif self._whole and asker.account not in self._hidden:
            yield _finding(Breach.SPEAKS_FOR_ANOTHER, grant, f"{to} what that never asked for")

    @staticmethod
    def _lived(event: Spoken, lives: dict[Process, _Life]) -> Iterator[Finding]:
        """Releases and ends of a process may be said again by its successor, so they prove no life."""
        process = (event.sender, event.incarnation)
        if isinstance(event, End):
            if (life := lives.get(process)) is not None and life.ended_ms is None:
                life.ended_ms = event.ts_ms
            return
        if isinstance(event, Release) or isinstance(event, NodeRecord) and event.gone:
            return
        node = None if isinstance(event, Restate | MemoryWrite) else event.node
        life = lives.setdefault(process, _Life(node, event.ts_ms, event.ts_ms))
        life.node = node or life.node
        if life.ended_ms is None:
            life.last_ms = max(life.last_ms, event.ts_ms)
            return
        # A process that was stopped says what it had in hand, and then hears of its end.
        life.awake_ms = event.ts_ms if life.awake_ms is None else life.awake_ms
        late_ms, goes_on_ms = event.ts_ms - life.ended_ms, event.ts_ms - life.awake_ms
        what = f"{event.incarnation} of {event.sender} speaks {late_ms / 1000:.1f} s after it had ended"
        yield _finding(Breach.ZOMBIE if goes_on_ms > LATE_MS else Remark.LATE_WORDS, event, what)


def _twins(lives: dict[Process, _Life]) -> Iterator[Finding]:
    """Two processes of one account, or of one node id, alive for longer than a request takes."""
    by_name: dict[str, list[tuple[Process, _Life]]] = defaultdict(list)
    for (account, incarnation), life in lives.items():
        by_name[account].append(((account, incarnation), life))
        if life.node is not None:
            by_name[life.node].append(((account, incarnation), life))
    told: set[tuple[Process, Process]] = set()
    for name, group in by_name.items():
        group.sort(key=lambda one: one[1].first_ms)
        one, before = group[0]
        for other, after in group[1:]:
            both_ms = min(before.last_ms, after.last_ms) - after.first_ms
            if both_ms > LATE_MS and (one, other) not in told:
                told.add((one, other))
                what = (
                    f"{one[1]} of {one[0]} and {other[1]} of {other[0]} were both alive as {name} "
                    f"for {both_ms / 1000:.0f} s"
                )
                yield Finding(Breach.TWIN, what, after.first_ms, sender=other[0])
            if after.last_ms > before.last_ms:
                one, before = other, after


def _finding(kind: Breach | Remark, event: Spoken, what: str) -> Finding:
    key = None if isinstance(event, Heartbeat | Probe | End | NodeRecord) else event.key
    return Finding(kind, what, event.ts_ms, key, None, event.event_id, event.sender)

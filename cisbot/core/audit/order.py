"""In which order to fold one key's events, when they were read after the fact. Pure.

Claims are decided by the order of the home server's stream; `/messages` tells another one: first by depth
in the room's graph, then by the stream. The two differ only for events that forked, sent before either
sender saw the other. Which came first, the senders' own words mostly tell: of two takes on one head, the one
that later heads stand on. So the events are folded as read, and where that contradicts what was said, one
event is moved past others that it forked from, if fewer contradict the result. What no order explains stays.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from cisbot.core.audit.evidence import Evidence
from cisbot.core.claims.fold import fold, touch
from cisbot.core.claims.ledger import heads_of
from cisbot.core.claims.state import FREE, Accepted, Bounds, Head, Verdict, Void, from_carried
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId
from cisbot.core.room.events import ClaimEvent, MemoryWrite, Rejected, Restate, Take

FORK_MS = 10_000  # events further apart did not fork: a request does not take so long
REACH = 10  # places that an event may move
REPAIRS_MAX = 300  # a key: against whoever writes contradictions without end

Told = ClaimEvent | Restate | Rejected


@dataclass(frozen=True, slots=True)
class Item:
    """An event that concerns the key, and its place in the reading."""

    place: int
    event: Told


@dataclass(frozen=True, slots=True)
class Step:
    """What the fold makes of an item. No verdict: it is none of the fold's, or nothing can be judged here.

    `before` and `head` are None as long as the key is unsure: its evidence was taken, or not read.
    """

    item: Item
    before: Head | None
    verdict: Verdict | None
    head: Head | None


class Folding:
    """The product's fold of one key; after a gap in the evidence it goes on from a carried head."""

    def __init__(self, key: ClaimKey, evidence: Evidence, bounds: Callable[[int], Bounds]) -> None:
        self.key, self._evidence, self._bounds = key, evidence, bounds

    def step(self, head: Head | None, item: Item) -> Step:
        """Fold one item."""
        event = item.event
        if isinstance(event, Rejected) and event.redacted or head is None:
            said = self._evidence.likeliest(self.key, event.event_id)
            return Step(item, head, None, from_carried(said) if said else None)
        if isinstance(event, Rejected | Restate):
            return Step(item, head, None, touch(head))
        after, verdict = fold(self.key, head, event, self._bounds(item.place))
        return Step(item, head, verdict, after)

    def contradicted(self, step: Step) -> int:
        """How many senders say otherwise."""
        if step.verdict is None or step.head is None:
            return 0
        event_id = step.item.event.event_id
        if isinstance(step.verdict, Void):
            return len(self._evidence.senders(self.key, event_id))
        said = self._evidence.heads.get((self.key, event_id), ())
        true = step.head.says()
        return len({v.by.sender for v in said if from_carried(v.head).says() != true})

    def overlooked(self, step: Step, line: Mapping[EventId | None, Told]) -> bool:
        """Whether the take is void for an event that its sender must have known: it did not fork from it.

        Weaker than what others say, for a node whose sync hangs overlooks much.
        """
        event, head = step.item.event, step.before
        if not isinstance(event, Take) or not isinstance(step.verdict, Void) or head is None:
            return False
        known = line.get(head.after)
        return event.after != head.after and known is not None and not forked(known, event)


def settle(items: Sequence[Item], folding: Folding, *, whole: bool) -> tuple[list[Step], list[Told]]:
    """The steps in the order that contradicts least of what was said, and the events that were moved."""
    line, start = list(items), FREE if whole else None
    steps: list[Step] = []
    moved: list[Told] = []
    repairs = 0
    while len(steps) < len(line):
        head = steps[-1].head if steps else start
        step = folding.step(head, line[len(steps)])
        if repairs < REPAIRS_MAX and folding.contradicted(step):
            repairs += 1
            if (better := _better(line, steps, start, folding)) is not None:
                line, kept, item = better
                del steps[kept:]
                moved.append(item.event)
                continue
        steps.append(step)
    return steps, moved


def _better(
    line: list[Item], steps: list[Step], start: Head | None, folding: Folding
) -> tuple[list[Item], int, Item] | None:
    """The line with one event moved so that less is contradicted, up to where it is as before, and which."""
    at = len(steps)
    low, high = max(0, at - REACH), min(len(line), at + REACH + 1)
    before = steps[low - 1].head if low else start

    def cost(window: Sequence[Item]) -> tuple[int, int]:
        head, contradicted, overlooked = before, 0, 0
        for item in window:
            step = folding.step(head, item)
            head = step.head
            contradicted += folding.contradicted(step)
            overlooked += folding.overlooked(step, events)
        return contradicted, overlooked

    window = line[low:high]
    events: dict[EventId | None, Told] = {item.event.event_id: item.event for item in line[:high]}
    least = cost(window)
    best: tuple[list[Item], Item] | None = None
    moves = sorted(
        ((a, b) for a in range(len(window)) for b in range(len(window)) if a != b and min(a, b) <= at - low),
        key=lambda move: abs(move[0] - move[1]),
    )
    for a, b in moves:
        if not _may_pass(window, a, b):
            continue
        tried = [*window[:a], *window[a + 1 :]]
        tried.insert(b, window[a])
        if (found := cost(tried)) < least:
            least, best = found, (tried, window[a])
    return None if best is None else ([*line[:low], *best[0], *line[high:]], low, best[1])


def _may_pass(window: Sequence[Item], a: int, b: int) -> bool:
    """Whether the event at `a` may have come at `b`: it forked from all that it passes."""
    mine = window[a].event
    passed = window[b:a] if b < a else window[a + 1 : b + 1]
    return all(forked(mine, other.event) for other in passed)


def forked(one: Told, other: Told) -> bool:
    """Whether neither sender can have seen the other event."""
    if one.sender == other.sender or abs(one.ts_ms - other.ts_ms) > FORK_MS:
        return False
    return other.event_id not in _names(one) and one.event_id not in _names(other)


def _names(event: Told) -> set[EventId | None]:
    """The events that it must have seen."""
    if isinstance(event, Rejected):
        return set()
    named: set[EventId | None] = {head.after for head in heads_of(event)}
    if isinstance(event, Take | MemoryWrite):
        named.add(event.after)
    return named


def unproven(steps: Sequence[Step], evidence: Evidence, key: ClaimKey) -> list[tuple[Take, Take]]:
    """Accepted takes that nobody vouches for, each with a rival that forked: their order is only as read."""
    granted: dict[EventId | None, Take] = {}
    found: list[tuple[Take, Take]] = []
    for step in steps:
        event = step.item.event
        if not isinstance(event, Take) or step.verdict is None:
            continue
        if isinstance(step.verdict, Accepted):
            granted[event.after] = event
            continue
        won = granted.get(event.after)
        if won is not None and forked(won, event) and not evidence.vouched(key, won.event_id):
            found.append((won, event))
    return found

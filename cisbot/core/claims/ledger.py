"""What a node knows of every key: sure heads, and the live tail from which unsure keys become sure again.

A key absent from the room's full state at the cursor is sure and free. After a gap every key that had or
may have had a lock event is unsure: its events are kept (the tail), not judged. It becomes sure by an
event that carries a head whose `after` lies in the tail: that head, and what the tail has since, on top.
Heads count only from accounts on the home server. Off it (`abroad`) all is hearsay: see `hearsay.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import dropwhile

from cisbot.core.claims.fold import concerns, fold, touch
from cisbot.core.claims.hearsay import Hearsay, guess
from cisbot.core.claims.state import FREE, Bounds, Head, Verdict, Void, carried, from_carried
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, UserId
from cisbot.core.room.events import (
    CarriedHead,
    ClaimEvent,
    End,
    Heartbeat,
    MemoryWrite,
    Probe,
    Rejected,
    Release,
    Restate,
    Take,
)
from cisbot.core.room.wire import HEAD_BYTES_MAX, MEMORY_PREFIX, head_bytes, key_of

TAIL_MAX = 20_000  # names of keys in the tail


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict on one key, with the head that it left."""

    key: ClaimKey
    event: ClaimEvent
    verdict: Verdict
    head: Head


@dataclass(frozen=True, slots=True)
class Adopted:
    """A key became sure."""

    key: ClaimKey
    head: Head


Finding = Judged | Adopted


class Ledger:
    """The heads of all keys as one node knows them. Pure: fed with events in stream order."""

    def __init__(self, bounds: Bounds, account: UserId | None = None) -> None:
        self._account = account
        self.bounds = bounds
        self.hearsay = Hearsay()
        self._sure: dict[ClaimKey, Head] = {}
        self._unsure: set[ClaimKey] = set()
        self._tail: dict[EventId, ClaimEvent] = {}
        self._tail_names = 0
        self.dirty: set[ClaimKey] = set()
        self.gaps = 0  # how often events were missed

    def load(self, sure: dict[ClaimKey, Head], unsure: Iterable[ClaimKey]) -> None:
        """Take up a stored ledger; its tail is not stored, so that unsure keys wait for new traffic."""
        self._sure = dict(sure)
        self._unsure = set(unsure)

    @property
    def bounds(self) -> Bounds:
        """What the charter says."""
        return self._bounds

    @bounds.setter
    def bounds(self, bounds: Bounds) -> None:
        self._bounds = bounds
        # Whether this node is off the home server: it judges nothing, and carries no heads.
        self.abroad = self._account is not None and not bounds.at_home(self._account)

    def known(self) -> Iterator[ClaimKey]:
        """All keys that ever had a lock event, as far as known."""
        yield from sorted({*self._sure, *self._unsure})

    def sure(self, key: ClaimKey) -> Head | None:
        """The head of a key of which this node is sure, or None."""
        if key in self._unsure:
            return None
        return self._sure.get(key, FREE)

    def is_unsure(self, key: ClaimKey) -> bool:
        """Whether the node may judge nothing of this key."""
        return key in self._unsure

    def gap(self, also: Iterable[ClaimKey] = ()) -> None:
        """Events were missed: every known key, and those that the state names, is unsure now."""
        self.gaps += 1
        if self.abroad:
            self._unsure |= {key for key in also if key.startswith(MEMORY_PREFIX)}
            return
        self._unsure |= {*self._sure, *also}
        self._sure.clear()
        self._cut()
        self.dirty |= self._unsure

    def missed(self, keys: Iterable[ClaimKey]) -> None:
        """An event of these keys was missed: they are unsure now, and nothing seen before it counts."""
        self.gaps += 1
        for key in keys if not self.abroad else ():
            self._sure.pop(key, None)
            self._unsure.add(key)
            self.dirty.add(key)
        self._cut()

    def touch(self, key: ClaimKey) -> None:
        """The state names the key now, though nothing of it was accepted."""
        if key not in self._unsure and not self._sure.get(key, FREE).touched:
            self._sure[key] = touch(self._sure.get(key, FREE))
            self.dirty.add(key)

    def observe(self, event: ClaimEvent | Restate) -> list[Finding]:
        """Fold one live event. The result names every key whose head or certainty it touched."""
        found: list[Finding] = []
        if self.abroad:
            return self._hear(event)
        for head in heads_of(event) if self.bounds.at_home(event.sender) else ():
            if head.key in self._unsure and (adopted := self._adopt(head)):
                found.append(adopted)
        if isinstance(event, Restate):
            self.touch(event.key)
            return found
        concerned = self._concerned(event)
        if isinstance(event, End) or not self._unsure.isdisjoint(concerned):
            self._keep(event)
        for key in concerned:
            if key in self._unsure:
                continue
            before = self._sure.get(key, FREE)
            head_after, verdict = fold(key, before, event, self.bounds)
            if head_after is not before:
                self._sure[key] = head_after
                self.dirty.add(key)
            found.append(Judged(key, event, verdict, head_after))
        if isinstance(event, Take | MemoryWrite) and event.fresh:
            found.extend(self._adopt_fresh(event))
        return found

    def since(self, key: ClaimKey, event_id: EventId) -> list[ClaimEvent] | None:
        """What could matter to the key after that event, or None where the event was not seen live."""
        if event_id not in self._tail:
            return None
        later = dropwhile(lambda e: e.event_id != event_id, self._tail.values())
        return [e for e in later if e.event_id != event_id and concerns(e, key)]

    def carried(self, key: ClaimKey) -> CarriedHead | None:
        """The head to carry, if sure; not one that others made too big for any event."""
        head = self.sure(key)
        if head is None or self.abroad or head_bytes(found := carried(key, head)) > HEAD_BYTES_MAX:
            return None
        return found

    def _hear(self, event: ClaimEvent | Restate) -> list[Finding]:
        """Off the home server: heads of home nodes are taken over, all else is a guess."""
        found: list[Finding] = []
        for head in heads_of(event) if self.bounds.at_home(event.sender) else ():
            if self.hearsay.takes_over(head):
                self._unsure.discard(head.key)
                self._sure[head.key] = from_carried(head)
                self.dirty.add(head.key)
                found.append(Adopted(head.key, self._sure[head.key]))
        if isinstance(event, Restate):
            return found
        if isinstance(event, MemoryWrite) and self.bounds.at_home(event.sender):
            self._unsure.add(event.key)  # whether it counts, and so the value, only a home node knows
            self.dirty.add(event.key)
            return found
        for key in self._concerned(event):
            before = self._sure.get(key, FREE)
            self._sure[key], verdict = guess(key, before, event, self.bounds)
            self.dirty.add(key)
            found.append(Judged(key, event, verdict, self._sure[key]))
        return found

    def _adopt(self, head: CarriedHead) -> Adopted | None:
        if head.after is None:
            return None
        later = self.since(head.key, head.after)
        if later is None:
            return None
        return self._settle(head.key, from_carried(head), later)

    def _adopt_fresh(self, event: Take | MemoryWrite) -> list[Finding]:
        """A fresh event makes unsure nodes sure, if they saw its probe and nothing since that matters."""
        if event.key not in self._unsure or event.after is None:
            return []
        asked = self._tail.get(event.after)
        probed = isinstance(asked, Probe) and event.key in asked.keys
        later = self.since(event.key, event.after) if probed else None
        if later is None or [e.event_id for e in later] != [event.event_id]:
            return []
        epoch = event.epoch if isinstance(event, Take) else event.version
        before = Head(epoch - 1, event.after, touched=True, takes=event.takes)
        after, verdict = fold(event.key, before, event, self.bounds)
        if isinstance(verdict, Void) or epoch > self.bounds.epoch_step_max * (event.takes + 1):
            return []
        return [self._settle(event.key, before, later), Judged(event.key, event, verdict, after)]

    def _settle(self, key: ClaimKey, head: Head, later: Iterable[ClaimEvent]) -> Adopted:
        for event in later:
            head, _ = fold(key, head, event, self.bounds)
        self._unsure.discard(key)
        self._sure[key] = head
        self.dirty.add(key)
        if not self._unsure:
            self._cut()
        return Adopted(key, head)

    def _keep(self, event: ClaimEvent) -> None:
        """Keep an event of unsure keys, without the heads that it carries: those were looked at already."""
        if not self._unsure:
            return
        bare = _bare(event)
        self._tail[event.event_id] = bare
        self._tail_names += _names(bare)
        if self._tail_names > TAIL_MAX:
            for old in list(self._tail.values())[: len(self._tail) // 2 + 1]:
                del self._tail[old.event_id]
                self._tail_names -= _names(old)

    def _cut(self) -> None:
        self._tail.clear()
        self._tail_names = 0

    def _concerned(self, event: ClaimEvent) -> list[ClaimKey]:
        match event:
            case Take() | Release() | MemoryWrite():
                return [event.key]
            case Heartbeat():
                return list(dict.fromkeys(r.key for r in event.renews))
            case Probe():
                return list(dict.fromkeys(event.keys))
            case End():
                mine = (event.sender, event.incarnation)
                return [
                    key
                    for key, head in self._sure.items()
                    if any((h.account, h.incarnation) == mine for h in head.holders)
                ]


def _bare(event: ClaimEvent) -> ClaimEvent:
    match event:
        case Heartbeat():
            return replace(event, heads=())
        case Take() | Release() | MemoryWrite():
            return replace(event, head=None)
        case Probe() | End():
            return event


def _names(event: ClaimEvent) -> int:
    match event:
        case Heartbeat():
            return 1 + len(event.renews)
        case Probe():
            return 1 + len(event.keys)
        case Take() | Release() | MemoryWrite() | End():
            return 1


def heads_of(event: ClaimEvent | Restate) -> tuple[CarriedHead, ...]:
    """The heads that an event carries."""
    match event:
        case Heartbeat():
            return event.heads
        case Take() | Release() | Restate() | MemoryWrite():
            return (event.head,) if event.head else ()
        case Probe() | End():
            return ()


def spoilt_keys(event: Rejected) -> set[ClaimKey]:
    """The key whose state an illegible event is, if any: it may be held all the same."""
    key = key_of(event.type, event.state_key)
    return set() if key is None else {key}

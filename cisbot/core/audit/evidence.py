"""What the events of a reading say of each other: who calls which event accepted. Pure.

Three kinds: a carried head names its `after` and what was so after it; a take or write names the event on
which it stands; and whoever renews or releases a claim says that its take was accepted. One sender's word
is no proof, but an honest room has no contradiction among all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import field

from cisbot.core.claims.ledger import heads_of
from cisbot.core.claims.state import from_carried
from cisbot.core.frozen import dataclass
from cisbot.core.ids import ClaimKey, EventId, Incarnation, UserId
from cisbot.core.room.events import (
    CarriedHead,
    ClaimEvent,
    Heartbeat,
    MemoryWrite,
    Rejected,
    Release,
    Restate,
    RoomEvent,
    Take,
)

Spoken = ClaimEvent | Restate
Place = tuple[ClaimKey, EventId]
Claimed = tuple[ClaimKey, UserId, Incarnation, int]  # the last is the epoch


def claimed_by(take: Take) -> Claimed:
    """What a take asks for, and for whom: of a grant, its asker."""
    return (take.key, take.who.account, take.who.incarnation, take.epoch)


@dataclass(frozen=True, slots=True)
class Vouch:
    """An event that carries a head; its sender says that the head's `after` was accepted."""

    by: Spoken
    head: CarriedHead


@dataclass(slots=True)
class Evidence:
    """All that a reading says; every mapping is by key and event."""

    heads: dict[Place, list[Vouch]] = field(default_factory=lambda: defaultdict(list))
    named: dict[Place, list[Take | MemoryWrite]] = field(default_factory=lambda: defaultdict(list))
    deeds: dict[Place, list[Heartbeat | Release]] = field(default_factory=lambda: defaultdict(list))

    def vouched(self, key: ClaimKey, event: EventId) -> bool:
        """Whether anybody but its sender calls the event accepted, or its sender acted upon it."""
        place = (key, event)
        return place in self.heads or place in self.named or place in self.deeds

    def senders(self, key: ClaimKey, event: EventId) -> set[UserId]:
        """Who calls the event accepted."""
        place = (key, event)
        return {
            *(vouch.by.sender for vouch in self.heads.get(place, ())),
            *(take.sender for take in self.named.get(place, ())),
            *(deed.sender for deed in self.deeds.get(place, ())),
        }

    def likeliest(self, key: ClaimKey, event: EventId) -> CarriedHead | None:
        """What most senders say was so after the event; None where nobody says it."""
        said: dict[object, list[Vouch]] = defaultdict(list)
        for vouch in self.heads.get((key, event), ()):
            said[from_carried(vouch.head).says()].append(vouch)
        most = max(said.values(), key=lambda vouches: len({v.by.sender for v in vouches}), default=None)
        return most[0].head if most else None


def gather(events: Iterable[RoomEvent | Rejected], apart: Callable[[UserId], bool]) -> Evidence:
    """Read all of it, before anything is folded. Who is `apart` stands and acts on what its own server tells,
    so its deeds prove nothing of the home's stream.
    """
    found, takes = Evidence(), defaultdict[Claimed, list[EventId]](list)
    spoken = [event for event in events if isinstance(event, Spoken)]
    for event in spoken:
        for head in heads_of(event):
            if head.after is not None:
                found.heads[(head.key, head.after)].append(Vouch(event, head))
        if isinstance(event, Take):
            takes[claimed_by(event)].append(event.event_id)
        if isinstance(event, Take | MemoryWrite) and event.after is not None and not apart(event.sender):
            found.named[(event.key, event.after)].append(event)
    for event in spoken:
        if not apart(event.sender):
            _note_deeds(event, takes, found)
    return found


def _note_deeds(event: Spoken, takes: Mapping[Claimed, list[EventId]], found: Evidence) -> None:
    if isinstance(event, Release):
        claims = [(event.key, event.sender, event.incarnation, event.epoch)]
    elif isinstance(event, Heartbeat):
        claims = [(r.key, event.sender, event.incarnation, r.epoch) for r in event.renews]
    else:
        return
    for claim in claims:
        if len(ids := takes.get(claim, [])) == 1:  # of several attempts it can't be told which one it means
            found.deeds[(claim[0], ids[0])].append(event)

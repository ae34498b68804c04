"""The audit: a reading in, a report out. Pure; the same fold as the nodes' decides (`claims/fold.py`)."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from cisbot.core.audit.evidence import Evidence, gather
from cisbot.core.audit.found import Breach, Finding, Reading, Remark, Report
from cisbot.core.audit.nodes import Nodes
from cisbot.core.audit.order import Folding, Item, settle
from cisbot.core.audit.replay import Replay, Story, told_head
from cisbot.core.audit.runs import Executions
from cisbot.core.claims.answers import tells_truth
from cisbot.core.claims.ledger import heads_of
from cisbot.core.claims.state import Bounds, Head, from_carried
from cisbot.core.ids import ClaimKey, Incarnation, UserId, server_of
from cisbot.core.room.events import (
    CarriedHead,
    Charter,
    End,
    Heartbeat,
    MemoryWrite,
    Probe,
    Rejected,
    Release,
    Restate,
    RoomEvent,
    Take,
)
from cisbot.core.room.wire import STATE_TYPES, T_CHARTER, T_INTENT, T_NODE, TIMELINE_TYPES, key_of

MENDED = "{} forked; its place among its neighbours is the one that later events tell of, not as listed"
SET_BACK = "the homeserver's clock was set back; times before and after this event can't be compared"
SET_BACK_MS = 1_000  # requests overtake each other by less (72 ms were measured)
RESTATED_MS = 300_000  # within which honest nodes restate what a void write or an end left in the state


def audit(reading: Reading) -> Report:
    """Replay everything that was read."""
    charters = _Charters(reading)
    evidence = gather(reading.events, charters.apart)
    nodes = Nodes(reading)
    set_back = _set_back(reading)
    stories: dict[ClaimKey, Story] = {}
    mended: list[Finding] = []
    for key, items in _by_key(reading).items():
        folding = Folding(key, evidence, charters.at)
        steps, moved = settle(items, folding, whole=reading.whole)
        known = frozenset(item.event.event_id for item in items)
        replay = Replay(key, evidence, known, set_back, charters.apart, whole=reading.whole)
        stories[key] = replay.tell(steps, charters.at, reading.as_of_ms)
        mended += [_of(Remark.ORDER_MENDED, event, MENDED.format(event.event_id), key) for event in moved]
    found = [finding for story in stories.values() for finding in story.found]
    found += [*mended, *(_of(Remark.CLOCK_SET_BACK, reading.events[at], SET_BACK) for at in set_back)]
    found += _stray_heads(evidence, stories, reading)
    found += Executions(stories, nodes.accounts(), charters.apart).judge(reading.events)
    found += [*nodes.judge(), *charters.judge(), *_taken_away(reading)]
    found += [*_whole(reading), *charters.reader(reading)]
    found += _states(reading, stories)
    found.sort(key=lambda finding: finding.ts_ms)
    holds = sorted((h for s in stories.values() for h in s.holds), key=lambda h: (h.since_ms, h.epoch))
    voids = sorted((v for s in stories.values() for v in s.voids), key=lambda v: v.ts_ms)
    return Report(
        len(reading.events), reading.whole,
        min((e.ts_ms for e in reading.events if e.ts_ms), default=reading.as_of_ms), reading.as_of_ms,
        tuple(holds), tuple(voids),
        tuple(f for f in found if isinstance(f.kind, Breach)),
        tuple(f for f in found if isinstance(f.kind, Remark)),
    )  # fmt: skip


def _by_key(reading: Reading) -> dict[ClaimKey, list[Item]]:
    """Every key's events. An end concerns the keys that its process ever asked for; a redacted event all."""
    asked: dict[tuple[UserId, Incarnation], set[ClaimKey]] = defaultdict(set)
    keys: set[ClaimKey] = set()
    for event in reading.events:
        if isinstance(event, Take):
            asked[(event.who.account, event.who.incarnation)].add(event.key)
        if isinstance(event, Take | Release | MemoryWrite | Restate):
            keys.add(event.key)
        elif isinstance(event, Heartbeat):
            keys |= {renewal.key for renewal in event.renews}
        elif isinstance(event, Rejected) and (spoilt := key_of(event.type, event.state_key)):
            keys.add(spoilt)
    if not reading.whole:  # ends may end what was taken before
        holders = {(h.account, h.incarnation, c.key) for c in _carried(reading) for h in c.holders}
        for account, incarnation, key in holders:
            asked[(account, incarnation)].add(key)
    lines: dict[ClaimKey, list[Item]] = {key: [] for key in sorted(keys)}
    for place, event in enumerate(reading.events):
        concerned: set[ClaimKey] = set()
        match event:
            case Take() | Release() | MemoryWrite() | Restate():
                concerned = {event.key}
            case Heartbeat():
                concerned = {renewal.key for renewal in event.renews}
            case Probe():
                concerned = set(event.keys)
            case End():
                concerned = asked.get((event.sender, event.incarnation), set())
            case Rejected() if spoilt := key_of(event.type, event.state_key):
                concerned = {spoilt}
            case Rejected() if event.redacted and event.type in TIMELINE_TYPES:
                concerned = keys
            case _:
                continue
        for key in concerned & keys:
            lines[key].append(Item(place, event))
    return lines


def _set_back(reading: Reading) -> list[int]:
    """The places before which a server's clock was set back. Others' backlogs are only late."""
    places: list[int] = []
    highs_ms: dict[str, int] = defaultdict(int)
    for place, event in enumerate(reading.events):
        server = server_of(event.sender)
        if event.ts_ms and event.ts_ms < highs_ms[server] - SET_BACK_MS:
            places.append(place)
            highs_ms[server] = event.ts_ms
        highs_ms[server] = max(highs_ms[server], event.ts_ms)
    return places


def _carried(reading: Reading) -> Iterator[CarriedHead]:
    for event in reading.events:
        if isinstance(event, Take | Release | Heartbeat | MemoryWrite | Restate):
            yield from heads_of(event)


def _stray_heads(evidence: Evidence, stories: Mapping[ClaimKey, Story], reading: Reading) -> list[Finding]:
    """Heads of keys that have no event at all."""
    if not reading.whole:
        return []
    return [
        Finding(
            Breach.HEAD_DIFFERS, f"{vouch.by.sender} carries a head of {key}, which had no claim ever",
            vouch.by.ts_ms, key, None, vouch.by.event_id, vouch.by.sender,
        )
        for (key, _), vouches in evidence.heads.items() if key not in stories
        for vouch in vouches
    ]  # fmt: skip


class _Charters:
    """The room's rules. Nodes go by the newest bounds, but home and mode are the first's for ever."""

    def __init__(self, reading: Reading) -> None:
        self._events = [
            (place, event)
            for place, event in enumerate(reading.events)
            if isinstance(event, Charter) or isinstance(event, Rejected) and event.type == T_CHARTER
        ]
        legible = [(place, event) for place, event in self._events if isinstance(event, Charter)]
        stated = [event for event in reading.state if isinstance(event, Charter)]
        first = legible[0][1] if legible else stated[0] if stated else None
        self._places = [place for place, _ in legible]
        self._first = _bounds(first)
        home, available = self._first.home, self._first.available
        later = (replace(_bounds(charter), home=home, available=available) for _, charter in legible)
        self._bounds = [self._first, *later]

    def at(self, place: int) -> Bounds:
        """The bounds that held there."""
        return self._bounds[bisect_right(self._places, place)]

    def apart(self, account: UserId) -> bool:
        """Whether the account may claim by its own server's stream: what is void at home it may still do."""
        return self._first.available and not self._first.at_home(account)

    def reader(self, reading: Reading) -> Iterator[Finding]:
        """Whoever reads off the home server reads another order than the one that decided."""
        if reading.reader is None or self._first.at_home(reading.reader):
            return
        what = (
            f"read from {server_of(reading.reader)}, but the order of events on {self._first.home} decides: "
            "where links were cut or slow the two differ, and what this finds need not be so; "
            f"audit by an account on {self._first.home}"
        )
        yield Finding(Remark.OFF_HOME, what, reading.as_of_ms, sender=reading.reader)

    def judge(self) -> Iterator[Finding]:
        """A second charter that says something else is a breach."""
        first: Charter | None = None
        for _, event in self._events:
            if isinstance(event, Rejected):
                if not event.redacted:
                    what = f"{event.sender} wrote a charter that can't be read: {event.why}"
                    yield _of(Breach.CHARTER_CHANGED, event, what)
                continue
            first = first or event
            if event.home != first.home:
                what = f"{event.sender} moved the room's home from {first.home} to {event.home}"
                yield _of(Breach.CHARTER_CHANGED, event, what)
            elif _bounds(event) != _bounds(first):
                what = f"{event.sender} changed the charter: {_bounds(first)} became {_bounds(event)}"
                yield _of(Breach.CHARTER_CHANGED, event, what)


def _bounds(charter: Charter | None) -> Bounds:
    if charter is None:
        return Bounds()
    return Bounds(charter.lease_s_max, charter.epoch_step_max, charter.home, charter.available)


def _taken_away(reading: Reading) -> Iterator[Finding]:
    """A redaction changes no verdict that nodes made, but it takes evidence away."""
    for event in reading.events:
        if not isinstance(event, Rejected) or event.type not in (*STATE_TYPES, *TIMELINE_TYPES):
            continue
        key = key_of(event.type, event.state_key)
        kind = event.type.removeprefix("io.cisbot.")
        if not event.redacted:
            what = f"{kind} of {event.sender} can't be read, so it changed nothing: {event.why}"
            yield _of(Remark.UNREADABLE, event, what, key)
        elif event.type not in (T_INTENT, T_NODE):  # these prove nothing
            by = f" by {event.redacted_by}" if event.redacted_by else ""
            about = f"of {key}" if key else "of any key"
            what = f"{kind} of {event.sender} was redacted{by}; what followed on it {about} can't be proved"
            yield _of(Breach.EVIDENCE_TAKEN, event, what, key)


def _of(
    kind: Breach | Remark, event: RoomEvent | Rejected, what: str, key: ClaimKey | None = None
) -> Finding:
    return Finding(kind, what, event.ts_ms, key, None, event.event_id, event.sender)


def _whole(reading: Reading) -> Iterator[Finding]:
    if not reading.whole:
        what = "the reading does not begin with the room: a key is judged from its first carried head on"
        yield Finding(Remark.NOT_WHOLE, what, reading.events[0].ts_ms if reading.events else 0)


def _states(reading: Reading, stories: Mapping[ClaimKey, Story]) -> Iterator[Finding]:
    """In the end whoever reads only the state reads the truth."""
    ended = {(e.sender, e.incarnation) for e in reading.events if isinstance(e, End)}
    for event in reading.state:
        key = event.key if isinstance(event, Take | Release | Restate | MemoryWrite) else None
        if isinstance(event, Rejected):
            key = key_of(event.type, event.state_key)
        if key is None or (story := stories.get(key)) is None or story.head is None:
            continue
        if event.event_id == story.stated or tells_truth(event, story.head):
            continue
        young = reading.as_of_ms - max(story.last_ms, event.ts_ms) < RESTATED_MS
        over = not story.head.holders and _names_dead(event, story.head, ended)
        kind = Remark.STATE_OLD if young or over else Breach.STATE_DIFFERS
        yield _of(kind, event, f"the state of {key} says {_said(event)}; it is {told_head(story.head)}", key)


def _names_dead(event: RoomEvent | Rejected, head: Head, ended: set[tuple[UserId, Incarnation]]) -> bool:
    """Whether the state names only processes that are over, by what was so until then.

    The last node that stops leaves nobody to restate.
    """
    match event:
        case Take():
            return event.epoch == head.epoch and (event.who.account, event.who.incarnation) in ended
        case Restate():
            named = {(holder.account, holder.incarnation) for holder in event.head.holders}
            return event.head.epoch == head.epoch and named <= ended
        case _:
            return False


def _said(event: RoomEvent | Rejected) -> str:
    match event:
        case Take():
            return f"held by {event.node} (epoch {event.epoch})"
        case Release():
            return f"given back by {event.node} (epoch {event.epoch})"
        case Restate():
            return told_head(from_carried(event.head))
        case MemoryWrite():
            return f"version {event.version}, value {str(event.value)[:40]!r}"
        case _:
            return "what can't be read"

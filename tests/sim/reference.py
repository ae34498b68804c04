"""The complete fold, written a second time from the protocol's table, for the checkers to compare with."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from dataclasses import dataclass
from typing import ClassVar

from cisbot.core.claims.state import Bounds, Head
from cisbot.core.ids import ClaimKey
from cisbot.core.room import events as ev
from cisbot.core.room.wire import key_of
from cisbot.core.scopes import is_lock

Claimed = dict[int, tuple[str, str, int, str]]  # slot: account, incarnation, epoch, run
Truth = tuple[int, str | None, Claimed, str | None]  # epoch, after, holders, value
NOTHING: Truth = (0, None, {}, None)


@dataclass(frozen=True, slots=True)
class Grant:
    """An accepted take: its place in the stream, and who may execute."""

    place: int
    event: str
    key: ClaimKey
    slot: int
    node: str
    account: str
    incarnation: str
    run: str
    epoch: int


class Reference:
    """Every key's head after every event of the stream. `without` names rules that are switched off."""

    without: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._now: dict[ClaimKey, Truth] = {}
        self._history: dict[ClaimKey, tuple[list[int], list[Truth]]] = {}
        self._seen = 0
        self._takes = Counter[ClaimKey]()
        self.stated: dict[ClaimKey, str | None] = {}  # the lock event that says all that is so, if any
        self.grants: dict[tuple[str, int], Grant] = {}  # of runs' own keys, by run and epoch
        self.locks: dict[tuple[ClaimKey, int], Grant] = {}  # of named locks, by key and epoch
        self.outcomes: dict[
            str, list[tuple[int, ev.Outcome]]
        ] = {}  # of a run: places of what its holders said

    def follow(self, stream: list[ev.RoomEvent | ev.Rejected]) -> None:
        """Fold what is new."""
        while self._seen < len(stream):
            self._fold(stream[self._seen])
            self._seen += 1

    def at(self, key: ClaimKey, place: int) -> Truth:
        """The head of a key after the first `place` events."""
        places, truths = self._history.get(key, ([], []))
        index = bisect_right(places, place)
        return truths[index - 1] if index else NOTHING

    def keys(self) -> list[ClaimKey]:
        """All keys that had a lock event."""
        return list(self._now)

    def _fold(self, event: ev.RoomEvent | ev.Rejected) -> None:
        match event:
            case ev.Take():
                self._take(event)
            case ev.MemoryWrite():
                epoch, after, holders, _ = self._now.setdefault(event.key, NOTHING)
                limit = self._limit(event, epoch)
                fits = self._follows(event.after, after) and epoch < event.version <= limit
                if fits and self._at_home(event.sender):
                    self.stated[event.key] = event.event_id
                    self._set(event.key, (event.version, event.event_id, holders, event.value))
            case ev.Release():
                self._now.setdefault(event.key, NOTHING)
                who = (event.sender, event.incarnation, event.epoch)
                grant = self.grants.get((event.run, event.epoch))
                if event.outcome and grant and (grant.account, grant.incarnation) == who[:2]:
                    self.outcomes.setdefault(event.run, []).append((self._seen, event.outcome))
                self._let_go(event.key, who, event.event_id, event.event_id)
            case ev.End():
                for key in list(self._now):
                    self._let_go(key, (event.sender, event.incarnation), event.event_id, None)
            case ev.Heartbeat():
                self._renew(event)
            case ev.Probe():
                for key in set(event.keys) & self._now.keys():
                    truth = self._now[key]
                    self._set(key, (truth[0], event.event_id, *truth[2:]))
            case ev.Restate():
                self._now.setdefault(event.key, NOTHING)
            case ev.Rejected():
                if spoilt := key_of(event.type, event.state_key):
                    self._now.setdefault(spoilt, NOTHING)
            case _:
                pass

    def _take(self, event: ev.Take) -> None:
        epoch, after, holders, value = self._now.setdefault(event.key, NOTHING)
        limit = self._limit(event, epoch)
        fits = self._follows(event.after, after) and epoch < event.epoch <= limit
        if not fits or not self._decides(event) or event.lease_s > self._bounds.lease_s_max:
            return
        who = event.who
        mine = {event.slot: (who.account, who.incarnation, event.epoch, event.run)}
        kept = {} if event.fresh and "fresh" not in self.without else holders
        grant = Grant(
            self._seen, event.event_id, event.key, event.slot, who.node, who.account, who.incarnation,
            event.run, event.epoch,
        )  # fmt: skip
        if is_lock(event.key):
            self.locks[event.key, event.epoch] = grant
        else:
            self.grants[event.run, event.epoch] = grant
        self.stated[event.key] = event.event_id
        self._set(event.key, (event.epoch, event.event_id, {**kept, **mine}, value))

    def _renew(self, event: ev.Heartbeat) -> None:
        for key, epochs in _renewed(event).items():
            truth = self._now.get(key, NOTHING)
            own = {h[2] for h in truth[2].values() if self._is(h, event.sender, event.incarnation)}
            if own & epochs and "heartbeats" not in self.without:
                self._set(key, (truth[0], event.event_id, *truth[2:]))

    def _at_home(self, account: str) -> bool:
        return account.endswith(":hs") or "home" in self.without

    def _decides(self, event: ev.Take) -> bool:
        """Who takes is at home, and grants to none that is at home too."""
        granted = event.asker is not None and self._at_home(event.asker.account)
        return self._at_home(event.sender) and not granted

    def _follows(self, named: str | None, after: str | None) -> bool:
        return named == after or "after" in self.without

    def _is(self, holder: tuple[str, str, int, str], account: str, incarnation: str) -> bool:
        return holder[0] == account and (holder[1] == incarnation or "incarnation" in self.without)

    def _meant(self, holder: tuple[str, str, int, str], who: tuple[object, ...]) -> bool:
        if len(who) == 3 and "incarnation" in self.without:
            return (holder[0], holder[2]) == (who[0], who[2])
        return holder[: len(who)] == who

    def _limit(self, event: ev.Take | ev.MemoryWrite, epoch: int) -> int:
        self._takes[event.key] += 1
        step = self._bounds.epoch_step_max
        return max(epoch + step, step * self._takes[event.key]) if event.fresh else epoch + step

    def _let_go(self, key: ClaimKey, who: tuple[object, ...], by: str, stated: str | None) -> None:
        epoch, _, holders, value = self._now[key]
        kept = {slot: h for slot, h in holders.items() if not self._meant(h, who)}
        if len(kept) < len(holders):
            self._set(key, (epoch, by, kept, value))
            self.stated[key] = stated

    def _set(self, key: ClaimKey, truth: Truth) -> None:
        self._now[key] = truth
        places, truths = self._history.setdefault(key, ([], []))
        places.append(self._seen + 1)
        truths.append(truth)


def _renewed(event: ev.Heartbeat) -> dict[ClaimKey, set[int]]:
    named: dict[ClaimKey, set[int]] = {}
    for renewal in event.renews:
        named.setdefault(renewal.key, set()).add(renewal.epoch)
    return named


def truth_of(head: Head) -> Truth:
    """A head of the real fold, in the reference's form."""
    holders = {h.slot: (str(h.account), str(h.incarnation), h.epoch, str(h.run)) for h in head.holders}
    return head.epoch, head.after, holders, head.value

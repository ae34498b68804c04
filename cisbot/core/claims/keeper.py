"""Holding: wins, renewals, deadlines and releases of this node; and the observer's clocks of the others.

Pure: events and times in, sends and facts out. Two clocks, never compared with each other: the holder's
deadline counts from the moment before it sent, the observer's lapse from its own receipt (docs/protocol.md).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cisbot.core.claims.answers import Answers
from cisbot.core.claims.armed import END_SENT, Armed
from cisbot.core.claims.facts import Ended, Extended, Fact, Freed, Learned, Refused, Taken, Won
from cisbot.core.claims.holds import Hold, Holds, Place
from cisbot.core.claims.ledger import Adopted, Finding, Judged, Ledger, spoilt_keys
from cisbot.core.claims.messages import Me, heartbeats, probe, release, restate
from cisbot.core.claims.state import Accepted, Head
from cisbot.core.effects import Ask, Send
from cisbot.core.ids import ClaimKey, Incarnation, Nonce, RunId, UserId
from cisbot.core.inputs import EndAnswer
from cisbot.core.room.events import (
    ClaimEvent,
    End,
    Heartbeat,
    Holder,
    Outcome,
    Probe,
    Rejected,
    Restate,
    Take,
)
from cisbot.core.room.wire import TIMELINE_TYPES

RHO = 0.01  # how far the rates of two machines' clocks may differ
RENEWALS_PER_LEASE = 3
SENT_MAX = 1_000
ECHO_MOST_S = 3.0  # what takes longer waited for a rate limit, and says nothing of the room
LEASE_OVER = "its lease ran out before a renewal came back"
END_DUE = "its delayed end may be sent: the homeserver did not answer in time"


class Keeper:
    """The claims of one node."""

    def __init__(self, me: Me, ledger: Ledger, *, margin_s: float = 0.5, end_delay_s: float = 0.0) -> None:
        self.me = me
        self.ledger = ledger
        self.holds = Holds()
        self.abandoned: list[Hold] = []
        self.margin_s = margin_s
        self.echo_s = 0.25  # measured as it goes: from before a send to its echo
        self._sent: dict[Nonce, float] = {}
        self._signs: dict[Place, float] = {}
        self._renew_at: float | None = None
        self.answers = Answers(me, ledger)
        self._won: dict[Place, int] = {}
        self.alone: dict[Place, int] = {}  # held by this server's own stream, since that told epoch
        self.mine_over = False
        self.armed = Armed(me, end_delay_s, self.span)
        self._leased: dict[Place, float] = {}  # the deadlines by the leases alone

    # -- sending -------------------------------------------------------------------------------

    def note_sent(self, nonce: Nonce, now: float) -> None:
        """Remember when an attempt was sent: the deadline counts from before it."""
        self._sent[nonce] = now
        while len(self._sent) > SENT_MAX:
            self._sent.pop(next(iter(self._sent)))

    def sent_at(self, nonce: Nonce) -> float | None:
        """The moment before an attempt was sent, or None where that is not known."""
        return self._sent.get(nonce)

    def won_epoch(self, place: Place) -> int:
        """The highest epoch that this process ever won there; 0 before."""
        return self._won.get(place, 0)

    def release(self, hold: Hold, outcome: Outcome | None) -> Send:
        """Give the key back, with the outcome when the run is over."""
        del self.holds[hold.place]
        return self._back(hold, outcome)

    def abandon(self, hold: Hold) -> None:
        """Renew it no more, and give it back at its deadline: what ran under it is dead by then."""
        self.holds.pop(hold.place, None)
        self.abandoned.append(hold)

    def leave(self) -> None:
        """The end says all that is to be said of what was held."""
        self.holds.clear()
        self.abandoned.clear()

    def due(self, now: float) -> tuple[list[Fact], list[Send]]:
        """What time brings: ended holds, heartbeats, owed answers to probes."""
        facts = self._expire(now)
        heads, wrong = self.answers.due(now)
        sends = [restate(self.me, head) for head in wrong]
        over = [hold for hold in self.abandoned if now >= hold.deadline]
        self.abandoned = [hold for hold in self.abandoned if now < hold.deadline]
        sends.extend(self._back(hold, None) for hold in over)
        renew = bool(self.holds) and (self._renew_at is None or now >= self._renew_at)
        if not renew and not heads:
            return facts, sends
        asked = {head.key for head in heads}
        own = [self.ledger.carried(key) for key in self.holds.of_keys() if renew and key not in asked]
        carries = [*heads, *(head for head in own if head is not None)]
        for nonce, beat in heartbeats(self.me, list(self.holds.values()), carries, answers=bool(heads)):
            self.note_sent(nonce, now)
            sends.append(beat)
        self._schedule(now)
        return facts, sends

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        times = [self.armed.deadline(), self.answers.deadline(), *(hold.deadline for hold in self.abandoned)]
        if self.holds:
            times += [self._renew_at, *(hold.deadline for hold in self.holds.values())]
        return min([at for at in times if at is not None], default=None)

    def _expire(self, now: float) -> list[Fact]:
        """A passed deadline ends the claim for ever: before anything else is looked at."""
        if not self.holds:
            return []
        over = [hold for hold in self.holds.values() if now >= hold.deadline]
        for hold in over:
            del self.holds[hold.place]
        return [
            Ended(hold, LEASE_OVER if hold.deadline == self._leased[hold.place] else END_DUE) for hold in over
        ]

    def _schedule(self, now: float) -> None:
        lease = min((h.lease_s for h in self.holds.values()), default=0)
        self._renew_at = now + lease / RENEWALS_PER_LEASE if lease else None

    # -- the delayed end -------------------------------------------------------------------------

    def ask_end(self, now: float, *, leaving: bool = False) -> list[Ask]:
        """The request about the delayed end that is due, to be sent at once."""
        lived = self.armed.over is None
        asks = self.armed.due(now, idle=not self.holds and not leaving)
        if lived and self.armed.over is not None:
            self._over(self.armed.over)  # idle, so no fact comes of it
        return asks

    def end_answered(self, item: EndAnswer, now: float) -> list[Fact]:
        """What became of such a request: deadlines move, or this incarnation is over."""
        facts = self._expire(now)
        self.armed.answered(item, now)
        if self.armed.over is not None:
            return facts + self._over(self.armed.over)
        for hold in list(self.holds.values()):
            if (moved := self._bounded(hold)) != hold:
                facts.append(Extended(moved))
        return facts

    def _bounded(self, hold: Hold) -> Hold:
        """The hold with the deadline that counts: that of its lease, or the delayed end's if it is sooner."""
        moved = replace(hold, deadline=min(self._leased[hold.place], self.armed.until))
        self.holds[hold.place] = moved
        return moved

    def _over(self, why: str) -> list[Fact]:
        """This incarnation is over: it holds nothing, and never wins again."""
        self.mine_over = True
        self.armed.ended(why)
        facts: list[Fact] = [Ended(hold, why) for hold in self.holds.values()]
        self.leave()
        return facts

    # -- receiving -----------------------------------------------------------------------------

    def observe(self, event: ClaimEvent | Restate, now: float) -> tuple[list[Fact], list[Send]]:
        """Fold one live event; say what it means for this node."""
        facts = self._expire(now)
        sends: list[Send] = []
        self._measure(event, now)
        self.answers.arriving(event)
        if isinstance(event, End) and (event.sender, event.incarnation) == self._mine():
            facts.extend(self._over(END_SENT if self.armed.bound else "this node was ended"))
        findings = self.ledger.observe(event)
        for found in findings:
            facts.extend(self._meaning(found, now))
            if isinstance(found, Judged):
                self.answers.judged(found, self.holds.of_keys(), self.echo_s, now)
        for found in findings:  # a fresh take makes its key sure and wins it: only now that is known
            if isinstance(found, Adopted):
                sends.extend(self._unwanted(found))
                self.answers.doubtful(found.key, self.echo_s, now)
        match event:
            case Probe():
                self.answers.probed(event, self.holds.of_keys(), self.echo_s, now)
            case Heartbeat() if (event.sender, event.incarnation) == self._mine():
                facts.extend(self._extend_unsure(event))
            case Restate():
                self.answers.restated(event, self.holds.of_keys(), self.echo_s, now)
            case _:
                pass
        return facts, sends

    def reject(self, event: Rejected, now: float) -> bool:
        """An illegible live event. It is nothing, alike for all nodes, unless it was redacted: others saw it.

        True where that is a gap; the keys that it may have concerned are unsure then.
        """
        keys = spoilt_keys(event)
        if event.redacted and (keys or event.type in TIMELINE_TYPES):
            self.answers.gap()
            self.ledger.missed(keys or tuple(self.ledger.known()))
            if self.holds:
                self._renew_at = now
            return True
        for key in keys:
            self.ledger.touch(key)
            self.answers.wrong(key, event.sender, event.event_id, self.holds.of_keys(), self.echo_s, now)
        return False

    def gap(self, also: Iterable[ClaimKey], now: float) -> None:
        """Events were missed. A holder needs no proof: it renews at once, so that its key is sure again."""
        self.ledger.gap(also)
        self._signs.clear()
        self.answers.gap()
        if self.holds:
            self._renew_at = now

    def lapses_at(self, key: ClaimKey, slot: int, now: float) -> float:
        """When an observer may take the slot over: counted from its own receipt, or from now if restarted."""
        head = self.ledger.sure(key)
        holder = head.holder_of(slot) if head else None
        if holder is None:
            return now
        seen = self._signs.setdefault((key, slot), now)
        return seen + holder.lease_s * (1 + 2 * RHO)

    def slot_for(self, key: ClaimKey, run: RunId, slots: int, now: float) -> tuple[int | None, float]:
        """A slot of a sure key that the run may take now, or None and when one lapses.

        The run's own, if it is in one; else a free or lapsed one, unless so many others hold the key.
        """
        head = self.ledger.sure(key)
        lapses = {h.slot: self.lapses_at(key, h.slot, now) for h in head.holders} if head else {}
        mine = [h.slot for h in head.holders if h.run == run] if head else []
        if (until := max((lapses[slot] for slot in mine), default=now)) > now:
            return None, until
        own = next(iter(mine), None)
        living = sorted(at for at in lapses.values() if at > now)
        if len(living) >= slots:
            return None, living[len(living) - slots]
        if own is not None:
            return own, now
        dead = [slot for slot in lapses if slot >= slots and lapses[slot] <= now]  # of when more were allowed
        free = (slot for slot in range(slots) if lapses.get(slot, now) <= now)
        return next(iter((*dead, *free))), now

    def probe(self, keys: tuple[ClaimKey, ...], now: float) -> tuple[Nonce, Send]:
        """Ask for the heads of unsure keys."""
        nonce = self.me.nonce()
        self.note_sent(nonce, now)
        return nonce, probe(self.me, nonce, keys)

    # -- inside --------------------------------------------------------------------------------

    def _back(self, hold: Hold, outcome: Outcome | None) -> Send:
        return release(self.me, hold.key, hold.epoch, hold.run, outcome, self.ledger.carried(hold.key))

    def _mine(self) -> tuple[UserId, Incarnation]:
        return self.me.account, self.me.incarnation

    def _measure(self, event: ClaimEvent | Restate, now: float) -> None:
        nonce = getattr(event, "nonce", None)
        if event.sender != self.me.account or nonce not in self._sent:
            return
        echo_s = max(0.01, min(now - self._sent[nonce], ECHO_MOST_S))
        # A room that got slow must be known at once: who then takes turns too soon makes it slower still.
        self.echo_s = max(echo_s, 0.7 * self.echo_s + 0.3 * echo_s)

    def _meaning(self, found: Finding, now: float) -> list[Fact]:
        abroad = self.ledger.abroad
        if isinstance(found, Adopted):
            for holder in found.head.holders:  # all clocks start anew
                self._signs[(found.key, holder.slot)] = now
            others = [h for h in found.head.holders if (h.account, h.incarnation) != self._mine()]
            learned: list[Fact] = [Learned(found.key, holder) for holder in others]
            return learned if abroad else learned + self._lost_unseen(found.key, found.head)
        event, verdict = found.event, found.verdict
        if abroad and isinstance(event, Take) and (self._touches(found) or not self._own_way(event)):
            return []  # what it holds itself, only home nodes' heads tell
        mine = (event.sender, event.incarnation) == self._mine()
        if not isinstance(verdict, Accepted):
            if isinstance(event, Take) and mine:
                return [Refused(event.key, event.nonce)]
            return []
        facts: list[Fact] = []
        for gone in verdict.freed:
            facts.extend(self._freed(found, gone))
        if verdict.granted is not None and isinstance(event, Take):
            self._signs[(found.key, verdict.granted.slot)] = now
            facts.append(self._granted(event, verdict.granted, mine and event.asker is None, now))
        for holder in verdict.renewed:
            place = (found.key, holder.slot)
            self._signs[place] = now
            if mine and isinstance(event, Heartbeat) and (not abroad or place in self.alone):
                facts.extend(self._extend(place, event))
        self._told_abroad(found, verdict, now)
        return facts

    def _own_way(self, take: Take) -> bool:
        """Off the home server: not a grant to this very process, which counts once a home node says so."""
        return (take.who.account, take.who.incarnation) != self._mine() or take.asker is None

    def _touches(self, found: Judged) -> bool:
        """Whether the event, if accepted, is about a slot that this node holds."""
        if not isinstance(found.event, Take):
            return False
        freed = found.verdict.freed if isinstance(found.verdict, Accepted) else ()
        return any((found.key, slot) in self.holds for slot in (found.event.slot, *(h.slot for h in freed)))

    def _told_abroad(self, found: Judged, verdict: Accepted, now: float) -> None:
        """A holder on another server hears of its grant and its renewals from home nodes only."""
        holder = verdict.granted or next(iter(verdict.renewed), None)
        if holder is not None and not self.ledger.bounds.at_home(holder.account):
            first = isinstance(found.event, Take) and found.event.sender == self.me.account
            self.answers.told_abroad(found.key, found.event.event_id, self.echo_s, now, first=first)

    def _freed(self, found: Judged, gone: Holder) -> list[Fact]:
        facts: list[Fact] = [Freed(found.key, gone, found.event)]
        hold = self.holds.get((found.key, gone.slot))
        if hold and (gone.account, gone.incarnation, gone.epoch) == (*self._mine(), hold.epoch):
            del self.holds[hold.place]
            taken = isinstance(found.event, Take)
            facts.append(Ended(hold, "another node took over" if taken else "its claim was given back"))
        self._signs.pop((found.key, gone.slot), None)
        return facts

    def _granted(self, take: Take, holder: Holder, mine: bool, now: float) -> Fact:
        if not mine or self.mine_over:  # an ended incarnation never wins again
            return Taken(holder, take)
        if self.ledger.abroad:
            self.alone.setdefault((take.key, take.slot), self.ledger.hearsay.told(take.key))
        return self.take_up(take, now)

    def take_up(self, take: Take, now: float) -> Won:
        """Hold what was won: its deadline counts from before the request was sent."""
        place = (take.key, take.slot)
        self._won[place] = take.epoch
        sent = self._sent.get(take.who.nonce)
        self._leased[place] = now if sent is None else sent + self.span(take.lease_s)
        hold = self._bounded(Hold(take.key, take.slot, take.epoch, take.run, take.lease_s, now))
        if self._renew_at is None or len(self.holds) == 1:
            self._schedule(sent if sent is not None else now)
        else:
            self._renew_at = min(self._renew_at, now + take.lease_s / RENEWALS_PER_LEASE)
        return Won(hold, take)

    def prolong(self, place: Place, sign: Nonce) -> list[Fact]:
        """A sign of life was accepted: the deadline counts from before it was sent."""
        hold, sent = self.holds.get(place), self._sent.get(sign)
        if hold is None or sent is None:
            return []
        self._leased[place] = max(self._leased[place], sent + self.span(hold.lease_s))
        return [Extended(self._bounded(hold))]

    def span(self, lease_s: float) -> float:
        """Seconds from before the send to the deadline: the lease, less the clocks' drift and a margin."""
        return lease_s * (1 - RHO) - min(self.margin_s, lease_s / 10)

    def _extend(self, place: Place, event: Heartbeat) -> list[Fact]:
        hold = self.holds.get(place)
        if hold is None or not any(r.key == hold.key and r.epoch == hold.epoch for r in event.renews):
            return []
        return self.prolong(place, event.nonce)

    def _extend_unsure(self, event: Heartbeat) -> list[Fact]:
        """A holder whose deadline has not passed renews without proof: its echo counts while unsure too."""
        return [
            fact
            for place in list(self.holds)
            if self.ledger.is_unsure(place[0])
            for fact in self._extend(place, event)
        ]

    def _lost_unseen(self, key: ClaimKey, head: Head) -> list[Fact]:
        gone = [hold for hold in self.holds.of_key(key) if not head.held_by(*self._mine(), hold.epoch)]
        for hold in gone:
            del self.holds[hold.place]
        return [Ended(hold, "another node took over while this one could not see it") for hold in gone]

    def _unwanted(self, found: Adopted) -> list[Send]:
        """An own win that was never seen (it came in a gap) counts for nothing: give it back at once."""
        if self.ledger.abroad:
            return []
        return [
            release(self.me, found.key, h.epoch, h.run, None, self.ledger.carried(found.key))
            for h in found.head.holders
            if (h.account, h.incarnation) == self._mine() and h.epoch > self._won.get((found.key, h.slot), 0)
        ]

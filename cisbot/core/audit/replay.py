"""One key's story: who held it, what was void, and what its events say that is not so. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from cisbot.core.audit.evidence import Claimed, Evidence, Vouch, claimed_by
from cisbot.core.audit.found import Breach, Finding, Hold, HoldEnd, Remark, VoidClaim
from cisbot.core.audit.order import Step, Told, unproven
from cisbot.core.claims.state import Accepted, Bounds, Head, Void, VoidReason, from_carried
from cisbot.core.ids import ClaimKey, EventId, RunId, UserId, server_of
from cisbot.core.room.events import (
    ClaimEvent,
    End,
    Heartbeat,
    Holder,
    MemoryWrite,
    Rejected,
    Release,
    Restate,
    Take,
)

FASTER = 0.9  # of a lease: a take sooner than that was no takeover, whatever the homeserver's clock did


@dataclass(slots=True)
class Story:
    """What became of one key. `head` is None where it can't be told."""

    key: ClaimKey
    head: Head | None = None
    last_ms: int = 0
    stated: EventId | None = None  # the lock event that says all that is so, if any
    holds: list[Hold] = field(default_factory=list)
    voids: list[VoidClaim] = field(default_factory=list)
    found: list[Finding] = field(default_factory=list)
    granted: dict[Claimed, int] = field(default_factory=dict)  # to the place in `holds`
    refused: set[Claimed] = field(default_factory=set)
    unjudged: bool = False  # for a while nothing could be judged


class Replay:
    """Tells the story of one key from its steps."""

    def __init__(
        self, key: ClaimKey, evidence: Evidence, known: frozenset[EventId], set_back: Sequence[int],
        apart: Callable[[UserId], bool], *, whole: bool,
    ) -> None:  # fmt: skip
        self.story = Story(key, unjudged=not whole)
        self._evidence, self._known, self._whole = evidence, known, whole
        self._apart = apart
        self._set_back = set_back  # the places before which the homeserver's clock was
        self._place = 0
        self._signs: dict[int, int] = {}  # of holds, by their place in `holds`: where in the reading
        self._open: dict[tuple[int, int], int] = {}  # slot and epoch, to the place in `holds`
        self._highest = 0

    def tell(self, steps: Sequence[Step], bounds: Callable[[int], Bounds], as_of_ms: int) -> Story:
        """Go through all steps. `bounds` are those at a place of the reading."""
        for step in steps:
            self.story.last_ms = max(self.story.last_ms, step.item.event.ts_ms)
            self._step(step)
            event = step.item.event
            most_s = bounds(step.item.place).lease_s_max
            if isinstance(event, Take) and event.lease_s > most_s:
                what = f"asks for a lease of {event.lease_s} s; the charter allows {most_s} s"
                self._breach(Breach.LEASE_TOO_LONG, event, what)
        for won, rival in unproven(steps, self._evidence, self.story.key):
            self._remark(
                Remark.ORDER_UNPROVEN, won,
                f"was accepted if it came before {rival.event_id} of {rival.node}, as the homeserver "
                "lists them; nothing else in the room tells",
            )  # fmt: skip
        self._strangers()
        self.story.head = steps[-1].head if steps else None
        self._end(as_of_ms)
        return self.story

    # -- one step --------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        event, story = step.item.event, self.story
        self._place = step.item.place
        redacted = isinstance(event, Rejected) and event.redacted
        if redacted or step.head is None:
            story.unjudged = True
            self._open.clear()
        if step.head is not None and (redacted or step.before is None):
            self._adopted(event, step.head)
        if step.head is None or isinstance(event, Rejected | Restate):
            return
        match step.verdict:
            case Accepted():
                self._accepted(event, step.verdict)
            case Void():
                self._void(event, step.verdict)
            case None:
                pass
        for vouch in self._evidence.heads.get((story.key, event.event_id), ()):
            self._vouched(vouch, event, step)
        self._highest = max(self._highest, step.head.epoch)

    def _accepted(self, event: ClaimEvent, verdict: Accepted) -> None:
        if isinstance(event, Take | Release | MemoryWrite | End):
            self.story.stated = None if isinstance(event, End) else event.event_id
        if verdict.granted is not None and isinstance(event, Take):
            self._overdue(event, verdict)
        for gone in verdict.freed:
            self._freed(gone, event)
        if verdict.granted is not None and isinstance(event, Take):
            self._granted(event, verdict.granted)
        for holder in verdict.renewed:
            at = self._open.get((holder.slot, holder.epoch))
            if at is not None:
                hold = self.story.holds[at]
                self._signs[at] = self._place
                sign_ms = max(hold.last_sign_ms, event.ts_ms)
                self.story.holds[at] = replace(hold, renewals=hold.renewals + 1, last_sign_ms=sign_ms)

    def _granted(self, take: Take, holder: Holder) -> None:
        story, who = self.story, take.who
        claimed = claimed_by(take)
        story.granted[claimed] = self._open[(holder.slot, holder.epoch)] = len(story.holds)
        self._signs[len(story.holds)] = self._place
        story.holds.append(
            Hold(
                take.key, take.slot, take.epoch, who.node, who.account, who.incarnation, take.run,
                take.dag, take.scope, take.lease_s, take.event_id, take.ts_ms, take.ts_ms, 0, None,
                HoldEnd.HELD, None, 0,
            )
        )  # fmt: skip

    def _freed(self, gone: Holder, event: ClaimEvent) -> None:
        at = self._open.pop((gone.slot, gone.epoch), None)
        if at is None:
            return
        hold, outcome = self.story.holds[at], None
        end = HoldEnd.TAKEN
        if isinstance(event, Release):
            end, outcome = HoldEnd.RELEASED, event.outcome
        elif isinstance(event, End):
            end = HoldEnd.ENDED
        lapsed_ms = max(0, event.ts_ms - _lapses_ms(hold))
        self.story.holds[at] = replace(
            hold, until_ms=max(hold.since_ms, event.ts_ms), end=end, outcome=outcome, lapsed_ms=lapsed_ms
        )

    def _overdue(self, take: Take, verdict: Accepted) -> None:
        """A slot that is taken from another must have lapsed."""
        for gone in verdict.freed:
            at = self._open.get((gone.slot, gone.epoch))
            if at is None or gone.account == take.who.account:
                continue
            servers = {server_of(user) for user in (gone.account, take.sender)}
            since = bisect_right(self._set_back, self._signs.get(at, 0))
            if len(servers) > 1 or since < bisect_right(self._set_back, self._place):
                continue  # times of two clocks, or of one that was set between, can't be compared
            hold = self.story.holds[at]
            silent_ms = take.ts_ms - hold.last_sign_ms
            if silent_ms < FASTER * 1000 * hold.lease_s:
                self._breach(
                    Breach.TAKEN_EARLY, take,
                    f"{_took(take)} epoch {hold.epoch} from {hold.node} {silent_ms / 1000:.1f} s after its "
                    f"last sign of life; its lease is {hold.lease_s} s",
                )  # fmt: skip
            else:
                self._remark(
                    Remark.LAPSED, take,
                    f"{_took(take)} over from {hold.node} (epoch {hold.epoch}), whose lease had run out "
                    f"{max(0, take.ts_ms - _lapses_ms(hold)) / 1000:.1f} s before",
                )  # fmt: skip

    def _void(self, event: ClaimEvent, verdict: Void) -> None:
        story = self.story
        if isinstance(event, Take | Release):
            action, node, account = "release", event.node, event.sender
            if isinstance(event, Take):
                action, node, account = "take", event.who.node, event.who.account
            story.voids.append(
                VoidClaim(
                    story.key, event.epoch, node, account, event.run, action, event.event_id, event.ts_ms,
                    verdict.reason.value,
                )
            )  # fmt: skip
        if isinstance(event, Take):
            story.refused.add(claimed_by(event))
        if isinstance(event, Take | MemoryWrite):
            self._bounds_broken(event, verdict.reason)
        if isinstance(event, Heartbeat):
            self._renewed(event)
        for take in self._evidence.named.get((story.key, event.event_id), ()):
            why = f"stands on {event.event_id} of {event.sender}, which was void: {verdict.reason.value}"
            self._breach(Breach.HEAD_DIFFERS, take, why)

    def _bounds_broken(self, event: Take | MemoryWrite, reason: VoidReason) -> None:
        epoch = event.epoch if isinstance(event, Take) else event.version
        if reason is VoidReason.EPOCH_NOT_HIGHER:
            why = f"asks for epoch {epoch}, though it knew the head, which has epoch {self._highest}"
            self._breach(Breach.EPOCH_BACKWARDS, event, why)
        elif reason is VoidReason.EPOCH_TOO_FAR:
            self._breach(Breach.EPOCH_TOO_FAR, event, f"asks for epoch {epoch}: {reason.value}")

    def _renewed(self, beat: Heartbeat) -> None:
        """A void renewal is late, unless its sender never held what it renews."""
        if self.story.unjudged:
            return
        for renewal in beat.renews:
            claimed = (renewal.key, beat.sender, beat.incarnation, renewal.epoch)
            if renewal.key != self.story.key or claimed in self.story.granted:
                continue
            void = claimed in self.story.refused
            what = f"renews epoch {renewal.epoch}, " + ("though its take was void" if void else "never held")
            if void and self._apart(beat.sender):
                self._remark(Remark.RAN_APART, beat, what)
                continue
            self._breach(Breach.VOID_RAN if void else Breach.NOT_HELD, beat, what)

    # -- carried heads ---------------------------------------------------------------------------

    def _vouched(self, vouch: Vouch, event: ClaimEvent, step: Step) -> None:
        kind = Breach.RESTATE_FALSE if isinstance(vouch.by, Restate) else Breach.HEAD_DIFFERS
        if isinstance(step.verdict, Void):
            why = f"names {event.event_id} as the head, which was void: {step.verdict.reason.value}"
            self._breach(kind, vouch.by, why)
            return
        assert step.head is not None
        if from_carried(vouch.head).says() != step.head.says():
            said, true = told_head(from_carried(vouch.head)), told_head(step.head)
            self._breach(kind, vouch.by, f"says that {event.event_id} left {said}, but it left {true}")

    def _strangers(self) -> None:
        """Heads that name what the key never had."""
        if not self._whole:
            return
        named = {event for key, event in self._evidence.heads if key == self.story.key} - self._known
        for event in sorted(named):
            for vouch in self._evidence.heads[(self.story.key, event)]:
                kind = Breach.RESTATE_FALSE if isinstance(vouch.by, Restate) else Breach.HEAD_DIFFERS
                self._breach(kind, vouch.by, f"names {event} as the head, which is no event of this key")
        stood = {event for key, event in self._evidence.named if key == self.story.key} - self._known
        for event in sorted(stood):
            for take in self._evidence.named[(self.story.key, event)]:
                self._breach(Breach.HEAD_DIFFERS, take, f"stands on {event}, which is no event of this key")

    def _adopted(self, event: Told, head: Head) -> None:
        """Nothing was known of the key, and now a carried head tells."""
        if head.epoch < self._highest:
            why = f"leaves epoch {head.epoch}, as others say; the key had {self._highest}"
            self._breach(Breach.EPOCH_BACKWARDS, event, why)
        for holder in head.holders:
            claimed = (self.story.key, holder.account, holder.incarnation, holder.epoch)
            if (at := self.story.granted.get(claimed)) is not None:
                self._open[(holder.slot, holder.epoch)] = at
                continue
            self.story.granted[claimed] = self._open[(holder.slot, holder.epoch)] = len(self.story.holds)
            self.story.holds.append(
                Hold(
                    self.story.key, holder.slot, holder.epoch, holder.node, holder.account,
                    holder.incarnation, holder.run, "", "", holder.lease_s, event.event_id, event.ts_ms,
                    event.ts_ms, 0, None, HoldEnd.HELD, None, 0,
                )
            )  # fmt: skip

    # -- the end ---------------------------------------------------------------------------------

    def _end(self, as_of_ms: int) -> None:
        still = set(self._open.values())
        for at, hold in enumerate(self.story.holds):
            if hold.until_ms is not None:
                continue
            if at not in still:
                self.story.holds[at] = replace(hold, end=HoldEnd.UNKNOWN)
            elif (lapsed_ms := as_of_ms - _lapses_ms(hold)) > 0:
                self.story.holds[at] = replace(hold, end=HoldEnd.LAPSED, lapsed_ms=lapsed_ms)

    def _breach(self, kind: Breach, event: Told, what: str) -> None:
        self.story.found.append(_finding(kind, self.story.key, event, what))

    def _remark(self, kind: Remark, event: ClaimEvent | Restate, what: str) -> None:
        self.story.found.append(_finding(kind, self.story.key, event, what))


def _finding(kind: Breach | Remark, key: ClaimKey, event: Told, what: str) -> Finding:
    run = RunId(event.run) if isinstance(event, Take | Release) else None
    said = f"{getattr(event, 'node', None) or event.sender} {what}"
    return Finding(kind, said, event.ts_ms, key, run, event.event_id, event.sender)


def _took(take: Take) -> str:
    """Who sends a grant takes for another."""
    return "took" if take.asker is None else f"took for {take.asker.node}"


def _lapses_ms(hold: Hold) -> int:
    return hold.last_sign_ms + 1000 * hold.lease_s


def told_head(head: Head) -> str:
    """A head in a few words."""
    held = ", ".join(f"{h.node} (epoch {h.epoch})" for h in head.holders)
    value = f", value {head.value[:40]!r}" if head.value is not None else ""
    return f"epoch {head.epoch}, {'held by ' + held if held else 'free'}{value}"

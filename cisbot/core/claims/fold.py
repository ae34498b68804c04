"""The rule of acceptance: one pure fold over a key's events in stream order.

Node, simulator and auditor all call `fold`; it knows no clock and not which node it runs on. The rule and
its measured reasons: docs/protocol.md.
"""

from __future__ import annotations

from dataclasses import replace

from cisbot.core.claims.state import (
    Accepted,
    Bounds,
    Head,
    Verdict,
    Void,
    VoidReason,
    with_holder,
)
from cisbot.core.ids import ClaimKey
from cisbot.core.room.events import (
    ClaimEvent,
    End,
    Heartbeat,
    Holder,
    MemoryWrite,
    Probe,
    Release,
    Take,
)
from cisbot.core.room.wire import EPOCH_MAX


def concerns(event: ClaimEvent, key: ClaimKey) -> bool:
    """Whether the event could matter to the key: it names it, or it is an end, which names none."""
    match event:
        case Take() | Release() | MemoryWrite():
            return event.key == key
        case Heartbeat():
            return any(r.key == key for r in event.renews)
        case Probe():
            return key in event.keys
        case End():
            return True


def judge(key: ClaimKey, head: Head, event: ClaimEvent, bounds: Bounds) -> Verdict:
    """Judge one event, in stream order. Pure."""
    match event:
        case Take() | MemoryWrite():
            return _judge_cas(head, event, bounds)
        case Release():
            holder = head.held_by(event.sender, event.incarnation, event.epoch)
            return Accepted(freed=(holder,)) if holder else Void(VoidReason.NOT_A_HOLDER)
        case Heartbeat():
            epochs = {r.epoch for r in event.renews if r.key == key}
            held = [head.held_by(event.sender, event.incarnation, epoch) for epoch in sorted(epochs)]
            renewed = tuple(replace(holder, sign=event.nonce) for holder in held if holder is not None)
            return Accepted(renewed=renewed) if renewed else Void(VoidReason.NOT_A_HOLDER)
        case End():
            over = tuple(
                h for h in head.holders if (h.account, h.incarnation) == (event.sender, event.incarnation)
            )
            return Accepted(freed=over) if over else Void(VoidReason.NOT_A_HOLDER)
        case Probe():
            return Accepted() if head.touched else Void(VoidReason.NEVER_LOCKED)


def _judge_cas(head: Head, event: Take | MemoryWrite, bounds: Bounds) -> Verdict:
    epoch = event.epoch if isinstance(event, Take) else event.version
    if (away := _away(event, bounds)) is not None:
        return Void(away)
    if event.after != head.after:
        return Void(VoidReason.NOT_AFTER)
    if epoch <= head.epoch:
        return Void(VoidReason.EPOCH_NOT_HIGHER)
    if epoch > _epoch_max(head, bounds, fresh=event.fresh):
        return Void(VoidReason.EPOCH_TOO_FAR)
    if isinstance(event, MemoryWrite):
        return Accepted()
    if event.lease_s > bounds.lease_s_max:
        return Void(VoidReason.LEASE_TOO_LONG)
    who = event.who
    new = Holder(
        event.slot, who.account, who.node, who.incarnation, event.epoch, event.run, event.lease_s, who.nonce
    )  # fmt: skip
    freed = tuple(h for h in head.holders if event.fresh or h.slot == event.slot)
    return Accepted(granted=new, freed=freed)


def _away(event: Take | MemoryWrite, bounds: Bounds) -> VoidReason | None:
    """Only the home server's accounts take and write, and grant to those of others."""
    available = bounds.available and isinstance(event, Take) and event.asker is None
    if not bounds.at_home(event.sender):
        return None if available else VoidReason.OFF_HOME
    granted = isinstance(event, Take) and event.asker is not None and bounds.at_home(event.asker.account)
    return VoidReason.AT_HOME if granted else None


def _epoch_max(head: Head, bounds: Bounds, *, fresh: bool) -> int:
    """One step above the head's; fresh, the sender doesn't know that, but how many takes the room has seen.

    It must be above every one of them that may have been accepted, and void ones may lie steps above the
    head: so one step for each, and so for itself. Any accepted epoch is below that bound.
    """
    step = bounds.epoch_step_max
    return max(head.epoch + step, step * (head.takes + head.later + 1) if fresh else 0)


def touch(head: Head) -> Head:
    """The head of a key that has had a lock event, whatever became of it."""
    return head if head.touched else replace(head, touched=True)


def fold(key: ClaimKey, head: Head, event: ClaimEvent, bounds: Bounds) -> tuple[Head, Verdict]:
    """The head after the event: an accepted one becomes `after`, a void one changes nothing.

    Nothing but that the key is `touched` now, if it is a lock event: the state names the key from then on;
    and that a take counts.
    """
    verdict = judge(key, head, event, bounds)
    touched = head.touched or isinstance(event, Take | Release | MemoryWrite)
    later = head.later + isinstance(event, Take | MemoryWrite)
    if isinstance(verdict, Void):
        same = (touched, later) == (head.touched, head.later)
        return head if same else replace(head, touched=touched, later=later), verdict
    epoch, value = head.epoch, head.value
    match event:
        case Take():
            epoch = event.epoch
        case MemoryWrite():
            epoch, value = event.version, event.value
        case _:
            pass
    holders = head.holders
    if verdict.freed:
        holders = tuple(h for h in holders if h not in verdict.freed)
    for new in (*verdict.renewed, *((verdict.granted,) if verdict.granted is not None else ())):
        holders = with_holder(holders, new)
    takes = min(head.takes + later, EPOCH_MAX)
    return Head(epoch, event.event_id, holders, value, touched, takes, later=0), verdict

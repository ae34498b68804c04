"""Rules besides those of `mutants.py`, each of which an earlier draft did without."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from unittest.mock import patch

from cisbot.core.claims import fold as folding
from cisbot.core.claims.answers import Answers
from cisbot.core.claims.contend import Contender
from cisbot.core.claims.facts import Fact
from cisbot.core.claims.holds import Holds
from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.claims.ledger import Adopted, Finding, Ledger
from cisbot.core.claims.state import Bounds, Head, Verdict, Void, VoidReason
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import Send
from cisbot.core.ids import ClaimKey, DagId, NodeId, RunId
from cisbot.core.inputs import Instant, RoomBatch
from cisbot.core.lifecycle import Lifecycle
from cisbot.core.room.events import ClaimEvent, End, MemoryWrite, Restate
from cisbot.core.scopes import Scope
from tests.sim.checkers import Checkers
from tests.sim.mutants import MUTANTS

Patches = ExitStack
_judge, _observe, _gap = folding.judge, Ledger.observe, Coordinator._gap
SHORT_S = 3


def _off(stack: Patches, place: object, name: str, new: object) -> None:
    stack.enter_context(patch.object(place, name, new))


def _blind(stack: Patches) -> None:
    """A changed fold differs from the complete one, which is not what is to be shown."""
    _off(stack, Checkers, "folded", lambda *args: None)


def _look_first(stack: Patches) -> None:
    def forget(life: Lifecycle, runs: object) -> None:
        pass

    nothing = property(lambda life: set(), forget)
    stack.enter_context(patch.object(Lifecycle, "unfollowed", nothing, create=True))


def _unwanted(stack: Patches) -> None:
    def unwanted(keeper: Keeper, found: Adopted) -> list[Send]:
        return []

    _off(stack, Keeper, "_unwanted", unwanted)


def _free_release(stack: Patches) -> None:
    def judge(key: ClaimKey, head: Head, event: ClaimEvent, bounds: Bounds) -> Verdict:
        known = getattr(event, "head", None)
        if type(event).__name__ == "Release" and (known is None or known.after != head.after):
            return Void(VoidReason.NOT_AFTER)
        return _judge(key, head, event, bounds)

    _off(stack, folding, "judge", judge)
    _blind(stack)


def _mine_over(stack: Patches) -> None:
    observe = Keeper.observe

    def observing(keeper: Keeper, event: ClaimEvent | Restate, now: float) -> tuple[list[Fact], list[Send]]:
        if isinstance(event, End) and event.sender == keeper.me.account:
            kept = Holds(keeper.holds)
            observe(keeper, event, now)
            keeper.holds, keeper.mine_over = kept, False
            return [], []
        return observe(keeper, event, now)

    _off(stack, Keeper, "observe", observing)


def _restate_renews(stack: Patches) -> None:
    observe = Keeper.observe

    def observing(keeper: Keeper, event: ClaimEvent | Restate, now: float) -> tuple[list[Fact], list[Send]]:
        if isinstance(event, Restate):
            for holder in event.head.holders:
                keeper._signs[event.key, holder.slot] = now
        return observe(keeper, event, now)

    _off(stack, Keeper, "observe", observing)


def _restate_moves(stack: Patches) -> None:
    def observing(ledger: Ledger, event: ClaimEvent | Restate) -> list[Finding]:
        found = _observe(ledger, event)
        if isinstance(event, Restate) and event.key in ledger._sure:
            ledger._sure[event.key] = replace(ledger._sure[event.key], after=event.event_id)
        return found

    _off(stack, Ledger, "observe", observing)
    _blind(stack)


def _global_key(stack: Patches) -> None:
    def claim_key(dag: DagId, scope: Scope, *, exclusive: bool, node: NodeId | None = None) -> ClaimKey:
        return ClaimKey(f"{dag}/{scope.label}")

    stack.enter_context(patch("cisbot.core.chat.publish.claim_key", claim_key))


def _patience(stack: Patches) -> None:
    _off(stack, Contender, "_patience", lambda contender, rank: math.inf)


def _memory_sure(stack: Patches) -> None:
    def gap(node: Coordinator, batch: RoomBatch, now: Instant) -> None:
        _gap(node, batch, now)
        for event in batch.state:
            if isinstance(event, MemoryWrite):
                node.ledger._unsure.discard(event.key)
                node.ledger._sure[event.key] = Head(
                    event.version, event.event_id, value=event.value, touched=True
                )

    _off(stack, Coordinator, "_gap", gap)


def _restates(stack: Patches) -> None:
    _off(stack, Answers, "wrong", lambda *args: None)
    _off(stack, Answers, "stated", lambda *args: None)


def _own_lease(stack: Patches) -> None:
    def lapses_at(keeper: Keeper, key: ClaimKey, slot: int, now: float) -> float:
        head = keeper.ledger.sure(key)
        if head is None or head.holder_of(slot) is None:
            return now
        return keeper._signs.setdefault((key, slot), now) + SHORT_S * (1 + 2 * RHO)

    _off(stack, Keeper, "lapses_at", lapses_at)


def _ends_kept(stack: Patches) -> None:
    keep = Ledger._keep

    def keeping(ledger: Ledger, event: ClaimEvent) -> None:
        if not isinstance(event, End):
            keep(ledger, event)

    _off(stack, Ledger, "_keep", keeping)


def _silence(stack: Patches) -> None:
    unfollow = Coordinator._unfollow

    def unfollowing(node: Coordinator, run: RunId) -> None:
        if not node.ledger.abroad:
            unfollow(node, run)

    _off(stack, Coordinator, "_unfollow", unfollowing)


def _far(stack: Patches) -> None:
    _off(stack, Answers, "_check_far", lambda *args: None)


SWITCHES: dict[str, Callable[[Patches], None]] = {
    "look first": _look_first,
    "an unseen win is given back": _unwanted,
    "a release names no head": _free_release,
    "an end of one's own is obeyed": _mine_over,
    "a restatement is no sign of life": _restate_renews,
    "a restatement moves nothing": _restate_moves,
    "one key for the global scope": _global_key,
    "patience with a winner ends": _patience,
    "joiners believe no state": _memory_sure,
    "who sees the state wrong restates": _restates,
    "the lease is the lock's": _own_lease,
    "ends are kept for unsure keys": _ends_kept,
    "silence abroad is looked into": _silence,
    "a release from afar is looked at": _far,
}


@contextmanager
def off(rule: str) -> Iterator[None]:
    """The product without that rule."""
    with ExitStack() as stack:
        (SWITCHES[rule] if rule in SWITCHES else MUTANTS[rule].apply)(stack)
        yield

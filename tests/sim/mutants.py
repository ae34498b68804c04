"""The protective rules, each of which can be switched off: then the checks must find a violation.

A rule of the fold is switched off in the reference too, so that what is found is what the rule prevents (two
holders, a run done twice, a run that never gets done), and not just that two folds differ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from unittest.mock import patch
from weakref import WeakKeyDictionary

from cisbot.core.claims import fold as folding
from cisbot.core.claims.answers import Answers
from cisbot.core.claims.contend import Contender, Wish
from cisbot.core.claims.facts import Ended, Fact
from cisbot.core.claims.fold import concerns
from cisbot.core.claims.holds import Hold, Place
from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.ledger import Adopted, Finding, Judged, Ledger
from cisbot.core.claims.state import Accepted, Bounds, Head, Verdict, Void, VoidReason, carried
from cisbot.core.effects import Send
from cisbot.core.ids import ClaimKey, order_hash
from cisbot.core.inputs import Instant
from cisbot.core.lifecycle import Lifecycle
from cisbot.core.room.events import (
    CarriedHead,
    ClaimEvent,
    Heartbeat,
    Holder,
    MemoryWrite,
    Probe,
    Restate,
    Take,
)
from cisbot.core.room.past import Highest
from cisbot.core.runs.execution import Execution
from cisbot.core.runs.gathering import Gathering
from cisbot.core.runs.state import Run
from tests.sim.checkers import Checkers
from tests.sim.histories import transcript, violated
from tests.sim.machine import Machine
from tests.sim.plan import Faults, Plan, Size
from tests.sim.reference import Reference
from tests.sim.workers import Attempt, Workers

Patches = ExitStack
_judge, _fold, _gap, _meaning = folding._judge_cas, folding.fold, Ledger.gap, Keeper._meaning
_keys = Gathering.keys
_granted, _extend, _adopt_fresh, _back = Keeper._granted, Keeper._extend, Ledger._adopt_fresh, Contender.back


@dataclass(frozen=True, slots=True)
class Mutant:
    """A rule that can be switched off: what it prevents, and the histories in which it is needed."""

    name: str
    prevents: str
    apply: Callable[[Patches], None]
    faults: Faults
    size: Size = Size.SMALL
    dags: tuple[str, ...] = ()  # that are published; none: whatever was drawn
    end_delay: float = 0.0  # of the lease
    abroad: int = 0

    def focus(self, plan: Plan) -> Plan:
        """A plan in which the rule matters."""
        delay = self.end_delay * plan.lease_s
        runs = plan.runs
        if self.dags:
            times = [at for at, _ in plan.runs for _ in self.dags]  # one of each whenever a run was drawn
            runs = tuple((at, self.dags[n % len(self.dags)]) for n, at in enumerate(times))
        return replace(plan, faults=self.faults, runs=runs, end_delay_s=delay, abroad=self.abroad)

    def found(self, seeds: Iterable[int]) -> int | None:
        """The first seed whose history is broken for want of the rule."""
        with without(self.name):
            return next((seed for seed in seeds if violated(seed, self.size, self.focus)), None)

    def shortest(self, seeds: Iterable[int]) -> str | None:
        """The transcript with the fewest lines of those seeds' histories."""
        with without(self.name):
            told = [text for seed in seeds if (text := transcript(seed, self.size, self.focus))]
        return min(told, key=lambda text: text.count("\n"), default=None)


LAGS = Faults(late=0.05, answer_lost=0.05, sync_lost=0.1, pause_s=20.0, lag_s=2.5)
LATE = Faults(late=0.25, answer_lost=0.1, sync_lost=0.1, gap=0.02, crash_s=30.0, pause_s=8.0, lag_s=8.0)
GAPS = Faults(answer_lost=0.05, sync_lost=0.1, gap=0.5, pause_s=15.0, lag_s=1.5)
LOSSES = Faults(late=0.05, answer_lost=0.05, sync_lost=0.1, gap=0.1, crash_s=5.0, pause_s=20.0, lag_s=20.0)
CRASHES = Faults(late=0.2, answer_lost=0.1, sync_lost=0.1, gap=0.3, crash_s=4.0, pause_s=6.0)
DELAYS = Faults(late=0.02, pause_s=3.0, down_s=8.0, lag_s=2.0)
CUTS = Faults(late=0.02, cut_s=3.0)
SLEEP = Faults(late=0.02, suspend_s=5.0, pause_s=30.0)


def _off(stack: Patches, place: object, name: str, new: object) -> None:
    stack.enter_context(patch.object(place, name, new))


def _reference(stack: Patches, *rules: str) -> None:
    stack.enter_context(patch.object(Reference, "without", frozenset(rules)))


def _after(stack: Patches) -> None:
    def judge(head: Head, event: Take | MemoryWrite, bounds: Bounds) -> Verdict:
        verdict = _judge(head, event, bounds)
        if verdict == Void(VoidReason.NOT_AFTER):
            return _judge(replace(head, after=event.after), event, bounds)
        return verdict

    _off(stack, folding, "_judge_cas", judge)
    _reference(stack, "after")


def _heartbeats(stack: Patches) -> None:
    def fold(key: ClaimKey, head: Head, event: ClaimEvent, bounds: Bounds) -> tuple[Head, Verdict]:
        after, verdict = _fold(key, head, event, bounds)
        return (replace(after, after=head.after) if isinstance(event, Heartbeat) else after), verdict

    stack.enter_context(patch("cisbot.core.claims.ledger.fold", fold))
    _reference(stack, "heartbeats")


def _gaps(stack: Patches) -> None:
    def gap(ledger: Ledger, also: Iterable[ClaimKey] = ()) -> None:
        ledger.gaps += 1

    _off(stack, Ledger, "gap", gap)


def _unsure_heads(stack: Patches) -> None:
    guesses: WeakKeyDictionary[Ledger, dict[ClaimKey, Head]] = WeakKeyDictionary()
    observe = Ledger.observe

    def gap(ledger: Ledger, also: Iterable[ClaimKey] = ()) -> None:
        guesses.setdefault(ledger, {}).update(ledger._sure)
        _gap(ledger, also)

    def observing(ledger: Ledger, event: ClaimEvent | Restate) -> list[Finding]:
        guessed = guesses.get(ledger, {})
        for key, head in list(guessed.items()):
            if not isinstance(event, Restate) and concerns(event, key):
                guessed[key] = _fold(key, head, event, ledger.bounds)[0]
        return observe(ledger, event)

    def carry(ledger: Ledger, key: ClaimKey) -> CarriedHead | None:
        head = ledger.sure(key) or guesses.get(ledger, {}).get(key)
        return carried(key, head) if head else None

    _off(stack, Ledger, "gap", gap)

    def probed(answers: Answers, event: Probe, holds: Container[ClaimKey], echo_s: float, now: float) -> None:
        for key in event.keys if event.sender != answers._me.account else ():
            if carry(answers._ledger, key) is not None:
                answers._heads[key] = now

    _off(stack, Ledger, "observe", observing)
    _off(stack, Ledger, "carried", carry)
    _off(stack, Answers, "probed", probed)


def _spoilt(stack: Patches) -> None:
    def adopt(ledger: Ledger, event: Take | MemoryWrite) -> list[Finding]:
        if event.key not in ledger._unsure or event.after is None:
            return []
        epoch = event.epoch if isinstance(event, Take) else event.version
        before = Head(epoch - 1, event.after, touched=True, takes=event.takes)
        after, verdict = _fold(event.key, before, event, ledger.bounds)
        if isinstance(verdict, Void):
            return []
        return [ledger._settle(event.key, before, [event]), Judged(event.key, event, verdict, after)]

    def spoil(contender: Contender, event: ClaimEvent, now: float) -> None:
        pass

    _off(stack, Ledger, "_adopt_fresh", adopt)
    _off(stack, Contender, "_spoil", spoil)


def _read_back(stack: Patches) -> None:
    def back(
        contender: Contender, key: ClaimKey, found: Highest | None, wish: Wish | None, now: float
    ) -> list[Send]:
        return _back(contender, key, Highest(0, 0) if found else None, wish, now)

    _off(stack, Contender, "back", back)


def _fresh(stack: Patches) -> None:
    def judge(head: Head, event: Take | MemoryWrite, bounds: Bounds) -> Verdict:
        verdict = _judge(head, event, bounds)
        if isinstance(verdict, Accepted) and isinstance(event, Take):
            return replace(verdict, freed=tuple(h for h in verdict.freed if h.slot == event.slot))
        return verdict

    _off(stack, folding, "_judge_cas", judge)
    _reference(stack, "fresh")


def _clocks(stack: Patches) -> None:
    def meaning(keeper: Keeper, found: Finding, now: float) -> list[Fact]:
        before = dict(keeper._signs)
        facts = _meaning(keeper, found, now)
        if isinstance(found, Adopted):
            for holder in found.head.holders:
                keeper._signs[found.key, holder.slot] = before.get((found.key, holder.slot), now - 1e6)
        return facts

    _off(stack, Keeper, "_meaning", meaning)


def _incarnation(stack: Patches) -> None:
    def held_by(head: Head, account: str, incarnation: str, epoch: int) -> Holder | None:
        return next((h for h in head.holders if (h.account, h.epoch) == (account, epoch)), None)

    def granted(keeper: Keeper, take: Take, holder: Holder, mine: bool, now: float) -> Fact:
        keeper._sent.setdefault(take.nonce, now)
        return _granted(keeper, take, holder, take.sender == keeper.me.account, now)

    _off(stack, Keeper, "_granted", granted)
    _off(stack, Head, "held_by", held_by)
    stack.enter_context(patch.object(Reference, "without", frozenset({"incarnation"})))


def _self_fence(stack: Patches) -> None:
    def expire(keeper: Keeper, now: float) -> list[Fact]:
        keeper.holds.update({at: replace(hold, deadline=math.inf) for at, hold in keeper.holds.items()})
        return []

    def alive(attempt: Attempt) -> bool:
        return attempt.ended is None

    _off(stack, Keeper, "_expire", expire)
    _off(stack, Attempt, "alive", alive)
    _off(stack, Workers, "_watch", lambda workers, attempt: None)


def _before_send(stack: Patches) -> None:
    def granted(keeper: Keeper, take: Take, holder: Holder, mine: bool, now: float) -> Fact:
        keeper._sent[take.nonce] = now
        return _granted(keeper, take, holder, mine, now)

    def extend(keeper: Keeper, place: Place, event: Heartbeat) -> list[Fact]:
        sent = keeper._sent.get(event.nonce)
        if sent is not None:
            keeper._sent[event.nonce] = keeper.seen_now  # type: ignore[attr-defined]
        return _extend(keeper, place, event)

    observe = Keeper.observe

    def observing(keeper: Keeper, event: ClaimEvent, now: float) -> object:
        keeper.seen_now = now  # type: ignore[attr-defined]
        return observe(keeper, event, now)

    _off(stack, Keeper, "_granted", granted)
    _off(stack, Keeper, "_extend", extend)
    _off(stack, Keeper, "observe", observing)


def _delayed(stack: Patches) -> None:
    def bounded(keeper: Keeper, hold: Hold) -> Hold:
        moved = replace(hold, deadline=keeper._leased[hold.place])
        keeper.holds[hold.place] = moved
        return moved

    _off(stack, Keeper, "_bounded", bounded)


def _boot_clock(stack: Patches) -> None:
    _off(stack, Machine, "blind", True)


def _home(stack: Patches) -> None:
    def at_home(bounds: Bounds, account: str) -> bool:
        return True

    _off(stack, Bounds, "at_home", at_home)
    _reference(stack, "home")


def _all_locks(stack: Patches) -> None:
    def keys(gathering: Gathering, run: Run) -> tuple[ClaimKey, ...]:
        return _keys(gathering, run)[-2:]

    _off(stack, Gathering, "keys", keys)
    _off(stack, Checkers, "_named", lambda checkers, attempt: None)


def _order(stack: Patches) -> None:
    def keys(gathering: Gathering, run: Run) -> tuple[ClaimKey, ...]:
        *locks, own = _keys(gathering, run)
        return (*sorted(locks, key=lambda lock: order_hash(run.id, lock)), own)

    _off(stack, Gathering, "_over", lambda gathering, run, missing, now: False)
    _off(stack, Gathering, "keys", keys)


def _lock_lost(stack: Patches) -> None:
    def unlocked(life: Lifecycle, fact: Ended, now: Instant) -> None:
        if now.boot >= fact.hold.deadline:
            life.keeper.abandon(fact.hold)

    _off(stack, Lifecycle, "_unlocked", unlocked)
    _off(stack, Execution, "bounded", lambda execution, holds: execution.hold.deadline)


MUTANTS = {
    mutant.name: mutant
    for mutant in (
        Mutant("after", "two takes on one head, both accepted", _after, LAGS),
        Mutant(
            "heartbeats_move_after",
            "a take that was sent before the renewal is accepted after it",
            _heartbeats,
            LAGS,
        ),
        Mutant("gap_rule", "who missed events takes its own void take for a win", _gaps, GAPS),
        Mutant("unsure_heads", "a guess makes others sure of nonsense", _unsure_heads, GAPS, Size.MIDDLE),
        Mutant(
            "spoilt_probe",
            "a fresh take makes those sure who missed what came before it",
            _spoilt,
            CRASHES,
            Size.MIDDLE,
        ),
        Mutant("read_back", "two epochs of one number, or an epoch that shrinks", _read_back, LOSSES),
        Mutant(
            "fresh_empties", "a slot is held for ever by who is gone", _fresh, CRASHES, Size.MIDDLE, ("pair",)
        ),
        Mutant("clocks_anew", "a holder is replaced before its lease is over", _clocks, GAPS, Size.MIDDLE),
        Mutant(
            "incarnation", "a process takes the claims of the one before it for its own", _incarnation, LOSSES
        ),
        Mutant("self_fence", "tasks run on after their claim is another's", _self_fence, LATE),
        Mutant(
            "deadline_before_send",
            "a holder believes in its lease longer than the others",
            _before_send,
            LATE,
            Size.MIDDLE,
        ),
        Mutant(
            "delayed_deadline",
            "a holder runs on when its delayed end was sent",
            _delayed,
            DELAYS,
            end_delay=0.5,
        ),
        Mutant(
            "home_pinning",
            "each of two servers that are apart has a holder of its own",
            _home,
            CUTS,
            abroad=1,
        ),
        Mutant(
            "all_locks",
            "a run begins without the first of its locks",
            _all_locks,
            LAGS,
            dags=("left", "right"),
        ),
        Mutant(
            "lock_order",
            "each of two runs holds the lock that the other waits for",
            _order,
            LAGS,
            dags=("right", "both"),
        ),
        Mutant(
            "lock_lost",
            "a run goes on when a lock of its is another's",
            _lock_lost,
            LATE,
            dags=("left", "right"),
        ),
        Mutant("boot_clock", "a machine that slept believes that no time has passed", _boot_clock, SLEEP),
    )
}


@contextmanager
def without(name: str) -> Iterator[None]:
    """The product with that rule switched off."""
    with ExitStack() as stack:
        MUTANTS[name].apply(stack)
        yield

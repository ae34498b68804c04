"""What must hold after every step and in the end, apart from how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from cisbot.core.claims.fold import concerns
from cisbot.core.claims.ledger import Ledger, heads_of
from cisbot.core.claims.state import Bounds, from_carried
from cisbot.core.ids import ClaimKey, RunId
from cisbot.core.room import events as ev
from cisbot.core.room.events import Outcome
from cisbot.core.room.wire import key_of
from cisbot.core.runs.board import Board
from cisbot.core.scopes import is_lock, lock_key
from tests.sim.homeserver import Answer, Homeserver, Seen
from tests.sim.plan import DAGS
from tests.sim.reference import Grant, Reference, truth_of
from tests.sim.violation import Violation
from tests.sim.workers import Attempt

CLAIMS = (ev.Take, ev.Release, ev.Heartbeat, ev.Probe, ev.End, ev.MemoryWrite)
OVER = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)


@dataclass(frozen=True, slots=True)
class Published:
    """A run as the person published it; `answers` are the places of what was decided after a loss."""

    run: str
    dag: str
    answers: list[int]


class Checkers:
    """Safety, agreement with the complete fold, and at the end liveness."""

    def __init__(self, bounds: Bounds, server: Homeserver) -> None:
        self.truth = Reference(bounds)
        self._server = server
        self.attempts: list[tuple[Attempt, Grant]] = []
        self.published: dict[str, Published] = {}
        self.counted = Counter[str]()
        self._sink: dict[tuple[ClaimKey, int], int] = {}  # the highest fence that wrote
        self._allowed = {dag.id: dag.overlap.allow for dag in DAGS.values()}

    # -- executions ----------------------------------------------------------------------------------

    def began(self, new: Attempt, now: float) -> None:
        """A task begins: its claim must be accepted, the newest, the only one, and the run not over."""
        self.truth.follow(self._server.stream)
        self.counted["attempts"] += 1
        grant = self.truth.grants.get((new.run, new.epoch))
        if grant is None or (grant.node, grant.incarnation) != (new.node, new.incarnation):
            raise Violation(f"{_told(new)}, whose claim is void: {grant}")
        for other, held in self.attempts:
            same = (other.node, other.incarnation, other.epoch) == (new.node, new.incarnation, new.epoch)
            place = (held.key, held.slot) == (grant.key, grant.slot)
            if place and (other.epoch > new.epoch or (other.epoch == new.epoch and not same)):
                raise Violation(f"{_told(new)}, after {_told(other)}: epochs of {grant.key} must grow")
            if other.alive() and not same and (place or other.run == new.run):
                raise Violation(f"{_told(new)} at {now:.3f}, while {_told(other)}: two at once")
        self._named(new)
        self._locked(new)
        self._once(new, grant)
        self.attempts.append((new, grant))
        self._allows(new, grant)

    def effect(self, attempt: Attempt) -> None:
        """A task writes to a storage that refuses lower fences than it has seen: no holder is refused."""
        grant = self.truth.grants[attempt.run, attempt.epoch]
        fence = self._sink.get((grant.key, grant.slot), 0)
        if attempt.epoch < fence:
            raise Violation(f"{_told(attempt)} and is refused, for {fence} has written already")
        self._sink[grant.key, grant.slot] = attempt.epoch
        for lock, epoch in attempt.locks.items():
            if epoch < (fence := self._sink.get((lock, 0), 0)):
                raise Violation(f"{_told(attempt)} and {lock} at {epoch} is refused, for {fence} has written")
            self._sink[lock, 0] = epoch

    def persisted(self, event: Seen, now: float) -> None:
        """A take that is accepted finds nobody who may still run: its holder's deadline is over."""
        if not isinstance(event, ev.Take):
            return
        self.truth.follow(self._server.stream)
        lock = self.truth.locks.get((event.key, event.epoch))
        if lock is not None and lock.event == event.event_id:
            for other, _ in self.attempts:
                if other.locks.get(event.key, event.epoch) != event.epoch and other.alive():
                    raise Violation(f"{event.node} is granted {event.key} at {now:.3f}, while {_told(other)}")
        grant = self.truth.grants.get((event.run, event.epoch))
        if grant is None or grant.event != event.event_id:
            return
        for other, held in self.attempts:
            here = (held.key, held.slot) == (grant.key, grant.slot) or other.run == event.run
            if here and other.epoch != event.epoch and other.alive():
                raise Violation(f"{event.node} is granted {event.run} at {now:.3f}, while {_told(other)}")

    def _named(self, new: Attempt) -> None:
        """It is told of claims of all locks of its DAG, and they are its own."""
        if set(new.locks) != self._locks(new.run):
            raise Violation(f"{_told(new)} with {sorted(new.locks)}: not the locks of its DAG")
        for lock, epoch in new.locks.items():
            held = self.truth.locks.get((lock, epoch))
            whose = None if held is None else (held.run, held.node, held.incarnation)
            if whose != (new.run, new.node, new.incarnation):
                raise Violation(f"{_told(new)}, whose claim of {lock} at {epoch} is void: {held}")

    def _locked(self, new: Attempt) -> None:
        """Nobody else runs under a lock that its DAG names."""
        locks = self._locks(new.run)
        for other, _ in self.attempts if locks else ():
            shared = locks & self._locks(other.run)
            if shared and other.alive() and other.run != new.run:
                raise Violation(f"{_told(new)}, while {_told(other)}: two at once under {min(shared)}")

    def _locks(self, run: str) -> set[ClaimKey]:
        return set(map(lock_key, DAGS[self.published[run].dag].locks))

    def _allows(self, new: Attempt, grant: Grant) -> None:
        """No more runs of one key than its DAG allows."""
        here = {other.run for other, held in self.attempts if held.key == grant.key and other.alive()}
        if len(here) > (most := self._allowed[DAGS[self.published[new.run].dag].id]):
            raise Violation(f"{_told(new)} as one of {len(here)} of {grant.key}, which allows {most}")

    def _once(self, new: Attempt, grant: Grant) -> None:
        run = self.published[new.run]
        before = [a for a, _ in self.attempts if a.run == new.run and a.epoch < new.epoch]
        for place, outcome in self.truth.outcomes.get(new.run, ()):
            if outcome in OVER and place < grant.place:
                raise Violation(f"{_told(new)}, though the room told before its take that it {outcome}")
        asks = DAGS[run.dag].on_lost.value == "ask"
        if before and asks and not any(place < grant.place for place in run.answers):
            raise Violation(f"{_told(new)}, again, and nobody was asked")

    # -- knowledge -----------------------------------------------------------------------------------

    def folded(self, node: str, ledger: Ledger, answer: Answer) -> None:
        """Every head of which a node is sure is that of the complete fold."""
        claims = [event for event in answer.events if isinstance(event, CLAIMS)]
        if not claims and not answer.gap:
            return
        self.truth.follow(self._server.stream)
        keys = {*self.truth.keys(), *ledger.known()}
        for key in keys if answer.gap else touched(claims, keys):
            head = ledger.sure(key)
            if head is not None and truth_of(head) != (true := self.truth.at(key, answer.cursor)):
                raise Violation(
                    f"{node} is sure of {key} at {answer.cursor}: {truth_of(head)}, but it is {true}"
                )

    # -- the end -------------------------------------------------------------------------------------

    def done(self, boards: Iterable[Board]) -> None:
        """Every run that was published could run, so it succeeded, and every node knows it."""
        for run in self.published.values():
            for task in DAGS[run.dag].tasks:
                if not any(a.good for a, _ in self.attempts if (a.run, a.task) == (run.run, task)):
                    raise Violation(f"stuck: {task} of {run.run} never got done")
            known = [board.runs[RunId(run.run)].status.value for board in boards if run.run in board.runs]
            if set(known) != {"succeeded"}:
                raise Violation(f"{run.run} is done, and the nodes say that it is {known}")

    def free(self, living: Iterable[str]) -> None:
        """No process that lives holds a lock: nothing runs any more."""
        self.truth.follow(self._server.stream)
        for key in list(self.truth.keys()):
            for holder in self.truth.at(key, len(self._server.stream))[2].values():
                if is_lock(key) and holder[1] in living:
                    raise Violation(f"{key} is held by {holder}, and nobody needs it")

    def settled(self, crashed: float) -> None:
        """In the end whoever reads only the state reads the truth, if who owed it lived on."""
        self.truth.follow(self._server.stream)
        for (kind, name), stated in self._server.state.items():
            if (key := key_of(kind, name)) is None or stated.done <= crashed:
                continue
            truth, event = self.truth.at(key, len(self._server.stream)), stated.event
            if isinstance(event, ev.Restate):
                said = truth_of(from_carried(event.head))
                true = (said[0], said[2:]) == (truth[0], truth[2:])
            elif isinstance(event, ev.MemoryWrite):
                true = (event.version, event.value) == (truth[0], truth[3])
            else:
                true = event.event_id == self.truth.stated.get(key)
            if not true:
                raise Violation(f"{key}: it is {truth}, but the state says {event}")


def touched(events: list[ev.ClaimEvent], keys: Iterable[ClaimKey]) -> list[ClaimKey]:
    """The keys that these events can have changed."""
    heads = {head.key for event in events for head in heads_of(event)}
    return [key for key in keys if key in heads or any(concerns(event, key) for event in events)]


def _told(attempt: Attempt) -> str:
    who = f"{attempt.node} ({attempt.incarnation})"
    return f"{who} runs {attempt.task} of {attempt.run} under epoch {attempt.epoch}"

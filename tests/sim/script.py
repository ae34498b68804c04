"""A history told by hand: who does what when, with nothing left to chance but a few milliseconds.

What a story needs to get where it wants to (`until`) raises `Astray`; what the protection owes (`owes`), and
all that the checkers hold, raise `Violation`. So a rule that is switched off is seen to be missed, and not
just that the story went another way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from typing_extensions import override

from cisbot.core.claims.messages import Claim as Wanted
from cisbot.core.claims.messages import Me, end, probe, release, take
from cisbot.core.claims.state import Head
from cisbot.core.coordinator import Coordinator
from cisbot.core.effects import Answer, Send
from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, RunId, short_id
from cisbot.core.inputs import MemoryAsk
from cisbot.core.room import events as ev
from cisbot.core.room.wire import MEMORY_PREFIX, T_HEARTBEAT, T_INTENT, T_LOCK, T_MEMORY, T_NODE
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.scopes import claim_key, lock_key, parse_scope
from tests.sim.chaos import EVIL
from tests.sim.checkers import Published
from tests.sim.machine import Machine
from tests.sim.network import Fate
from tests.sim.plan import CALM, DAGS, Plan, Size
from tests.sim.violation import Violation
from tests.sim.workers import Attempt
from tests.sim.world import World

INTENT, LOCK, HEARTBEAT, MEMORY, RECORD = T_INTENT, T_LOCK, T_HEARTBEAT, T_MEMORY, T_NODE
TAKE, RELEASE, RESTATE = "take", "release", "restate"
ANY, MESSAGE = "any", "m.room.message"
NAME = ClaimKey(MEMORY_PREFIX + "note")
LONG_S = 60.0


class Astray(Exception):
    """The story did not get where it was to go: it proves nothing."""


@dataclass(slots=True)
class Told:
    """An answer about the public memory, when it is there."""

    good: bool | None = None
    value: str | None = None


@dataclass(slots=True)
class _Awaited:
    account: str
    kind: str
    fate: Fate = field(default_factory=Fate)
    always: bool = False

    def meets(self, account: str, send: Send) -> bool:
        return account == self.account and self.kind in (ANY, send.type, send.content.get("action"))


class Story(World):
    """A world whose faults are told one by one."""

    def __init__(
        self,
        seed: int,
        nodes: int = 2,
        lease_s: int = 6,
        *,
        longest_s: int | None = None,
        abroad: int = 0,
        told: bool = False,
    ) -> None:
        def plain(_: Plan) -> Plan:
            return Plan(
                nodes, lease_s, longest_s or lease_s, runs=(), faults=CALM, chaos_s=0.0, task_leases=1.0,
                end_delay_s=0.0, abroad=abroad, counts=0,
            )  # fmt: skip

        super().__init__(seed, Size.SMALL, plain, told=told)
        self.task_s = 0.3
        self.told: dict[str, Told] = {}
        self._awaited: list[_Awaited] = []
        self._evil = Me(NodeId("evil"), EVIL, Incarnation("evil"))
        self._open_room()

    # -- time --------------------------------------------------------------------------------------

    def passes(self, seconds: float) -> None:
        """Time goes by."""
        self._until(self.now + seconds, lambda: False)

    def until(self, what: str, true: Callable[[], object], within: float = LONG_S) -> None:
        """The story goes on until that is so."""
        if not self._comes(true, within):
            raise Astray(f"{self.now:.3f}: in vain until {what}")
        self.log("--- {}", what)

    def owes(self, what: str, true: Callable[[], object], within: float = 0.0) -> None:
        """That is so, in time, or the protocol is broken."""
        if not self._comes(true, within):
            self.log("--- NOT so: {}", what)
            raise Violation(f"{self.now:.3f}: not so: {what}")
        self.log("--- {}", what)

    def ends(self) -> None:
        """All is well again: every run gets done, all agree, and the state tells the truth."""
        for machine in self.machines:
            machine.deaf = False
        for awaited in self._awaited:
            if awaited.fate.kept and awaited.fate.send and awaited.fate.let_go:
                awaited.fate.let_go()
        self._awaited.clear()
        self.task_s = 0.3
        self._calm()

    def _comes(self, true: Callable[[], object], within: float) -> bool:
        if true():
            return True
        self._until(self.now + within, lambda: bool(true()))
        return bool(true())

    # -- machines ----------------------------------------------------------------------------------

    def start(self, *machines: Machine) -> None:
        """They start, and know each other."""
        for machine in machines:
            machine.start()
        self.until(
            "all who live know each other",
            lambda: all(len(core(m).board.living()) >= len(machines) for m in machines),
        )
        self.passes(1.0)

    def crash(self, machine: Machine, *, database: bool = True) -> None:
        """Its process and tasks are dead. It starts again when the story says so."""
        machine.crash()
        if not database:
            self.log("{} loses its database", machine.name)
            machine.database.tables = {table: {} for table in machine.database.tables}

    @override
    def crashed(self, machine: Machine) -> None:
        """Nothing follows by itself."""
        self._crashed = self.now

    def deaf(self, machine: Machine) -> None:
        """It hears nothing of the room until `hears`; what it sends arrives."""
        self.log("{} hears nothing", machine.name)
        machine.deaf = True

    def hears(self, machine: Machine, *, only: int | None = None) -> None:
        """It hears again: all that it missed, or after a gap only the last so many events."""
        self.log("{} hears again{}", machine.name, "" if only is None else f": the last {only}")
        machine.deaf, machine.keeps = False, only

    # -- requests ----------------------------------------------------------------------------------

    def hold(self, machine: Machine, kind: str) -> Fate:
        """Its next request of that kind is on its way until it is `let_go`."""
        return self._await(machine, kind, Fate(kept=True))

    def lose(self, machine: Machine, kind: str) -> Fate:
        """Its next request of that kind never arrives."""
        return self._await(machine, kind, Fate(lost=True))

    def lose_all(self, machine: Machine, kind: str) -> None:
        """None of its requests of that kind arrives, until the end or `restored`."""
        self._awaited.append(_Awaited(machine.account, kind, Fate(lost=True), always=True))

    def restored(self, machine: Machine) -> None:
        """What it sends arrives again."""
        self.log("what {} sends arrives again", machine.name)
        self._awaited = [a for a in self._awaited if a.account != machine.account]

    def lose_answer(self, machine: Machine, kind: str) -> Fate:
        """Its next request of that kind takes effect, and it never learns so."""
        return self._await(machine, kind, Fate(answered=False))

    def delay(self, machine: Machine, kind: str, seconds: float) -> None:
        """Its next request of that kind is that late."""
        held = self.hold(machine, kind)
        held.late_s = seconds

    def arrives(self, held: Fate) -> None:
        """What was held arrives now."""
        if held.send is None or held.let_go is None:
            raise Astray("what was to be held was never sent")
        self.log("what was held arrives: {}", held.send.txn)
        held.let_go()
        held.kept = False

    def _await(self, machine: Machine, kind: str, fate: Fate) -> Fate:
        self._awaited.append(_Awaited(machine.account, kind, fate))
        return fate

    @override
    def fate(self, account: str, send: Send) -> Fate | None:
        """What the story says."""
        for awaited in self._awaited:
            if awaited.meets(account, send) and (awaited.always or awaited.fate.send is None):
                awaited.fate.send = send
                told = "lost" if awaited.fate.lost else "held" if awaited.fate.kept else "not answered"
                self.log("{} {} of {} is {}", awaited.kind, send.txn, account, told)
                return replace(awaited.fate) if awaited.always else awaited.fate
        return None

    @override
    def lasts(self) -> float:
        """As long as the story says."""
        return self.task_s

    # -- people ------------------------------------------------------------------------------------

    def publish(self, dag: str, on: Machine | None = None) -> RunId:
        """The operator publishes a run, for any node or for that one."""
        run = RunId(self._say(f"!dag publish {dag}" + (f" target={on.name}" if on else "")))
        self.checkers.published[run] = Published(run, dag, [])
        return run

    def says(self, body: str = "hello") -> None:
        """Somebody says something that is no concern of the nodes."""
        self._say(body)

    def approve(self, run: RunId) -> None:
        """The operator has a lost run taken up again."""
        self.checkers.published[run].answers.append(len(self.server.stream))
        self._say(f"!dag approve {short_id(run)}")

    def writes(self, machine: Machine, value: str) -> Told:
        """Somebody on that machine writes a value of the public memory, once and without another try."""
        return self._ask(machine, MemoryAsk(f"write {value}", "cas", NAME, value, None))

    def reads(self, machine: Machine) -> Told:
        """Somebody on that machine reads it."""
        return self._ask(machine, MemoryAsk(f"read {len(self.told)}", "get", NAME))

    def _ask(self, machine: Machine, ask: MemoryAsk) -> Told:
        self.log("{} is asked: {} {}", machine.name, ask.op, ask.value or "")
        told = self.told[ask.tag] = Told()
        machine.ask_memory(ask)
        return told

    def stranger_takes(self, dag: str) -> EventId:
        """A member who is no node of ours sends a lock request that names nothing right; it is void."""
        claim = Wanted(RunId("$evil"), dag, "s", 1, "0")
        send = take(
            self._evil, self._evil.nonce(), key_of(dag), 0, 7, EventId("$nowhere"), claim, fresh=False,
            head=None,
        )  # fmt: skip
        self.log("a stranger takes {}, in vain", key_of(dag))
        return self.persist(EVIL, send, self.now)

    def stranger_asks(self, dag: str) -> EventId:
        """A member who is no node of ours asks for the head of the DAG's key."""
        self.log("a stranger asks for the head of {}", key_of(dag))
        return self.persist(EVIL, probe(self._evil, self._evil.nonce(), (key_of(dag),)), self.now)

    def gives_back(self, machine: Machine, lock: str) -> None:
        """Somebody who has the machine's account gives a lock back in the name of its process."""
        me = Me(NodeId(machine.name), machine.account, machine.incarnation)
        (hold,) = core(machine).keeper.holds.of_key(lock_key(lock))
        self.log("{} is given back behind the back of {}", hold.key, machine.name)
        send = release(me, hold.key, hold.epoch, hold.run, None, None)
        self.persist(machine.account, replace(send, txn=f"stolen {lock}"), self.now)

    def fires_end(self, machine: Machine) -> None:
        """The homeserver sends the end that was armed for the machine's process."""
        me = Me(NodeId(machine.name), machine.account, machine.incarnation)
        self.log("the end of {} fires", machine.incarnation)
        self.persist(machine.account, end(me, machine.incarnation), self.now)

    @override
    def answered(self, machine: Machine, answer: Answer) -> None:
        """Whoever asked has the answer."""
        if answer.tag not in self.told:
            super().answered(machine, answer)
            return
        self.log("{} answers: {}", machine.name, answer.body)
        told, body = self.told[answer.tag], answer.body
        told.good, told.value = bool(body["ok"]), None if body.get("value") is None else str(body["value"])

    # -- what is so --------------------------------------------------------------------------------

    def runs(self, run: RunId, on: Machine | None = None) -> list[Attempt]:
        """Its tasks that live now."""
        return [a for a in self.begun(run, on) if a.alive()]

    def begun(self, run: RunId, on: Machine | None = None) -> list[Attempt]:
        """Its tasks that ever began."""
        return [a for a, _ in self.checkers.attempts if a.run == run and (on is None or a.node == on.name)]

    def runner(self, run: RunId) -> Machine:
        """Who runs it."""
        names = {attempt.node for attempt in self.runs(run)}
        if len(names) != 1:
            raise Astray(f"{run} runs on {names}")
        return next(m for m in self.machines if m.name in names)

    def others(self, *than: Machine) -> list[Machine]:
        """The other machines."""
        return [machine for machine in self.machines if machine not in than]

    def known(self, run: RunId, machine: Machine) -> Run | None:
        """The run as the machine's node knows it."""
        return core(machine).board.runs.get(run)

    def waits(self, run: RunId, machine: Machine) -> bool:
        """Whether the node would claim it."""
        known = self.known(run, machine)
        return known is not None and known.status is RunStatus.PENDING

    def asked(self, run: RunId, machine: Machine) -> bool:
        """Whether the node knows that a person is asked what becomes of the lost run."""
        known = self.known(run, machine)
        return known is not None and known.status is RunStatus.LOST and known.asked

    def succeeded(self, run: RunId, machine: Machine) -> bool:
        """Whether the node knows that it succeeded."""
        known = self.known(run, machine)
        return known is not None and known.status is RunStatus.SUCCEEDED

    def over(self, run: RunId) -> bool:
        """Whether all who live know that it succeeded."""
        return all(self.succeeded(run, m) for m in self.machines if m.process is not None)

    def seen(
        self, kind: type[ev.RoomEvent], sender: Machine | None = None, since: int = 0
    ) -> list[ev.RoomEvent]:
        """The events of that kind in the room's stream."""
        return [
            e
            for e in self.server.stream[since:]
            if isinstance(e, kind) and (sender is None or e.sender == sender.account)
        ]

    def seen_by(self, machine: Machine, kind: type[ev.RoomEvent]) -> list[ev.RoomEvent]:
        """The machine's own events of that kind in the stream of its server."""
        return [e for e in machine.server.stream if isinstance(e, kind) and e.sender == machine.account]

    def given_back(self, machine: Machine, since: int = 0) -> list[ev.RoomEvent]:
        """Its releases that tell no outcome."""
        return [
            e for e in self.seen(ev.Release, machine, since) if isinstance(e, ev.Release) and not e.outcome
        ]

    def stated(self) -> str | None:
        """What the state says that the public memory holds."""
        found = self.server.named(T_MEMORY, "note")
        head = getattr(found, "head", None)
        return head.value if isinstance(found, ev.Restate) and head else getattr(found, "value", None)

    def truth(self, dag: str) -> tuple[int, str | None, dict[int, tuple[str, str, int, str]], str | None]:
        """The head of the DAG's key by the complete fold."""
        self.checkers.truth.follow(self.server.stream)
        return self.checkers.truth.at(key_of(dag), len(self.server.stream))


def core(machine: Machine) -> Coordinator:
    """The coordinator of its process."""
    if machine.process is None:
        raise Astray(f"{machine.name} is not alive")
    return machine.process.coordinator


def key_of(dag: str) -> ClaimKey:
    """The key of a DAG's runs."""
    scope = DAGS[dag].scope or ""
    return claim_key(DAGS[dag].id, parse_scope(scope), exclusive=False)


def sure(machine: Machine, dag: str) -> Head | None:
    """What it knows of the DAG's key."""
    return core(machine).ledger.sure(key_of(dag))

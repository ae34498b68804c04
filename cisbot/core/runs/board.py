"""The board: all runs and nodes of the room as this node knows them, and who may do what.

Pure. Fed in the room's order; what it changed is in `dirty` until the coordinator has written it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace

from cisbot.core.ids import (
    EventId,
    Incarnation,
    NodeId,
    RunId,
    UserId,
    nearest,
    order_hash,
    run_event,
    server_of,
)
from cisbot.core.placement import matches
from cisbot.core.policy import allowed
from cisbot.core.room.events import (
    ClaimEvent,
    End,
    Holder,
    Member,
    NodeRecord,
    Outcome,
    PowerLevels,
    Restate,
    RoomCreate,
    Take,
)
from cisbot.core.runs.state import OF_OUTCOME, NodeInfo, Run, RunStatus
from cisbot.core.settings import Act, Policy, Rule
from cisbot.errors import FieldError

CREATOR_POWER = 2**53 - 1
SEEN_AGAIN_MS = 1_000  # people read seconds
MESSAGES_MAX = 20  # prompts, statuses and questions of a run that can be reacted to
RUNS_KEPT = 2_000
LATE = "nobody approved in time"
RUNS_SLACK = 200  # so that forgetting is rare
TASKS_KEPT = 50_000  # of finished and open runs together, so that runs of a thousand tasks fill no disk


class Board:
    """Runs, nodes and powers."""

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.runs: dict[RunId, Run] = {}
        self.nodes: dict[UserId, NodeInfo] = {}
        self._away: set[UserId] = set()
        self._peers: tuple[str, tuple[UserId, ...]] | None = None  # until one comes or goes
        self._rivals: dict[tuple[str, str], tuple[UserId, ...]] = {}  # so too
        self.dirty: set[RunId] = set()
        self._open: list[tuple[int, RunId]] = []  # oldest first
        self._tasks = 0  # of all runs
        self.dirty_nodes: set[UserId] = set()
        self._by_message: dict[EventId, RunId] = {}
        self._of_event: dict[EventId, dict[RunId, None]] = {}
        self._powers: PowerLevels | None = None
        self._creators: tuple[UserId, ...] = ()
        self._over: dict[UserId, Incarnation] = {}  # the last of each account that ended

    # -- the room ------------------------------------------------------------------------------

    def note_powers(self, event: PowerLevels | RoomCreate) -> None:
        """Take up the room's power levels, or its creators."""
        if isinstance(event, PowerLevels):
            self._powers = event
        else:
            creators = event.creators if _creators_rule(event.room_version) else ()
            self._creators = creators

    def power(self, user: UserId) -> int:
        """The user's power level in the room."""
        if user in self._creators:
            return CREATOR_POWER
        if self._powers is None:
            return 0
        return self._powers.users.get(user, self._powers.users_default)

    def may(self, act: Act, run_dag: str, user: UserId) -> bool:
        """Whether this node's owner allows it."""
        return allowed(self.rule(act, run_dag), user, self.power(user))

    def rule(self, act: Act, dag: str) -> Rule:
        """The rule for one act on one DAG."""
        return self.policy.rule(act, dag)  # type: ignore[arg-type]

    def note_node(self, record: NodeRecord, now_ms: int) -> None:
        """Take up what a node says of itself."""
        known = self.nodes.get(record.sender)
        stays = known is not None and known.id == record.node and not known.gone
        self.nodes[record.sender] = NodeInfo(
            record.node,
            record.sender,
            record.incarnation,
            record.executes,
            record.labels,
            record.dags,
            record.gone or record.sender in self._away,
            known.since_ms if stays and known is not None else now_ms,
            now_ms,
            record.ts_ms,
        )
        self._others_now()
        self.dirty_nodes.add(record.sender)

    def _others_now(self) -> None:
        self._peers = None
        self._rivals.clear()

    def outdated(self, record: NodeRecord) -> bool:
        """Whether the node has said something newer, which the state before a fork does not know."""
        known = self.nodes.get(record.sender)
        return known is not None and record.ts_ms < known.said_ms

    def note_member(self, event: Member) -> None:
        """Whoever is not in the room any more is no node of it."""
        here = event.membership == "join"
        (self._away.discard if here else self._away.add)(event.user)
        info = self.nodes.get(event.user)
        if info is not None and not here and not info.gone:
            self.nodes[event.user] = replace(info, gone=True)
            self._others_now()
            self.dirty_nodes.add(event.user)

    def seen(self, event: ClaimEvent | Restate, now_ms: int) -> None:
        """A node showed a sign of life, or one of its incarnations is over."""
        info = self.nodes.get(event.sender)
        if info is not None and not 0 <= now_ms - info.seen_ms < SEEN_AGAIN_MS:
            self.nodes[event.sender] = replace(info, seen_ms=now_ms)
        if isinstance(event, End):
            self._over[event.sender] = event.incarnation

    def over(self, node: NodeInfo) -> bool:
        """Whether the incarnation that the node told of has ended, and none has come after it yet."""
        return self._over.get(node.account) == node.incarnation

    def is_node(self, account: UserId) -> bool:
        """Whether the account belongs to a node."""
        return account in self.nodes

    def living(self) -> list[NodeInfo]:
        """The nodes that have not left."""
        return [n for n in self.nodes.values() if not n.gone]

    def peers(self, home: str) -> tuple[UserId, ...]:
        """The accounts of the living nodes on that server; of all servers, where none is named."""
        if self._peers is None or self._peers[0] != home:
            accounts = (n.account for n in self.living() if not home or server_of(n.account) == home)
            self._peers = home, tuple(accounts)
        return self._peers[1]

    def eligible(self, dag: str, target: str) -> list[NodeInfo]:
        """The nodes that may execute a run of this DAG with this target."""
        return [n for n in self.living() if n.executes and dag in n.dags and matches(target, n.id, n.labels)]

    def rivals(self, dag: str, target: str) -> list[UserId]:
        """The accounts of those whose incarnation has not ended, as far as known."""
        known = self._rivals.get((dag, target))
        if known is None:
            known = tuple(info.account for info in self.eligible(dag, target))
            self._rivals[dag, target] = known
        return [account for account in known if not self.over(self.nodes[account])]

    def holders_of(self, dag: str, definition: str) -> list[NodeInfo]:
        """The living nodes that say they have the DAG in this very form."""
        return [n for n in self.living() if n.executes and definition.startswith(n.dags.get(dag) or "-")]

    def knowing(self, dag: str) -> tuple[UserId, ...]:
        """The accounts of living nodes that have the DAG: they answer first."""
        nodes = [n.account for n in self.living() if dag in n.dags]
        return tuple(sorted(nodes, key=lambda a: order_hash(dag, a)))

    def known_dags(self) -> set[str]:
        """All DAGs that some living node has."""
        return {dag for n in self.living() for dag in n.dags}

    def answer_rank(self, me: UserId, event: EventId, first: Iterable[UserId] = ()) -> int:
        """Whose turn it is to answer in chat: preferred accounts, then all in hash order."""
        preferred = [a for a in first if a in self.nodes and not self.nodes[a].gone]
        rest = sorted((n.account for n in self.living()), key=lambda a: order_hash(event, a))
        order = list(dict.fromkeys([*preferred, *rest]))
        return order.index(me) if me in order else len(order)

    # -- runs ----------------------------------------------------------------------------------

    def put(self, run: Run) -> Run:
        """Keep a run as it is now."""
        known = self.runs.get(run.id)
        self._tasks += len(run.tasks) - (len(known.tasks) if known is not None else 0)
        self.runs[run.id] = run
        self._note_open(run)
        self.dirty.add(run.id)
        self._of_event.setdefault(run_event(run.id), {})[run.id] = None
        for message in (run_event(run.id), *run.messages):
            self._by_message.setdefault(message, run.id)
        return run

    def of_message(self, event: EventId | None) -> Run | None:
        """The run of a publishing, prompt or status message."""
        run = self._by_message.get(event) if event else None
        return self.runs.get(run) if run else None

    def runs_of(self, event: EventId) -> list[Run]:
        """All runs that one publishing message made (several with target=all)."""
        return [self.runs[run] for run in self._of_event.get(event, ())]

    def find(self, text: str) -> Run:
        """The run with that short id (or the beginning of one, if clear). Raises `FieldError`."""
        word = text.strip().lower()
        named = [(r.short.lower(), r) for r in self.runs.values()]
        exact = [r for short, r in named if short == word or r.id == text]
        found = exact or [r for short, r in named if len(word) >= 3 and short.startswith(word)]
        if len(found) == 1:
            return found[0]
        if found:
            names = ", ".join(sorted(r.short for r in found)[:5])
            raise FieldError("run", f"{text[:40]!r} is not clear", f"one of: {names}")
        hint = nearest(word, [r.short for r in self.runs.values()]) or "See: !dag status"
        raise FieldError("run", f"no run is called {text[:40]!r}", "a run's short id", hint)

    def add_message(self, run: Run, event: EventId) -> Run:
        """Reactions to this message of ours count for the run."""
        if event in run.messages:
            return run
        for old in run.messages[: -MESSAGES_MAX + 1]:
            self._by_message.pop(old, None)
        return self.put(replace(run, messages=(*run.messages, event)[-MESSAGES_MAX:]))

    def approve(self, run: Run, user: UserId) -> Run:
        """Count an approval; enough of them make the run claimable. It came in time: see `timely`."""
        if run.status is RunStatus.LOST:
            return self._resumed(run, user)
        if run.status is not RunStatus.WAITING or user in run.approvals:
            return run
        given = (*run.approvals, user)
        enough = len(given) >= run.approvals_needed
        status = RunStatus.PENDING if enough else run.status
        return self.put(replace(run, approvals=given, status=status))

    def answer(self, run: Run, user: UserId, *, yes: bool) -> Run:
        """Keep a person's answer until this node knows what it is about."""
        return self.put(replace(run, answered=(run.epoch, yes, user)))

    def decided(self, run: Run, now_ms: int) -> Run:
        """A person's answer about a lost run takes effect."""
        assert run.answered is not None
        _, yes, user = run.answered
        if not yes:
            return self.close(run, RunStatus.FAILED, f"lost, closed by {user}", now_ms)
        return self._resumed(run, user)

    def _resumed(self, run: Run, user: UserId) -> Run:
        why = f"resumed by {user}"
        return self.put(
            replace(
                run,
                status=RunStatus.PENDING,
                asked=False,
                question=0,
                decided=run.epoch,
                answered=None,
                why=why,
            )
        )

    def timely(self, run: Run, ts_ms: int) -> Run:
        """The run as a decision of that time (the homeserver's) finds it, whatever our own clock said.

        All nodes judge an approval by the same time, so that none runs what another calls expired.
        """
        if run.expires_ms is None:
            return run
        if run.status is RunStatus.EXPIRED and ts_ms <= run.expires_ms:
            return self.put(replace(run, status=RunStatus.WAITING, why="", ended_ms=None))
        if run.status is RunStatus.WAITING and ts_ms > run.expires_ms:
            return self.close(run, RunStatus.EXPIRED, LATE, ts_ms)
        return run

    def close(self, run: Run, status: RunStatus, why: str, now_ms: int) -> Run:
        """The run is over."""
        return self.put(replace(run, status=status, why=why, ended_ms=now_ms))

    def taken(self, take: Take, holder: Holder, now_ms: int) -> Run | None:
        """A take was accepted: its node runs it now, pinned to the definition that it names."""
        run = self.runs.get(take.run)
        unbegun = run is not None and run.key is not None and run.epoch == 0
        if run is not None and unbegun and run.status is RunStatus.PENDING and self.is_node(take.sender):
            # Nodes with other versions of its DAG reckon other keys: the first that is taken is the run's.
            run = self.put(replace(run, key=take.key, scope=take.scope))
        foreign = run is not None and run.key not in (None, take.key)
        unapproved = run is not None and run.status is RunStatus.WAITING and run.key is not None
        if run is None or foreign or run.status.over or unapproved:
            return run  # what nobody approved does not run, whoever took its key
        return self.put(
            replace(
                run,
                status=RunStatus.RUNNING,
                definition=take.definition,
                node=holder.node,
                account=holder.account,
                epoch=take.epoch,
                holders=run.begun(take.epoch, holder.account),
                started_ms=run.started_ms or now_ms,
                why="",
                asked=False,
                answered=None,
            )
        )

    def settled(self, run: Run, outcome: Outcome, now_ms: int) -> Run:
        """The holder said how it ended."""
        if run.status.over:
            return run
        return self.put(replace(run, status=OF_OUTCOME[outcome], ended_ms=now_ms))

    def forget_old(self) -> list[RunId]:
        """Drop the oldest finished runs beyond `RUNS_KEPT` and `TASKS_KEPT`: the room's history has them."""
        if len(self.runs) <= RUNS_KEPT + RUNS_SLACK and self._tasks <= TASKS_KEPT:
            return []
        done = sorted((r for r in self.runs.values() if r.status.over), key=lambda r: r.published_ms)
        gone: list[Run] = []
        for run in done[:-1]:  # the newest is what somebody may ask about
            if len(self.runs) <= RUNS_KEPT and self._tasks <= TASKS_KEPT * 9 // 10:
                break
            gone.append(run)
            self._tasks -= len(run.tasks)
            del self.runs[run.id]
            self.dirty.discard(run.id)
            siblings = self._of_event[run_event(run.id)]
            del siblings[run.id]
            if not siblings:
                del self._of_event[run_event(run.id)]
            for message in (run_event(run.id), *run.messages):
                self._by_message.pop(message, None)
        return [run.id for run in gone]

    def waiting(self) -> list[Run]:
        """The runs that may be claimed, by priority, then publication."""
        pending = [r for r in self.open_runs() if r.status is RunStatus.PENDING and r.key]
        return sorted(pending, key=lambda r: -r.priority) if len(pending) > 1 else pending

    def open_runs(self) -> list[Run]:
        """All runs that are not over, oldest first."""
        return [self.runs[run] for _, run in self._open]

    def oldest_open(self, most: int) -> tuple[RunId, ...]:
        """The names of the oldest runs that are not over."""
        return tuple(run for _, run in self._open[:most])

    def _note_open(self, run: Run) -> None:
        mark = (run.published_ms, run.id)
        place = bisect_left(self._open, mark)
        known = self._open[place : place + 1] == [mark]
        if known and run.status.over:
            del self._open[place]
        elif not known and not run.status.over:
            self._open.insert(place, mark)

    def recent(self, limit: int) -> list[Run]:
        """Open runs, then the newest finished ones."""
        done = sorted((r for r in self.runs.values() if r.status.over), key=lambda r: -r.published_ms)
        return [*self.open_runs(), *done][:limit]

    def node_named(self, node: NodeId) -> NodeInfo | None:
        """A living node of that id."""
        return next((n for n in self.living() if n.id == node), None)


def _creators_rule(version: str) -> bool:
    """From room version 12 on, creators stand above all power levels (MSC4289)."""
    return version.isdecimal() and len(version) < 4 and int(version) >= 12

"""Publishing: a command becomes a run, or one short reply that names the mistake."""

from __future__ import annotations

from collections.abc import Mapping

from cisbot.core.chat import render
from cisbot.core.chat.grammar import Publish
from cisbot.core.chat.office import Office, why_waiting
from cisbot.core.chat.unread import read, unread_to_row
from cisbot.core.chat.voice import Voice
from cisbot.core.dags.definition import Approval, Definition, OnLost
from cisbot.core.dags.params import resolve
from cisbot.core.dags.parse import parse
from cisbot.core.dags.values import TargetKind, parse_target
from cisbot.core.effects import ReadMedia
from cisbot.core.ids import DagId, NodeId, UserId, nearest, run_id
from cisbot.core.inputs import Instant, TextRead
from cisbot.core.policy import allowed
from cisbot.core.room.events import JsonMap, Message
from cisbot.core.runs.state import NodeInfo, Run, RunStatus
from cisbot.core.scopes import GLOBAL, Scope, claim_key, infer_scope, parse_scope
from cisbot.core.settings import Act
from cisbot.errors import FieldError

ATTACHED_BYTES_MAX = 1_000_000
TELL_WAITING_S = 3.0


class Publisher:
    """Turns publishing messages into runs. Pure."""

    def __init__(self, office: Office, voice: Voice) -> None:
        self._office = office
        self._voice = voice
        self._reading: dict[str, tuple[Message, Publish]] = {}

    def unknown_dag(self, dag: str) -> FieldError:
        """No node has this DAG."""
        known = self._office.board.known_dags() | set(self._office.definitions)
        hint = nearest(dag, known) or "See: !dag list"
        return FieldError("dag", f"no node has a DAG called '{dag[:60]}'", "", hint)

    def publish(self, msg: Message, command: Publish, now: Instant) -> None:
        """A person or an entry publishes."""
        if msg.file is not None and command.attached is None:
            self._may_send_dags(msg.sender)
            tag = f"media {msg.event_id}"
            self._reading[tag] = (msg, command)
            self._office.keep(unread_to_row(msg))
            self._office.ask(ReadMedia(tag, msg.file.url, ATTACHED_BYTES_MAX))
            return  # until it is read, others may be faster: see `media_read`
        sent = self._sent_definition(msg, command, command.attached) if command.attached else None
        self._publish(msg, command, sent, now)

    def media_read(self, item: TextRead, now: Instant) -> None:
        """The attached file was read."""
        waiting = self._reading.pop(item.tag, None)
        if waiting is None:
            return
        msg, command = waiting
        self._office.keep(read(msg))
        try:
            if item.text is None:
                raise FieldError("file", item.why or "can't be read", "a YAML file of at most 1 MB")
            sent = self._sent_definition(msg, command, item.text)
            self._publish(msg, command, sent, now)
            self._office.look_first(run.id for run in self._office.board.runs_of(msg.event_id))
        except FieldError as error:
            self._voice.answer(msg, render.error_reply(error), now)

    def _may_send_dags(self, user: UserId) -> None:
        policy = self._office.settings.policy
        users = policy.dags_from_room_users
        if not policy.dags_from_room or (users and user not in users):
            raise FieldError(
                "file", "DAGs from the room are not allowed on this node", "a DAG that a node has",
                "See: !dag list",
            )  # fmt: skip

    def _sent_definition(self, msg: Message, command: Publish, text: str) -> Definition:
        self._may_send_dags(msg.sender)
        parsed = parse(text, msg.file.name if msg.file else "attached")
        if isinstance(parsed, Definition):
            if command.dag and command.dag != parsed.id:
                what = f"'{command.dag[:60]}' is not the id of the DAG that came with the message"
                raise FieldError("dag", what, parsed.id)
            return parsed
        first = parsed[0]
        more = f" (and {len(parsed) - 1} more)" if len(parsed) > 1 else ""
        where = f"line {first.line}: {first.field}"
        raise FieldError(where, f"{first.what}{more}", first.expected, first.hint)

    def _publish(self, msg: Message, command: Publish, sent: Definition | None, now: Instant) -> None:
        office, board = self._office, self._office.board
        definition = sent or office.definitions.get(command.dag)
        dag = sent.id if sent else DagId(command.dag)
        if not board.may(Act.PUBLISH, dag, msg.sender):
            text = render.denied(msg.sender, f"publish {dag}", board.rule(Act.PUBLISH, dag))
            known = dag if dag in board.known_dags() or dag in office.definitions else ""
            topic = f"denied {msg.sender} {known}"  # once, however often they try
            self._voice.answer(msg, text, now, first=board.knowing(dag), topic=topic)
            return
        if definition is None and dag not in board.known_dags():
            raise self.unknown_dag(dag)
        target = command.target or (definition.target if definition else "any")
        parse_target(target)
        if not self._voice.past:  # whoever came late can't know who was there
            self._check_target(target, dag, sent=sent is not None)
        if definition is None:
            some: list[NodeId | None] = [None]
            if target == "all":
                some = self._there_then(msg, board.eligible(dag, "all"))
            for run in (self._opaque(msg, command, dag, target, node) for node in some):
                if run.id not in board.runs:
                    board.put(run)
            return
        params = resolve(definition, command.params)
        scope = self._scope(definition, command, msg.sender)
        nodes: list[NodeId | None] = [None]
        if target == "all":
            nodes = self._there_then(msg, self._all_nodes(dag, sent=sent is not None))
        runs = self._make(msg, command, definition, params, scope, target, nodes)
        for run in [run for run in runs if run.id not in board.runs]:
            board.put(run)
            self._tell(run, definition, now)

    def _all_nodes(self, dag: DagId, *, sent: bool) -> list[NodeInfo]:
        """The nodes that target=all means: a DAG that came with the message is anybody's."""
        board = self._office.board
        nodes = [n for n in board.living() if n.executes] if sent else board.eligible(dag, "all")
        if not nodes:
            raise FieldError("target", "no node matches 'all'", "a node that has the DAG")
        return nodes

    def _there_then(self, msg: Message, nodes: list[NodeInfo]) -> list[NodeId | None]:
        """Those of the nodes that were there when it was published: `all` means no node that comes later."""
        named = self._office.named | self._office.asked
        return [
            node.id
            for node in nodes
            if not self._voice.past or node.since_ms <= msg.ts_ms or run_id(msg.event_id, node.id) in named
        ]

    def _check_target(self, target: str, dag: str, *, sent: bool) -> None:
        parsed = parse_target(target)
        if parsed.kind is not TargetKind.NODE or parsed.node is None:
            return
        node = self._office.board.node_named(NodeId(parsed.node))
        names = sorted(n.id for n in self._office.board.living() if n.executes)
        if node is None:
            raise FieldError(
                "target", f"no node is called '{parsed.node}'", f"one of: {', '.join(names)}"[:300],
                nearest(parsed.node, names),
            )  # fmt: skip
        if not node.executes:
            raise FieldError("target", f"{node.id} executes nothing", f"one of: {', '.join(names)}"[:300])
        if dag not in node.dags and not sent:
            raise FieldError("target", f"{node.id} has no DAG '{dag}'", "a node that has it")

    def _scope(self, definition: Definition, command: Publish, publisher: UserId) -> Scope:
        explicit = command.scope or definition.scope
        if explicit:
            return parse_scope(explicit)
        ids = [t.env["PROJECT_ID"] for t in definition.tasks.values() if "PROJECT_ID" in t.env]
        ids += [definition.env["PROJECT_ID"]] if "PROJECT_ID" in definition.env else []
        isolation = self._office.settings.worker.scope_isolation.kind
        return infer_scope(definition.id, ids, publisher, isolation)

    def _opaque(self, msg: Message, command: Publish, dag: DagId, target: str, node: NodeId | None) -> Run:
        """This node lacks the definition: it follows the run, and can't claim it."""
        return Run(
            run_id(msg.event_id, node), dag, None, "", node or target, command.priority or 0, command.params,
            msg.sender, msg.ts_ms, RunStatus.PENDING,
        )  # fmt: skip

    def _make(
        self,
        msg: Message,
        command: Publish,
        definition: Definition,
        params: Mapping[str, str],
        scope: Scope,
        target: str,
        nodes: list[NodeId | None],
    ) -> list[Run]:
        approval = definition.approval
        expires = None
        if approval and approval.deadline_s is not None:
            expires = msg.ts_ms + int(approval.deadline_s * 1000)
        priority = definition.priority if command.priority is None else command.priority
        mark = self._office.pin(definition)
        return [
            Run(
                run_id(msg.event_id, node),
                definition.id,
                claim_key(definition.id, scope, exclusive=scope == GLOBAL, node=node),
                scope.label,
                node or target,
                priority,
                params,
                msg.sender,
                msg.ts_ms,
                RunStatus.WAITING if approval else RunStatus.PENDING,
                definition=mark,
                on_lost=OnLost(definition.on_lost),
                approvals_needed=approval.count if approval else 0,
                expires_ms=expires,
            )
            for node in nodes
        ]

    def _tell(self, run: Run, definition: Definition, now: Instant) -> None:
        if definition.approval is not None:
            self.prompt(run, definition.approval, now)
            return
        why = why_waiting(self._office, run, now)
        text = render.Text(f"{run.dag} {run.short}: {why or 'waits to be claimed'}.", None)
        self._voice.post(run, text, f"waits {run.id}", now, delay_s=TELL_WAITING_S, only_if=RunStatus.PENDING)

    def prompt(self, run: Run, approval: Approval, now: Instant) -> None:
        """Ask for approval in the run's thread."""
        who = [*approval.users]
        if approval.power_level is not None:
            who.append(f"anyone with power {approval.power_level}")
        text = render.approval_prompt(
            run, who, approval.count, run.definition, run.target, run.scope, run.params, run.expires_ms
        )
        more: JsonMap = {"needed": approval.count, "expires_ms": run.expires_ms, "definition": run.definition}
        mentions = tuple(UserId(user) for user in approval.users[:20]) or (run.publisher,)
        self._voice.post(
            run, text, f"prompt {run.id}", now, kind="prompt", mentions=mentions,
            only_if=RunStatus.WAITING, more=more,
        )  # fmt: skip

    def may_approve(self, run: Run, user: UserId) -> bool:
        """Whether the DAG and this node's owner let the user approve the run."""
        definition = self._office.pinned.get(run.definition)
        approval = definition.approval if definition else None
        named = approval is not None and user in approval.users
        if approval is not None:
            if approval.four_eyes and user == run.publisher:
                return False
            if not allowed(approval, user, self._office.board.power(user)):
                return False
        return named or self._office.board.may(Act.APPROVE, run.dag, user)

"""What the desk needs of the coordinator, and why a run waits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from cisbot.core.chat.render import seconds
from cisbot.core.claims.grants import Asks
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Me
from cisbot.core.dags.definition import Definition
from cisbot.core.effects import Ask, Write
from cisbot.core.ids import ClaimKey, RunId, UserId, run_node
from cisbot.core.inputs import Instant
from cisbot.core.room.events import Holder, Message
from cisbot.core.runs.board import Board
from cisbot.core.runs.gathering import Gathering
from cisbot.core.runs.state import Run, RunStatus, TaskRun
from cisbot.core.scopes import is_lock, lock_name
from cisbot.core.settings import Settings


class Office(Protocol):
    """The coordinator, as the desk sees it."""

    settings: Settings
    me: Me
    board: Board
    ledger: Ledger
    asks: Asks
    gathering: Gathering
    definitions: dict[str, Definition]
    problems: tuple[str, ...]
    pinned: dict[str, Definition]

    def pin(self, definition: Definition) -> str:
        """Keep a definition under its hash."""

    def look_first(self, runs: Iterable[RunId]) -> None:
        """Others may have been faster with these: look at their story before the first task."""

    unread: tuple[Message, ...]
    named: set[RunId]  # runs that lock events call open
    asked: set[RunId]  # runs that nodes elsewhere ask for, and this one did not know

    def keep(self, write: Write) -> None:
        """Write a row with this step."""

    def cancel(self, run: Run, user: UserId, now: Instant) -> None:
        """Somebody with the right cancels."""

    def eligible(self, run: Run) -> bool:
        """Whether this node may execute the run."""

    def executes(self, run: RunId) -> bool:
        """Whether this node executes the run now."""

    def tasks_of(self, run: RunId) -> Mapping[str, TaskRun]:
        """What this node knows of the run's tasks."""

    def loads(self) -> Mapping[UserId, int]:
        """How many runs each account holds; 0 for others."""

    def ask(self, ask: Ask) -> None:
        """Ask the edge for something."""


def why_waiting(office: Office, run: Run, now: Instant) -> str | None:
    """Why a run waits, in words; None where it does not."""
    if run.status is RunStatus.WAITING:
        return f"waits for approval, {len(run.approvals)} of {run.approvals_needed} given"
    if run.status is RunStatus.LOST:
        return f"{run.why}; react with ✅ to resume it or ❌ to close it"
    if run.status is not RunStatus.PENDING:
        return None
    here = office.eligible(run)  # also a DAG that came with the message
    if run_node(run.id) is None and not here and not office.board.eligible(run.dag, run.target):
        return f"no node matches target {run.target} and has {run.dag}"
    begun = run.epoch > 0 and run.definition not in office.pinned
    if begun and (holders := office.board.holders_of(run.dag, run.definition)):
        names = ", ".join(sorted(holder.id for holder in holders)[:5])
        return f"it goes on with the definition that it began with, which only {names} has"
    if begun:
        return (
            f"it began with definition {run.definition[:12]}, which no living node has any more; "
            f"cancel it and publish it again: !dag cancel {run.short}"
        )
    if run.key is None:
        return "waits to be claimed"
    if (waits_s := office.asks.waits_s(run.id, now.boot)) is not None:
        return waits_for_grant(office, waits_s, now)
    for key in office.gathering.keys(run):
        if (held := _held(office, run, key, now)) is not None:
            return held
    ahead = next((r for r in office.board.waiting() if r.key == run.key), None)
    if ahead is not None and ahead.id != run.id:
        return f"{ahead.dag} {ahead.short} comes first"
    return "waits to be claimed"


def _held(office: Office, run: Run, key: ClaimKey, now: Instant) -> str | None:
    """Who holds a key that the run needs; None if it is free, or held for the run itself."""
    head, slots = office.ledger.sure(key), office.gathering.slots(run, key)
    name = f"lock {lock_name(key)}" if is_lock(key) else key
    if head is None:
        return f"{office.me.node} is finding out who holds {name}"
    others = [holder for holder in head.holders if holder.run != run.id]
    if len(others) < slots:
        return None
    who = ", ".join(_who(office, holder, now, since=is_lock(key)) for holder in others)
    return f"{name} is held by {who}" if slots == 1 else f"all {slots} slots of {name} are taken by {who}"


def _who(office: Office, holder: Holder, now: Instant, *, since: bool) -> str:
    other = office.board.runs.get(holder.run)
    if other is None:
        return f"another run on {holder.node}"
    began = other.started_ms if since and other.status is RunStatus.RUNNING else None
    age = f", for {seconds(max(0, now.wall_ms - began) / 1000)} now" if began is not None else ""
    return f"{other.dag} {other.short} on {holder.node}{age}"


def waits_for_grant(office: Office, waits_s: float, now: Instant) -> str:
    """Why a node off the home server waits: it may run what a home node grants."""
    home = office.ledger.bounds.home
    if not office.me.peers:
        return f"waits for a grant from {home}, where no node of this room is alive"
    heard_at = office.asks.heard_at
    silent = "" if heard_at is None else f"; last heard from there {seconds(now.boot - heard_at)} ago"
    return f"waits for a grant from {home}, which {office.me.node} asked for {seconds(waits_s)} ago{silent}"

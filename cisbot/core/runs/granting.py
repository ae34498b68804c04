"""What a home node takes for nodes on other servers: as if it were a wish of its own, in its turn. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping

from cisbot.core.claims.contend import Wish
from cisbot.core.claims.messages import Claim, Me
from cisbot.core.ids import ClaimKey, RunId, UserId, order_hash, run_node
from cisbot.core.placement import matches
from cisbot.core.room.events import Asker, Intent
from cisbot.core.runs.board import Board
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.scopes import is_lock, slots_of


def grants(
    asked: list[Intent],
    own: list[Wish],
    board: Board,
    me: Me,
    unread: Container[RunId],
    load: Mapping[UserId, int],
) -> tuple[list[Wish], list[RunId]]:
    """Own wishes and those of others that go before them; and the runs whose story is to be read first."""
    wishes = {wish.key: wish for wish in own}
    best: dict[ClaimKey, tuple[tuple[int, int, int, int], Intent]] = {}
    stories: list[RunId] = []
    for intent in asked:
        run = board.runs.get(intent.run)
        if run is None or not may_run(run, intent, board):
            continue
        if run.id in unread:
            stories.append(run.id)
            continue
        order = (-run.priority, run.published_ms, *_place(run.id, intent.sender, load))
        mine = wishes.get(intent.key)
        if mine is not None and _first(mine, me, board, order, load):
            continue
        if intent.key not in best or order < best[intent.key][0]:
            best[intent.key] = (order, intent)
    for key, (_, intent) in best.items():
        wishes[key] = _wish(intent, me)
    return list(wishes.values()), stories


def may_run(run: Run, intent: Intent, board: Board) -> bool:
    """Whether the run waits, for that key or lock, and its sender is a living node that the target means."""
    node = board.nodes.get(intent.sender)
    foreign = run.key not in (None, intent.key) and not is_lock(intent.key)
    if run.status is not RunStatus.PENDING or foreign:
        return False
    if node is None or node.gone or not node.executes or node.incarnation != intent.incarnation:
        return False
    named = run_node(run.id)
    return named == node.id if named is not None else matches(run.target, node.id, node.labels)


def _place(run: RunId, account: UserId, load: Mapping[UserId, int]) -> tuple[int, int]:
    return load[account], order_hash(run, account)


def _first(
    mine: Wish, me: Me, board: Board, other: tuple[int, int, int, int], load: Mapping[UserId, int]
) -> bool:
    """Whether this node's own wish for the key goes before that of another."""
    run = board.runs[mine.claim.run]
    return (-run.priority, run.published_ms, *_place(run.id, me.account, load)) < other


def _wish(intent: Intent, me: Me) -> Wish:
    assert intent.asks is not None
    asks = intent.asks
    slots = slots_of(intent.key, asks.slots)
    claim = Claim(intent.run, asks.dag, asks.scope, asks.lease_s, asks.definition, slots)
    asker = Asker(intent.sender, intent.node, intent.incarnation, intent.nonce)
    return Wish(intent.key, claim, me.place(intent.event_id), asker=asker)

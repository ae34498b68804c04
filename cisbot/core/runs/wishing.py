"""Which runs this node would claim now, and in which turn among those that could. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping

from cisbot.core.claims.contend import Wish
from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Claim, Me
from cisbot.core.dags.definition import Definition
from cisbot.core.ids import ClaimKey, RunId, UserId, order_hash, run_node
from cisbot.core.placement import matches
from cisbot.core.runs.board import Board
from cisbot.core.runs.gathering import Gathering
from cisbot.core.runs.state import Run
from cisbot.core.scopes import is_lock
from cisbot.core.settings import Settings

AHEAD_MAX = 8  # turns left to runs for others: whom they wait for may be dead


def fits(run: Run, settings: Settings, pinned: Container[str]) -> bool:
    """Whether this node may execute the run: it matches, and has the very definition."""
    if not settings.node.execute or run.definition not in pinned:
        return False
    node = run_node(run.id)
    if node is not None:
        return node == settings.node.id
    return matches(run.target, settings.node.id, settings.node.labels)


def loads(ledger: Ledger) -> Counter[UserId]:
    """How many runs each account holds, as far as this node is sure."""
    heads = (ledger.sure(key) for key in ledger.known() if not is_lock(key))
    return Counter(h.account for head in heads if head for h in head.holders)


class Candidates:
    """The runs that this node could execute; the story of those `unread` is read before they are claimed."""

    def __init__(
        self,
        settings: Settings,
        me: Me,
        pinned: Mapping[str, Definition],
        unread: Container[RunId],
        keeper: Keeper,
        gathering: Gathering,
    ) -> None:
        self._settings, self._me, self._pinned, self._unread = settings, me, pinned, unread
        self._keeper, self._gathering = keeper, gathering

    def wishes(self, board: Board, room: int, now: float) -> tuple[list[Wish], list[RunId]]:
        """The first waiting run of every key, and the runs whose story is to be read.

        At most `room` wishes are for keys that are not held by others: for the rest it only waits.
        """
        gathering, begun = self._gathering, self._keeper.holds.runs()
        found: dict[ClaimKey, Wish | None] = {}
        stories: list[RunId] = []
        load: Counter[UserId] | None = None
        ahead: dict[ClaimKey, int] = {}  # runs for others that come first under the same key
        waiting = board.waiting()
        for run in waiting:
            if run.key is None:
                continue
            if unread := run.id in self._unread:  # it may be over, also where others are to execute it
                stories.append(run.id)
            if not fits(run, self._settings, self._pinned):
                others = bool(_rivals(board, run))
                for needed in gathering.keys(run):
                    ahead[needed] = ahead.get(needed, 0) + others
                continue
            if unread:
                found.setdefault(run.key, None)  # what comes after it waits with it
                gathering.stays(run, now)
            if run.key in found or room <= 0 and run.id not in begun:
                continue
            key = gathering.next(run, now)
            found[run.key] = None
            if key is None or found.get(key) is not None:
                continue
            slots = gathering.slots(run, key)
            if run.id not in begun and not self._held(key, run.id, slots, now):
                room -= 1
            rank = 0  # who holds something keeps nobody waiting
            if run.id not in begun:
                load = loads(self._keeper.ledger) if load is None else load
                rank = self._place(board, run, load) + min(ahead.get(key, 0), AHEAD_MAX)
            found[key] = Wish(key, self._claim(run, slots), rank)
        gathering.done({run.id for run in waiting})
        return [wish for wish in found.values() if wish is not None], stories

    def _held(self, key: ClaimKey, run: RunId, slots: int, now: float) -> bool:
        if self._keeper.ledger.is_unsure(key):
            return False
        return self._keeper.slot_for(key, run, slots, now)[0] is None

    def _place(self, board: Board, run: Run, load: Counter[UserId]) -> int:
        """This node's place among those that could execute the run: who holds fewest first."""
        rivals = _rivals(board, run) if run_node(run.id) is None else set()
        order = sorted(rivals | {self._me.account}, key=lambda a: (load[a], order_hash(run.id, a)))
        return order.index(self._me.account)

    def _claim(self, run: Run, slots: int) -> Claim:
        longest_s = self._keeper.ledger.bounds.lease_s_max
        lease_s = max(1, int(min(self._settings.coordinator.claim_lease_duration, longest_s)))
        return Claim(run.id, run.dag, run.scope, lease_s, run.definition, slots)


def _rivals(board: Board, run: Run) -> set[UserId]:
    """The accounts of the nodes that could execute the run, as far as they are known to be there."""
    node = run_node(run.id)
    if node is None:
        return set(board.rivals(run.dag, run.target))
    return {info.account for info in board.living() if info.id == node and not board.over(info)}

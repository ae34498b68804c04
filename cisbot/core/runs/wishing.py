"""Which runs this node would claim now, and in which turn among those that could. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from cisbot.core.claims.contend import Wish
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Claim, Me
from cisbot.core.ids import ClaimKey, UserId, order_hash, run_node
from cisbot.core.placement import matches
from cisbot.core.runs.board import Board
from cisbot.core.runs.state import Run
from cisbot.core.settings import Settings


def fits(run: Run, settings: Settings, pinned: Iterable[str]) -> bool:
    """Whether this node may execute the run: it matches, and has the very definition."""
    if not settings.node.execute or run.definition not in pinned:
        return False
    node = run_node(run.id)
    if node is not None:
        return node == settings.node.id
    return matches(run.target, settings.node.id, settings.node.labels)


def loads(ledger: Ledger) -> Counter[UserId]:
    """How many claims each account holds, as far as this node is sure."""
    heads = (ledger.sure(key) for key in ledger.known())
    return Counter(h.account for head in heads if head for h in head.holders)


def wishes(
    board: Board, ledger: Ledger, settings: Settings, me: Me, pinned: Iterable[str], room: int
) -> list[Wish]:
    """The first waiting run of every key that this node may claim now, at most `room` of them."""
    found: dict[ClaimKey, Wish] = {}
    load: Counter[UserId] | None = None
    for run in board.waiting():
        if run.key is None or run.key in found or not fits(run, settings, pinned):
            continue
        if len(found) >= room:
            break
        load = loads(ledger) if load is None else load
        found[run.key] = _wish(run, run.key, board, ledger, settings, me, load)
    return list(found.values())


def _wish(
    run: Run, key: ClaimKey, board: Board, ledger: Ledger, settings: Settings, me: Me, load: Counter[UserId]
) -> Wish:
    rivals = board.eligible(run.dag, run.target) if run_node(run.id) is None else []
    order = sorted(
        {n.account for n in rivals} | {me.account},
        key=lambda a: (load[a], order_hash(run.id, a)),
    )
    lease = int(min(settings.coordinator.claim_lease_duration, ledger.bounds.lease_s_max))
    claim = Claim(run.id, run.dag, run.scope, max(1, lease), run.definition)
    return Wish(key, claim, order.index(me.account), len(order) == 1)

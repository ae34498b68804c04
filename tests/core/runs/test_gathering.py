"""Gathering: locks are let go after two leases, whatever keeps the run, and then it rests."""

from __future__ import annotations

import pytest

from cisbot.core.claims.holds import Hold
from cisbot.core.claims.keeper import Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.state import Bounds
from cisbot.core.ids import RunId
from cisbot.core.runs.board import Board
from cisbot.core.runs.gathering import Gathering
from cisbot.core.scopes import lock_key
from tests.core.runs.test_wishing import ME, board_of, job, publish

LEASE_S = 10
LATE = 2 * LEASE_S + 1.0


class Gatherer:
    """A node that holds the first of two locks since 0.0."""

    def __init__(self) -> None:
        self.keeper = Keeper(ME, Ledger(Bounds(lease_s_max=LEASE_S)))
        self.gathering = Gathering(self.keeper, {"0": job("locks: [a, b]")})
        self.board: Board = board_of("node-1")
        self.run: RunId = self.board.runs[publish(self.board, 1, "node-1")].id
        self.keeper.holds[lock_key("a"), 0] = Hold(lock_key("a"), 0, 1, self.run, LEASE_S, 1e9)
        self.gathering.won(self.run, 0.0)

    def turn(self, now: float, *, how: str = "next") -> object:
        """One look at all runs: at this one too, unless `how` says that it is not its turn."""
        self.gathering.begin()
        run = self.board.runs[self.run]
        found = None
        if how == "next":
            found = self.gathering.next(run, now)
        elif how == "stays":
            self.gathering.stays(run, now)
        self.gathering.done({self.run})
        return found

    @property
    def idle(self) -> list[Hold]:
        return self.gathering.idle(self.board.runs, ())


@pytest.mark.parametrize("how", ["next", "stays"])
def test_nobody_waits_while_it_holds_for_longer_than_two_leases(how: str) -> None:
    gatherer = Gatherer()
    gatherer.turn(1.0, how=how)
    assert gatherer.idle == []
    gatherer.turn(LATE, how=how)
    assert [hold.key for hold in gatherer.idle] == [lock_key("a")]


def test_it_rests_also_where_it_was_not_its_turn_meanwhile() -> None:
    gatherer = Gatherer()
    gatherer.turn(LATE)
    gatherer.keeper.holds.clear()
    gatherer.turn(LATE, how="not at all")
    assert gatherer.turn(LATE) is None
    assert gatherer.turn(LATE + 60.0) == lock_key("a")

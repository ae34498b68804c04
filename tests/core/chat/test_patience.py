"""Whoever asks without end is not answered without end; others are."""

from __future__ import annotations

from cisbot.core.chat.patience import ANSWERS_MAX, USERS_MAX, WITHIN_S, Patience
from cisbot.core.ids import UserId

ALICE, BOB = UserId("@alice:hs"), UserId("@bob:hs")


def test_a_flood_is_cut_and_forgiven() -> None:
    patience = Patience()
    assert sum(patience.take(ALICE, 10.0) for _ in range(500)) == ANSWERS_MAX
    assert patience.take(BOB, 10.0)
    assert not patience.take(ALICE, 10.0 + WITHIN_S - 0.1)
    assert patience.take(ALICE, 10.0 + WITHIN_S + 0.1)


def test_many_users_cost_little() -> None:
    patience = Patience()
    for number in range(3 * USERS_MAX):
        assert patience.take(UserId(f"@u{number}:hs"), 1.0)
    assert len(patience._due) == USERS_MAX

"""Who may: by name or by power level."""

import pytest

from cisbot.core.dags.definition import Approval
from cisbot.core.ids import UserId
from cisbot.core.policy import allowed
from cisbot.core.settings import Rule

ALICE, BOB = UserId("@alice:x"), UserId("@bob:x")


@pytest.mark.parametrize(
    ("level", "users", "who", "power", "expected"),
    [
        (50, (), ALICE, 50, True),
        (50, (), ALICE, 49, False),
        (50, (ALICE,), ALICE, 0, True),
        (50, (ALICE,), BOB, 50, True),
        (None, (ALICE,), BOB, 100, False),
        (None, (ALICE,), ALICE, -1, True),
        (None, (), ALICE, 100, False),
    ],
)
def test_allowed(level: int | None, users: tuple[str, ...], who: UserId, power: int, expected: bool) -> None:
    assert allowed(Rule(power_level=level, users=users), who, power) is expected


def test_an_approval_is_a_rule_too() -> None:
    assert allowed(Approval(), ALICE, 50) and not allowed(Approval(), ALICE, 49)

"""Who may do what. Pure.

The same question is asked of a node's settings and of a definition's approval; both have a rule's two fields.
"""

from __future__ import annotations

from typing import Protocol

from cisbot.core.ids import UserId


class RuleLike(Protocol):
    """What `settings.Rule` and `definition.Approval` have in common."""

    @property
    def power_level(self) -> int | None:
        """The power level from which anybody may; None: nobody by level alone."""

    @property
    def users(self) -> tuple[str, ...]:
        """Who may whatever their level."""


def allowed(rule: RuleLike, user: UserId, power: int) -> bool:
    """Whether this user, with this power level in the room, may."""
    return user in rule.users or (rule.power_level is not None and power >= rule.power_level)

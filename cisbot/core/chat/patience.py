"""How many answers one person gets: whoever asks without end is not answered without end. Pure."""

from __future__ import annotations

from collections import deque

from cisbot.core.ids import UserId

ANSWERS_MAX = 60
WITHIN_S = 60.0
USERS_MAX = 1_000


class Patience:
    """Counts the answers that each user was due, on this node's clock."""

    def __init__(self) -> None:
        self._due: dict[UserId, deque[float]] = {}

    def take(self, user: UserId, now: float) -> bool:
        """Whether this user gets one more answer at the boot time `now`."""
        times = self._due.pop(user, deque())
        self._due[user] = times
        while len(self._due) > USERS_MAX:
            self._due.pop(next(iter(self._due)))
        while times and times[0] <= now - WITHIN_S:
            times.popleft()
        if len(times) >= ANSWERS_MAX:
            return False
        times.append(now)
        return True

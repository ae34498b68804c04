"""State events that may not have been sent and must not be lost: sent again, ever more rarely. Pure."""

from __future__ import annotations

from dataclasses import replace

from cisbot.core.effects import Send
from cisbot.core.frozen import dataclass

FIRST_S = 1.0
MOST_S = 60.0


@dataclass(frozen=True, slots=True)
class _Open:
    send: Send
    failures: int = 0
    at: float | None = None  # when it is sent again, if it is not under way


class Resend:
    """Releases and ends: a second one is void, a lost one would keep a key held for a lease."""

    def __init__(self) -> None:
        self._open: dict[str, _Open] = {}

    def note(self, send: Send) -> None:
        """It is sent now."""
        if send.durable and send.state_key is not None:
            self._open[send.txn] = _Open(send)

    def failed(self, txn: str, now: float) -> bool:
        """It may have failed; whether it will be sent again."""
        known = self._open.get(txn)
        if known is None:
            return False
        delay = min(MOST_S, FIRST_S * 2.0 ** min(known.failures, 20))
        self._open[txn] = replace(known, failures=known.failures + 1, at=now + delay)
        return True

    def over(self, txn: str) -> bool:
        """It is in the room, or refused for good; whether it was one of these."""
        return self._open.pop(txn, None) is not None

    def due(self, now: float) -> list[Send]:
        """What is to be sent again now."""
        if not self._open:
            return []
        due = [known for known in self._open.values() if known.at is not None and known.at <= now]
        for known in due:
            self._open[known.send.txn] = replace(known, at=None)
        return [known.send for known in due]

    def deadline(self) -> float | None:
        """When `due` has something to do."""
        if not self._open:
            return None
        return min((known.at for known in self._open.values() if known.at is not None), default=None)

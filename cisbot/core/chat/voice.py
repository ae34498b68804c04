"""How the desk speaks, for those who have something to say through it."""

from __future__ import annotations

from typing import Protocol

from cisbot.core.chat.render import Text
from cisbot.core.ids import UserId
from cisbot.core.inputs import Instant
from cisbot.core.room.events import JsonMap, Message
from cisbot.core.runs.state import Run, RunStatus


class Voice(Protocol):
    """The desk's two ways to say something; both offer it, and one node of the room says it."""

    def answer(
        self,
        msg: Message,
        text: Text,
        now: Instant,
        *,
        first: tuple[UserId, ...] = (),
        topic: str | None = None,
    ) -> None:
        """Reply to a message; of one `topic` one reply only."""

    def post(
        self,
        run: Run,
        text: Text,
        topic: str,
        now: Instant,
        *,
        kind: str = "answer",
        mentions: tuple[UserId, ...] = (),
        delay_s: float = 0.0,
        only_if: RunStatus | None = None,
        more: JsonMap | None = None,
    ) -> None:
        """Say something in the run's thread, once for each `topic`."""

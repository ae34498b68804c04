"""How the desk, and all who have something to say through it, speak. Pure."""

from __future__ import annotations

from cisbot.core.chat.answers import Answers
from cisbot.core.chat.office import Office
from cisbot.core.chat.patience import Patience
from cisbot.core.chat.posts import Post
from cisbot.core.chat.render import Text
from cisbot.core.ids import UserId, run_event
from cisbot.core.inputs import Instant
from cisbot.core.room.events import JsonMap, Message
from cisbot.core.runs.state import Run, RunStatus


class Voice:
    """Offers what is to be said; one node of the room says it. While `past` is read, nothing is said."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self.answers = Answers(office.board, office.me.account)
        self._patience = Patience()
        self.past = False

    def answer(
        self,
        msg: Message,
        text: Text,
        now: Instant,
        *,
        first: tuple[UserId, ...] = (),
        topic: str | None = None,
    ) -> None:
        """Reply to a message, if it is this node's turn; of one `topic` one reply only."""
        if self.past or not self._patience.take(msg.sender, now.boot):
            return
        block: JsonMap = {"kind": "answer"}
        post = Post(
            f"answer.{msg.event_id}.{self._office.me.incarnation}", text.plain, text.html,
            msg.thread or msg.event_id, block, reply_to=msg.event_id,
        )  # fmt: skip
        self.answers.offer(post, topic or str(msg.event_id), now, first=first)

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
        first: tuple[UserId, ...] | None = None,
    ) -> None:
        """Say something in the run's thread, once for each `topic`; `first` before others, else who knows."""
        if self.past:
            return
        block: JsonMap = {"kind": kind, "run": run.id, **(more or {})}
        post = Post(
            f"{topic}.{self._office.me.incarnation}".replace("/", "-"), text.plain, text.html,
            run_event(run.id), block, mentions=mentions, notify=bool(mentions),
        )  # fmt: skip
        self.answers.offer(
            post, topic, now, first=first or self._office.board.knowing(run.dag), delay_s=delay_s, run=run.id,
            only_if=only_if,
        )  # fmt: skip

    def note(
        self, run: Run, text: str, topic: str, now: Instant, *, first: tuple[UserId, ...] | None = None
    ) -> None:
        """Say something once in the run's thread, mentioning its publisher; and whether that is its end."""
        more: JsonMap = {"over": run.status.value} if run.status.over else {}
        mentions = (run.publisher,)
        self.post(run, Text(text, None), topic, now, mentions=mentions, more=more, first=first)

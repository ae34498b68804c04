"""What one publication becomes, read from the room: for `cisbot publish`. Pure.

A publication is *unheard* until a node says anything about it, then *refused* (a reply names the mistake) or
*accepted*. An accepted one is one run, or with target=all one for each of its nodes. A run is over when its
final message came, when a reply says that it was closed, or when it is lost and waits for a person. The
outcome in the release of its claim counts too: the final message may never come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cisbot.core.ids import EventId, RunId, run_event, run_id, run_node, short_id
from cisbot.core.inputs import RoomBatch
from cisbot.core.room.events import Intent, JsonMap, Message, NodeRecord, Outcome, Release, Take
from cisbot.core.runs.board import Board
from cisbot.core.settings import Policy

ENDS = ("rejected ", "cancelled ", "expired ", "closed ")  # how the topics of replies that end a run begin


@dataclass(frozen=True, slots=True)
class End:
    """How a run ended, for people."""

    well: bool
    text: str


class Watch:
    """Follows one publication. `note` is told every change of status, in one line."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._event = EventId("")
        self._dag = ""
        self._board = Board(Policy())
        self._expected: set[RunId] = set()  # if it is for all nodes
        self._takes: set[tuple[RunId, str, int]] = set()
        self._released: dict[RunId, End] = {}
        self._noted = ""
        self.ends: dict[RunId, End] = {}
        self.refused = ""
        self.accepted = False

    @property
    def heard(self) -> bool:
        """Some node answered."""
        return self.accepted or bool(self.refused)

    @property
    def settled(self) -> bool:
        """It is known how everything ended, though a final message may be missing."""
        return bool(self.refused) or self._all_of({**self._released, **self.ends})

    @property
    def over(self) -> bool:
        """Nothing more is to come."""
        return bool(self.refused) or self._all_of(self.ends)

    def begin(self, batch: RoomBatch) -> None:
        """The room as it is before the publication."""
        for item in (*batch.state, *batch.history, *batch.events):
            if isinstance(item, NodeRecord):
                self._board.note_node(item, 0)

    def published(self, event: EventId, dag: str) -> None:
        """The homeserver has the publishing message."""
        self._event, self._dag = event, dag

    def take(self, batch: RoomBatch) -> None:
        """Read on."""
        for item in (*batch.state, *batch.history, *batch.events):
            match item:
                case NodeRecord():
                    self._board.note_node(item, 0)
                case Message() if item.event_id == self._event:
                    nodes = self._board.eligible(self._dag, "all")
                    self._expected = {run_id(self._event, node.id) for node in nodes}
                case Message() if item.block is not None and self._board.is_node(item.sender):
                    self._message(item, item.block)
                case Intent() | Take() if self._concerns(item.run) and self._board.is_node(item.sender):
                    self.accepted = True
                    if isinstance(item, Take):
                        self._takes.add((item.run, item.sender, item.epoch))
                        self._say(f"{item.node} claims {short_id(item.run)} (epoch {item.epoch})")
                case Release() if (item.run, item.sender, item.epoch) in self._takes:
                    self._release(item)
                case _:
                    pass

    def give_up_on_messages(self) -> None:
        """What the releases tell is all that will come."""
        for run, end in self._released.items():
            self.ends.setdefault(run, end)

    def _concerns(self, run: str) -> bool:
        return bool(self._event) and run_event(RunId(run)) == self._event

    def _all_of(self, ends: dict[RunId, End]) -> bool:
        """Whether these are all: a run of no one node is the only one."""
        single = any(run_node(run) is None for run in ends)
        return single or (bool(ends) and self._expected <= set(ends))

    def _message(self, msg: Message, block: JsonMap) -> None:
        run, answers, kind = block.get("run"), block.get("answers"), block.get("kind")
        about = self._event and self._event in (answers, msg.reply_to)
        if kind == "answer" and about and not isinstance(run, str):  # a denial answers all that they try
            self.refused = msg.body
            return
        if kind == "command" or not isinstance(run, str) or not self._concerns(run):
            return
        self.accepted = True
        closed = kind == "answer" and isinstance(answers, str) and answers.startswith(ENDS)
        if msg.edits is None and (kind == "final" or closed):
            well = kind == "final" and block.get("status") == Outcome.SUCCEEDED
            self.ends[RunId(run)] = End(well, msg.body)
        elif kind == "ask" and msg.edits is None:
            self.ends[RunId(run)] = End(False, msg.body)  # it may go on, when a person says so
        else:
            self._say(msg.body.removeprefix("* ").partition("\n")[0])

    def _release(self, release: Release) -> None:
        if release.outcome is None:
            self._say(f"{release.node} gives {short_id(release.run)} back")
        elif release.outcome is Outcome.LOST:
            self._say(f"{release.node} lost {short_id(release.run)}; its on_lost decides what follows")
        else:
            text = f"{self._dag} {short_id(release.run)} {release.outcome} on {release.node}"
            well = release.outcome is Outcome.SUCCEEDED
            self._released.setdefault(release.run, End(well, f"{text}; its final message did not come"))

    def _say(self, line: str) -> None:
        """Each line once in a row."""
        if self._noted != line:
            self._noted = line
            self._note(line)

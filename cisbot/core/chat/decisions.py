"""What people decide about runs: approve, reject, resume, close, cancel; and who may. Pure."""

from __future__ import annotations

from cisbot.core.chat import render
from cisbot.core.chat.office import Office
from cisbot.core.chat.publish import Publisher
from cisbot.core.chat.voice import Voice
from cisbot.core.ids import UserId
from cisbot.core.inputs import Instant
from cisbot.core.runs.state import Run, RunStatus
from cisbot.core.settings import Act
from cisbot.errors import FieldError

DENIALS_MAX = 1_000  # remembered, so that everybody is told once


class Decisions:
    """Every node decides alike from the same events; one of them says so."""

    def __init__(self, office: Office, publisher: Publisher, voice: Voice) -> None:
        self._office, self._publisher, self._voice = office, publisher, voice
        self._board = office.board
        self._denied: dict[tuple[str, str], None] = {}

    def decide(self, run: Run, user: UserId, yes: bool, now: Instant, ts_ms: int, reason: str = "") -> None:
        """Yes or no, to what the run waits for. `ts_ms` is the room's time of it."""
        run = self._board.timely(run, ts_ms)
        said = f"by {user}" + (f": {render.clean(reason)}" if reason else "")
        if run.status is RunStatus.WAITING and run.key is None:
            return  # the definition says who may, and this node lacks it: others judge
        if run.status is RunStatus.WAITING:
            self._approve(run, user, yes, now, said)
        elif run.undecided and user != run.publisher and not self._board.may(Act.APPROVE, run.dag, user):
            self._deny(run, user, "decide about", now)
        elif run.undecided and run.status is RunStatus.LOST and yes:
            self._board.approve(run, user)
        elif run.undecided and run.status is RunStatus.LOST:
            run = self._board.close(run, RunStatus.FAILED, f"lost, closed {said}", now.wall_ms)
            self._voice.note(
                run, f"{run.dag} {run.short} was lost and is closed {said}.", f"closed {run.id}", now
            )
        elif run.undecided:  # another node asked: this one does not know yet that the holder is lost
            run = self._board.answer(run, user, yes=yes)
            if not yes:
                self.cancel(run, user, now)
        elif not yes and not run.status.over:
            self.cancel(run, user, now)

    def _approve(self, run: Run, user: UserId, yes: bool, now: Instant, said: str) -> None:
        if not self._publisher.may_approve(run, user):
            if not yes and (user == run.publisher or self._board.may(Act.CANCEL, run.dag, user)):
                self.cancel(run, user, now)
            else:
                self._deny(run, user, "approve", now)
        elif yes:
            self._board.approve(run, user)
        else:
            run = self._board.close(run, RunStatus.REJECTED, said, now.wall_ms)
            self._voice.note(run, f"{run.dag} {run.short} was rejected {said}.", f"rejected {run.id}", now)

    def cancel(self, run: Run, user: UserId, now: Instant) -> None:
        """Stop it, or see that it never starts. Raises `FieldError` where it is over."""
        if run.status.over:
            raise FieldError("run", f"{run.short} is over: {run.status}", "a run that is not over")
        if user != run.publisher and not self._board.may(Act.CANCEL, run.dag, user):
            self._deny(run, user, "cancel", now)
            return
        unclaimed = run.status is not RunStatus.RUNNING
        self._office.cancel(run, user, now)
        if unclaimed:
            text = f"{run.dag} {run.short} was cancelled by {user} before it started."
            self._voice.note(self._board.runs[run.id], text, f"cancelled {run.id}", now)

    def _deny(self, run: Run, user: UserId, act: str, now: Instant) -> None:
        mark = (str(run.id), user)
        if mark in self._denied:
            return
        self._denied[mark] = None
        while len(self._denied) > DENIALS_MAX:
            self._denied.pop(next(iter(self._denied)))
        rule = self._board.rule(Act.CANCEL if act == "cancel" else Act.APPROVE, run.dag)
        text = render.denied(user, act, rule)
        self._voice.post(run, text, f"denied {run.id} {user}", now, mentions=(user,))

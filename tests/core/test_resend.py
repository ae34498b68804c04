"""What may not have been sent is sent again, ever more rarely, until somebody says what became of it."""

from __future__ import annotations

from cisbot.core.effects import Priority, Send
from cisbot.core.resend import MOST_S, Resend


def release(txn: str, *, durable: bool = True) -> Send:
    """A state event."""
    return Send(txn, "io.cisbot.lock", {}, Priority.LOCK, state_key="a/b", durable=durable)


def test_pauses_grow_and_end_at_a_minute() -> None:
    resend, now, pauses = Resend(), 0.0, []
    resend.note(release("one"))
    for _ in range(9):
        assert resend.failed("one", now)
        assert resend.due(now) == []
        at = resend.deadline()
        assert at is not None
        pauses.append(at - now)
        now = at
        assert [send.txn for send in resend.due(now)] == ["one"]
        assert resend.deadline() is None
    assert pauses[:3] == [1.0, 2.0, 4.0]
    assert pauses[-1] == MOST_S


def test_what_is_over_and_what_may_be_lost_is_not_sent_again() -> None:
    resend = Resend()
    resend.note(release("one"))
    resend.over("one")
    resend.note(release("take", durable=False))
    assert not resend.failed("one", 0.0)
    assert not resend.failed("take", 0.0)

"""Which runs a newcomer asks for, of all that the state's lock events call open."""

from __future__ import annotations

from cisbot.core.ids import ClaimKey, EventId, Incarnation, NodeId, Nonce, RunId, UserId
from cisbot.core.room.events import Outcome, Release
from cisbot.core.runs.story import called_open


def release(number: int, account: str, ts_ms: int, *open_runs: str) -> Release:
    """A lock event as the state names it."""
    return Release(
        EventId(f"$e{number}"), UserId(account), ts_ms, ClaimKey(f"dag-{number}"), NodeId("n"),
        Incarnation("i"), Nonce(f"i.{number}"), 1, RunId(f"$run{number}"), Outcome.SUCCEEDED, None,
        tuple(RunId(run) for run in open_runs),
    )  # fmt: skip


def test_the_newest_word_of_each_account_counts_and_the_newest_comes_first() -> None:
    state = [
        release(1, "@a:hs", 100, "$old", "$waits"),
        release(2, "@a:hs", 300, "$waits", "$new"),
        release(3, "@b:hs", 200, "$waits", "$b-knows"),
        release(4, "@a:hs", 50, "$older"),
    ]
    named, asked = called_open(state)
    assert named == {"$old", "$waits", "$new", "$b-knows", "$older"}
    assert asked == ("$waits", "$new", "$b-knows")

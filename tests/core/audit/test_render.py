"""What a person reads, and what a program reads."""

from __future__ import annotations

import json

from cisbot.core.audit.render import as_json, as_text, only
from cisbot.core.ids import ClaimKey, RunId, short_id
from cisbot.core.room.events import Outcome
from tests.core.audit.history import KEY, LEASE_S, History

OTHER = ClaimKey("deploy/type-deploy")
ROOM = "#tasks:hs"
TEXT = f"""\
#tasks:hs: 11 events, 2026-11-25 08:47:01 to 2026-11-25 08:47:47 UTC

backup/project-p
  epoch  node  run     from                 held   end
      1  a     {short_id(RunId("$r"))}  2026-11-25 08:47:05  37 s   taken over, no lease for 5.0 s
      1  b     {short_id(RunId("$r"))}  2026-11-25 08:47:06  –      void take: another event came first
      2  b     {short_id(RunId("$r"))}  2026-11-25 08:47:42  1.0 s  released, succeeded

deploy/type-deploy
  epoch  node  run     from                 held   end
      1  a     {short_id(RunId("$x"))}  2026-11-25 08:47:44  3.0 s  held
      1  c     {short_id(RunId("$x"))}  2026-11-25 08:47:45  –      void release: it does not hold this key

INCONSISTENT not-held (deploy/type-deploy)
    2026-11-25 08:47:45  c says {short_id(RunId("$x"))} failed under epoch 1, which it never held
    $e10 of @c:hs

note lapsed (backup/project-p)
    2026-11-25 08:47:42  b took over from a (epoch 1), whose lease had run out 5.0 s before
    $e7 of @b:hs

3 claims, 2 keys, 2 void requests, 1 inconsistency, 1 note"""


def history() -> History:
    """A race, a takeover, and an outcome by who held nothing."""
    made = History(ms=1_795_596_420_000)
    made.take("a")
    made.rival("b")
    made.beat("a")
    made.wait(LEASE_S + 4)
    made.take("b")
    made.release("b", 2)
    made.take("a", "$x", key=OTHER)
    made.release("c", 1, Outcome.FAILED, "$x", key=OTHER)
    made.wait(1)
    return made


def test_for_people() -> None:
    assert as_text(history().report(), ROOM) == TEXT


def test_for_programs() -> None:
    report = json.loads(as_json(history().report(), ROOM, consistent=False))
    assert (report["schema"], report["room"], report["consistent"]) == (1, ROOM, False)
    assert [(hold["node"], hold["epoch"], hold["end"]) for hold in report["holds"]] == [
        ("a", 1, "taken over"), ("b", 2, "released"), ("a", 1, "held")
    ]  # fmt: skip
    assert [(void["node"], void["action"]) for void in report["voids"]] == [("b", "take"), ("c", "release")]
    assert [breach["kind"] for breach in report["breaches"]] == ["not-held"]
    assert [remark["kind"] for remark in report["remarks"]] == ["lapsed"]


def test_one_key_or_run_only() -> None:
    report = history().report()
    shown = only(report, key=KEY, run=None)
    assert {hold.key for hold in shown.holds} == {void.key for void in shown.voids} == {KEY}
    assert not shown.breaches and len(shown.remarks) == 1
    for name in ("$x", short_id(RunId("$x"))):
        shown = only(report, key=None, run=name)
        assert {hold.run for hold in shown.holds} == {void.run for void in shown.voids} == {"$x"}
        assert len(shown.breaches) == 1
    assert only(report, key=KEY, run="$x").holds == ()


def test_what_the_room_says_cannot_write_to_the_terminal() -> None:
    made = History()
    made.take("a", node="\x1b[31ma\nb")
    assert "\x1b" not in as_text(made.report(), "\x1b[2J" + ROOM)

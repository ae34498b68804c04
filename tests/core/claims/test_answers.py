"""What a sure node owes: heads to who asks, without a storm; and the truth in the state, until seen."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cisbot.core.claims.answers import AGAIN_S, ANSWER_BYTES_MAX, ANSWERS_MAX, ANSWERS_S, CHECK, Answers
from cisbot.core.claims.ledger import Judged, Ledger
from cisbot.core.claims.messages import RANKS
from cisbot.core.claims.state import FREE, Accepted, Bounds, Head, Void, VoidReason, carried
from cisbot.core.effects import ReadState
from cisbot.core.ids import ClaimKey
from cisbot.core.room.events import ClaimEvent, MemoryWrite, Release, Restate, Take
from cisbot.core.room.wire import T_LOCK, T_MEMORY, head_bytes
from tests.core.claims.made import (
    KEY,
    MEMORY,
    OTHER,
    beat,
    end,
    head,
    holder,
    me,
    probe,
    release,
    restate,
    take,
    write,
)

ECHO_S = 0.1
LAST_S = RANKS * 0.5  # everybody's turn has come
HELD = head(1, "$1", holder())


def sure(heads: dict[ClaimKey, Head], name: str = "a") -> Answers:
    """The answers of a node that knows these heads."""
    ledger = Ledger(Bounds())
    ledger.load(heads, ())
    return Answers(me(name), ledger)


def judged(event: ClaimEvent, after: Head, *, accepted: bool) -> Judged:
    """A verdict."""
    key = getattr(event, "key", KEY)
    return Judged(key, event, Accepted() if accepted else Void(VoidReason.NOT_AFTER), after)


def keys(answers: Answers, now: float) -> list[ClaimKey]:
    """The heads that it tells now."""
    return [told.key for told in answers.due(now)[0]]


def stated(answers: Answers, now: float) -> list[ClaimKey]:
    """The keys that it restates now."""
    return [told.key for told in answers.due(now)[1]]


# -- probes ----------------------------------------------------------------------------------------


def test_the_holder_answers_at_once_the_others_in_turn() -> None:
    first, other = sure({KEY: HELD}), sure({KEY: HELD}, "b")
    first.probed(probe("$p"), {KEY}, ECHO_S, 10.0)
    other.probed(probe("$p"), (), ECHO_S, 10.0)
    assert keys(first, 10.0) == [KEY]
    assert keys(other, 10.4) == []
    assert keys(other, 10.0 + LAST_S) == [KEY]
    assert keys(other, 99.0) == [], "once"


def test_who_hears_the_head_told_keeps_silent() -> None:
    other = sure({KEY: HELD}, "b")
    other.probed(probe("$p"), (), ECHO_S, 10.0)
    other.arriving(beat("$2", "a", heads=(carried(KEY, HELD),)))
    assert keys(other, 10.0 + LAST_S) == []


def test_an_older_head_does_not_serve() -> None:
    other = sure({KEY: head(1, "$9", holder())}, "b")
    other.probed(probe("$p"), (), ECHO_S, 10.0)
    other.arriving(beat("$2", "a", heads=(carried(KEY, HELD),)))
    assert keys(other, 10.0 + LAST_S) == [KEY]


@pytest.mark.parametrize("heads", [{}, {KEY: Head(touched=True)}])
def test_of_nothing_there_is_nothing_to_tell(heads: dict[ClaimKey, Head]) -> None:
    node = sure(heads)
    node.probed(probe("$p"), (), ECHO_S, 10.0)
    assert keys(node, 10.0 + LAST_S) == []


def test_its_own_probe_is_not_its_to_answer() -> None:
    node = sure({KEY: HELD})
    node.probed(probe("$p", "a"), (), ECHO_S, 10.0)
    assert keys(node, 10.0 + LAST_S) == []


def test_probing_on_and_on_postpones_no_answer() -> None:
    node = sure({KEY: HELD}, "b")
    for n in range(100):
        node.probed(probe(f"$p{n}"), (), ECHO_S, 10.0 + n * 0.1)
    assert keys(node, 10.0 + LAST_S) == [KEY]


def test_a_storm_of_probes_gets_few_heartbeats() -> None:
    many = {ClaimKey(f"d/{n}"): HELD for n in range(200)}
    node = sure(many)
    beats = 0
    for n in range(600):  # a probe each half second, for five minutes
        node.probed(probe(f"$p{n}", "evil", *many), many, ECHO_S, n / 2)
        beats += bool(keys(node, n / 2))
    assert beats == ANSWERS_MAX * 300 / ANSWERS_S


def test_what_does_not_fit_into_one_heartbeat_comes_later() -> None:
    many = {ClaimKey(f"memory:{n}"): head(1, "$1", value="v" * 4_000) for n in range(20)}
    node = sure(many)
    node.probed(probe("$p", "z", *many), many, ECHO_S, 10.0)
    told: list[ClaimKey] = []
    now = 10.0
    for _ in range(20):
        heads, _states = node.due(now)
        assert sum(head_bytes(h) for h in heads) <= ANSWER_BYTES_MAX
        told += [h.key for h in heads]
        following = node.deadline()
        if following is None:
            break
        now = max(now, following)
    assert sorted(told) == sorted(many)


# -- the state -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "now", "holds", "at_once"),
    [
        (take("$2", "b"), HELD, {KEY}, True),
        (take("$2", "b"), HELD, (), False),
        (take("$2", "a"), HELD, (), False),
        (take("$2", "a"), head(1, "$1"), (), True),
        (release("$2", "b"), head(1, "$1"), (), False),
        (write("$2", "a"), head(1, "$1", value="x"), (), True),
        (write("$2", "b"), head(1, "$1", value="x"), (), False),
    ],
    ids=["the holder", "another", "the loser", "loser, free", "another, free", "writer", "another's write"],
)
def test_who_states_the_truth_first(
    event: ClaimEvent, now: Head, holds: set[ClaimKey], at_once: bool
) -> None:
    key = getattr(event, "key", KEY)
    node = sure({key: now})
    node.judged(judged(event, now, accepted=False), holds, ECHO_S, 10.0)
    assert stated(node, 10.0) == ([key] if at_once else [])
    node = sure({key: now})
    node.judged(judged(event, now, accepted=False), holds, ECHO_S, 10.0)
    assert stated(node, 10.0 + LAST_S) == [key]


def test_an_accepted_end_leaves_the_state_naming_who_is_gone() -> None:
    node = sure({KEY: head(1, "$2")})
    node.judged(judged(end("$2"), head(1, "$2"), accepted=True), (), ECHO_S, 10.0)
    assert stated(node, 10.0 + LAST_S) == [KEY]


@pytest.mark.parametrize("by", ["restate", "take"])
def test_who_sees_the_truth_stated_keeps_silent(by: str) -> None:
    node = sure({KEY: HELD}, "b")
    node.judged(judged(take("$2", "c"), HELD, accepted=False), (), ECHO_S, 10.0)
    if by == "restate":
        node.restated(restate("$3", "a", HELD), (), ECHO_S, 10.1)
    else:
        node.judged(judged(take("$3", "c"), HELD, accepted=True), (), ECHO_S, 10.1)
    assert stated(node, 10.0 + LAST_S) == []


def test_a_restatement_that_came_too_late_is_corrected() -> None:
    node = sure({KEY: HELD})
    node.restated(restate("$3", "b", FREE), {KEY}, ECHO_S, 10.0)
    assert stated(node, 10.0) == [KEY]


def test_what_is_sent_may_be_lost_so_it_is_said_again_until_seen() -> None:
    node = sure({KEY: HELD})
    node.judged(judged(take("$2", "b"), HELD, accepted=False), {KEY}, ECHO_S, 10.0)
    assert stated(node, 10.0) == [KEY]
    assert stated(node, 11.0) == []
    assert stated(node, 10.0 + AGAIN_S) == [KEY]
    node.restated(restate("$3", "a", HELD), {KEY}, ECHO_S, 41.0)
    assert stated(node, 99.0) == []


def test_after_its_own_write_it_reads_the_state_once() -> None:
    node = sure({KEY: HELD, MEMORY: head(1, "$w", value="v")})
    node.judged(judged(take("$1"), HELD, accepted=True), {KEY}, ECHO_S, 10.0)
    node.judged(judged(write("$w"), head(1, "$w"), accepted=True), (), ECHO_S, 10.0)
    node.judged(judged(take("$x", "b", key=OTHER), HELD, accepted=True), (), ECHO_S, 10.0)
    assert node.checks(10.9) == []
    assert node.next_check() == 11.0
    assert node.checks(11.0) == [
        ReadState(CHECK + KEY, T_LOCK, KEY),
        ReadState(CHECK + MEMORY, T_MEMORY, MEMORY.removeprefix("memory:")),
    ]
    assert node.checks(99.0) == []


@pytest.mark.parametrize(
    ("found", "true"),
    [
        (take("$1"), True),
        (take("$0", "b"), False),
        (restate("$5", "b", HELD), True),
        (restate("$5", "b", FREE), False),
        (None, True),
    ],
)
def test_what_the_state_names_is_mended_if_it_is_not_so(found: object, true: bool) -> None:
    node = sure({KEY: HELD})
    node.judged(judged(take("$1"), HELD, accepted=True), {KEY}, ECHO_S, 10.0)
    node.stated(KEY, found, 12.0)  # type: ignore[arg-type]
    assert stated(node, 12.0) == ([] if true else [KEY])


@pytest.mark.parametrize(
    ("now", "found", "true"),
    [
        (HELD, take("$1"), True),
        (HELD, take("$1", "b"), False),
        (HELD, release("$1"), False),
        (head(1, "$1"), release("$1"), True),
        (head(1, "$1"), take("$1"), False),
        (head(1, "$1"), restate("$r", "b", head(1, "$1")), True),
        (head(1, "$1", value="v"), write("$1"), True),
        (head(1, "$1", value="v"), write("$1", value="w"), False),
        (head(1, "$1", value="v"), write("$1", version=2), False),
    ],
)
def test_after_a_restart_it_reads_the_state_of_keys_whose_last_take_was_void(
    now: Head, found: Take | Release | Restate | MemoryWrite, true: bool
) -> None:
    node = sure({found.key: replace(now, later=1), OTHER: HELD})
    assert node.due(10.0) == ([], [])
    assert [ask.tag for ask in node.checks(99.0)] == [CHECK + found.key]
    node.stated(found.key, found, 100.0)
    assert stated(node, 100.0) == ([] if true else [found.key])


def test_after_a_gap_it_owes_nothing_for_it_can_t_tell_the_truth() -> None:
    node = sure({KEY: HELD})
    node.probed(probe("$p"), {KEY}, ECHO_S, 10.0)
    node.judged(judged(take("$2", "b"), HELD, accepted=False), {KEY}, ECHO_S, 10.0)
    node.gap()
    assert node.due(99.0) == ([], [])
    assert node.deadline() is None

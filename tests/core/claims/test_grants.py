"""Grants: who may give one, whom it makes a holder, and what a node off the home server believes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cisbot.core.claims.contend import Contender, Wish
from cisbot.core.claims.facts import Ended, Extended, Taken, Won
from cisbot.core.claims.fold import fold
from cisbot.core.claims.grants import AGAIN_MAX_S, Requests
from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Claim, Me
from cisbot.core.claims.state import FREE, Accepted, Bounds, Head, Void, VoidReason, carried
from cisbot.core.ids import EventId, Incarnation, NodeId, Nonce, UserId
from cisbot.core.room.events import Asker, CarriedHead, Heartbeat, Holder, Intent, Take
from cisbot.core.room.wire import T_HEARTBEAT, T_INTENT, T_LOCK
from tests.core.claims.made import KEY, LEASE_S, RUN, beat, end, me, release, take, write
from tests.core.claims.sends import told

HOME = Bounds(lease_s_max=60, epoch_step_max=100, home="hs")
AWAY = UserId("@r:away")
SPAN = LEASE_S * (1 - RHO) - 0.5
CLAIM = Claim(RUN, "d", "s", LEASE_S, "0")


def asker(nonce: str = "ask", account: UserId = AWAY) -> Asker:
    """A node on another server."""
    return Asker(account, NodeId("r"), Incarnation("r-1"), Nonce(nonce))


def grant(event: str, nonce: str = "ask", *, epoch: int = 1, after: str | None = None) -> Take:
    """Node a takes for node r."""
    return replace(take(event, "a", epoch=epoch, after=after), asker=asker(nonce))


def held(sign: str = "ask", *, epoch: int = 1) -> Holder:
    """Node r as a holder."""
    return Holder(0, AWAY, NodeId("r"), Incarnation("r-1"), epoch, RUN, LEASE_S, Nonce(sign))


def head(after: str, *holders: Holder, epoch: int = 1) -> CarriedHead:
    """A head of the key that a home node carries."""
    return carried(KEY, Head(epoch, EventId(after), holders, touched=True))


# -- the fold ----------------------------------------------------------------------------------


def test_a_grant_makes_the_asker_the_holder() -> None:
    after, verdict = fold(KEY, FREE, grant("$1"), HOME)
    assert verdict == Accepted(granted=held())
    assert after.holders == (held(),)
    assert after.holders[0].sign == "ask"


def test_each_sign_of_life_that_counts_is_named() -> None:
    after, _ = fold(KEY, FREE, grant("$1"), HOME)
    sign = replace(beat("$2", "r", (KEY, 1), nonce="b7"), sender=AWAY)
    after, verdict = fold(KEY, after, sign, HOME)
    assert isinstance(verdict, Accepted)
    assert after.holders[0].sign == "b7"


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (replace(take("$1", "r"), sender=AWAY), VoidReason.OFF_HOME),
        (replace(grant("$1"), sender=AWAY), VoidReason.OFF_HOME),
        (replace(take("$1"), asker=asker(account=UserId("@b:hs"))), VoidReason.AT_HOME),
    ],
)
def test_only_home_accounts_take_and_only_for_those_who_are_elsewhere(event: Take, why: VoidReason) -> None:
    assert fold(KEY, FREE, event, HOME)[1] == Void(why)


def test_memory_is_written_at_home() -> None:
    event = replace(write("$1"), sender=AWAY)
    assert fold(event.key, FREE, event, HOME)[1] == Void(VoidReason.OFF_HOME)


def test_in_an_available_room_who_is_elsewhere_takes_too_but_grants_nothing() -> None:
    bounds = replace(HOME, available=True)
    own = replace(take("$1", "r"), sender=AWAY)
    assert isinstance(fold(KEY, FREE, own, bounds)[1], Accepted)
    assert fold(KEY, FREE, replace(own, asker=asker()), bounds)[1] == Void(VoidReason.OFF_HOME)


# -- a home node -------------------------------------------------------------------------------


def at_home(name: str = "a", *peers: str) -> Keeper:
    """A node on the home server."""
    mine = me(name)
    mine.peers = tuple(UserId(f"@{peer}:hs") for peer in (name, *peers))
    return Keeper(mine, Ledger(HOME, mine.account))


def test_who_granted_tells_the_head_at_once_and_for_signs_of_life_one_answer_serves_all() -> None:
    node = at_home()
    node.observe(grant("$1"), 0.0)
    _, sends = node.due(0.0)
    (answer,) = [told(send, "a", "$2") for send in sends if send.type == T_HEARTBEAT]
    assert isinstance(answer, Heartbeat)
    assert [h.holders[0].sign for h in answer.heads] == ["ask"]
    node.observe(answer, 0.1)
    node.observe(replace(beat("$3", "r", (KEY, 1)), sender=AWAY), 10.0)
    assert node.due(10.0)[1] == []
    _, sends = node.due(10.3)
    assert [send.type for send in sends] == [T_HEARTBEAT]


def test_whoever_comes_later_keeps_silent() -> None:
    first, second = at_home("a", "b"), at_home("b", "a")
    for node in (first, second):
        node.observe(grant("$1"), 0.0)
    _, sends = first.due(0.0)
    second.observe(told(sends[0], "a", "$2"), 0.1)  # type: ignore[arg-type]
    assert second.due(60.0)[1] == []


def test_a_grant_is_no_win_of_its_sender() -> None:
    node = at_home()
    facts, _ = node.observe(grant("$1"), 0.0)
    assert facts == [Taken(held(), grant("$1"))]
    assert node.holds == {}


def test_heads_from_elsewhere_make_nobody_sure() -> None:
    node = at_home()
    node.gap([KEY], 0.0)
    node.observe(release("$1"), 1.0)
    lie = replace(beat("$2", "r", heads=(head("$1"),)), sender=AWAY)
    node.observe(lie, 2.0)
    assert node.ledger.is_unsure(KEY)
    node.observe(replace(lie, sender=UserId("@b:hs")), 3.0)
    assert not node.ledger.is_unsure(KEY)


def request(node: Keeper, now: float) -> Intent:
    """What a node elsewhere asks."""
    contender = Contender(node)
    sends, _ = contender.pursue([Wish(KEY, CLAIM, 0)], now)
    (send,) = sends
    raw = told(send, "r", "$ask")
    assert isinstance(raw, Intent)
    return replace(raw, sender=AWAY)


def test_a_request_is_kept_for_as_long_as_it_is_worth_a_grant() -> None:
    node = at_home()
    requests = Requests(node)
    event = request(elsewhere(), 0.0)
    requests.note(event, 10.0)
    assert requests.open(10.0 + LEASE_S / 2 - 0.1) == [event]
    assert requests.open(10.0 + LEASE_S / 2) == []


def test_a_process_that_is_over_wants_nothing_any_more() -> None:
    requests = Requests(at_home())
    event = request(elsewhere(), 0.0)
    requests.note(event, 0.0)
    requests.over(replace(end("$e", "r"), sender=AWAY, incarnation=Incarnation("r-0")))
    assert requests.open(0.0) == [event]
    requests.over(replace(end("$e", "r"), sender=AWAY))
    assert requests.open(0.0) == []


def test_nobody_else_may_ask_and_no_lease_is_longer_than_the_charter_allows() -> None:
    requests = Requests(at_home())
    event = request(elsewhere(), 0.0)
    assert event.asks is not None
    requests.note(replace(event, sender=UserId("@b:hs")), 0.0)
    requests.note(replace(event, asks=replace(event.asks, lease_s=61)), 0.0)
    assert requests.open(0.0) == []


# -- a node elsewhere --------------------------------------------------------------------------


def elsewhere() -> Keeper:
    """A node on another server."""
    mine = Me(NodeId("r"), AWAY, Incarnation("r-1"))
    return Keeper(mine, Ledger(HOME, AWAY))


class Elsewhere:
    """A node on another server with all that it needs to ask."""

    def __init__(self, bounds: Bounds = HOME) -> None:
        self.keeper = elsewhere()
        self.keeper.ledger.bounds = bounds
        self.contender = Contender(self.keeper)
        self.asked: list[float] = []

    def pursue(self, now: float) -> list[str]:
        """One step; the nonces that it sent."""
        sends, _ = self.contender.pursue([Wish(KEY, CLAIM, 0)], now)
        assert all(send.type in (T_INTENT, T_LOCK) for send in sends)
        return [send.txn for send in sends]

    def hear(self, event: Heartbeat | Take, now: float) -> list[object]:
        """An event of its server's stream; the facts."""
        facts, _ = self.keeper.observe(event, now)
        more, sends = self.contender.asks.believe(event, now)
        self.sends = sends
        return [*facts, *more]

    def won(self, now: float = 101.0) -> str:
        """It asked at 100 and was told at `now`; the request's nonce."""
        (nonce,) = self.pursue(100.0)
        facts = self.hear(beat("$h", "a", heads=(head("$1", held(nonce)),)), now)
        assert [type(fact) for fact in facts] == [Won]
        return nonce


def test_it_asks_and_holds_once_a_home_node_says_so_counted_from_before_it_asked() -> None:
    node = Elsewhere()
    node.won(now=109.0)
    assert node.keeper.holds[KEY, 0].deadline == 100.0 + SPAN


def test_neither_its_own_servers_echo_nor_the_grant_itself_is_a_win() -> None:
    node = Elsewhere()
    (nonce,) = node.pursue(100.0)
    assert node.hear(grant("$1", nonce), 101.0) == []
    lie = replace(beat("$h", "z", heads=(head("$1", held(nonce)),)), sender=UserId("@z:away"))
    node.hear(lie, 102.0)
    assert node.keeper.holds == {}


def test_its_deadline_moves_by_the_sign_that_a_head_names_never_by_an_echo() -> None:
    node = Elsewhere()
    node.won()
    _, sends = node.keeper.due(112.0)
    (renewal,) = [told(send, "r", "$own") for send in sends]
    assert isinstance(renewal, Heartbeat)
    own = replace(renewal, sender=AWAY)
    assert not [fact for fact in node.hear(own, 113.0) if isinstance(fact, Extended)]
    assert node.keeper.holds[KEY, 0].deadline == 100.0 + SPAN
    facts = node.hear(beat("$h2", "a", heads=(head("$own", held(renewal.nonce)),)), 114.0)
    assert [fact.hold.deadline for fact in facts if isinstance(fact, Extended)] == [112.0 + SPAN]


def test_an_old_head_ends_nothing_and_a_new_one_that_does_not_name_it_does() -> None:
    node = Elsewhere()
    (nonce,) = node.pursue(100.0)
    node.hear(beat("$h", "a", heads=(head("$4", held(nonce, epoch=4), epoch=4),)), 101.0)
    assert not node.hear(beat("$old", "a", heads=(head("$3", epoch=3),)), 102.0)
    other = Holder(0, UserId("@a:hs"), NodeId("a"), Incarnation("a-1"), 5, RUN, LEASE_S)
    facts = node.hear(beat("$new", "a", heads=(head("$5", other, epoch=5),)), 103.0)
    assert [(f.by, f.hold.epoch) for f in facts if isinstance(f, Ended)] == [(other, 4)]
    assert node.keeper.holds == {}


def test_a_void_take_in_its_own_stream_does_not_unseat_it() -> None:
    node = Elsewhere()
    node.won()
    assert node.hear(take("$9", "a", epoch=2, after="$nowhere"), 102.0) == []
    assert (KEY, 0) in node.keeper.holds


def test_a_grant_that_comes_after_its_deadline_is_given_back_once() -> None:
    node = Elsewhere()
    (nonce,) = node.pursue(100.0)
    late = beat("$h", "a", heads=(head("$1", held(nonce)),))
    assert not [fact for fact in node.hear(late, 100.0 + SPAN) if isinstance(fact, Won)]
    assert [send.content["action"] for send in node.sends] == ["release"]
    node.hear(late, 101.0 + SPAN)
    assert node.sends == []


def test_a_hold_that_ended_is_not_revived() -> None:
    node = Elsewhere()
    nonce = node.won()
    assert [type(f) for f in node.keeper.due(100.0 + SPAN)[0]] == [Ended]
    assert not [f for f in node.hear(beat("$h", "a", heads=(head("$1", held(nonce)),)), 131.0)
                if isinstance(f, Won)]  # fmt: skip


def test_it_asks_ever_more_rarely_in_silence_and_at_once_when_it_hears_of_home() -> None:
    node = Elsewhere()
    times = [now for tick in range(8000) if node.pursue(now := 100.0 + tick)]
    gaps = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
    assert gaps[:4] == [LEASE_S / 2, LEASE_S, 2 * LEASE_S, 4 * LEASE_S]
    assert max(gaps) == AGAIN_MAX_S
    node.contender.asks.heard_at = times[-1] + LEASE_S
    assert node.pursue(times[-1] + LEASE_S)


def test_it_carries_no_heads_and_answers_nobody() -> None:
    node = Elsewhere()
    node.won()
    _, sends = node.keeper.due(112.0)
    assert [send.content["heads"] for send in sends] == [[]]
    assert node.keeper.release(node.keeper.holds[KEY, 0], None).content.get("head") is None


def test_in_an_available_room_it_claims_alone_after_a_lease_of_silence() -> None:
    node = Elsewhere(replace(HOME, available=True))
    sent = {now: nonces for tick in range(60) if (nonces := node.pursue(now := 100.0 + tick))}
    alone = 100.0 + LEASE_S
    assert alone in sent
    own = replace(take("$own", "r", nonce=sent[alone][0]), sender=AWAY, incarnation=Incarnation("r-1"))
    assert [type(f) for f in node.hear(own, alone + 0.1)] == [Won]
    assert (KEY, 0) in node.keeper.alone


def test_an_end_of_its_process_ends_its_holds() -> None:
    node = Elsewhere()
    node.won()
    over = replace(end("$e", "r"), sender=AWAY)
    facts, _ = node.keeper.observe(over, 105.0)
    assert [type(f) for f in facts][:1] == [Ended]

"""The delayed end: the unknown counts as armed, only a confirmed restart moves it, what was sent is over."""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from cisbot.core.claims.armed import ANSWER_S_MAX, RESTARTS_PER_DELAY
from cisbot.core.claims.facts import Ended, Extended, Won
from cisbot.core.claims.keeper import END_DUE, LEASE_OVER, RHO, Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.state import Bounds
from cisbot.core.effects import ArmEnd, Ask, AskEnd, CancelEnd, RestartEnd
from cisbot.core.ids import Nonce
from cisbot.core.inputs import EndAnswer, EndReply
from tests.core.claims.made import KEY, LEASE_S, end, me, take

DELAY_S = 6.0
SPAN = DELAY_S * (1 - RHO) - 0.5
THIRD = DELAY_S / RESTARTS_PER_DELAY
LEASE_SPAN = LEASE_S * (1 - RHO) - 0.5


def keeper(delay_s: float = DELAY_S) -> Keeper:
    """A node that knows the room from its beginning."""
    return Keeper(me("a"), Ledger(Bounds()), end_delay_s=delay_s)


def asked(node: Keeper, now: float) -> AskEnd:
    """The one request that is due."""
    (ask,) = node.ask_end(now)
    assert isinstance(ask, AskEnd)
    return ask


def answer(node: Keeper, ask: Ask, reply: EndReply, now: float, wait_s: float = 0.0) -> list[object]:
    """The request is answered; the facts."""
    assert isinstance(ask, AskEnd)
    delay_id = "d1" if isinstance(ask, ArmEnd) and reply is EndReply.DONE else ""
    return list(node.end_answered(EndAnswer(ask, reply, delay_id, wait_s, "so"), now))


def armed(now: float = 100.0) -> Keeper:
    """A node whose end was armed by a request sent then."""
    node = keeper()
    answer(node, asked(node, now), EndReply.DONE, now + 0.1)
    return node


def holding(node: Keeper, now: float) -> Keeper:
    """It holds a key by a take sent then."""
    node.note_sent(Nonce("n"), now)
    assert isinstance(node.observe(take("$1"), now + 0.1)[0][0], Won)
    return node


def test_without_a_delay_nothing_is_asked_and_the_lease_alone_holds() -> None:
    node = keeper(0.0)
    assert node.ask_end(100.0) == []
    assert node.armed.fit(100.0)
    assert holding(node, 100.0).holds[KEY, 0].deadline == 100.0 + LEASE_SPAN


def test_nothing_is_taken_before_it_is_known_whether_it_is_armed() -> None:
    node = keeper()
    assert node.armed.fit(100.0)
    ask = asked(node, 100.0)
    assert isinstance(ask, ArmEnd)
    assert (ask.send.content, ask.delay_s) == (me("a").named(), DELAY_S)
    assert not node.armed.fit(100.0)
    assert node.ask_end(101.0) == [], "once"
    answer(node, ask, EndReply.DONE, 101.0)
    assert node.armed.fit(101.0)


def test_the_deadline_is_the_earlier_of_lease_and_delay_from_before_the_arming() -> None:
    node = holding(armed(100.0), 101.0)
    assert node.holds[KEY, 0].deadline == 100.0 + SPAN


def test_a_confirmed_restart_moves_it_from_before_its_send_up_to_the_lease() -> None:
    node = holding(armed(100.0), 101.0)
    assert node.ask_end(100.0 + THIRD - 0.01) == []
    assert node.deadline() == 100.0 + THIRD
    ask = asked(node, 100.0 + THIRD)
    assert ask == RestartEnd("d1", DELAY_S / 6)
    assert answer(node, ask, EndReply.DONE, 105.0) == [Extended(node.holds[KEY, 0])]
    assert node.holds[KEY, 0].deadline == 100.0 + THIRD + SPAN
    for _ in range(40):
        now = node.armed.deadline()
        assert now is not None
        answer(node, asked(node, now), EndReply.DONE, now + 0.1)
        if not node.holds or now > 101.0 + LEASE_SPAN - 1:
            break
    assert node.holds[KEY, 0].deadline == 101.0 + LEASE_SPAN, "no restart renews a lease"
    facts, _ = node.due(101.0 + LEASE_SPAN)
    assert [f.why for f in facts if isinstance(f, Ended)] == [LEASE_OVER]


def test_an_unconfirmed_restart_moves_nothing_and_is_soon_tried_again() -> None:
    for reply in (EndReply.UNKNOWN, EndReply.UNSENT, EndReply.LIMITED, EndReply.REFUSED):
        node = holding(armed(100.0), 101.0)
        assert answer(node, asked(node, 102.0), reply, 102.5) == []
        assert node.holds[KEY, 0].deadline == 100.0 + SPAN
        assert node.armed.deadline() == 102.5 + DELAY_S / 12
        assert not node.mine_over
        facts, _ = node.due(100.0 + SPAN)
        assert [f.why for f in facts if isinstance(f, Ended)] == [END_DUE]
        assert not node.armed.fit(100.0 + SPAN)
        assert node.ask_end(100.0 + SPAN) == []
        assert node.mine_over, "it can claim nothing any more"
        assert node.armed.bound
        assert node.armed.deadline() is None


def test_a_refused_restart_ends_an_incarnation_that_holds_nothing() -> None:
    node = armed(100.0)
    answer(node, asked(node, 102.0), EndReply.REFUSED, 102.1)
    assert node.ask_end(102.1) == []
    assert node.mine_over
    assert node.armed.bound, "it goes on as a new one"


def test_a_late_restart_that_nobody_refuses_comes_before_giving_up() -> None:
    node = armed(100.0)
    ask = asked(node, 100.0 + DELAY_S)  # the machine slept
    assert isinstance(ask, RestartEnd)
    answer(node, ask, EndReply.DONE, 100.1 + DELAY_S)
    assert node.ask_end(100.1 + DELAY_S) == []
    assert node.armed.fit(100.1 + DELAY_S)
    assert not node.mine_over


def test_a_restart_that_is_confirmed_late_revives_no_claim_but_the_incarnation_goes_on() -> None:
    node = holding(armed(100.0), 101.0)
    ask = asked(node, 102.0)
    facts = answer(node, ask, EndReply.DONE, 107.0)
    assert [type(f) for f in facts] == [Ended]
    assert not node.holds
    assert not node.mine_over
    assert node.armed.until == 102.0 + SPAN


def test_a_limit_is_honoured() -> None:
    node = armed(100.0)
    answer(node, asked(node, 102.0), EndReply.LIMITED, 102.1, wait_s=1.5)
    assert node.armed.deadline() == 103.6


def test_a_restart_that_finds_nothing_ends_the_incarnation() -> None:
    node = holding(armed(100.0), 101.0)
    facts = answer(node, asked(node, 102.0), EndReply.GONE, 102.1)
    assert [type(f) for f in facts] == [Ended]
    assert node.mine_over
    assert node.armed.bound
    assert not node.holds
    assert node.ask_end(110.0) == []
    assert not node.armed.fit(102.2)


def test_its_end_in_the_room_is_its_end() -> None:
    node = holding(armed(100.0), 101.0)
    facts, _ = node.observe(end("$2"), 102.0)
    assert Ended in [type(f) for f in facts]
    assert node.mine_over
    assert node.armed.bound, "its own delayed end: it goes on as a new one"
    assert node.ask_end(110.0) == []
    assert node.armed.deadline() is None


def test_an_arming_of_which_nobody_knows_what_became_ends_the_incarnation() -> None:
    node = keeper()
    assert answer(node, asked(node, 100.0), EndReply.UNKNOWN, 103.0) == []
    assert node.mine_over
    assert node.armed.over is not None


def test_a_win_while_it_is_unknown_is_bound_too() -> None:
    node = keeper()
    ask = asked(node, 100.0)
    holding(node, 99.0)  # a take sent before, echoed late
    assert node.holds[KEY, 0].deadline == 100.0 + SPAN
    assert answer(node, ask, EndReply.UNSENT, 101.0) == [Extended(node.holds[KEY, 0])]
    assert node.holds[KEY, 0].deadline == 99.0 + LEASE_SPAN, "it certainly was not armed"


def test_refused_it_does_without() -> None:
    node = keeper()
    answer(node, asked(node, 100.0), EndReply.REFUSED, 100.1)
    assert node.armed.fit(100.1)
    assert not node.armed.bound
    assert node.ask_end(1_000.0) == []


def test_limited_it_goes_on_without_and_tries_again_when_it_holds_nothing() -> None:
    node = keeper()
    answer(node, asked(node, 100.0), EndReply.LIMITED, 100.1, wait_s=5.0)
    assert node.armed.fit(100.1)
    assert node.armed.deadline() == 105.1
    assert node.ask_end(105.0) == []
    holding(node, 105.0)
    assert node.ask_end(105.2) == []
    assert node.armed.deadline() is None, "else the timer would run in circles"
    node.release(node.holds[KEY, 0], None)
    assert isinstance(asked(node, 106.0), ArmEnd)


def test_forbidden_by_the_charter_it_is_taken_back_and_armed_anew_when_allowed() -> None:
    node = holding(armed(100.0), 100.2)
    node.armed.allow(allowed=False)
    ask = asked(node, 101.0)
    assert ask == CancelEnd("d1", DELAY_S / 6)
    assert node.ask_end(101.1) == []
    assert node.holds[KEY, 0].deadline == 100.0 + SPAN, "it may still be sent"
    assert answer(node, ask, EndReply.DONE, 101.2) == [Extended(node.holds[KEY, 0])]
    assert node.holds[KEY, 0].deadline == 100.2 + LEASE_SPAN
    node.armed.allow(allowed=True)
    assert node.ask_end(101.3) == [], "not while it holds something"
    node.release(node.holds[KEY, 0], None)
    assert isinstance(asked(node, 101.4), ArmEnd)


def test_what_could_not_be_taken_back_was_sent() -> None:
    node = armed(100.0)
    node.armed.allow(allowed=False)
    ask = asked(node, 101.0)
    answer(node, ask, EndReply.UNKNOWN, 101.5)
    ask = asked(node, 101.5 + DELAY_S / 12)
    answer(node, ask, EndReply.GONE, 102.1)
    assert node.mine_over


def test_taking_it_back_is_tried_again_but_not_at_once_until_it_may_have_been_sent() -> None:
    for reply in (EndReply.LIMITED, EndReply.UNSENT, EndReply.UNKNOWN, EndReply.REFUSED):
        wait_s = 2.0 if reply is EndReply.LIMITED else 0.0
        node = holding(armed(100.0), 100.2)
        node.armed.allow(allowed=False)
        answer(node, asked(node, 101.0), reply, 101.1, wait_s=wait_s)
        again = 101.1 + (wait_s or DELAY_S / 12)
        assert node.ask_end(101.1) == [], reply
        node.armed.allow(allowed=False)
        assert node.ask_end(again - 0.01) == [], "the charter says nothing new"
        assert node.armed.deadline() == again
        assert isinstance(asked(node, again), CancelEnd)
        answer(node, CancelEnd("d1", 1.0), reply, again + 0.1)
        node.due(100.0 + SPAN)
        node.ask_end(100.0 + SPAN)
        assert node.mine_over


def test_what_is_asked_is_not_due_any_more() -> None:
    node = armed(100.0)
    node.armed.allow(allowed=False)
    assert isinstance(asked(node, 101.0), CancelEnd)
    assert node.deadline() is None, "else the timer would run in circles"


def test_forbidden_while_a_restart_is_under_way_it_is_taken_back_after_it() -> None:
    node = armed(100.0)
    ask = asked(node, 102.0)
    node.armed.allow(allowed=False)
    assert node.ask_end(102.1) == []
    answer(node, ask, EndReply.DONE, 102.2)
    assert isinstance(asked(node, 102.2), CancelEnd)


def test_a_request_that_hangs_holds_nobody_up_for_long() -> None:
    node = keeper(86_400.0)
    ask = asked(node, 100.0)
    assert ask.timeout_s == ANSWER_S_MAX
    answer(node, ask, EndReply.DONE, 101.0)
    assert asked(node, 100.0 + 86_400 / 3).timeout_s == ANSWER_S_MAX


# -- a homeserver of its own, with a clock of another rate -------------------------------------------

LATE = st.one_of(st.floats(0, 1), st.floats(0, 20), st.just(math.inf))  # seconds on the way; inf: lost


class Server:
    """Has at most one delayed end; `rate` of its clock by the node's."""

    def __init__(self, delay_s: float, rate: float) -> None:
        self._delay_s, self._rate = delay_s, rate
        self.due_at = math.inf

    def handle(self, ask: AskEnd, now: float) -> EndReply:
        """A request arrives, be it long after its sender gave it up."""
        if self.due_at == math.inf and not isinstance(ask, ArmEnd):
            return EndReply.GONE
        self.due_at = now + self._delay_s / self._rate
        return EndReply.DONE


@settings(max_examples=500, deadline=None)
@given(st.lists(st.tuples(LATE, LATE), max_size=12), st.floats(1 - RHO, 1 + RHO), st.floats(3.0, 40.0))
def test_it_is_never_sent_before_every_deadline(
    ways: list[tuple[float, float]], rate: float, delay_s: float
) -> None:
    """Whenever the homeserver sends it, no claim of this node has any time left."""
    node, server = keeper(delay_s), Server(delay_s, rate)
    moments: list[tuple[float, int, Callable[[float], object]]] = []
    count, now, sent = itertools.count(), 0.0, 0

    def arrive(ask: AskEnd, back_s: float, until: float) -> Callable[[float], object]:
        def at(now: float) -> None:
            reply = server.handle(ask, now)
            if now + back_s < until:
                item = EndAnswer(ask, reply, "d1")
                heapq.heappush(moments, (now + back_s, next(count), lambda now: node.end_answered(item, now)))

        return at

    def given_up(ask: AskEnd) -> Callable[[float], object]:
        return lambda now: node.end_answered(EndAnswer(ask, EndReply.UNKNOWN), now)

    while now < 15 * delay_s and not node.mine_over:
        for ask in node.ask_end(now):
            assert isinstance(ask, AskEnd)
            there_s, back_s = ways[sent] if sent < len(ways) else (0.01, 0.01)
            sent, until = sent + 1, now + ask.timeout_s
            heapq.heappush(moments, (now + there_s, next(count), arrive(ask, back_s, until)))
            if there_s + back_s >= ask.timeout_s:
                heapq.heappush(moments, (until, next(count), given_up(ask)))
        due = node.armed.deadline()
        now = min(server.due_at, *(at for at, _, _ in moments), math.inf if due is None else due)
        if now == server.due_at:
            assert node.armed.until <= now
            server.due_at = math.inf
        while moments and moments[0][0] <= now:
            heapq.heappop(moments)[2](now)

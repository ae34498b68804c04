"""Contending: turns by rank, intents as hints; unsure: a probe, a quiet lease, reading back, a fresh take."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cisbot.core.claims.contend import (
    BACK_RETRY_S,
    ECHO_MAX_S,
    INTENT,
    NOTED_MAX,
    RETRY_S,
    SPOILT_S,
    Contender,
    Wish,
)
from cisbot.core.claims.facts import Won
from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.messages import Claim
from cisbot.core.claims.state import Bounds, carried
from cisbot.core.effects import Ask, ReadBack, ReadState
from cisbot.core.ids import ClaimKey, EventId, NodeId, Nonce, RunId
from cisbot.core.room.events import ClaimEvent, Intent, Probe, RoomEvent, Take
from cisbot.core.room.past import Highest
from cisbot.core.room.wire import EPOCH_MAX, KEYS_MAX, T_INTENT
from tests.core.claims.made import (
    KEY,
    LEASE_S,
    OTHER,
    RUN,
    account,
    beat,
    end,
    head,
    me,
    probe,
    process,
    release,
    take,
)
from tests.core.claims.sends import told

BOUNDS = Bounds(lease_s_max=60, epoch_step_max=100)
QUIET_S = BOUNDS.lease_s_max * (1 + 2 * RHO)
CLAIM = Claim(RUN, "d", "p", LEASE_S, "0")
STAGGER_S = 0.5  # two echoes of a node that has measured none yet


class Node:
    """One contending node; its room is what the test feeds."""

    def __init__(self, name: str = "a", *, unsure: tuple[ClaimKey, ...] = ()) -> None:
        self.name = name
        self.ledger = Ledger(BOUNDS)
        self.ledger.load({}, unsure)
        self.keeper = Keeper(me(name), self.ledger)
        self.contender = Contender(self.keeper)
        self.asks: list[Ask] = []
        self._said = 0

    def see(self, event: ClaimEvent | Intent, now: float) -> list[Ask]:
        """An event comes."""
        asks = self.contender.observe(event, now)
        if not isinstance(event, Intent):
            self.keeper.observe(event, now)
        return asks

    def pursue(self, *wishes: Wish, now: float) -> list[RoomEvent]:
        """What it says now."""
        sends, self.asks = self.contender.pursue(wishes, now)
        events = []
        for send in sends:
            self._said += 1
            event = told(send, self.name, f"${self.name}{self._said}")
            assert not hasattr(event, "why"), event
            events.append(event)
        return events


def wish(rank: int = 0, *, key: ClaimKey = KEY, slots: int = 1) -> Wish:
    """A wish for the run."""
    return Wish(key, replace(CLAIM, slots=slots), rank)


def intent(event: str, name: str, epoch: int, nonce: str = "i") -> Intent:
    """A hint of another."""
    return Intent(
        EventId(event), account(name), 0, KEY, NodeId(name), process(name), Nonce(nonce), epoch, RUN
    )  # fmt: skip


def hinted(node: Node, now: float) -> Intent:
    """The intent of a node that is next in order and whose turn has come, seen by itself."""
    assert node.pursue(wish(1), now=now - STAGGER_S) == []
    (event,) = node.pursue(wish(1), now=now)
    assert isinstance(event, Intent)
    assert node.see(event, now) == [ReadState(INTENT + KEY, T_INTENT, KEY)]
    return event


# -- sure ------------------------------------------------------------------------------------------


def test_the_first_in_order_takes_at_once_whatever_others_hint() -> None:
    node = Node()
    node.see(intent("$i", "evil", 1), 9.0)
    (event,) = node.pursue(wish(), now=10.0)
    assert isinstance(event, Take)
    assert (event.epoch, event.after, event.fresh, event.run) == (1, None, False, RUN)
    assert node.pursue(wish(), now=11.0) == [], "it waits for its echo"


def test_a_take_names_and_carries_the_head_on_which_it_stands() -> None:
    node = Node()
    node.see(take("$1", "b", epoch=4), 1.0)
    node.see(release("$2", "b", epoch=4), 2.0)
    (event,) = node.pursue(wish(), now=10.0)
    assert isinstance(event, Take)
    assert (event.epoch, event.after) == (5, "$2")
    assert event.head == replace(carried(KEY, head(4, "$2")), takes=1)


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_each_next_one_waits_longer_than_an_echo(rank: int) -> None:
    node = Node()
    assert node.pursue(wish(rank), now=10.0) == []
    assert node.contender.deadline() == 10.0 + rank * STAGGER_S
    assert node.pursue(wish(rank), now=9.99 + rank * STAGGER_S) == []
    (event,) = node.pursue(wish(rank), now=10.0 + rank * STAGGER_S)
    assert isinstance(event, Intent)


def test_whom_the_room_names_goes_at_once() -> None:
    node = Node()
    mine = hinted(node, 10.0)
    assert node.pursue(wish(1), now=10.1) == []
    node.contender.state_read(INTENT + KEY, mine, 10.2)
    (event,) = node.pursue(wish(1), now=10.2)
    assert isinstance(event, Take)


def test_who_is_not_named_stands_down_and_goes_on_if_no_lock_comes() -> None:
    node = Node()
    hinted(node, 10.0)
    other = intent("$i", "b", 1)
    node.see(other, 10.1)
    node.contender.state_read(INTENT + KEY, other, 10.2)
    assert node.pursue(wish(1), now=10.3) == []
    assert node.pursue(wish(1), now=11.6) == []
    (event,) = node.pursue(wish(1), now=11.7)
    assert isinstance(event, Take)


@pytest.mark.parametrize("found", [None, intent("$i", "b", 9)], ids=["nobody", "another epoch"])
def test_a_state_that_names_nobody_for_this_epoch_is_no_reason_to_wait(found: Intent | None) -> None:
    node = Node()
    hinted(node, 10.0)
    node.contender.state_read(INTENT + KEY, found, 10.2)
    assert isinstance(node.pursue(wish(1), now=10.2)[0], Take)


def test_who_sees_an_intent_before_its_turn_sends_none_but_waits_for_the_lock() -> None:
    node = Node()
    assert node.pursue(wish(1), now=10.0) == []
    node.see(intent("$i", "b", 1), 10.1)
    assert node.pursue(wish(1), now=10.5) == []
    node.see(take("$1", "b"), 10.8)
    assert node.pursue(wish(1), now=13.0) == [], "it is held now"


def test_who_waited_in_vain_goes_on() -> None:
    node = Node()
    node.pursue(wish(1), now=10.0)
    node.see(intent("$i", "b", 1), 10.1)
    node.pursue(wish(1), now=10.5)
    said = node.pursue(wish(1), now=10.5 + 1.0 + STAGGER_S)
    assert [type(event) for event in said] == [Take]


def test_a_new_head_begins_the_turns_anew() -> None:
    node = Node()
    node.pursue(wish(1), now=10.0)
    node.see(take("$1", "b"), 10.1)
    node.see(release("$2", "b"), 10.2)
    assert node.pursue(wish(1), now=10.5) == []
    assert node.pursue(wish(1), now=10.5 + STAGGER_S)


def test_a_held_key_is_waited_for_until_it_lapses() -> None:
    node = Node()
    node.see(take("$1", "b"), 10.0)
    assert node.pursue(wish(), now=12.0) == []
    lapse = 10.0 + LEASE_S * (1 + 2 * RHO)
    assert node.contender.deadline() == lapse
    (event,) = node.pursue(wish(), now=lapse)
    assert isinstance(event, Take)
    assert (event.epoch, event.after) == (2, "$1")


def test_a_run_that_is_in_a_slot_waits_for_that_slot_though_another_is_free() -> None:
    node = Node()
    node.see(take("$1", "b", slot=1), 10.0)
    assert node.pursue(wish(slots=2), now=12.0) == []
    other = replace(wish(slots=2), claim=replace(CLAIM, run=RunId("$b"), slots=2))
    (event,) = node.pursue(other, now=12.0)
    assert isinstance(event, Take)
    assert event.slot == 0


@pytest.mark.parametrize("failed", [True, False], ids=["given up", "echo never came"])
def test_a_take_that_is_lost_is_tried_again(failed: bool) -> None:
    node = Node()
    (event,) = node.pursue(wish(), now=10.0)
    assert isinstance(event, Take)
    if failed:
        node.contender.failed(event.nonce, 11.0)
        again = 11.0 + RETRY_S
    else:
        assert node.pursue(wish(), now=10.0 + ECHO_MAX_S) == []
        again = 10.0 + ECHO_MAX_S + RETRY_S
    assert node.pursue(wish(), now=again - 0.1) == []
    assert isinstance(node.pursue(wish(), now=again)[0], Take)


def test_what_is_no_longer_wished_for_is_dropped() -> None:
    node = Node()
    node.pursue(wish(3), now=10.0)
    assert node.pursue(now=10.1) == []
    assert node.contender.deadline() is None
    assert node.pursue(wish(3), now=20.0) == [], "its turn is counted from now"


def test_what_it_holds_and_what_an_ended_process_wishes_is_not_claimed() -> None:
    node = Node()
    (event,) = node.pursue(wish(), now=10.0)
    node.see(event, 10.1)  # type: ignore[arg-type]
    assert node.pursue(wish(), now=99.0) == []
    node.see(end("$e"), 100.0)
    assert node.pursue(wish(), now=200.0) == []


# -- unsure ----------------------------------------------------------------------------------------


def probed(node: Node, now: float = 10.0, rank: int = 0) -> Probe:
    """The node's probe, seen by itself."""
    (event,) = node.pursue(wish(rank), now=now)
    assert isinstance(event, Probe)
    node.see(event, now)
    return event


def test_unsure_it_probes_waits_reads_back_and_takes_afresh() -> None:
    node = Node(unsure=(KEY,))
    asked = probed(node)
    assert node.pursue(wish(), now=9.9 + QUIET_S) == []
    assert node.asks == []
    assert node.pursue(wish(), now=10.0 + QUIET_S) == []
    assert node.asks == [ReadBack(f"back {KEY}", KEY, 100)]
    now = 11.0 + QUIET_S
    (send,) = node.contender.back(KEY, Highest(7, 5), wish(), now)
    event = told(send, "a", "$f")
    assert isinstance(event, Take)
    assert (event.epoch, event.after, event.fresh, event.takes) == (8, asked.event_id, True, 5)
    assert event.head is None, "an unsure node has none to carry"
    facts, _ = node.keeper.observe(event, now + 1)
    assert [type(f) for f in facts] == [Won]


def test_all_unknown_keys_are_in_one_probe() -> None:
    many = tuple(ClaimKey(f"d/{n}") for n in range(KEYS_MAX + 3))
    node = Node(unsure=many)
    said = node.pursue(*(wish(key=key) for key in many), now=10.0)
    assert [len(event.keys) for event in said if isinstance(event, Probe)] == [KEYS_MAX, 3]
    assert node.pursue(*(wish(key=key) for key in many), now=10.1) == []


def test_a_probe_of_another_serves() -> None:
    node = Node(unsure=(KEY,))
    node.see(probe("$p", "b"), 9.0)
    assert node.pursue(wish(), now=10.0) == []
    node.pursue(wish(), now=9.0 + QUIET_S)
    assert [type(ask) for ask in node.asks] == [ReadBack]


def test_of_those_who_wait_for_one_probe_each_takes_in_turn() -> None:
    node = Node(unsure=(KEY,))
    node.see(probe("$p", "b"), 9.0)
    node.pursue(wish(2), now=9.0 + QUIET_S)
    assert node.asks == []
    node.pursue(wish(2), now=9.0 + QUIET_S + 2 * STAGGER_S)
    assert [type(ask) for ask in node.asks] == [ReadBack]


@pytest.mark.parametrize(
    "spoils",
    [beat("$s", "b", (KEY, 3)), take("$s", "b", after="$x"), release("$s", "b"), end("$s", "c")],
    ids=["heartbeat", "take", "release", "end"],
)
@pytest.mark.parametrize("when", ["waiting", "reading", "read"])
def test_a_spoilt_probe_is_asked_again(spoils: ClaimEvent, when: str) -> None:
    node = Node(unsure=(KEY,))
    probed(node)
    late = 10.0 + QUIET_S
    if when != "waiting":
        node.pursue(wish(), now=late)
        assert len(node.asks) == 1
    now = late + 1 if when != "waiting" else 20.0
    node.see(spoils, now)
    if when == "read":
        assert node.contender.back(KEY, Highest(7, 5), wish(), now) == [], "it would be void"
    asked = [e for n in range(295) for e in node.pursue(wish(), now=now + n / 10) if isinstance(e, Probe)]
    assert len(asked) == 1


def test_spoiling_on_and_on_makes_no_storm() -> None:
    node = Node(unsure=(KEY,))
    said = 0
    for n in range(600):
        for event in node.pursue(wish(), now=10.0 + n / 10):
            said += 1
            node.see(event, 10.0 + n / 10)  # type: ignore[arg-type]
        node.see(beat(f"$s{n}", "evil", (KEY, 3)), 10.0 + n / 10)
    assert said <= 60 / SPOILT_S + 1


def test_an_answer_makes_it_sure_and_it_goes_on_from_there() -> None:
    node = Node(unsure=(KEY,))
    asked = probed(node)
    node.see(beat("$2", "b", heads=(carried(KEY, head(3, asked.event_id)),)), 11.0)
    (event,) = node.pursue(wish(), now=11.0)
    assert isinstance(event, Take)
    assert (event.epoch, event.after, event.fresh) == (4, asked.event_id, False)


def test_a_probe_from_before_a_gap_is_none() -> None:
    node = Node(unsure=(KEY,))
    probed(node)
    node.keeper.gap((), 12.0)
    node.contender.gap()
    (again,) = node.pursue(wish(), now=13.0)
    assert isinstance(again, Probe)


@pytest.mark.parametrize("found", [None, Highest(EPOCH_MAX, 9)], ids=["not far enough", "none is left"])
def test_reading_back_in_vain_is_tried_again_but_not_at_once(found: Highest | None) -> None:
    node = Node(unsure=(KEY,))
    probed(node)
    late = 10.0 + QUIET_S
    node.pursue(wish(), now=late)
    assert node.contender.back(KEY, found, wish(), late + 1) == []
    node.pursue(wish(), now=late + BACK_RETRY_S)
    assert node.asks == []
    node.pursue(wish(), now=late + 1 + BACK_RETRY_S)
    assert [type(ask) for ask in node.asks] == [ReadBack]


def test_an_answer_that_nobody_waits_for_takes_nothing() -> None:
    node = Node(unsure=(KEY,))
    assert node.contender.back(KEY, Highest(3, 3), wish(), 10.0) == []
    probed(node)
    assert node.contender.back(KEY, Highest(3, 3), wish(), 10.0 + QUIET_S) == []
    assert node.contender.back(OTHER, Highest(3, 3), None, 10.0) == []


def test_a_lost_probe_is_sent_again() -> None:
    node = Node(unsure=(KEY,))
    (event,) = node.pursue(wish(), now=10.0)
    assert isinstance(event, Probe)
    node.contender.failed(event.nonce, 11.0)
    assert isinstance(node.pursue(wish(), now=11.0 + RETRY_S)[0], Probe)


# -- bounds ----------------------------------------------------------------------------------------


def test_hints_and_probes_of_others_are_kept_within_bounds() -> None:
    node = Node(unsure=tuple(ClaimKey(f"d/{n}") for n in range(NOTED_MAX + 500)))
    for n in range(NOTED_MAX + 500):
        key = ClaimKey(f"d/{n}")
        node.contender.observe(replace(intent(f"$i{n}", "evil", 1), key=key), 1.0)
        node.contender.observe(probe(f"$p{n}", "evil", key), 1.0)
    assert len(node.contender._intents) == NOTED_MAX
    assert len(node.contender._probes) == NOTED_MAX


def test_a_hint_that_lies_delays_each_turn_once() -> None:
    node = Node()
    node.see(intent("$i", "evil", 1), 9.0)
    now = 10.0
    said: list[RoomEvent] = []
    while not said and now < 20.0:
        node.see(intent(f"$i{now}", "evil", 1), now)
        said = node.pursue(wish(1), now=now)
        now += 0.1
    assert [type(event) for event in said] == [Take]
    assert now < 12.5

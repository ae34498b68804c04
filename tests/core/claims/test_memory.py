"""Public memory: one write after the other, `cas` never twice, and a void write leaves the truth standing."""

from __future__ import annotations

import pytest

from cisbot.core.claims.contend import BACK_RETRY_S
from cisbot.core.claims.keeper import RHO, Keeper
from cisbot.core.claims.ledger import Ledger
from cisbot.core.claims.memory import ECHO_MAX_S, QUEUE_MAX, TRIES_MAX, UNKNOWN, Memory
from cisbot.core.claims.state import Bounds, Head, carried
from cisbot.core.effects import Ask, ReadBack
from cisbot.core.ids import ClaimKey
from cisbot.core.inputs import MemoryAsk
from cisbot.core.room.events import ClaimEvent, JsonMap, MemoryWrite, Probe, Restate
from cisbot.core.room.past import Highest
from cisbot.core.room.wire import VALUE_BYTES_MAX
from tests.core.claims.made import MEMORY, beat, head, me, write
from tests.core.claims.sends import told

BOUNDS = Bounds(lease_s_max=60, epoch_step_max=100)
QUIET_S = BOUNDS.lease_s_max * (1 + 2 * RHO)


class Node:
    """One node's memory; its room is what the test feeds."""

    def __init__(self, known: Head | None = None, *, unsure: bool = False) -> None:
        self.ledger = Ledger(BOUNDS)
        self.ledger.load({MEMORY: known} if known else {}, [MEMORY] if unsure else [])
        self.keeper = Keeper(me("a"), self.ledger)
        self.memory = Memory(self.keeper)
        self.replies: list[JsonMap] = []
        self.asks: list[Ask] = []
        self._said = 0

    def ask(self, op: str, value: str | None = None, expected: str | None = None, now: float = 10.0) -> None:
        """A local caller asks."""
        self.memory.ask(MemoryAsk("tag", op, MEMORY, value, expected), now)

    def due(self, now: float) -> list[ClaimEvent]:
        """What it sends now."""
        sends, self.asks, replies = self.memory.due(now)
        self.replies += [reply.body for reply in replies]
        events: list[ClaimEvent] = []
        for send in sends:
            self._said += 1
            event = told(send, "a", f"$a{self._said}")
            assert isinstance(event, MemoryWrite | Probe)
            events.append(event)
        return events

    def see(self, event: ClaimEvent, now: float) -> None:
        """An event comes."""
        self.keeper.observe(event, now)
        self.memory.observe(event, now)

    def write(self, now: float) -> MemoryWrite:
        """The one write that it sends now."""
        (event,) = self.due(now)
        assert isinstance(event, MemoryWrite)
        return event

    def probe(self, now: float) -> Probe:
        """The one probe that it sends now, seen by itself."""
        (event,) = self.due(now)
        assert isinstance(event, Probe)
        self.see(event, now)
        return event


OLD = head(2, "$2", value="old")


@pytest.mark.parametrize(
    ("known", "value", "version"), [(None, None, 0), (OLD, "old", 2)], ids=["never written", "written"]
)
def test_a_read_is_of_the_own_fold(known: Head | None, value: str | None, version: int) -> None:
    node = Node(known)
    node.ask("get")
    assert node.due(10.0) == []
    assert node.replies == [{"ok": True, "value": value, "version": version}]


def test_a_write_names_and_carries_the_last_one_and_counts_when_its_echo_is_accepted() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    event = node.write(10.0)
    assert (event.version, event.after, event.value, event.fresh) == (3, "$2", "new", False)
    assert event.head == carried(MEMORY, OLD)
    assert node.replies == []
    node.see(event, 11.0)
    node.due(11.0)
    assert node.replies == [{"ok": True, "value": "new", "version": 3}]


def test_set_tries_again_when_another_came_first() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    event = node.write(10.0)
    node.see(write("$3", "b", version=3, after="$2", value="other"), 10.5)
    node.see(event, 11.0)
    again = node.write(15.0)
    assert (again.version, again.after, again.value) == (4, "$3", "new")
    node.see(again, 16.0)
    node.due(16.0)
    assert node.replies == [{"ok": True, "value": "new", "version": 4}]


@pytest.mark.parametrize(
    ("known", "expected", "writes"),
    [(OLD, "old", True), (OLD, "older", False), (OLD, None, False), (None, None, True), (None, "x", False)],
)
def test_cas_writes_only_where_the_value_is_the_expected_one(
    known: Head | None, expected: str | None, writes: bool
) -> None:
    node = Node(known)
    node.ask("cas", "new", expected)
    assert bool(node.due(10.0)) is writes
    if not writes:
        value = known.value if known else None
        assert node.replies == [{"ok": False, "value": value, "error": "the value is another one"}]


def test_cas_fails_when_another_came_first() -> None:
    node = Node(OLD)
    node.ask("cas", "new", "old")
    event = node.write(10.0)
    node.see(write("$3", "b", version=3, after="$2", value="old"), 10.5)
    node.see(event, 11.0)
    assert node.due(99.0) == []
    assert node.replies == [{"ok": False, "error": "another write came first"}]


def test_cas_never_writes_again_after_a_gap_that_may_hide_its_success() -> None:
    node = Node(OLD)
    node.ask("cas", "new", "old")
    node.write(10.0)
    node.keeper.gap((), 11.0)
    asked = node.probe(10.0 + ECHO_MAX_S)
    node.see(beat("$9", "b", heads=(carried(MEMORY, head(2, asked.event_id, value="old")),)), 42.0)
    assert node.due(43.0) == []
    assert node.replies == [{"ok": False, "error": UNKNOWN}]


def test_an_early_write_whose_echo_comes_late_is_the_success() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    first = node.write(10.0)
    second = node.write(10.0 + ECHO_MAX_S)
    node.see(first, 41.0)
    node.see(second, 42.0)
    assert node.due(43.0) == []
    assert node.replies == [{"ok": True, "value": "new", "version": 3}]


def test_a_send_that_is_given_up_is_tried_again_soon() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    event = node.write(10.0)
    node.memory.failed(event.nonce, 11.0)
    assert node.due(11.5) == []
    assert node.write(12.0).version == 3


def test_it_gives_up_in_the_end() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    sent, now = 0, 10.0
    while not node.replies:
        sent += len(node.due(now))
        now += ECHO_MAX_S
    assert sent == TRIES_MAX
    assert node.replies == [{"ok": False, "error": "the room can't be reached; try again later"}]


def test_requests_of_a_key_go_one_after_the_other() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    node.ask("get")
    event = node.write(10.0)
    assert node.replies == []
    node.see(event, 11.0)
    node.due(11.0)
    assert [(r["value"], r["version"]) for r in node.replies] == [("new", 3), ("new", 3)]
    assert node.memory.deadline() is None


def test_what_waits_and_what_is_written_is_bounded() -> None:
    node = Node(OLD)
    for _ in range(QUEUE_MAX + 1):
        node.ask("get")
    node.ask("set", "é" * (VALUE_BYTES_MAX // 2 + 1))
    node.due(10.0)
    refused = [str(r["error"]) for r in node.replies if not r["ok"]]
    assert len(refused) == 2
    assert refused[1] == f"value: over {VALUE_BYTES_MAX} bytes"


def test_who_withdraws_is_not_answered() -> None:
    node = Node(OLD)
    node.ask("set", "new")
    node.memory.withdraw({"tag"})
    assert node.due(10.0) == []
    assert node.replies == []


# -- unsure ----------------------------------------------------------------------------------------


def test_an_unsure_key_is_probed_and_read_when_somebody_tells() -> None:
    node = Node(unsure=True)
    node.ask("get")
    asked = node.probe(10.0)
    assert node.due(11.0) == []
    node.see(beat("$9", "b", heads=(carried(MEMORY, head(5, asked.event_id, value="v")),)), 12.0)
    node.due(12.0)
    assert node.replies == [{"ok": True, "value": "v", "version": 5}]


def quiet(node: Node, op: str) -> tuple[Probe, float]:
    """Nobody answers the probe of such a request."""
    node.ask(op, "new", "old")
    asked = node.probe(10.0)
    assert node.due(9.9 + QUIET_S) == []
    now = 10.0 + QUIET_S
    node.due(now)
    assert node.asks == [ReadBack(f"back {MEMORY}", MEMORY, 100)]
    return asked, now


def test_what_nobody_knows_is_written_afresh() -> None:
    node = Node(unsure=True)
    asked, now = quiet(node, "set")
    node.memory.back(MEMORY, Highest(7, 6), now + 1)
    event = node.write(now + 1)
    assert (event.version, event.after, event.fresh, event.takes) == (8, asked.event_id, True, 6)
    node.see(event, now + 2)
    node.due(now + 2)
    assert node.replies == [{"ok": True, "value": "new", "version": 8}]


def test_cas_compares_with_nothing_that_nobody_knows() -> None:
    node = Node(unsure=True)
    _, now = quiet(node, "cas")
    node.memory.back(MEMORY, Highest(7, 6), now + 1)
    for n in range(3):
        assert node.due(now + 1 + n * ECHO_MAX_S) == []
    assert [r["ok"] for r in node.replies] == [False]


def test_reading_back_in_vain_is_tried_again_but_not_at_once() -> None:
    node = Node(unsure=True)
    _, now = quiet(node, "set")
    node.memory.back(MEMORY, None, now + 1)
    assert node.due(now + BACK_RETRY_S) == []
    assert node.asks == []
    node.due(now + 1 + BACK_RETRY_S)
    assert [type(ask) for ask in node.asks] == [ReadBack]


def test_a_spoilt_probe_is_asked_again() -> None:
    node = Node(unsure=True)
    _, now = quiet(node, "set")
    node.see(write("$s", "b", version=8, after="$x"), now + 1)
    node.memory.back(MEMORY, Highest(8, 7), now + 2)
    later = now + 2 + ECHO_MAX_S
    assert isinstance(node.due(later)[0], Probe)


# -- the state -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("sender", "at_once"), [("a", True), ("b", False)])
def test_who_sent_a_void_write_restores_the_value_or_else_another(sender: str, at_once: bool) -> None:
    node = Node(OLD)
    node.see(write("$3", sender, version=3, after="$1", value="void"), 10.0)
    assert bool(node.keeper.due(10.0)[1]) is at_once
    node = Node(OLD)
    node.see(write("$3", sender, version=3, after="$1", value="void"), 10.0)
    (send,) = node.keeper.due(20.0)[1]
    event = told(send, "a", "$4")
    assert isinstance(event, Restate)
    assert (event.key, event.head.value, event.head.epoch) == (ClaimKey("memory:m"), "old", 2)
    assert send.content["value"] == "old", "for those who read only the state"

"""What goes wrong with deadlines: from the wrong moment, by the wrong clock, of the wrong process."""

from __future__ import annotations

from cisbot.core.room import events as ev
from tests.sim.scenarios.telling import story
from tests.sim.scenarios.test_holding import held
from tests.sim.script import HEARTBEAT, TAKE, Story, core, key_of, sure

WHILE = "is granted .* while|two at once"


@story(nodes=2, without={"self_fence": WHILE})
def test_who_can_not_renew_stops_before_it_is_replaced(story: Story) -> None:
    """None of node-1's renewals arrives: its tasks are dead before node-2 takes over."""
    run, one, two = held(story)
    story.lose_all(one, HEARTBEAT)
    story.owes("node-2 takes over", lambda: story.runs(run, two), within=9.0)
    story.owes("node-1's tasks are dead", lambda: not story.runs(run, one))
    story.ends()


@story(nodes=2, without={"deadline_before_send": WHILE})
def test_a_deadline_counts_from_before_the_take_was_sent(story: Story) -> None:
    """node-1 hears of its own win 4 s late: its lease began when it asked, as it did for node-2."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 60.0
    sent = story.hold(one, TAKE)
    story.deaf(two)
    run = story.publish("again")
    story.until("node-1 has sent its take", lambda: sent.send)
    story.deaf(one)
    story.hears(two)
    story.arrives(sent)
    story.lose_all(one, HEARTBEAT)
    story.passes(4.0)
    story.hears(one)
    story.until("node-1 runs it", lambda: story.runs(run, one), within=1.0)
    story.owes("node-2 takes over", lambda: story.runs(run, two), within=4.0)
    story.ends()


@story(nodes=2, without={"boot_clock": WHILE})
def test_a_machine_that_slept_knows_how_long(story: Story) -> None:
    """node-1's machine sleeps for longer than its lease, and wakes up while node-2 runs what it ran."""
    run, one, two = held(story)
    one.suspend(9.0)
    story.owes("node-2 takes over", lambda: story.runs(run, two), within=8.0)
    story.passes(3.0)
    story.owes("node-1 runs nothing any more", lambda: not story.runs(run, one))
    story.ends()


@story(nodes=2, without={"heartbeats_move_after": WHILE})
def test_a_take_that_was_sent_before_a_renewal_is_void_after_it(story: Story) -> None:
    """node-2 heard nothing for a lease and wants the key, though node-1 has renewed it all the time."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 60.0
    run = story.publish("again", on=one)
    story.until("node-1 runs it", lambda: story.runs(run, one))
    following = story.publish("again", on=two)
    story.passes(0.5)
    story.deaf(two)
    story.until("node-2 believes that node-1 is gone", lambda: story.seen(ev.Take, two), within=14.0)
    story.hears(two)
    story.passes(1.0)
    story.owes("node-1 goes on", lambda: story.runs(run, one) and not story.begun(following))
    story.ends()


@story(nodes=3, lease_s=12, without={"clocks_anew": WHILE})
def test_who_has_become_sure_counts_the_lease_from_then(story: Story) -> None:
    """After a gap node-2 learns from node-3 who holds the key: it waits a whole lease for that node."""
    run, one, two = held(story)
    three = story.machines[2]
    story.deaf(two)
    story.says()
    story.says()
    one.pause(30.0)
    story.hears(two, only=1)
    story.until("node-2 has a gap", lambda: core(two).ledger.is_unsure(key_of("again")))
    story.stranger_asks("again")
    story.until("node-3 has answered", lambda: sure(two, "again") is not None, within=7.0)
    story.owes("somebody takes over", lambda: story.runs(run, two) or story.runs(run, three), within=15.0)
    story.ends()


@story(nodes=2, without={"incarnation": "whose claim is void"})
def test_a_process_does_not_win_by_what_the_one_before_it_sent(story: Story) -> None:
    """node-1 is killed while its take is on its way. Its next process sees it accepted: not its own."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 5.0
    sent = story.hold(one, TAKE)
    story.deaf(two)
    run = story.publish("again")
    story.until("node-1 has sent its take", lambda: sent.send)
    story.crash(one)
    one.start()
    story.arrives(sent)
    story.until("node-1 has heard that it was accepted", lambda: core(one).board.runs[run].epoch == 1)
    story.owes("it is ended, and taken anew", lambda: story.runs(run, one), within=3.0)
    story.owes("under another epoch", lambda: {a.epoch for a in story.begun(run)} == {2})
    story.ends()


@story(nodes=3, without={"spoilt_probe": "is sure of again"})
def test_a_fresh_take_whose_probe_was_spoilt_makes_nobody_sure(story: Story) -> None:
    """Just before node-1's fresh take arrives somebody asks, so it is void. node-3 saw only the take."""
    one, two, three = story.machines
    story.start(one, two)
    first = story.publish("again", on=one)
    story.until("a run is done", lambda: story.over(first))
    story.passes(2.0)
    for machine in (one, two):
        story.crash(machine, database=False)
    one.start()
    story.passes(1.0)
    run = story.publish("again", on=one)
    sent = story.hold(one, TAKE)
    story.until("node-1 takes afresh", lambda: sent.send and sent.send.content["fresh"])
    story.stranger_asks("again")
    three.start()
    story.passes(0.3)
    story.arrives(sent)
    story.passes(1.0)
    story.owes("node-3 judges nothing", lambda: sure(three, "again") is None)
    story.owes("node-1 did not win", lambda: not story.begun(run))
    story.ends()

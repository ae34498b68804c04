"""What goes wrong when somebody missed events and judges all the same."""

from __future__ import annotations

from cisbot.core.room import events as ev
from tests.sim.scenarios.telling import story
from tests.sim.script import HEARTBEAT, TAKE, Story, core, key_of, sure


@story(nodes=2, without={"gap_rule": "sure of again"})
def test_a_node_after_a_gap_accepts_itself_while_all_complete_folds_call_it_void(story: Story) -> None:
    """node-1's take stays on its way; node-2 takes meanwhile, and node-1 misses just that."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 20.0
    late = story.hold(one, TAKE)
    story.deaf(two)
    run = story.publish("again")
    story.until("node-1 has sent its take", lambda: late.send)
    story.deaf(one)
    story.hears(two)
    story.until("node-2 runs it", lambda: story.runs(run, two))
    story.arrives(late)
    story.passes(0.2)
    story.hears(one, only=1)  # nothing but its own take, which is void
    story.passes(1.0)
    story.owes("node-1 runs nothing", lambda: not story.begun(run, one))
    story.owes("node-2 goes on", lambda: story.runs(run, two))
    story.ends()


@story(nodes=3, without={"unsure_heads": "is sure of again"})
def test_a_head_guessed_by_an_unsure_sender_makes_others_sure_of_nonsense(story: Story) -> None:
    """node-1 missed node-3's take. node-2 joins and asks; node-3 can't answer, node-1 must not guess."""
    one, two, three = story.machines
    story.start(one, three)
    first = story.publish("again", on=one)
    story.until("a run is done", lambda: story.over(first))
    story.passes(2.0)
    story.deaf(one)
    story.task_s = 20.0
    lost = story.publish("again", on=three)
    story.until("node-3 runs one", lambda: story.runs(lost, three))
    story.says()
    story.hears(one, only=1)
    story.until("node-1 has a gap", lambda: core(one).ledger.is_unsure(key_of("again")))
    three.pause(4.0)
    two.start()
    run = story.publish("again", on=two)
    story.until("node-2 asks", lambda: story.seen(ev.Probe, two))
    story.passes(2.5)
    story.owes("nobody makes node-2 sure", lambda: sure(two, "again") is None)
    story.owes("node-2 waits", lambda: not story.begun(run))
    story.ends()


@story(nodes=3, lease_s=20, without={"an unseen win is given back": "node-1 gives it back"})
def test_an_own_win_is_missed_in_a_gap(story: Story) -> None:
    """node-1 misses that its take was accepted. It hears from node-2 that it holds what it never won."""
    one, two, three = story.machines
    story.start(one, two)
    first = story.publish("again", on=two)
    story.until("a run is done", lambda: story.over(first))
    story.passes(2.0)
    sent = story.hold(one, TAKE)
    run = story.publish("again", on=one)
    story.until("node-1 has sent its take", lambda: sent.send)
    story.deaf(one)
    story.arrives(sent)
    story.until("it is accepted", lambda: story.truth("again")[2])
    place = len(story.server.stream)
    story.says()
    story.hears(one, only=1)
    story.until("node-1 has a gap", lambda: core(one).ledger.is_unsure(key_of("again")))
    three.start()
    story.passes(0.5)
    story.publish("again", on=three)
    story.until("node-3 asks", lambda: story.seen(ev.Probe, three))
    story.owes("node-1 gives it back", lambda: story.given_back(one, place), within=8.0)
    story.owes("the run is done, without waiting for the lease", lambda: story.over(run), within=2.0)
    story.ends()
    story.owes("it was begun once", lambda: len(story.begun(run)) == 1)


@story(nodes=3, lease_s=20, without={"gap_rule": "node-2 is sure of again"})
def test_an_end_is_missed_in_a_gap(story: Story) -> None:
    """node-1 dies, and its next process says so. node-2 misses that: node-1 is not the holder any more."""
    one, two, three = story.machines
    story.start(one, two, three)
    story.task_s = 20.0
    lost = story.publish("again", on=one)
    story.until("node-1 runs it", lambda: story.runs(lost, one))
    story.deaf(two)
    story.crash(one)
    one.start()
    story.until("node-1's end is said", lambda: story.seen(ev.End, one))
    story.crash(one)
    story.says()
    story.hears(two, only=1)
    story.until("node-2 has a gap", lambda: core(two).ledger.gaps > 1)
    run = story.publish("again", on=two)
    story.owes("node-2 does not wait for the dead", lambda: story.begun(run, two), within=8.0)
    story.ends()


@story(nodes=3, without={"ends are kept for unsure keys": "node-2 is sure of again|whose claim is void"})
def test_an_end_is_heard_while_unsure(story: Story) -> None:
    """node-3 answers node-2's probe before it heard that node-1 is over; its answer comes after that end."""
    one, two, three = story.machines
    story.start(one, two, three)
    story.task_s = 20.0
    lost = story.publish("again", on=one)
    story.until("node-1 runs it", lambda: story.runs(lost, one))
    story.crash(one)
    story.deaf(two)
    story.says()
    story.says()
    story.hears(two, only=1)
    story.until("node-2 has a gap", lambda: core(two).ledger.gaps > 1)
    answer = story.hold(three, HEARTBEAT)
    run = story.publish("again", on=two)
    story.until("node-3 answers node-2's probe", lambda: answer.send)
    one.start()
    story.until("node-1's end is said", lambda: story.seen(ev.End, one))
    story.crash(one)
    story.arrives(answer)
    story.owes("node-2 runs its own", lambda: story.begun(run, two), within=1.0)
    story.ends()

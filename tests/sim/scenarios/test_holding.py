"""What goes wrong with what is held: renewed by what is no renewal, freed too early or not at all."""

from __future__ import annotations

from cisbot.core.ids import RunId
from cisbot.core.room import events as ev
from tests.sim.machine import Machine
from tests.sim.scenarios.switches import SHORT_S
from tests.sim.scenarios.telling import story
from tests.sim.script import RELEASE, TAKE, Story


def held(story: Story, dag: str = "again") -> tuple[RunId, Machine, Machine]:
    """node-1 runs something long, and node-2 looks on."""
    one, two = story.machines[:2]
    story.start(*story.machines)
    story.task_s = 60.0
    for other in story.others(one):
        story.deaf(other)
    run = story.publish(dag)
    story.until("node-1 runs it", lambda: story.runs(run, one))
    for other in story.others(one):
        story.hears(other)
    return run, one, two


@story(
    nodes=2,
    without={"an end of one's own is obeyed": "node-2 is granted .* while|its tasks are dead at once"},
)
def test_an_end_that_was_armed_fires_early(story: Story) -> None:
    """The homeserver ends a node that lives: its tasks die at once, and the run is taken up anew."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 60.0
    run = story.publish("again")
    story.until("somebody runs it", lambda: story.runs(run))
    first = story.runner(run)
    (second,) = story.others(first)
    story.passes(1.0)
    story.deaf(second)  # else it is a matter of milliseconds, and the deadline's affair
    story.fires_end(first)
    story.owes("its tasks are dead at once", lambda: not story.runs(run), within=0.2)
    story.hears(second)
    story.owes("another takes it up", lambda: story.runs(run, second), within=3.0)
    story.ends()


@story(nodes=2, without={"a release names no head": "node-2 runs the next"})
def test_a_release_is_not_void_because_of_a_strangers_request(story: Story) -> None:
    """A stranger's question and take arrive just before node-1's release: the key is free all the same."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 1.0
    run = story.publish("again", on=one)
    story.until("node-1 runs it", lambda: story.runs(run, one))
    late = story.hold(one, RELEASE)
    story.until("it is done", lambda: late.send)
    story.stranger_asks("again")
    story.stranger_takes("again")
    story.arrives(late)
    story.passes(0.2)
    following = story.publish("again", on=two)
    story.owes("node-2 runs the next", lambda: story.begun(following, two), within=1.0)
    story.ends()


@story(nodes=2, lease_s=20, without={"a restatement is no sign of life": "node-2 takes over"})
def test_a_restatement_is_not_taken_for_a_renewal(story: Story) -> None:
    """node-1 is dead, and node-2 mends what a stranger did to the state: no sign of life of node-1."""
    run, one, two = held(story)
    heard = story.now
    story.crash(one)
    story.passes(8.0)
    story.stranger_takes("again")
    story.until("the truth is said again", lambda: story.seen(ev.Restate, two), within=10.0)
    story.owes("node-2 takes over", lambda: story.runs(run, two), within=heard + 20 * 1.02 + 1.0 - story.now)
    story.ends()


@story(nodes=3, without={"a restatement moves nothing": "one request was enough"})
def test_a_restatement_does_not_block_the_others(story: Story) -> None:
    """While node-2's take is on its way, node-3 mends what a stranger did to the state: the take holds."""
    one, two, three = story.machines
    story.start(one, two, three)
    first = story.publish("again", on=three)
    story.until("a run is done", lambda: story.over(first))
    story.passes(2.0)
    story.stranger_takes("again")
    story.passes(0.2)
    run = story.publish("again", on=two)
    sent = story.hold(two, TAKE)
    story.until("node-2 has sent its take", lambda: sent.send)
    story.until("the truth is said again", lambda: story.seen(ev.Restate))
    story.arrives(sent)
    story.owes("node-2 runs it", lambda: story.begun(run, two), within=0.3)
    story.owes("one request was enough", lambda: len(story.seen(ev.Take, two)) == 1)
    story.ends()


@story(nodes=2, lease_s=9, without={"the lease is the lock's": "node-2 is granted .* while"})
def test_the_lease_is_the_locks_and_not_the_observers(story: Story) -> None:
    """node-2 is configured for 3 s. node-1 took 9 s and is stopped, its tasks are not: node-2 waits 9 s."""
    story.machines[1].lease_s = SHORT_S
    run, one, two = held(story)
    begun = story.now
    one.pause(20.0)
    story.owes("node-2 takes over", lambda: story.runs(run, two), within=12.0)
    story.owes("not before node-1's lease was over", lambda: story.now - begun > 9 - 0.1)
    story.ends()

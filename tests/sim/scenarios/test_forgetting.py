"""What goes wrong when nobody is left who knows: of a run that is done, of a value that was written."""

from __future__ import annotations

from tests.sim.machine import Machine
from tests.sim.scenarios.telling import story
from tests.sim.script import MEMORY, Story


@story(nodes=2, without={"look first": "though the room told|not begun again"})
def test_a_finished_run_is_not_executed_again_because_nobody_left_knows(story: Story) -> None:
    """Two runs are done, then all databases are lost: the state names the second run only."""
    one, two = story.machines
    story.start(one, two)
    runs = [story.publish("again")]
    story.lose_all(one, "m.room.message")  # what it tells people of the end is not what counts
    story.lose_all(two, "m.room.message")
    story.until("the first is done", lambda: story.over(runs[0]))
    runs.append(story.publish("again"))
    story.until("the second is done", lambda: story.over(runs[1]))
    story.passes(12.0)
    for machine in (one, two):
        story.crash(machine, database=False)
    for machine in (one, two):
        machine.start()
    third = story.publish("again")
    story.owes("a third run is done", lambda: story.over(third), within=20.0)
    story.owes("the others are not begun again", lambda: all(len(story.begun(run)) == 1 for run in runs))
    story.ends()


@story(nodes=3, without={"joiners believe no state": "node-3 is sure of memory:note"})
def test_joiners_do_not_take_a_void_write_for_the_value(story: Story) -> None:
    """Two write at once and the state names the void write. node-3 joins just then, and must ask."""
    one, two, three = story.machines
    torn(story, one, two)
    three.start()
    story.passes(0.2)
    answer = story.reads(three)
    story.until("node-3 has an answer", lambda: answer.value is not None, within=10.0)
    story.owes("it is the value", lambda: answer.value == "one")
    story.ends()


@story(nodes=2, without={"who sees the state wrong restates": "the state tells the truth"})
def test_a_void_write_is_mended_in_the_state(story: Story) -> None:
    """Two write at once and the state names the void write: somebody sure restores the value."""
    one, two = story.machines
    torn(story, one, two)
    story.owes("the state tells the truth", lambda: story.stated() == "one", within=10.0)
    story.ends()


def torn(story: Story, one: Machine, two: Machine) -> None:
    """node-1's write is accepted; node-2's, sent at the same time, is void, and the state names it."""
    story.start(one, two)
    late = story.hold(two, MEMORY)
    story.writes(two, "two")
    story.until("node-2 has sent its write", lambda: late.send)
    story.deaf(two)
    story.writes(one, "one")
    story.until("node-1's is accepted", lambda: story.stated())
    story.passes(0.2)
    story.arrives(late)
    story.until("the state names node-2's", lambda: story.stated() == "two")

"""What goes wrong between those who want the same key."""

from __future__ import annotations

from cisbot.core.room import events as ev
from tests.sim.scenarios.telling import story
from tests.sim.script import TAKE, Story
from tests.sim.violation import Violation


def forgetful(story: Story) -> None:
    """A run of epoch 1 is done, and both nodes lose what they know of that."""
    one, two = story.machines
    story.start(one, two)
    first = story.publish("again", on=one)
    story.until("a run is done", lambda: story.over(first))
    story.passes(2.0)
    for machine in (one, two):
        story.crash(machine, database=False)
        machine.start()
    story.passes(3.0)


@story(nodes=2, without={"after": "is granted .* while|two at once|epochs of"})
def test_two_nodes_both_jump_from_the_same_old_epoch(story: Story) -> None:
    """Nobody is sure of the key; both asked, both waited, and both take: the second take is void."""
    forgetful(story)
    one, two = story.machines
    story.task_s = 20.0
    run = story.publish("again")
    story.until("somebody asks", lambda: story.seen(ev.Probe))
    held = {machine.name: story.hold(machine, TAKE) for machine in (one, two)}
    story.until("one takes afresh", lambda: any(fate.send for fate in held.values()))
    first = next(machine for machine in (one, two) if held[machine.name].send)
    (second,) = story.others(first)
    story.deaf(second)
    story.arrives(held[first.name])
    story.until("it is accepted and runs", lambda: story.runs(run, first))
    story.until("the other takes afresh too", lambda: held[second.name].send)
    story.arrives(held[second.name])
    story.passes(0.3)
    story.hears(second)
    story.passes(1.0)
    story.owes("only the first runs it", lambda: story.runs(run, first) and not story.begun(run, second))
    story.ends()


@story(nodes=2, without={"read_back": "is sure of again|epochs of|stuck"})
def test_a_fresh_take_is_above_every_epoch_that_was(story: Story) -> None:
    """Nobody is sure of the key; who takes it afresh reads back first how far its epochs had got."""
    forgetful(story)
    run = story.publish("again")
    story.until("somebody takes afresh", lambda: any(take.fresh for take in takes(story)))
    story.owes("it runs", lambda: story.begun(run), within=1.0)
    story.owes("its epoch is 2", lambda: {a.epoch for a in story.begun(run)} == {2})
    story.ends()


@story(nodes=3, lease_s=20, without={"patience with a winner ends": "the last runs it"})
def test_a_winner_by_intent_dies_before_its_lock(story: Story) -> None:
    """The first in order is dead; the next asks, the last stands back for it, and it dies before it takes."""
    story.start(*story.machines)
    held = {machine.name: story.hold(machine, TAKE) for machine in story.machines}
    run = story.publish("again")
    story.until("the first takes", lambda: any(fate.send for fate in held.values()))
    first = next(machine for machine in story.machines if held[machine.name].send)
    story.crash(first)
    for machine in story.machines:
        story.restored(machine)
    story.until("the next asks for it", lambda: story.seen(ev.Intent))
    winner = next(m for m in story.machines if story.seen(ev.Intent, m))
    (last,) = story.others(first, winner)
    story.crash(winner)
    story.until("the last has heard that it stands back", lambda: last.place == len(story.server.stream))
    story.owes("the last runs it, in a few echo times", lambda: story.begun(run, last), within=6.0)
    story.ends()


def takes(story: Story) -> list[ev.Take]:
    """All lock requests."""
    return [event for event in story.seen(ev.Take) if isinstance(event, ev.Take)]


@story(nodes=2, without={"one key for the global scope": "never at once"})
def test_a_warm_global_worker_and_a_run_key_in_deadlock(story: Story) -> None:
    """Runs of two DAGs want the one global worker, crosswise: under one key none waits for the other."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 1.0
    runs = [
        story.publish("one", on=one),
        story.publish("two", on=two),
        story.publish("two", on=one),
        story.publish("one", on=two),
    ]
    for _ in range(100):
        story.passes(0.1)
        living = [run for run in runs if story.runs(run)]
        if len(living) > 1:
            raise Violation(f"{living} run in the global scope: never at once")
    story.owes("all are done", lambda: all(story.over(run) for run in runs), within=20.0)
    fences = [a.epoch for a, _ in sorted(story.checkers.attempts, key=lambda pair: pair[0].began)]
    story.owes("their fences can be compared", lambda: fences == sorted(set(fences)))
    story.ends()

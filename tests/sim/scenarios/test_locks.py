"""What goes wrong with named locks, and with keys that several runs may hold."""

from __future__ import annotations

from cisbot.core.ids import RunId
from cisbot.core.room import events as ev
from cisbot.core.room.events import Outcome
from cisbot.core.scopes import is_lock, lock_key
from tests.sim.machine import Machine
from tests.sim.scenarios.telling import story
from tests.sim.scenarios.test_holding import held
from tests.sim.script import TAKE, Story, core


def taken(machine: Machine, lock: str) -> bool:
    """Whether the machine knows somebody who holds the lock."""
    head = core(machine).ledger.sure(lock_key(lock))
    return head is None or bool(head.holders)


def at_once(story: Story, runs: list[RunId]) -> int:
    """How many of them run now."""
    return sum(bool(story.runs(run)) for run in runs)


@story(nodes=2, without={"all_locks": "two at once under"})
def test_two_runs_whose_dags_name_the_same_locks_in_opposite_order(story: Story) -> None:
    """Both are published at once, each for a node of its own: one after the other they are done."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 1.0
    runs = [story.publish("right", on=one), story.publish("left", on=two), story.publish("both", on=two)]
    story.owes("all are done", lambda: all(story.over(run) for run in runs), within=30.0)
    story.owes(
        "the locks are free", lambda: not any(core(m).keeper.holds for m in story.machines), within=2.0
    )
    story.ends()


@story(nodes=2, without={"lock_order": "not so: both are done|stuck"})
def test_two_runs_take_the_first_of_two_locks_at_the_same_moment(story: Story) -> None:
    """Their requests cross. Who sees the other with what it lacks lets go; who came first goes on."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 1.0
    for number in range(6):  # in one of two orders, if there is no fixed one
        requests = [story.hold(machine, TAKE) for machine in (one, two)]
        runs = [story.publish("right", on=one), story.publish("both", on=two)]
        story.until("both ask", lambda r=requests: all(fate.send for fate in r))  # type: ignore[misc]
        for fate in requests:
            story.arrives(fate)
        story.owes(f"both are done ({number})", lambda r=runs: all(map(story.over, r)), within=40.0)  # type: ignore[misc]
    story.ends()


@story(nodes=2)
def test_the_holder_of_a_lock_dies_before_it_has_the_runs_own_key(story: Story) -> None:
    """node-1 has both locks and asks for the key; it dies. When its lease is over node-2 takes all three."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 1.0
    story.deaf(two)
    run = story.publish("left")
    story.until("node-1 has both locks", lambda: len(core(one).keeper.holds) == 2)
    begun = story.now
    story.crash(one)
    story.hears(two)
    story.until("node-2 has heard of it", lambda: two.place == len(story.server.stream), within=1.0)
    asked = len(story.seen(ev.Take, two))
    story.passes(4.0)
    story.owes("it does not ask for what is held", lambda: len(story.seen(ev.Take, two)) == asked)
    story.owes("node-2 runs it", lambda: story.begun(run, two), within=begun + 6 * 1.02 + 4.0 - story.now)
    story.ends()


@story(nodes=2, without={"lock_lost": "its tasks are dead at once|is granted .* while"})
def test_a_lock_is_lost_while_tasks_run(story: Story) -> None:
    """They are dead at once, and only then the run's own key is given back, as lost; the run is run again."""
    run, one, two = held(story, "left")
    story.deaf(two)
    since = len(story.server.stream)
    story.gives_back(one, "middle")
    story.owes("its tasks are dead at once", lambda: not story.runs(run, one), within=0.3)
    story.until("its key is given back", lambda: len(story.seen(ev.Release, one, since)) >= 3, within=1.0)
    told = [e for e in story.seen(ev.Release, one, since) if isinstance(e, ev.Release) and e.outcome]
    story.owes("it says that it is lost", lambda: [e.outcome for e in told] == [Outcome.LOST])
    story.owes("under the run's own key", lambda: not any(is_lock(e.key) for e in told))
    story.task_s = 0.3
    story.hears(two)
    story.owes("it runs again", lambda: story.over(run), within=20.0)
    story.ends()


@story(nodes=2)
def test_who_was_cut_off_gives_its_locks_back(story: Story) -> None:
    """node-1 can't renew: its tasks are dead at its deadline, and in the end nobody holds the locks."""
    run, one, two = held(story, "left")
    story.deaf(two)
    story.deaf(one)
    story.until("its tasks are fenced", lambda: not story.runs(run, one), within=10.0)
    story.hears(one)
    story.hears(two)
    story.task_s = 0.3
    story.owes("it is done", lambda: story.over(run), within=30.0)
    story.owes("nobody holds a lock", lambda: not taken(two, "left") and not taken(two, "middle"), within=2.0)
    story.ends()


@story(nodes=3)
def test_a_slot_is_freed_by_a_crash(story: Story) -> None:
    """Two of three runs go on. One's node dies: its run is taken up in its slot, and the third waits on."""
    story.start(*story.machines)
    story.task_s = 8.0
    runs = [story.publish("pair") for _ in range(3)]
    story.until("two run", lambda: at_once(story, runs) == 2)
    story.passes(2.0)
    story.owes("the third waits", lambda: at_once(story, runs) == 2)
    first = next(run for run in runs if story.runs(run))
    dead = story.runner(first)
    story.crash(dead)
    story.owes(
        "it is run again elsewhere",
        lambda: any(story.runs(first, machine) for machine in story.others(dead)),
        within=6 * 1.02 + 3.0,
    )
    story.owes("all are done", lambda: all(story.over(run) for run in runs), within=60.0)
    story.ends()


@story(nodes=1)
def test_one_node_holds_two_slots_of_a_key(story: Story) -> None:
    """Both are renewed by one heartbeat, and each is given back by itself."""
    (one,) = story.machines
    story.start(one)
    story.task_s = 15.0
    runs = [story.publish("pair") for _ in range(3)]
    story.until("two run", lambda: at_once(story, runs) == 2)
    story.passes(10.0)
    story.owes("they still do, beyond their first lease", lambda: at_once(story, runs) == 2)
    story.owes("the third comes after them", lambda: all(story.over(run) for run in runs), within=40.0)
    story.owes("each began once", lambda: len(story.checkers.attempts) == 3)
    story.ends()

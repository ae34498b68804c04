"""What random histories found in the product, each told again; `transcripts` has how it went then."""

from __future__ import annotations

from cisbot.core.room import events as ev
from tests.sim.scenarios.telling import story
from tests.sim.scenarios.test_holding import held
from tests.sim.script import ANY, HEARTBEAT, MESSAGE, RECORD, RELEASE, Story, core, key_of


@story(nodes=2, lease_s=20)
def test_a_lost_release_is_said_again(story: Story) -> None:
    """found_release_not_repeated: node-1 is done, and its release never arrives. It says so again."""
    one, two = story.machines
    story.start(one, two)
    run = story.publish("again", on=one)
    story.lose(one, RELEASE)
    story.until("node-1 runs it", lambda: story.runs(run, one))
    story.owes("all know that it is done", lambda: story.over(run), within=9.0)
    following = story.publish("again", on=two)
    story.owes("node-2 needn't wait for the lease", lambda: story.begun(following), within=1.0)
    story.ends()


@story(nodes=2)
def test_an_outcome_that_comes_after_another_take_settles_the_run(story: Story) -> None:
    """found_late_outcome: node-1's release is late; node-2 joined, took the run and gave it back as lost."""
    one, two = story.machines
    story.start(one)
    run = story.publish("asks")
    story.until("node-1 runs it", lambda: story.runs(run, one))
    story.lose_all(one, ANY)
    story.until("node-1 is done", lambda: not story.runs(run, one))
    story.deaf(one)
    two.start()
    story.until("node-2 gives it back, for node-1 began it", lambda: story.seen(ev.Release, two), within=20.0)
    place = len(story.server.stream)
    story.restored(one)
    story.until("node-1's release arrives", lambda: story.seen(ev.Release, one, place))
    story.owes("node-2 knows that it succeeded", lambda: story.succeeded(run, two), within=1.0)
    story.ends()
    story.owes("it was begun once", lambda: len(story.begun(run)) == 1)


@story(nodes=3)
def test_an_outcome_that_comes_while_another_runs_it_is_not_forgotten(story: Story) -> None:
    """found_outcome_meanwhile: node-1's release comes when another has taken over, and that one dies then."""
    one, two, three = story.machines
    story.start(*story.machines)
    for other in (two, three):
        story.deaf(other)
    run = story.publish("again")
    story.until("node-1 runs it", lambda: story.runs(run, one))
    story.lose_all(one, ANY)
    story.until("node-1 is done", lambda: not story.runs(run, one))
    story.deaf(one)
    for other in (two, three):
        story.hears(other)
    story.task_s = 60.0
    story.until("another has taken over", lambda: story.runs(run), within=9.0)
    second = story.runner(run)
    (third,) = story.others(one, second)
    story.restored(one)
    story.until("node-1's release arrives", lambda: story.seen(ev.Release, one))
    story.owes("who looks on knows that it succeeded", lambda: story.succeeded(run, third), within=1.0)
    story.crash(second)
    second.start()
    story.passes(9.0)
    story.ends()
    story.owes("it was begun twice, not three times", lambda: len(story.begun(run)) == 2)


@story(nodes=2)
def test_a_question_outlives_a_late_sign_of_life(story: Story) -> None:
    """found_question_forgotten: a person is asked about node-1's run; then its late renewal arrives."""
    run, one, two = held(story, "asks")
    late = story.hold(one, HEARTBEAT)
    story.until("node-1 renews, late", lambda: late.send)
    story.crash(one)
    story.until("node-2 asks a person", lambda: story.asked(run, two), within=15.0)
    story.arrives(late)
    story.passes(9.0)
    story.owes("node-2 still waits for the answer", lambda: story.asked(run, two))
    story.approve(run)
    story.owes("the answer counts", lambda: story.runs(run, two), within=3.0)
    story.ends()


@story(nodes=3)
def test_a_run_that_is_given_back_still_waits_for_its_answer(story: Story) -> None:
    """found_given_back: node-3 takes a run about which a person is to be asked, and gives it back unbegun."""
    one, two, three = story.machines
    story.start(one, two)
    story.task_s = 30.0
    run = story.publish("asks")
    story.until("somebody runs it", lambda: story.runs(run))
    first = story.runner(run)
    (second,) = story.others(first, three)
    for machine in (one, two):  # what they ask comes too late for node-3
        story.lose_all(machine, MESSAGE)
    story.crash(first)
    first.start()
    story.until("its end is said", lambda: story.seen(ev.End, first))
    three.start()
    story.until("node-3 takes it", lambda: story.seen(ev.Take, three), within=20.0)
    story.deaf(three)
    story.until("node-2 sees that", lambda: core(second).board.runs[run].account == three.account)
    story.passes(6.0)
    for machine in (one, two):
        story.restored(machine)
    story.hears(three)
    story.until("node-3 gives it back", lambda: story.seen(ev.Release, three), within=3.0)
    story.passes(4.0)
    story.owes("a person is asked", lambda: story.asked(run, second), within=10.0)
    story.owes("nobody runs it", lambda: len(story.begun(run)) == 1)
    story.approve(run)
    story.owes("after the answer somebody does", lambda: story.runs(run), within=3.0)
    story.ends()


@story(nodes=2)
def test_a_nodes_record_that_was_lost_is_said_again(story: Story) -> None:
    """found_record_lost: node-2's first word never arrives, so the others don't know that it is there."""
    one, two = story.machines
    story.start(one)
    story.lose(two, RECORD)
    two.start()
    story.owes("node-1 knows node-2", lambda: len(core(one).board.living()) == 2, within=12.0)
    run = story.publish("again", on=two)
    story.owes("it runs what is for it", lambda: story.runs(run, two), within=1.0)
    story.ends()


@story(nodes=3)
def test_what_was_missed_is_looked_up_after_a_restart_too(story: Story) -> None:
    """found_restart_forgets: what node-2 waits for is done in its gap, and it dies before it looks."""
    run, one, two = held(story)
    three = story.machines[2]
    story.crash(one)
    story.task_s = 0.3
    one.start()
    story.until("node-2 waits for the run", lambda: story.waits(run, two))
    story.lose_all(two, ANY)
    story.deaf(two)
    for machine in (one, three):  # what people are told comes too late for node-2
        story.lose_all(machine, MESSAGE)
    story.until("another has done it", lambda: story.succeeded(run, three))
    following = story.publish("again", on=three)
    story.until("the state names the next", lambda: story.succeeded(following, three))
    story.passes(1.0)
    story.says()
    story.hears(two, only=1)
    story.until("node-2 has a gap", lambda: core(two).ledger.is_unsure(key_of("again")))
    story.crash(two)
    story.restored(two)
    two.start()
    last = story.publish("again", on=two)
    story.owes("node-2 runs what is for it", lambda: story.begun(last, two), within=15.0)
    story.owes("it has not begun what was done", lambda: not story.begun(run, two))
    story.ends()


@story(nodes=2)
def test_the_end_of_what_is_for_others_is_looked_up_too(story: Story) -> None:
    """found_pending_for_ever: in a gap node-2 hears of a run for node-1 and misses its end."""
    one, two = story.machines
    story.start(one, two)
    story.deaf(two)
    story.lose_all(one, MESSAGE)
    runs = [story.publish("again", on=one)]
    story.until("the first is done", lambda: story.succeeded(runs[0], one))
    runs.append(story.publish("again", on=one))
    story.until("the room has both ends", lambda: len(story.seen(ev.Release, one)) == 2)
    story.says()
    story.hears(two, only=1)
    story.until("node-2 knows both", lambda: all(story.known(run, two) for run in runs))
    story.owes("it knows that both are done", lambda: all(story.over(run) for run in runs), within=3.0)
    story.ends()


@story(nodes=3, abroad=2, without={"silence abroad is looked into": "stuck"})
def test_a_runs_end_that_overtakes_its_publication_is_found(story: Story) -> None:
    """found_end_came_first: node-2's server hears of a run's end from a third one, and then of the run."""
    one, _, three = story.machines
    story.start(*story.machines)
    for link in (("hs", "hs2"), ("hs2", "hs")):
        story.links.cut(link)
    run = story.publish("asks", on=three)
    story.until("it is done", lambda: story.succeeded(run, one) and story.succeeded(run, three))
    story.passes(1.0)
    story.links.heal()
    story.ends()


@story(nodes=2, abroad=1, without={"a release from afar is looked at": "but the state says"})
def test_a_restatement_that_forked_with_a_release_from_afar_is_mended(story: Story) -> None:
    """found_restate_forks: node-1 restates that node-2 holds the key while its release is on its way."""
    one, two = story.machines
    story.start(one, two)
    story.task_s = 1.0
    run = story.publish("again", on=two)
    story.until("node-2 runs it", lambda: story.runs(run, two))
    story.links.cut(("hs2", "hs"))
    story.until("it has given the key back", lambda: story.seen_by(two, ev.Release))
    story.stranger_takes("again")
    story.until("node-1 says again who held it", lambda: story.seen(ev.Restate, one))
    story.passes(3.0)
    story.links.heal()
    story.ends()


@story(nodes=3, abroad=2)
def test_an_end_that_is_told_after_the_run_was_given_up_settles_it(story: Story) -> None:
    """found_end_told_late: node-3 is done, its release is lost; node-2's server hears its last words late."""
    one, two, three = story.machines
    story.start(*story.machines)
    run = story.publish("steps", on=three)
    story.lose_all(three, RELEASE)
    story.until("node-3 runs it", lambda: story.runs(run, three))
    story.until("node-2 knows", lambda: core(two).board.runs[run].account == three.account)
    story.links.cut(("hs3", "hs2"))
    story.until("its last words are at home", lambda: core(one).board.runs[run].told)
    story.crash(three, database=False)
    story.until("node-2 gives it up", lambda: story.waits(run, two))
    story.links.heal()
    story.owes("node-2 knows that it succeeded", lambda: story.succeeded(run, two), within=2.0)
    story.ends()
    story.owes("it was begun once", lambda: {attempt.epoch for attempt in story.begun(run)} == {1})

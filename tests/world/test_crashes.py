"""The node is killed after its Nth effect, for every N: each run ends, once, and no task before its needs."""

from __future__ import annotations

import pytest

from tests.world.machine import Machine, dag
from tests.world.world import World

TASKS = "tasks:\n  a: {shell: 'true', remember: {last: yes}}\n  b: {shell: 'true', needs: [a]}\n"
MESSAGE = "  c: {matrix: {message: done}, needs: [b]}\n"
DAGS = {
    "ask": dag(f"id: job\nscope: proj-a\n{TASKS}"),
    "resume": dag(f"id: job\nscope: proj-a\non_lost: resume\n{TASKS}{MESSAGE}"),
    "rerun": dag(f"id: job\nscope: proj-a\non_lost: rerun\n{TASKS}{MESSAGE}"),
    "approval": dag(f"id: job\nscope: proj-a\non_lost: resume\napproval: {{count: 1}}\n{TASKS}"),
}
EFFECTS_MAX = 400


def finish(world: World, run: str, machine: Machine, away_s: float) -> None:
    """Start the dead node again after a while, and answer whatever is asked."""
    for _ in range(40):
        if not machine.alive:
            world.wait(away_s)
            machine.start(world.now)
        world.wait(10)
        statuses = {m.status(run) for m in world.machines if m.alive}
        if statuses & {"lost", "waiting for approval"}:
            world.react(run, "✅")
        elif statuses == {"succeeded"}:
            return
    raise AssertionError([m.status(run) for m in world.machines])


@pytest.mark.parametrize("away_s", [1.0, 45.0])
@pytest.mark.parametrize("policy", sorted(DAGS))
@pytest.mark.parametrize("nodes", [1, 2])
def test_a_node_killed_after_any_effect(policy: str, away_s: float, nodes: int) -> None:
    for effects in range(1, EFFECTS_MAX):
        world = World([DAGS[policy]], nodes=nodes)
        victim = world.machines[0]
        victim.crash_after = effects
        run = world.say("!dag publish job", wait_s=1)
        untouched = victim.alive
        finish(world, run, victim, away_s)
        ended = [task for machine in world.machines for task in machine.ended]
        assert set(ended) == {"a", "b"}, (effects, ended)
        assert ended.index("a") < ended.index("b"), (effects, ended)
        questions = [body for body in world.room.bodies() if "Not known to be done" in body]
        assert len(questions) <= 1, (effects, questions)
        finals = [body for body in world.room.bodies() if body.startswith("✅")]
        assert finals, (effects, world.room.bodies())
        if untouched and victim.crash_after is not None:
            assert len(finals) == 1
            return
    raise AssertionError("the run never ends without the crash")

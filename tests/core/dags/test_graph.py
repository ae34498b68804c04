"""Order, cycles and readiness, on small graphs and on random ones."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.dags.graph import find_cycle, needs_faults, ready, topological_order
from cisbot.core.ids import TaskId

SMALL = st.dictionaries(st.sampled_from("abcdefg"), st.lists(st.sampled_from("abcdefg"), max_size=4))


def test_order_keeps_the_file_where_it_may() -> None:
    assert topological_order({"c": [], "b": ["a"], "a": [], "d": ["b", "c"]}) == ["c", "a", "b", "d"]


def test_a_cycle_is_shown_in_the_direction_of_the_work() -> None:
    # b needs a, c needs b, a needs c: a runs before b, b before c, c before a.
    assert find_cycle({"a": ["c"], "b": ["a"], "c": ["b"], "d": ["c"]}) == ["a", "b", "c", "a"]
    assert find_cycle({"a": ["a"]}) == ["a", "a"]
    assert find_cycle({"a": ["missing"], "b": ["a"]}) == []


@given(SMALL)
def test_either_everything_is_ordered_or_there_is_a_cycle(needs: dict[str, list[str]]) -> None:
    order, cycle = topological_order(needs), find_cycle(needs)
    if cycle:
        assert len(order) < len(needs) and cycle[0] == cycle[-1]
        assert all(before in needs[after] for before, after in zip(cycle, cycle[1:], strict=False))
    else:
        place = {name: index for index, name in enumerate(order)}
        assert place.keys() == needs.keys()
        assert all(place[b] < place[n] for n, bs in needs.items() for b in bs if b in needs)


@pytest.mark.long
def test_large_graphs_are_fast() -> None:
    chain = {str(n): [str(n - 1)] if n else [] for n in range(100_000)}
    assert len(topological_order(chain)) == 100_000
    ring = {str(n): [str((n + 1) % 100_000)] for n in range(100_000)}
    assert len(find_cycle(ring)) == 100_001


def test_faults() -> None:
    found = list(needs_faults({"dump": ["dmp", "up"], "up": ["up", "up"]}))
    assert [(loc, error.what, error.hint) for loc, error in found] == [
        (("tasks", "dump", "needs", 0), "no task is called 'dmp'", "Did you mean 'dump'?"),
        (("tasks", "up", "needs", 1), "'up' is named twice", ""),
        (("tasks", "up", "needs"), "the tasks wait for each other: up → up", ""),
    ]


def test_many_unknown_names_are_fast_and_hint_only_at_first() -> None:
    names = [f"task-{n}" for n in range(2000)]
    found = list(needs_faults({name: [f"tusk-{name}"] for name in names}))
    assert len(found) == 2000 and found[0][1].hint and not found[-1][1].hint


def test_ready() -> None:
    needs = {"a": [], "b": ["a"], "c": ["a", "b"], "d": []}
    a, b, d = TaskId("a"), TaskId("b"), TaskId("d")
    assert ready(needs, {}) == ["a", "d"]
    assert ready(needs, {a: "running"}) == ["d"]
    assert ready(needs, {a: "succeeded", d: "failed"}) == ["b"]
    assert ready(needs, {a: "succeeded", b: "failed", d: "succeeded"}) == []

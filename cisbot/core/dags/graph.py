"""The shape of a DAG: order, cycles, and which tasks may start. Pure, iterative and linear.

Every function takes `needs`: each task's name to the names of the tasks before it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from cisbot.core.ids import TaskId, nearest
from cisbot.errors import FieldError

Needs = Mapping[str, Sequence[str]]
SUCCEEDED = "succeeded"
_LISTED_MAX = 10
_HINTS_MAX = 20  # finding the nearest name is slow; a file may hold 100,000 unknown ones


def topological_order(needs: Needs) -> list[str]:
    """Every task after all it needs, else in file order. The tasks of a cycle are left out."""
    waits = {name: sum(one in needs for one in set(before)) for name, before in needs.items()}
    after: dict[str, list[str]] = {name: [] for name in needs}
    for name, before in needs.items():
        for one in dict.fromkeys(before):
            if one in after:
                after[one].append(name)
    queue = deque(name for name, count in waits.items() if count == 0)
    order = []
    while queue:
        name = queue.popleft()
        order.append(name)
        for one in after[name]:
            waits[one] -= 1
            if waits[one] == 0:
                queue.append(one)
    return order


def find_cycle(needs: Needs) -> list[str]:
    """One cycle in the direction of the work, closed: `a b a`; empty if there is none."""
    left = needs.keys() - set(topological_order(needs))
    if not left:
        return []
    # Every task left over needs another one left over: walk back until a name comes again.
    here = next(name for name in needs if name in left)
    place: dict[str, int] = {}
    walk: list[str] = []
    while here not in place:
        place[here] = len(walk)
        walk.append(here)
        here = next(one for one in needs[here] if one in left)
    cycle = walk[place[here] :][::-1]
    first = min(range(len(cycle)), key=cycle.__getitem__)
    turned = cycle[first:] + cycle[:first]
    return [*turned, turned[0]]


def needs_faults(needs: Needs) -> Iterator[tuple[tuple[str | int, ...], FieldError]]:
    """Everything wrong with `needs`, with its place: unknown or repeated names, a cycle."""
    hints_left = _HINTS_MAX
    for name, before in needs.items():
        seen: set[str] = set()
        for place, one in enumerate(before):
            field = f"tasks.{name}.needs[{place}]"
            if one not in needs:
                yield ("tasks", name, "needs", place), _unknown(field, one, needs, hints_left > 0)
                hints_left -= 1
            elif one in seen:
                error = FieldError(field, f"'{one}' is named twice", "each task once")
                yield ("tasks", name, "needs", place), error
            seen.add(one)
    if cycle := find_cycle(needs):
        shown = cycle if len(cycle) <= _LISTED_MAX + 1 else [*cycle[:_LISTED_MAX], "…", cycle[0]]
        what = f"the tasks wait for each other: {' → '.join(shown)}"
        yield ("tasks", cycle[0], "needs"), FieldError(f"tasks.{cycle[0]}.needs", what, "no cycle")


def _unknown(field: str, word: str, needs: Needs, hinted: bool) -> FieldError:
    names = list(needs)
    listed = ", ".join(names[:_LISTED_MAX]) + (", …" if len(names) > _LISTED_MAX else "")
    hint = nearest(word, names[:1000]) if hinted else ""
    return FieldError(field, f"no task is called '{word[:64]}'", f"one of: {listed}", hint)


def ready(needs: Needs, done: Mapping[TaskId, str]) -> list[TaskId]:
    """The tasks without a status whose needs have all succeeded, in file order."""
    status: Mapping[str, str] = {str(name): value for name, value in done.items()}
    return [
        TaskId(name)
        for name, before in needs.items()
        if name not in status and all(status.get(one) == SUCCEEDED for one in before)
    ]

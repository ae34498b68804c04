"""The models by themselves: what they accept and what they turn it into."""

import pytest
from pydantic import ValidationError

from cisbot.core.dags.definition import Definition, OnLost, fits, kind_fault

DEEP: list[object] = []
for _ in range(40):
    DEEP = [DEEP]


def make(**changes: object) -> Definition:
    return Definition.model_validate({"id": "d", "tasks": {"a": {"shell": "true"}}, **changes})


def refused(**changes: object) -> str:
    with pytest.raises(ValidationError) as caught:
        make(**changes)
    return str(caught.value)


def test_defaults() -> None:
    made = make()
    assert (made.target, made.scope, made.priority, made.approval) == ("any", None, 0, None)
    assert made.on_lost is OnLost.ASK
    assert list(made.tasks) == ["a"]


def test_an_idempotent_dag_is_rerun_unless_it_says_otherwise() -> None:
    assert make(idempotent=True).on_lost is OnLost.RERUN
    assert make(idempotent=True, on_lost="resume").on_lost is OnLost.RESUME


def test_nothing_given_is_the_default() -> None:
    made = make(params={"a": {"pattern": None, "default": None}}, scope="type:backup")
    assert made.params["a"].default is None and made.scope == "type:backup"


def test_locks_and_overlap() -> None:
    made = make(locks=["tape", "db"], overlap={"allow": 3})
    assert (made.locks, made.overlap.allow) == (("tape", "db"), 3)
    assert (make().locks, make().overlap.allow, make(overlap="queue")) == ((), 1, make())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"locks": ["a", "b", "a"]}, "'a' is there twice; expected each lock once"),
        ({"locks": [str(n) for n in range(9)]}, "at most 8"),
        ({"locks": ["a b"]}, "is not a name"),
        ({"overlap": "skip"}, "the text 'skip' can't be used here; expected queue, or {allow: 2} up to 32"),
        ({"overlap": {}}, "expected queue, or {allow: 2}"),
        ({"overlap": {"allow": 1}}, "greater than or equal to 2"),
        ({"overlap": {"allow": 33}}, "less than or equal to 32"),
        ({"overlap": {"allow": 2}, "scope": "global"}, "several runs at once, in a scope of one worker"),
    ],
)
def test_locks_and_overlap_refused(changes: dict[str, object], said: str) -> None:
    assert said in refused(**changes)


def test_who_names_neither_keeps_its_hash() -> None:
    assert make().hash == make(locks=[], overlap="queue").hash
    assert make().canonical == '{"id":"d","tasks":{"a":{"shell":"true"}}}'


def test_task_kinds() -> None:
    tasks = {
        "a": {"shell": "true"},
        "b": {"skill": "hello", "with": {"n": [1, None]}},
        "c": {"matrix": "hi"},
        "d": {"matrix": {"message": "hi", "room": "#ops:example.org"}},
    }
    made = make(tasks=tasks)
    assert [task.kind for task in made.tasks.values()] == ["shell", "skill", "matrix", "matrix"]
    _, skill, message, _ = made.tasks.values()
    assert skill.with_ == {"n": [1, None]}
    assert message.matrix and message.matrix.message == "hi" and message.matrix.room is None


def test_frozen() -> None:
    with pytest.raises(ValidationError):
        make().priority = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tasks": {}}, "at least 1"),
        ({"tasks": {"a": {}}}, "does nothing"),
        ({"tasks": {"a": {"shell": "x", "matrix": "y"}}}, "shell and matrix"),
        ({"tasks": {"a": {"shell": "x", "with": {"a": 1}}}}, "'with' beside shell"),
        ({"tasks": {"a": {"shell": "x", "needs": ["b"]}}}, "no task is called 'b'"),
        ({"tasks": {"a": {"shell": "x", "needs": ["a"]}}}, "a → a"),
        ({"tasks": {"a": {"shell": " "}}}, "is empty"),
        ({"tasks": {"a": {"shell": "x\0"}}}, "NUL"),
        ({"tasks": {"a": {"shell": "x" * 100_001}}}, "100001 bytes"),
        ({"tasks": {"a": {"shell": "x", "timeout": 5}}}, "not a duration"),
        ({"tasks": {"a": {"shell": "x", "remember": {"k": "v" * 4097}}}}, "4097 bytes"),
        ({"tasks": {"a": {"shell": "x", "env": {"1A": "v"}}}}, "variable's name"),
        ({"priority": 101}, "less than or equal to 100"),
        ({"priority": True}, "valid integer"),
        ({"target": "a="}, "not a condition"),
        ({"scope": "team:x"}, "unknown kind of scope"),
        ({"params": {"a-b": {}, "A_B": {}}}, "shares its variable"),
        ({"params": {"target": {}}}, "publish command"),
        ({"params": {"_x": {}}}, "parameter's name"),
        ({"params": {"a": {"type": "integer", "default": "5"}}}, "not of type integer"),
        ({"params": {"a": {"type": "integer", "default": True}}}, "not of type integer"),
        ({"params": {"a": {"type": "number", "default": float("nan")}}}, "without end"),
        ({"params": {"a": {"choices": ["x"], "default": "y"}}}, "not one of the choices"),
        ({"params": {"a": {"pattern": "[0-9]+", "default": "y"}}}, "does not match"),
        ({"params": {"a": {"pattern": "["}}}, "no regular expression"),
        ({"params": {"a": {"pattern": "a)|(?:b"}}}, "no regular expression"),
        ({"params": {"a": {"type": "boolean", "pattern": "a"}}}, "only for type string"),
        ({"params": {"a": {"required": True, "default": "y"}}}, "has no default"),
        ({"approval": {"power_level": None, "count": 1}}, "can't give 1"),
        ({"approval": {"users": ["alice"]}}, "not a Matrix user id"),
        ({"params": {"a": {"default": []}}}, "a list can't be used here"),
        ({"params": {"a": {"default": "x" * 4097}}}, "too long"),
        ({"params": {"a": {"choices": [5]}}}, "not of type string"),
        ({"tasks": {"a": {"matrix": {"message": "m", "room": "ops"}}}}, "not a room"),
        ({"tasks": {"a": {"skill": "x", "with": {"a": 10**18}}}}, "too long a number"),
        ({"tasks": {"a": {"skill": "x", "with": {"a": [float("inf")]}}}}, "without end"),
        ({"tasks": {"a": {"skill": "x", "with": {"a": ["\ud800"]}}}}, "surrogate"),
        ({"tasks": {"a": {"skill": "x", "with": {"k" * 201: 1}}}}, "too long a key"),
        ({"tasks": {"a": {"skill": "x", "with": {5: 1}}}}, "valid string"),
        ({"tasks": {"a": {"skill": "x", "with": {"a": DEEP}}}}, "nested too deeply"),
        ({"description": "\ud800"}, "surrogate"),
        ({"extra": 1}, "Extra inputs"),
    ],
)
def test_refused(changes: dict[str, object], said: str) -> None:
    assert said in refused(**changes)


def test_approval() -> None:
    made = make(approval={"users": ["@a:x", "@b:x"], "count": 2, "power_level": None, "deadline": "1h"})
    assert made.approval and made.approval.deadline_s == 3600.0


def test_a_pattern_covers_the_whole_text_and_is_linear() -> None:
    assert fits("a|b", "b") and not fits("a|b", "ab") and not fits("a", "a\n")
    assert not fits("(a*)*b", "a" * 4000)


def test_kind_fault_finds_nothing_wrong() -> None:
    assert kind_fault(["skill", "with"]) is None

"""The tree of a file: places and scalars."""

import pytest

from cisbot.core.dags.tree import Node, Problem, Spot, plain, read_scalar, spot_of
from cisbot.errors import FieldError

ROOT = Node(
    Spot(1, 1),
    items={"a": Node(Spot(1, 4), items=[Node(Spot(1, 5), value=7)])},
    keys={"a": Spot(1, 1)},
)


def test_plain() -> None:
    assert plain(ROOT) == {"a": [7]}


def test_spots() -> None:
    assert spot_of(ROOT, ("a", 0), of_key=False) == Spot(1, 5)
    assert spot_of(ROOT, ("a",), of_key=True) == Spot(1, 1)
    assert spot_of(ROOT, ("a", 1), of_key=False) == Spot(1, 4)
    assert spot_of(ROOT, ("a", "b"), of_key=False) == Spot(1, 4)
    assert spot_of(ROOT, (0,), of_key=False) == Spot(1, 1)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("-5", -5),
        ("05", "05"),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1_000", "1_000"),
        (".inf", ".inf"),
        ("off", "off"),
    ],
)
def test_scalars(text: str, value: object) -> None:
    got = read_scalar(text)
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("text", ["9" * 19, "9" * 5000, "1e999"])
def test_numbers_have_bounds(text: str) -> None:
    with pytest.raises(FieldError):
        read_scalar(text)


def test_a_problem_as_a_line() -> None:
    problem = Problem("f.yaml", 3, 1, "id", "is missing", "a name")
    assert problem.text() == "f.yaml:3:1: id: is missing; expected a name"

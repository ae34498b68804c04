"""Parameters from the publisher to the environment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.dags.definition import Definition
from cisbot.core.dags.params import environment, resolve
from cisbot.errors import FieldError

PARAMS = {
    "day": {"required": True, "choices": ["monday", "friday"]},
    "depth": {"type": "integer", "default": 3},
    "ratio": {"type": "number", "choices": [1, 2.5]},
    "dry-run": {"type": "boolean", "default": False},
    "tag": {"pattern": "v[0-9]+", "required": True},
    "note": {},
}
DAG = Definition.model_validate({"id": "d", "params": PARAMS, "tasks": {"a": {"shell": "true"}}})


def refused(**given_: str) -> str:
    with pytest.raises(FieldError) as caught:
        resolve(DAG, given_)
    return caught.value.text()


def test_values_and_defaults() -> None:
    got = resolve(DAG, {"tag": "v1", "day": "friday", "depth": "+07", "ratio": "2.50", "dry-run": "YES"})
    assert list(got.items()) == [
        ("day", "friday"),
        ("depth", "7"),
        ("ratio", "2.5"),
        ("dry-run", "true"),
        ("tag", "v1"),
    ]
    assert resolve(DAG, {"tag": "v1", "day": "friday"}) == {
        "day": "friday",
        "depth": "3",
        "dry-run": "false",
        "tag": "v1",
    }


def test_missing_names_all() -> None:
    assert refused() == "params: missing: day, tag; expected day=… tag=…"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("dya", "x", "d has no parameter 'dya'; expected one of: day, depth, ratio, dry-run, tag, note."),
        ("dya", "x", "Did you mean 'day'?"),
        ("depth", "x", "depth: 'x' is not of type integer; expected a whole number"),
        ("depth", "1" * 19, "not of type integer"),
        ("ratio", "3", "not one of the choices; expected one of: 1, 2.5"),
        ("ratio", "nan", "not of type number"),
        ("ratio", "1e999", "not of type number"),
        ("dry-run", "maybe", "not of type boolean; expected true or false"),
        ("day", "fridya", "expected one of: monday, friday. Did you mean 'friday'?"),
        ("tag", "1", "expected text like v[0-9]+"),
        ("note", "x" * 4097, "too long"),
        ("note", "\0", "NUL"),
    ],
)
def test_refused(name: str, text: str, said: str) -> None:
    assert said in refused(**{"day": "friday", "tag": "v1", name: text})


def test_everything_wrong_is_said_at_once() -> None:
    said = refused(depth="x", foo="y")
    assert "no parameter 'foo'" in said and "depth: 'x'" in said and "missing: day, tag" in said


def test_a_dag_without_parameters() -> None:
    bare = Definition.model_validate({"id": "d", "tasks": {"a": {"shell": "true"}}})
    with pytest.raises(FieldError, match="expected no parameters"):
        resolve(bare, {"x": "y"})


def test_environment() -> None:
    assert environment(
        {"day": "m", "dry-run": "true", "path": "/x", "ld_preload": "y", "cis_fence": "1"}
    ) == {
        "CIS_PARAM_DAY": "m",
        "DAY": "m",
        "CIS_PARAM_DRY_RUN": "true",
        "DRY_RUN": "true",
        "CIS_PARAM_PATH": "/x",
        "CIS_PARAM_LD_PRELOAD": "y",
        "CIS_PARAM_CIS_FENCE": "1",
    }


@given(st.dictionaries(st.sampled_from([*PARAMS, "other"]), st.text()))
def test_any_text_is_a_value_or_a_field_error(given_: dict[str, str]) -> None:
    try:
        got = resolve(DAG, given_)
    except FieldError:
        return
    assert got.keys() <= PARAMS.keys() and resolve(DAG, got) == got

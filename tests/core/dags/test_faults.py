"""Every kind of pydantic's errors in plain words."""

from collections.abc import Mapping
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from cisbot.core.dags.faults import annotation_at, describe, explain, keys_at, path_text


class Inner(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    text: str | None = Field(default=None, min_length=1, max_length=3)
    items: list[int] = Field(default=[1], min_length=1, max_length=2)


class Outer(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")
    whole: int = Field(description="a count", gt=0, lt=9)
    share: float = Field(default=0.5, ge=0, le=1)
    on: bool = True
    kind: Literal["a", "b"] = "a"
    secret: SecretStr = SecretStr("x")
    odd: Annotated[bytes, Field()] = b""
    inner: Mapping[str, Inner] = Field(default_factory=dict, alias="with")


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({}, "whole: is missing; expected a count"),
        ({"whole": 0}, "whole: the number 0 can't be used here; expected more than 0"),
        ({"whole": 9}, "whole: the number 9 can't be used here; expected less than 9"),
        ({"whole": "1"}, "whole: the text '1' can't be used here; expected a whole number"),
        ({"share": -1}, "share: the number -1 can't be used here; expected at least 0.0"),
        ({"share": 2}, "share: the number 2 can't be used here; expected at most 1.0"),
        ({"share": []}, "share: a list can't be used here; expected a number"),
        ({"on": "off"}, "on: the text 'off' can't be used here; expected true or false. Did you mean false?"),
        ({"on": "maybe"}, "on: the text 'maybe' can't be used here; expected true or false"),
        ({"kind": "c"}, "kind: the text 'c' can't be used here; expected one of: a, b"),
        ({"secret": 12345}, "secret: a wrong value can't be used here; expected text"),
        ({"odd": 5}, "odd: input should be a valid bytes"),
        ({"with": 5}, "with: the number 5 can't be used here; expected a mapping (key: value)"),
        ({"with": {"k": []}}, "with.k: a list can't be used here; expected a mapping (key: value)"),
        (
            {"with": {"k": {"txt": "a"}}},
            "with.k.txt: unknown key 'txt'; expected one of: text, items. Did you mean",
        ),
        ({"with": {"k": {"text": ""}}}, "with.k.text: the text '' can't be used here; expected some text"),
        ({"with": {"k": {"text": "abcd"}}}, "expected at most 3 characters"),
        (
            {"with": {"k": {"text": True}}},
            'true can\'t be used here; expected text. Put it in quotes: "true"',
        ),
        ({"with": {"k": {"items": []}}}, "expected at least 1 entry"),
        ({"with": {"k": {"items": [1, 2, 3]}}}, "expected at most 2 entries"),
        ({"with": {"k": {"items": "abc"}}}, "expected a list. Did you mean [abc]?"),
        ({"with": {"k": {"items": [None]}}}, "with.k.items[0]: nothing can't be used here"),
    ],
)
def test_explained(raw: dict[str, object], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"whole": 1, **raw} if raw else raw)
    lines = [error.text() for _, error in explain(caught.value, Outer)]
    assert len(lines) == 1 and said in lines[0]


def test_types_and_keys_at_places() -> None:
    assert keys_at(Outer, ("with", "any")) == ("text", "items")
    assert annotation_at(Outer, ("with", "any", "items", 3)) is int
    assert annotation_at(Outer, ("none", "deeper")) is None
    assert annotation_at(Outer, ("whole", "deeper")) is None
    assert keys_at(Outer, ("whole",)) == ()


def test_words() -> None:
    assert path_text(("a", 0, "b", 1, 2)) == "a[0].b[1][2]"
    assert describe("x" * 99) == f"the text {'x' * 39 + '…'!r}"
    assert describe(object()) == "a value of an unknown kind"
    assert describe({}) == "a mapping" and describe(False) == "false"

"""Durations and targets, read and written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cisbot.core.dags.values import (
    DURATION_S_MAX,
    Target,
    TargetKind,
    Term,
    format_duration,
    parse_duration,
    parse_target,
)
from cisbot.errors import FieldError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1h30m", 5400), ("2d", 172_800), ("500ms", 0.5), ("1w", 604_800)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "1 h", "-5s", "0s", "367d", "1y", "9999999999s", "s", "5S"])
def test_no_durations(text: str) -> None:
    with pytest.raises(FieldError):
        parse_duration(text)


def test_a_bare_number_gets_a_hint() -> None:
    with pytest.raises(FieldError, match="Did you mean '300s'"):
        parse_duration("300")


@given(st.integers(1, DURATION_S_MAX * 1000))
def test_durations_round_trip(total_ms: int) -> None:
    assert parse_duration(format_duration(total_ms / 1000)) == total_ms / 1000


@pytest.mark.parametrize(
    ("text", "target"),
    [
        ("any", Target(TargetKind.ANY)),
        ("all", Target(TargetKind.ALL)),
        ("node-1", Target(TargetKind.NODE, node=parse_target("node-1").node)),
        ("label:gpu", Target(TargetKind.LABELS, terms=(Term("gpu"),))),
        ("!gpu", Target(TargetKind.LABELS, terms=(Term("gpu", negated=True),))),
        ("disk=ssd", Target(TargetKind.LABELS, terms=(Term("disk", "ssd"),))),
        ("disk != ssd, gpu", Target(TargetKind.LABELS, terms=(Term("disk", "ssd", True), Term("gpu")))),
    ],
)
def test_targets(text: str, target: Target) -> None:
    assert parse_target(text) == target


@pytest.mark.parametrize(
    "text", ["", " ", "a=", "=b", "a,,b", "!", "label:", "a==b", "!a=b", "a b", "x" * 1001]
)
def test_no_targets(text: str) -> None:
    with pytest.raises(FieldError) as caught:
        parse_target(text)
    assert caught.value.field == "target"


@given(st.text())
def test_any_text_is_a_target_or_a_field_error(text: str) -> None:
    try:
        parse_target(text)
    except FieldError as error:
        assert error.expected

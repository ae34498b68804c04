"""Which nodes a target means."""

import pytest

from cisbot.core.ids import NodeId
from cisbot.core.placement import matches
from cisbot.errors import FieldError

LABELS = {"disk": "ssd", "gpu": "yes"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("any", True),
        ("all", True),
        ("node-1", True),
        ("node-2", False),
        ("gpu", False),  # a bare word is a node's id
        ("label:gpu", True),
        ("label:tpu", False),
        ("!tpu", True),
        ("!gpu", False),
        ("disk=ssd", True),
        ("label:disk=ssd", True),
        ("disk=hdd", False),
        ("disk!=hdd", True),
        ("disk!=ssd", False),
        ("zone!=eu", True),
        ("disk=ssd,gpu", True),
        ("disk=ssd,!gpu", False),
        ("disk=hdd,gpu", False),
    ],
)
def test_matches(target: str, expected: bool) -> None:
    assert matches(target, NodeId("node-1"), LABELS) is expected


def test_nonsense() -> None:
    with pytest.raises(FieldError):
        matches("disk=", NodeId("node-1"), LABELS)

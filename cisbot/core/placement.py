"""Which nodes a target means. Pure.

The grammar is in `dags.values`, because a definition checks its own target. A single bare word is a node's
id and never a label, so that a label can't turn a node's name into something else.
"""

from __future__ import annotations

from collections.abc import Mapping

from cisbot.core.dags.values import Target as Target
from cisbot.core.dags.values import TargetKind as TargetKind
from cisbot.core.dags.values import Term as Term
from cisbot.core.dags.values import parse_target as parse_target
from cisbot.core.ids import NodeId


def matches(target: str, node_id: NodeId, labels: Mapping[str, str]) -> bool:
    """Whether a node with this id and these labels may run what names this target.

    `k!=v` and `!k` hold where the label is missing. Raises `FieldError` if the target is nonsense.
    """
    return fits(parse_target(target), node_id, labels)


def fits(target: Target, node_id: NodeId, labels: Mapping[str, str]) -> bool:
    """As `matches`, for a target that is read already."""
    match target.kind:
        case TargetKind.ANY | TargetKind.ALL:
            return True
        case TargetKind.NODE:
            return target.node == node_id
        case TargetKind.LABELS:
            return all(_holds(term, labels) for term in target.terms)


def _holds(term: Term, labels: Mapping[str, str]) -> bool:
    there = term.key in labels if term.value is None else labels.get(term.key) == term.value
    return there is not term.negated

"""Small values that people write in definitions: durations and targets. Pure."""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache

from cisbot.core.frozen import dataclass
from cisbot.core.ids import NAME, NAME_RULE, NodeId
from cisbot.errors import FieldError

DURATION_S_MAX = 366 * 86_400
DURATION_RULE = "a duration such as 90s, 15m, 1h30m or 2d"
TARGET_RULE = (
    "any, all, a node's id, or labels such as disk=ssd,!gpu"
    " (k=v, k!=v, k, !k; one alone without '=': label:gpu)"
)
TARGET_LEN_MAX = 1000

_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_PART = re.compile(r"([0-9]{1,11})(ms|[smhdw])")
_DURATION = re.compile(r"(?:[0-9]{1,11}(?:ms|[smhdw]))+\Z")


def parse_duration(text: str, field: str = "duration") -> float:
    """Seconds of `90s`, `15m`, `1h30m`, `500ms`. Raises `FieldError`."""
    if not _DURATION.match(text):
        hint = f"Did you mean '{text}s'?" if re.fullmatch(r"[0-9]{1,11}", text) else ""
        raise FieldError(field, f"{text[:40]!r} is not a duration", DURATION_RULE, hint)
    total_ms = sum(int(n) * _UNITS_MS[unit] for n, unit in _PART.findall(text))
    if not 0 < total_ms <= DURATION_S_MAX * 1000:
        raise FieldError(field, f"{text[:40]!r} is out of range", "more than 0 and at most 366d")
    return total_ms / 1000


def format_duration(seconds: float) -> str:
    """The one spelling of a duration that `parse_duration` reads back: `5400s`, `500ms`."""
    total_ms = round(seconds * 1000)
    return f"{total_ms}ms" if total_ms % 1000 else f"{total_ms // 1000}s"


class TargetKind(StrEnum):
    """How a target chooses nodes."""

    ANY = "any"
    ALL = "all"
    NODE = "node"
    LABELS = "labels"


@dataclass(frozen=True, slots=True)
class Term:
    """One condition: the label `key` is (or, `negated`, is not) there, or has this value."""

    key: str
    value: str | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """Which nodes may run: `any` one, `all`, one `node`, or those that every term fits."""

    kind: TargetKind
    node: NodeId | None = None
    terms: tuple[Term, ...] = ()


@lru_cache(maxsize=256)  # asked for each run that waits and each node of the room, step by step
def parse_target(text: str, field: str = "target") -> Target:
    """Read a target. A single bare word is a node's id; `label:gpu` asks for a label.

    Raises `FieldError` on nonsense.
    """
    if text in (TargetKind.ANY, TargetKind.ALL):
        return Target(TargetKind(text))
    if NAME.match(text):
        return Target(TargetKind.NODE, node=NodeId(text))
    if not text.strip() or len(text) > TARGET_LEN_MAX:
        raise FieldError(field, "is empty" if not text.strip() else "is too long", TARGET_RULE)
    terms = [_term(part.strip(), field) for part in text.removeprefix("label:").split(",")]
    return Target(TargetKind.LABELS, terms=tuple(terms))


def _term(text: str, field: str) -> Term:
    key, equals, value = text.partition("=")
    negated = key.endswith("!") if equals else key.startswith("!")
    key = (key.removesuffix("!") if equals else key.removeprefix("!")).strip()
    value = value.strip()
    for word in (key, value) if equals else (key,):
        if not NAME.match(word):
            what = f"{text[:40]!r} is not a condition on labels: {word[:40]!r} is not a name"
            raise FieldError(field, what, TARGET_RULE if not word else NAME_RULE)
    return Term(key, value if equals else None, negated)

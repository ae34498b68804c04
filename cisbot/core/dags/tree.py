"""A YAML file as a tree that remembers where everything stood, and the problems found in it. Pure.

Scalars are read by YAML 1.2's rules, not 1.1's: `yes`, `on`, `0755`, `1:30` and `2024-05-01` are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import field

from cisbot.core.frozen import dataclass
from cisbot.errors import FieldError

DEPTH_MAX = 32
KEY_LEN_MAX = 200
DIGITS_MAX = 18

Plain = str | int | float | bool | None | list["Plain"] | dict[str, "Plain"]
Loc = tuple[str | int, ...]

_NULL = ("", "~", "null", "Null", "NULL")
_TRUE = ("true", "True", "TRUE")
_FALSE = ("false", "False", "FALSE")
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|(?:0|[1-9][0-9]*)(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A place in the file; both count from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong in a file, with its place."""

    file: str
    line: int
    column: int
    field: str
    what: str
    expected: str = ""
    hint: str = ""

    def text(self) -> str:
        """`file:line:column: field: what; expected …. hint`."""
        said = FieldError(self.field, self.what, self.expected, self.hint).text()
        return f"{self.file}:{self.line}:{self.column}: {said}"


@dataclass(slots=True)
class Node:
    """A scalar (`value`), a list or a mapping (`items`). `size` is its length with aliases written out."""

    spot: Spot
    value: str | int | float | bool | None = None
    items: dict[str, Node] | list[Node] | None = None
    keys: dict[str, Spot] = field(default_factory=dict)
    size: int = 1

    def child(self, part: str | int) -> Node | None:
        """The value at a key or an index."""
        if isinstance(self.items, dict):
            return self.items.get(part) if isinstance(part, str) else None
        if isinstance(self.items, list) and isinstance(part, int) and 0 <= part < len(self.items):
            return self.items[part]
        return None


def plain(node: Node) -> Plain:
    """The tree as ordinary values. Depth is bounded by `DEPTH_MAX`."""
    match node.items:
        case dict():
            return {key: plain(one) for key, one in node.items.items()}
        case list():
            return [plain(one) for one in node.items]
        case None:
            return node.value


def spot_of(root: Node, loc: Loc, *, of_key: bool) -> Spot:
    """Where a value (or its key) stands; for what is not there, the nearest thing around it."""
    here, spot = root, root.spot
    for part in loc:
        found = here.child(part)
        if found is None:
            break
        key = here.keys.get(part) if isinstance(part, str) else None
        spot = key if of_key and key else found.spot
        here = found
    return spot


def read_scalar(text: str) -> str | int | float | bool | None:
    """The value of an unquoted scalar. Raises `FieldError` for a number out of bounds."""
    if text in _NULL:
        return None
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _INT.match(text):
        if len(text.lstrip("+-")) > DIGITS_MAX:
            raise FieldError("number", "too long a number", f"at most {DIGITS_MAX} digits", "Quote it.")
        return int(text)
    if _FLOAT.match(text):
        number = float(text)
        if not math.isfinite(number):
            raise FieldError("number", "too large a number", "less than 1e308", "Quote it.")
        return number
    return text

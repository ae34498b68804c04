"""From a DAG file's text to a `Definition`, or to every problem in it; and back to one canonical text.

Pure, and the only place that knows YAML. No text makes it crash, recurse or grow without bound: depth,
aliases and sizes are limited, and tags are refused. Nothing but plain values is ever built.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

import yaml
from pydantic import ValidationError

from cisbot.core.dags.definition import (
    DEFINITION_BYTES_MAX,
    KINDS,
    Definition,
    kind_fault,
    overlap_fault,
    params_fault,
)
from cisbot.core.dags.faults import KEY, Loc, explain, path_text
from cisbot.core.dags.graph import needs_faults
from cisbot.core.dags.tree import (
    DEPTH_MAX,
    KEY_LEN_MAX,
    Node,
    Plain,
    Problem,
    Spot,
    plain,
    read_scalar,
    spot_of,
)
from cisbot.errors import FieldError

PROBLEMS_MAX = 1000
Parsed = Definition | list[Problem]

_FILE = "the file"
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_STR_TAG = "tag:yaml.org,2002:str"
_UNPRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_HINTS = {
    "mapping values are not allowed": "Text with ': ' in it needs quotes.",
    "could not find expected ':'": "A key is followed by ': '.",
    "cannot start any token": "Text that starts with @, ` or % needs quotes.",
    "while scanning a quoted scalar": "A quote is never closed.",
}


@dataclass(slots=True)
class _Open:
    """A list or mapping being read; `key` waits for its value, `dropped` says that it is refused."""

    node: Node
    anchor: str | None
    key: str | None = None
    waiting: bool = False
    dropped: bool = False


class _Stop(Exception):  # noqa: N818 - not an error: reading ends here, the problem is already noted
    pass


@dataclass(slots=True)
class _Composer:
    """Builds the tree from YAML events, with a stack of its own instead of recursion."""

    problems: list[tuple[Spot, FieldError]] = field(default_factory=list)
    stack: list[_Open] = field(default_factory=list)
    anchors: dict[str, Node] = field(default_factory=dict)
    root: Node | None = None

    def note(self, spot: Spot, what: str, expected: str, hint: str = "") -> None:
        path = path_text([part for one in self.stack for part in _step(one)])
        self.problems.append((spot, FieldError(path or _FILE, what, expected, hint)))

    def take(self, event: yaml.Event) -> None:
        """One event. Raises `_Stop` where going on makes no sense."""
        spot = _spot(event.start_mark)
        match event:
            case yaml.DocumentStartEvent() if self.root is not None:
                self.note(spot, "a second document", "one document in a file, without '---' inside")
                raise _Stop
            case yaml.AliasEvent():
                self._alias(event.anchor or "", spot)
            case yaml.ScalarEvent():
                self._tag(event.tag, spot)
                self._attach(self._scalar(event, spot), event.anchor)
            case yaml.SequenceStartEvent():
                self._tag(event.tag, spot)
                self._open(Node(spot, items=[]), event.anchor)
            case yaml.MappingStartEvent():
                self._tag(event.tag, spot)
                self._open(Node(spot, items={}), event.anchor)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                done = self.stack.pop()
                self._attach(done.node, done.anchor)
            case _:
                pass

    def _tag(self, tag: str | None, spot: Spot) -> None:
        if tag not in (None, "!", _STR_TAG):
            self.note(spot, f"the tag {str(tag)[:60]!r} is not allowed", "plain YAML without tags")

    def _scalar(self, event: yaml.ScalarEvent, spot: Spot) -> Node:
        text: str = event.value
        value: str | int | float | bool | None = text
        is_key = bool(self.stack) and isinstance(self.stack[-1].node.items, dict)
        is_key = is_key and not self.stack[-1].waiting
        if event.style in (None, "") and event.tag is None and not is_key:
            try:
                value = read_scalar(text)
            except FieldError as error:
                self.note(spot, error.what, error.expected, error.hint)
        elif is_key and text == "<<" and event.style in (None, ""):
            value = None
        return Node(spot, value=value, size=len(text) + 1)

    def _alias(self, anchor: str, spot: Spot) -> None:
        known = self.anchors.get(anchor)
        if known is None:
            self.note(spot, f"'*{anchor[:40]}' has no anchor before it", f"'&{anchor[:40]}' earlier")
        node = known or Node(spot, value="")
        self._attach(Node(spot, node.value, node.items, node.keys, node.size), None)

    def _open(self, node: Node, anchor: str | None) -> None:
        if len(self.stack) >= DEPTH_MAX:
            self.note(node.spot, "is nested too deeply", f"at most {DEPTH_MAX} levels")
            raise _Stop
        self.stack.append(_Open(node, anchor))

    def _attach(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self.anchors[anchor] = node
        if not self.stack:
            self.root = node
            return
        top = self.stack[-1]
        top.node.size += node.size
        if top.node.size > 2 * DEFINITION_BYTES_MAX:
            self.note(node.spot, "aliases make this too large", f"at most {DEFINITION_BYTES_MAX} bytes")
            raise _Stop
        match top.node.items:
            case list():
                top.node.items.append(node)
            case dict() if top.waiting:
                if not top.dropped and top.key is not None:
                    top.node.items[top.key] = node
                top.key, top.waiting, top.dropped = None, False, False
            case _:
                self._key(top, node)

    def _key(self, top: _Open, node: Node) -> None:
        top.waiting = True
        top.dropped = True
        key = node.value
        if key is None and node.items is None:
            self.note(node.spot, "merge keys ('<<') are not supported", "the keys written out")
        elif not isinstance(key, str) or node.items is not None:
            self.note(node.spot, "a key that is not text", "text as the key")
        elif len(key) > KEY_LEN_MAX:
            self.note(node.spot, "too long a key", f"at most {KEY_LEN_MAX} characters")
        elif key in top.node.keys:
            first = top.node.keys[key].line
            what = f"the key '{key[:40]}' is there twice, first in line {first}"
            self.note(node.spot, what, "each key once")
        else:
            top.key, top.dropped = key, False
            top.node.keys[key] = node.spot


def _step(one: _Open) -> list[str | int]:
    if isinstance(one.node.items, list):
        return [len(one.node.items)]
    return [one.key] if one.key is not None else []


def _spot(mark: yaml.Mark | yaml._yaml.Mark | None) -> Spot:
    return Spot(mark.line + 1, mark.column + 1) if mark else Spot(1, 1)


def parse_bytes(data: bytes, source: str) -> Parsed:
    """As `parse`, for a file's bytes: they must be UTF-8."""
    try:
        return parse(data.decode("utf-8-sig"), source)
    except UnicodeDecodeError as error:
        spot = _spot_at(data[: error.start].decode("utf-8", "replace"))
        what = f"byte 0x{data[error.start]:02x} is not UTF-8"
        hint = "Save the file as UTF-8."
        return [Problem(source, spot.line, spot.column, _FILE, what, "text in UTF-8", hint)]


def parse(text: str, source: str) -> Parsed:
    """The definition in a text, or all that is wrong with it, in the order of the file.

    `source` names the file in the problems. Never raises.
    """
    text = text.removeprefix("\ufeff")
    composer = _Composer()
    definition: Definition | None = None
    if _readable(text, composer) and _compose(text, composer) and composer.root is not None:
        definition, found = _validate(composer.root)
        composer.problems.extend(found)
    if definition is not None and not composer.problems:
        size = len(definition.canonical.encode())
        if size <= DEFINITION_BYTES_MAX:
            return definition
        limit = f"at most {DEFINITION_BYTES_MAX} bytes"
        composer.note(Spot(1, 1), f"has {size} bytes once written out", limit)
    unique = dict.fromkeys(
        (spot, e.field, e.what, e.expected, e.hint)
        for spot, e in sorted(composer.problems, key=lambda one: one[0])
    )
    shown = [Problem(source, s.line, s.column, *said) for s, *said in islice(unique, PROBLEMS_MAX)]
    if len(unique) > PROBLEMS_MAX:
        what = f"there are more than {PROBLEMS_MAX} problems; the rest is not shown"
        shown.append(Problem(source, shown[-1].line, shown[-1].column, _FILE, what))
    return shown


def _readable(text: str, composer: _Composer) -> bool:
    """Whether the text is of a size and of characters that YAML may have."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if size > DEFINITION_BYTES_MAX:
        composer.note(Spot(1, 1), f"has {size} bytes", f"at most {DEFINITION_BYTES_MAX} bytes")
    elif found := _UNPRINTABLE.search(text):
        what = f"the character U+{ord(found[0]):04X} is not allowed"
        composer.note(_spot_at(text[: found.start()]), what, "printable text")
    return not composer.problems


def _spot_at(before: str) -> Spot:
    return Spot(before.count("\n") + 1, len(before) - before.rfind("\n"))


def _compose(text: str, composer: _Composer) -> bool:
    """Read the tree; False where it is not whole, so that checking it would only add noise."""
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            composer.take(event)
    except _Stop:
        return False
    except yaml.YAMLError as error:
        spot, said = _syntax(error, text)
        composer.problems.append((spot, said))
        return False
    root = composer.root
    if root is None or not (isinstance(root.items, dict) and root.items):
        empty = root is None or (root.items is None and root.value in (None, ""))
        what = "is empty" if empty or (root and root.items == {}) else "is not a mapping"
        spot = root.spot if root else Spot(1, 1)
        composer.note(spot, what, "a mapping (key: value) with at least id and tasks")
        return False
    return True


def _syntax(error: yaml.YAMLError, text: str) -> tuple[Spot, FieldError]:
    """A syntax error in short words."""
    spot = _spot(getattr(error, "problem_mark", None))
    said = str(getattr(error, "problem", None) or "is not YAML")
    context = str(getattr(error, "context", None) or "")
    lines = text.split("\n")
    line = lines[spot.line - 1] if spot.line <= len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        column = line.index("\t") + 1
        what, expected = "a tab is used for indentation", "spaces"
        return Spot(spot.line, column), FieldError(_FILE, what, expected, "Replace each tab by spaces.")
    begun = getattr(error, "context_mark", None)
    if context and begun is not None and begun.line + 1 < spot.line:
        context += f", begun in line {begun.line + 1}"
    hint = next((tip for sign, tip in _HINTS.items() if sign in said or sign in context), "")
    what = f"{said} ({context})" if context else said
    return spot, FieldError(_FILE, what, "valid YAML", hint)


Found = tuple[Spot, FieldError]


def _validate(root: Node) -> tuple[Definition | None, list[Found]]:
    """The model's errors and those between fields, all at once."""
    raw = plain(root)
    assert isinstance(raw, dict)
    found = [(spot_of(root, loc, of_key=False), e) for loc, e in islice(_empty(root, ()), PROBLEMS_MAX)]
    blank = {spot for spot, _ in found}
    definition: Definition | None = None
    errors: list[tuple[Loc, FieldError]] = list(islice(_between(raw), PROBLEMS_MAX))
    try:
        definition = Definition.model_validate(raw)
    except ValidationError as error:
        errors.extend(islice(explain(error, Definition), PROBLEMS_MAX))
    for loc, said in errors:
        of_key = loc[-1:] == (KEY,)
        spot = spot_of(root, loc[:-1] if of_key else loc, of_key=of_key)
        if spot not in blank:
            found.append((spot, said))
    assert definition is not None or found
    return definition, found


def _empty(node: Node, loc: Loc) -> Iterator[tuple[Loc, FieldError]]:
    """Keys with nothing behind them: `approval:` alone must not read as "no approval"."""
    if node.items is None:
        if node.value is None and loc[-2:] != ("approval", "power_level"):
            yield loc, FieldError(path_text(loc), "is empty", "a value, or no such key")
        return
    if len(loc) == 3 and loc[0] == "tasks" and loc[2] == "with":
        return
    steps = node.items.items() if isinstance(node.items, dict) else enumerate(node.items)
    for part, child in steps:
        yield from _empty(child, (*loc, part))


def _between(raw: Mapping[str, Plain]) -> Iterator[tuple[Loc, FieldError]]:
    """What is wrong between fields, found even where the fields themselves are wrong."""
    params, tasks = raw.get("params"), raw.get("tasks")
    if isinstance(params, dict) and (error := params_fault(list(params))):
        yield (*error.field.split(".", 1), KEY), error
    if isinstance(raw.get("overlap"), dict) and (useless := overlap_fault(raw.get("scope"))):
        yield ("overlap",), useless
    if not isinstance(tasks, dict):
        return
    needs: dict[str, list[str]] = {}
    for name, task in tasks.items():
        needs[name] = []
        if not isinstance(task, dict):
            continue
        if error := kind_fault([key for key in task if key in (*KINDS, "with")]):
            field_name = path_text(("tasks", name))
            yield ("tasks", name, KEY), FieldError(field_name, error.what, error.expected, error.hint)
        listed = task.get("needs")
        if isinstance(listed, list) and all(isinstance(one, str) for one in listed):
            needs[name] = [one for one in listed if isinstance(one, str)]
    yield from needs_faults(needs)

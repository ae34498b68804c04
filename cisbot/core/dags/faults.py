"""What pydantic refuses, said for people: which field, what was wrong, what would be right.

Pure. Definitions, settings and sent contents all speak through `explain`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic_core import ErrorDetails, PydanticCustomError, ValidationError

from cisbot.core.ids import nearest
from cisbot.errors import FieldError

Loc = tuple[str | int, ...]
Given = TypeVar("Given")
Made = TypeVar("Made")

_SHOWN_MAX = 40
_FAULT = "fault"
CROSS = "cross"
KEY = "[key]"  # pydantic's mark behind a mapping's key that is itself wrong

_SPOKEN = {"yes": "true", "on": "true", "true": "true", "no": "false", "off": "false", "false": "false"}

_EXPECTED: Mapping[str, str] = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "dict_type": "a mapping (key: value)",
    "mapping_type": "a mapping (key: value)",
    "model_type": "a mapping (key: value)",
    "tuple_type": "a list",
    "list_type": "a list",
    "invalid-json-value": "text, a number, true, false, a list or a mapping",
    "path_type": "a path",
}


def fault(error: FieldError, kind: str = _FAULT) -> PydanticCustomError:
    """A `FieldError` in the form that pydantic collects with all the others."""
    context = {"what": error.what, "expected": error.expected, "hint": error.hint}
    return PydanticCustomError(kind, "{what}; expected {expected}", context)


def guard(check: Callable[[Given], Made]) -> Callable[[Given], Made]:
    """Make a function that raises `FieldError` fit for a pydantic validator."""

    def guarded(value: Given) -> Made:
        try:
            return check(value)
        except FieldError as error:
            raise fault(error) from None

    return guarded


def path_text(loc: Sequence[str | int]) -> str:
    """`tasks.dump.needs[0]`."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def describe(value: object) -> str:
    """What was given, in a few words and never in full."""
    match value:
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return f"the text {shorten(value)!r}"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case _:
            return "a value of an unknown kind"


def shorten(text: str) -> str:
    """At most 40 characters of a text."""
    return text if len(text) <= _SHOWN_MAX else text[: _SHOWN_MAX - 1] + "…"


def explain(error: ValidationError, root: type[BaseModel]) -> Iterator[tuple[Loc, FieldError]]:
    """Every error with its place, in keys as people write them; `KEY` at the end: the key itself is meant."""
    for detail in error.errors(include_url=False):
        if detail["type"] != CROSS:
            place = detail["loc"]
            if detail["type"] == "extra_forbidden":
                place = (*place, KEY)
            elif detail["type"] == "missing":
                place = (*place[:-1], KEY)
            elif place[-1:] == (KEY,):
                detail["loc"] = place[:-1]
            yield place, _one(detail, root)


def _one(detail: ErrorDetails, root: type[BaseModel]) -> FieldError:
    loc = detail["loc"]
    field = path_text(loc) or "the file"
    context = detail.get("ctx", {})
    value: object = detail["input"]
    if detail["type"] in (_FAULT, CROSS):
        return FieldError(field, context["what"], context["expected"], context["hint"])
    if detail["type"] == "extra_forbidden":
        keys = keys_at(root, loc[:-1])
        word = str(loc[-1])
        near = nearest(word, keys)
        return FieldError(field, f"unknown key '{shorten(word)}'", f"one of: {', '.join(keys)}", near)
    if detail["type"] == "missing":
        return FieldError(field, "is missing", _promise(root, loc))
    expected = _expected(detail["type"], context)
    if not expected:
        return FieldError(field, detail["msg"][:1].lower() + detail["msg"][1:])
    given = "a wrong value" if annotation_at(root, loc) is SecretStr else describe(value)
    hint = "" if given == "a wrong value" else _mend(expected, value)
    return FieldError(field, f"{given} can't be used here", expected, hint)


def _mend(expected: str, value: object) -> str:
    """The nearest mend of a value of the wrong kind, if there is one."""
    if expected == "text" and isinstance(value, bool | int | float):
        return f'Put it in quotes: "{str(value).lower()}"'
    if not isinstance(value, str):
        return ""
    if expected == "true or false" and value.lower() in _SPOKEN:
        return f"Did you mean {_SPOKEN[value.lower()]}?"
    return f"Did you mean [{shorten(value)}]?" if expected == "a list" else ""


def _expected(kind: str, context: Mapping[str, object]) -> str:
    """What would be right, for the kinds of errors that pydantic has."""
    match kind:
        case "literal_error" | "enum":
            listed = str(context["expected"]).replace(" or ", ", ").replace("'", "")
            return f"one of: {listed}"
        case "greater_than_equal":
            return f"at least {context['ge']}"
        case "greater_than":
            return f"more than {context['gt']}"
        case "less_than_equal":
            return f"at most {context['le']}"
        case "less_than":
            return f"less than {context['lt']}"
        case "string_too_long":
            return f"at most {context['max_length']} characters"
        case "too_long":
            return f"at most {context['max_length']} entries"
        case "string_too_short":
            return "some text"
        case "too_short":
            return f"at least {context['min_length']} entry"
        case _:
            return _EXPECTED.get(kind, "")


def _promise(root: type[BaseModel], loc: Loc) -> str:
    """The description of the field that is missing: it says what would be right."""
    model = annotation_at(root, loc[:-1])
    return next((info for name, info in _fields(model) if name == loc[-1] and info), "a value")


def keys_at(root: type[BaseModel], loc: Loc) -> tuple[str, ...]:
    """The keys that the mapping at this place may have."""
    return tuple(name for name, _ in _fields(annotation_at(root, loc)))


def _fields(model: object) -> Iterator[tuple[str, str]]:
    if isinstance(model, type) and issubclass(model, BaseModel):
        for name, info in model.model_fields.items():
            yield info.alias or name, info.description or ""


def annotation_at(root: type[BaseModel], loc: Loc) -> object:
    """The type of the value at this place, without `Annotated` and `| None`; None if unknown."""
    here: object = root
    for part in loc:
        if isinstance(here, type) and issubclass(here, BaseModel):
            found = [f.annotation for n, f in here.model_fields.items() if part in (n, f.alias)]
            here = _bare(found[0]) if found else None
        elif arguments := get_args(here):
            here = _bare(arguments[0] if isinstance(part, int) else arguments[-1])
        else:
            return None
    return here


def _bare(annotation: object) -> object:
    if get_origin(annotation) is Annotated:
        return _bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, UnionType):
        real = [a for a in get_args(annotation) if a is not type(None)]
        return _bare(real[0]) if len(real) == 1 else annotation
    return annotation

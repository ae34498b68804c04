"""The types of fields that definitions and settings share, each with its check and its limit. Pure."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    PlainSerializer,
    Strict,
)

from cisbot.core.dags.faults import describe, guard
from cisbot.core.dags.tree import DEPTH_MAX, DIGITS_MAX, KEY_LEN_MAX
from cisbot.core.dags.values import DURATION_RULE, format_duration, parse_duration, parse_target
from cisbot.core.ids import check_name
from cisbot.core.scopes import parse_scope
from cisbot.errors import FieldError

VALUE_BYTES_MAX = 4096
ENV_MAX = 200
RESERVED_PARAMS = ("target", "scope", "priority")
ENV_RULE = "letters, digits and '_', not starting with a digit or with CIS_"
PARAM_RULE = "a letter, then up to 63 letters, digits, '_' or '-'"

_ENV = re.compile(r"(?!CIS_)[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_PARAM = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}\Z")
_MXID = re.compile(r"@[^:\s]{1,200}:[^\s]{1,200}\Z")
_SURROGATE = re.compile("[\ud800-\udfff]")

Value = str | int | float | bool


class Model(BaseModel):
    """Frozen, strict, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def _name(text: str) -> str:
    return check_name("name", text)


def _env_name(text: str) -> str:
    if not _ENV.match(text):
        raise FieldError("env", f"{text[:40]!r} can't be a variable's name", ENV_RULE)
    return text


def _param_name(text: str) -> str:
    if text.lower() in RESERVED_PARAMS:
        raise FieldError("params", f"{text!r} is a word of the publish command", "another name")
    if not _PARAM.match(text):
        raise FieldError("params", f"{text[:40]!r} can't be a parameter's name", PARAM_RULE)
    return text


def _encodable(text: str) -> str:
    if _SURROGATE.search(text):
        raise FieldError("text", "holds half a character (a surrogate)", "text that can be UTF-8")
    return text


def bounded(limit: int) -> AfterValidator:
    """At most so many bytes of UTF-8, without NUL: what a process and an event can carry."""

    def check(text: str) -> str:
        size = len(text.encode("utf-8", "surrogatepass"))
        if size > limit:
            raise FieldError("text", f"has {size} bytes", f"at most {limit} bytes")
        if "\0" in text:
            raise FieldError("text", "holds a NUL character", "text without it")
        return _encodable(text)

    return AfterValidator(guard(check))


def filled(text: str) -> str:
    """More than white space."""
    if not text.strip():
        raise FieldError("text", "is empty", "some text")
    return text


def _target(text: str) -> str:
    parse_target(text)
    return text


def _scope(text: str) -> str:
    parse_scope(text)
    return text


def _user(text: str) -> str:
    if not _MXID.match(text):
        raise FieldError("users", f"{text[:80]!r} is not a Matrix user id", "such as @alice:example.org")
    return text


def _room(text: str) -> str:
    if not re.match(r"[!#][^\s]{1,254}\Z", text):
        raise FieldError("room", f"{text[:80]!r} is not a room", "#alias:server or !id:server")
    return text


def _duration(value: object) -> float:
    if not isinstance(value, str):
        hint = f"Did you mean '{value}s'?" if type(value) is int else ""
        raise FieldError("duration", f"{describe(value)} is not a duration", DURATION_RULE, hint)
    return parse_duration(value)


def _value(value: object) -> object:
    if not isinstance(value, Value):
        raise FieldError("value", f"{describe(value)} can't be used here", "text, a number, true or false")
    if isinstance(value, str) and len(value.encode("utf-8", "surrogatepass")) > VALUE_BYTES_MAX:
        raise FieldError("value", "is too long", f"at most {VALUE_BYTES_MAX} bytes")
    return _portable(value)


def _portable(value: object, depth: int = 4) -> object:
    """Refuse what a file can't say, so that every definition's canonical text reads back as itself."""
    match value:
        case str():
            return _encodable(value)
        case int() if abs(value) >= 10**DIGITS_MAX:
            raise FieldError("value", "too long a number", f"at most {DIGITS_MAX} digits", "Quote it.")
        case float() if not math.isfinite(value):
            raise FieldError("value", "a number without end", "a finite number")
        case list() | dict() if depth >= DEPTH_MAX:
            raise FieldError("value", "is nested too deeply", f"at most {DEPTH_MAX} levels in the file")
        case list():
            return [_portable(one, depth + 1) for one in value]
        case dict():
            return {_key(key): _portable(one, depth + 1) for key, one in value.items()}
        case _:
            return value


def _key(key: object) -> object:
    if isinstance(key, str) and len(key) > KEY_LEN_MAX:
        raise FieldError("value", "too long a key", f"at most {KEY_LEN_MAX} characters")
    return _encodable(key) if isinstance(key, str) else key


NAMED = AfterValidator(guard(_name))
Name = Annotated[str, NAMED]
ShortText = Annotated[str, bounded(VALUE_BYTES_MAX)]
EnvName = Annotated[str, AfterValidator(guard(_env_name))]
ParamName = Annotated[str, AfterValidator(guard(_param_name))]
TargetText = Annotated[str, AfterValidator(guard(_target))]
ScopeText = Annotated[str, AfterValidator(guard(_scope))]
User = Annotated[str, AfterValidator(guard(_user))]
RoomName = Annotated[str, AfterValidator(guard(_room))]
Users = Annotated[tuple[User, ...], Strict(False), Field(max_length=1000)]
Env = Annotated[Mapping[EnvName, ShortText], Field(max_length=ENV_MAX)]
Arguments = Annotated[Mapping[str, JsonValue], BeforeValidator(guard(_portable))]
Scalar = Annotated[Value, BeforeValidator(guard(_value))]
Seconds = Annotated[
    float,
    BeforeValidator(guard(_duration), json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
]

"""What a DAG file says: the models of a definition and of its tasks.

Every model is frozen and strict and refuses unknown keys. A definition that exists is valid: names,
targets, needs and parameters are checked here, so nobody behind this border checks them again.
Defaults never change once released: a definition's hash leaves them out (`canonical`).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    Strict,
    StringConstraints,
    TypeAdapter,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import SchemaError, ValidationError

from cisbot.core.dags.faults import CROSS, describe, fault, guard
from cisbot.core.dags.fields import (
    NAMED,
    Arguments,
    Env,
    Model,
    Name,
    ParamName,
    RoomName,
    Scalar,
    ScopeText,
    Seconds,
    ShortText,
    TargetText,
    Users,
    Value,
    bounded,
    filled,
)
from cisbot.core.dags.graph import needs_faults
from cisbot.core.ids import DagId, TaskId
from cisbot.errors import FieldError

DEFINITION_BYTES_MAX = 1_000_000
TASKS_MAX = 100_000
PARAMS_MAX = 100
SHELL_BYTES_MAX = 100_000
MESSAGE_BYTES_MAX = 32_000
REMEMBER_MAX = 16
LOCKS_MAX = 8
ALLOW_MAX = 32  # so many holders fit into the head that events carry, however long their names are
KINDS = ("shell", "skill", "matrix")
_ESCAPED = re.compile("[\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]")


class OnLost(StrEnum):
    """What happens to a run whose holder is lost."""

    ASK = "ask"
    RESUME = "resume"
    RERUN = "rerun"


class ParamType(StrEnum):
    """The types of parameters."""

    STRING = "string"
    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"


class Param(Model):
    """One parameter that the publisher may give: `day=monday`."""

    type: Annotated[ParamType, Strict(False)] = ParamType.STRING
    description: ShortText = ""
    required: bool = False
    pattern: Annotated[str, Field(max_length=200)] | None = None
    choices: Annotated[tuple[Scalar, ...], Strict(False), Field(max_length=100)] = ()
    default: Scalar | None = None

    @field_validator("pattern")
    @classmethod
    def _pattern(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        if pattern is None:
            return None
        if info.data.get("type", ParamType.STRING) is not ParamType.STRING:
            raise fault(FieldError("pattern", "is only for type string", "no pattern"))
        try:
            _matcher(f"{pattern}")
            _matcher(f"^(?:{pattern})$")
        except SchemaError:
            raise fault(FieldError("pattern", "is no regular expression", "such as [a-z]+")) from None
        return pattern

    @field_validator("choices")
    @classmethod
    def _choices(cls, choices: tuple[Value, ...], info: ValidationInfo) -> tuple[Value, ...]:
        kind = info.data.get("type")
        for choice in choices:
            if kind is not None and not is_of_type(choice, kind):
                raise fault(_wrong_type(choice, kind))
        return choices

    @field_validator("default")
    @classmethod
    def _default(cls, default: Value | None, info: ValidationInfo) -> Value | None:
        if default is None:
            return None
        kind, choices = info.data.get("type"), info.data.get("choices")
        if info.data.get("required"):
            raise fault(FieldError("default", "a required parameter has no default", "one of the two"))
        if kind is not None and not is_of_type(default, kind):
            raise fault(_wrong_type(default, kind))
        if choices and default not in choices:
            listed = ", ".join(map(str, choices))
            raise fault(FieldError("default", "is not one of the choices", f"one of: {listed}"))
        pattern = info.data.get("pattern")
        if pattern and isinstance(default, str) and not fits(pattern, default):
            raise fault(FieldError("default", "does not match the pattern", f"text like {pattern}"))
        return default


class Approval(Model):
    """Who must agree before the run: any of `users`, or anyone with that power level in the room.

    `power_level: null` leaves it to the users alone.
    """

    power_level: int | None = Field(default=50, ge=-(2**53), le=2**53)
    users: Users = ()
    count: int = Field(default=1, ge=1, le=50)
    deadline_s: Seconds | None = Field(default=None, alias="deadline")
    four_eyes: bool = False

    @model_validator(mode="after")
    def _somebody(self) -> Self:
        if self.power_level is None and self.count > len(set(self.users)):
            few = f"{len(set(self.users))} users can't give {self.count} approvals"
            raise fault(FieldError("users", few, "at least as many users as the count"))
        return self


class Overlap(Model):
    """What becomes of a run while others of its DAG and scope go on: it waits until fewer than `allow` do.

    The file's word `queue` stands for one.
    """

    allow: int = Field(default=1, ge=2, le=ALLOW_MAX)


def _overlap(value: object) -> object:
    if value == "queue":
        return Overlap()
    if not isinstance(value, Mapping | Overlap) or value == {}:
        what = f"{describe(value)} can't be used here"
        raise FieldError("overlap", what, f"queue, or {{allow: 2}} up to {ALLOW_MAX}")
    return value


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise FieldError("locks", f"'{name}' is there twice", "each lock once")
    return names


class Message(Model):
    """What a `matrix` task sends; without a room, into the run's own thread."""

    message: Annotated[str, bounded(MESSAGE_BYTES_MAX), AfterValidator(guard(filled))] = Field(
        description="the text to send"
    )
    room: RoomName | None = None


def _message(value: object) -> object:
    return {"message": value} if isinstance(value, str) else value


class Task(Model):
    """One step: exactly one of `shell`, `skill`, `matrix`."""

    description: ShortText = ""
    needs: Annotated[tuple[str, ...], Strict(False), Field(max_length=TASKS_MAX)] = ()
    shell: Annotated[str, bounded(SHELL_BYTES_MAX), AfterValidator(guard(filled))] | None = None
    skill: Name | None = None
    with_: Arguments = Field(default_factory=dict, alias="with")
    matrix: Annotated[Message, BeforeValidator(_message)] | None = None
    env: Env = Field(default_factory=dict)
    workdir: Annotated[ShortText, AfterValidator(guard(filled))] | None = None
    timeout_s: Seconds | None = Field(default=None, alias="timeout")
    remember: Annotated[Mapping[Name, ShortText], Field(max_length=REMEMBER_MAX)] = Field(
        default_factory=dict
    )

    @property
    def kind(self) -> Literal["shell", "skill", "matrix"]:
        """Which of the three it is."""
        if self.shell is not None:
            return "shell"
        return "skill" if self.skill is not None else "matrix"

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if self.with_:
            given.append("with")
        if error := kind_fault(given):
            raise fault(error, CROSS)
        return self


class Definition(Model):
    """A DAG: how it is called, where it may run, who must agree, and its tasks."""

    id: Annotated[DagId, NAMED] = Field(description="the DAG's name")
    description: ShortText = ""
    target: TargetText = "any"
    scope: ScopeText | None = None
    priority: int = Field(default=0, ge=-100, le=100)
    params: Annotated[Mapping[ParamName, Param], Field(max_length=PARAMS_MAX)] = Field(default_factory=dict)
    env: Env = Field(default_factory=dict)
    approval: Approval | None = None
    locks: Annotated[
        tuple[Name, ...], Strict(False), Field(max_length=LOCKS_MAX), AfterValidator(guard(_distinct))
    ] = ()
    overlap: Annotated[Overlap, BeforeValidator(guard(_overlap))] = Overlap()
    idempotent: bool = False
    on_lost: Annotated[OnLost, Strict(False)] = OnLost.ASK
    tasks: Annotated[
        Mapping[Annotated[TaskId, NAMED], Task],
        Field(min_length=1, max_length=TASKS_MAX),
    ] = Field(description="at least one task")

    @model_validator(mode="before")
    @classmethod
    def _lost(cls, raw: object) -> object:
        """An idempotent DAG that says nothing else is run again when its holder is lost."""
        if isinstance(raw, Mapping) and raw.get("idempotent") is True and "on_lost" not in raw:
            return {**raw, "on_lost": OnLost.RERUN.value}
        return raw

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for _, error in needs_faults({name: task.needs for name, task in self.tasks.items()}):
            raise fault(error, CROSS)
        if clash := params_fault(list(self.params)):
            raise fault(clash, CROSS)
        if self.overlap != Overlap() and (useless := overlap_fault(self.scope)):
            raise fault(useless, CROSS)
        return self

    @cached_property
    def canonical(self) -> str:
        """Its one text: compact JSON, which is YAML too, so `parse` reads it back.

        What equals its default is left out, and the order of tasks and parameters is kept.
        """
        content = self.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", text)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical text, in hex; show the first 16 characters.

        Comments, spacing, quoting and the order of an object's own keys don't change it.
        """
        return hashlib.sha256(self.canonical.encode()).hexdigest()


def kind_fault(keys: list[str]) -> FieldError | None:
    """What is wrong with the keys that a task has, if anything."""
    given = [kind for kind in KINDS if kind in keys]
    if not given:
        return FieldError("task", "does nothing", "one of: shell, skill, matrix")
    if len(given) > 1:
        return FieldError("task", f"has {' and '.join(given)}", "only one of: shell, skill, matrix")
    if "with" in keys and given != ["skill"]:
        return FieldError("task", f"'with' beside {given[0]}", "'with' only beside a skill")
    return None


def params_fault(names: list[str]) -> FieldError | None:
    """Two parameters that would share a variable, if any."""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(name.upper().replace("-", "_"), name)
        if other != name:
            return FieldError(f"params.{name}", f"shares its variable with '{other}'", "another name")
    return None


def overlap_fault(scope: object) -> FieldError | None:
    """Runs that share one worker in the whole cluster can't go on at once."""
    if scope != "global":
        return None
    return FieldError("overlap", "several runs at once, in a scope of one worker", "queue, or another scope")


def is_of_type(value: Value, kind: ParamType) -> bool:
    """Whether a default or a choice is of the parameter's type."""
    match kind:
        case ParamType.STRING:
            return isinstance(value, str)
        case ParamType.BOOLEAN:
            return isinstance(value, bool)
        case ParamType.INTEGER:
            return isinstance(value, int) and not isinstance(value, bool)
        case ParamType.NUMBER:
            return isinstance(value, int | float) and not isinstance(value, bool)


def _wrong_type(value: Value, kind: ParamType) -> FieldError:
    hint = f'Put it in quotes: "{str(value).lower()}"' if kind is ParamType.STRING else ""
    return FieldError("value", f"{describe(value)} is not of type {kind}", f"a value of type {kind}", hint)


@lru_cache(maxsize=256)
def _matcher(pattern: str) -> TypeAdapter[str]:
    """Rust's regular expressions: linear in time, so no pattern can hang a node."""
    return TypeAdapter(Annotated[str, StringConstraints(pattern=pattern)])


def fits(pattern: str, text: str) -> bool:
    """Whether the whole text matches a parameter's pattern."""
    try:
        _matcher(f"^(?:{pattern})$").validate_python(text)
    except ValidationError:
        return False
    return True

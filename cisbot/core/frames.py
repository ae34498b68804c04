"""The protocol between node and worker: typed frames, one JSON object a line.

The node writes `ToWorker` frames to the worker's stdin, the worker writes `FromWorker` frames to its
stdout. A frame carries its class's name in the field `frame`. Both sides run the same code, so there
is no tolerance: an unknown frame, a missing or extra field or a wrong type is a `FrameError`.

Deadlines are CLOCK_BOOTTIME seconds, which run on while the machine is suspended.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Final, Literal, NoReturn, TypeAlias, get_args

PROTOCOL: Final = 2
FRAME_BYTES_MAX: Final = 1 << 20  # the longest line, its newline included
OUTPUT_BYTES_MAX: Final = 16_384  # of all outputs of one attempt, as the task writes them
TAIL_BYTES: Final = 2_000  # of the log's end, in `TaskEnded.tail`

Json: TypeAlias = "None | bool | int | float | str | list[Json] | dict[str, Json]"
Kind = Literal["shell", "skill"]
Reason = Literal["exit", "cancelled", "fenced", "timeout", "error"]
KINDS: Final = ("shell", "skill")
REASONS: Final = ("exit", "cancelled", "fenced", "timeout", "error")


class FrameError(ValueError):
    """A line that is no frame, or a frame that makes no line."""


@dataclass(frozen=True, slots=True)
class Hello:
    """The node's first frame: its protocol, the worker's scope, how many tasks may run at once."""

    protocol: int
    scope: str
    max_concurrent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """Run one attempt of a task; higher `priority` first, then lower `order`.

    `script` is the shell's text, or the skill's name with `args`. `deadline` is when the last of the
    task's processes must be dead: the worker counts `fence_s` (from TERM to KILL) back from it. Other ends
    have `grace_s` for that. `timeout_s` counts from the start of the task's process.
    """

    run: str
    task: str
    attempt: int
    kind: Kind
    script: str
    args: dict[str, Json]
    shell: str = "/bin/sh"
    env: dict[str, str]
    workdir: str
    log_path: str
    priority: int
    order: int
    grace_s: float
    fence_s: float
    timeout_s: float | None
    deadline: float


@dataclass(frozen=True, slots=True)
class CancelRun:
    """Stop all tasks of the run: TERM, after `grace_s` KILL."""

    run: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class SetDeadline:
    """A new deadline for all tasks of the run that the worker knows, later or sooner."""

    run: str
    deadline: float


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Stop all tasks within `grace_s`, report them, exit."""

    grace_s: float


@dataclass(frozen=True, slots=True)
class Ping:
    """Are you there? The worker answers at once, whatever its tasks do."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker's first frame, in answer to `Hello`."""

    protocol: int
    pid: int


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to `Ping`."""


@dataclass(frozen=True, slots=True)
class TaskStarted:
    """The task's first process, which leads a session and process group of its own."""

    run: str
    task: str
    attempt: int
    pid: int


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """The attempt is over and none of its processes lives.

    `exit_code` and `signal` say how its first process ended; both are None when none was started.
    `reason` is why: "exit" by itself, "cancelled", "fenced" by the deadline, "timeout", or "error" when
    it could not be started (a skill that can't be imported too) or left unusable outputs. `error` is
    text for people, often "".
    """

    run: str
    task: str
    attempt: int
    exit_code: int | None
    signal: int | None
    reason: Reason
    error: str
    tail: str
    outputs: dict[str, str]


ToWorker = Hello | StartTask | CancelRun | SetDeadline | Ping | Shutdown
FromWorker = Ready | Pong | TaskStarted | TaskEnded
Frame = ToWorker | FromWorker


def _is_int(value: object) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _is_float(value: object) -> bool:
    return (type(value) is float and math.isfinite(value)) or _is_int(value)


def _is_str(value: object) -> bool:
    return isinstance(value, str)


def _is_json_map(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) for key in value)


def _is_str_map(value: object) -> bool:
    return isinstance(value, dict) and all(
        isinstance(key, str) and isinstance(text, str) for key, text in value.items()
    )


_CHECKS: Final[Mapping[str, Callable[[object], bool]]] = {
    "int": _is_int,
    "int | None": lambda value: value is None or _is_int(value),
    "float": _is_float,
    "float | None": lambda value: value is None or _is_float(value),
    "str": _is_str,
    "Kind": lambda value: value in KINDS,
    "Reason": lambda value: value in REASONS,
    "dict[str, str]": _is_str_map,
    "dict[str, Json]": _is_json_map,
}
_FRAMES: Final[Mapping[str, type[Frame]]] = {
    frame.__name__: frame for frame in (*get_args(ToWorker), *get_args(FromWorker))
}
# The annotations are text (`from __future__ import annotations`) and name the check of each field.
_FIELDS: Final[Mapping[str, Mapping[str, str]]] = {
    name: {field.name: str(field.type) for field in fields(frame)} for name, frame in _FRAMES.items()
}


def _check(name: str, body: Mapping[str, object]) -> None:
    wanted = _FIELDS[name]
    if body.keys() != wanted.keys():
        odd = ", ".join(sorted(repr(key)[:40] for key in body.keys() ^ wanted.keys()))
        raise FrameError(f"{name}: missing or extra: {odd[:200]}")
    for field, kind in wanted.items():
        if not _CHECKS[kind](body[field]):
            raise FrameError(f"{name}.{field}: not {kind}")


def encode(frame: Frame) -> bytes:
    """The frame as one line. Raises `FrameError` for a wrong type or too long a line."""
    name = type(frame).__name__
    body: dict[str, object] = {field: getattr(frame, field) for field in _FIELDS[name]}
    _check(name, body)
    try:
        line = json.dumps({"frame": name, **body}, allow_nan=False, separators=(",", ":"))
    except (ValueError, TypeError, RecursionError) as error:
        raise FrameError(f"{name}: {error}") from error
    if len(line) >= FRAME_BYTES_MAX:
        raise FrameError(f"{name}: {len(line)} bytes, more than {FRAME_BYTES_MAX}")
    return line.encode("ascii") + b"\n"


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise FrameError(f"the number {text[:40]} is too large")
    return number


def _refuse(text: str) -> NoReturn:
    raise FrameError(f"{text} is not JSON")


def decode(line: bytes) -> Frame:
    """The frame of a line, with or without its newline. Raises `FrameError` for anything else."""
    if len(line) > FRAME_BYTES_MAX:
        raise FrameError(f"{len(line)} bytes, more than {FRAME_BYTES_MAX}")
    try:
        body = json.loads(line.decode("utf-8"), parse_float=_finite, parse_constant=_refuse)
    except FrameError:
        raise
    except (ValueError, RecursionError) as error:
        raise FrameError(f"not JSON: {str(error)[:200]}") from error
    if not isinstance(body, dict):
        raise FrameError("not an object")
    name = body.pop("frame", None)
    if not isinstance(name, str) or name not in _FRAMES:
        raise FrameError(f"unknown frame {str(name)[:40]!r}")
    _check(name, body)
    for field, kind in _FIELDS[name].items():
        if kind.startswith("float") and body[field] is not None:
            body[field] = float(body[field])
    return _FRAMES[name](**body)

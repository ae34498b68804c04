"""The process of a skill task: `python -m cisbot.worker.skill NAME`, arguments as JSON on stdin.

It loads the entry point NAME of group `cisbot.skills`, calls it, and leaves what it returned, or why it
failed, in the file `CIS_OUTPUT`. What the skill prints is the task's log. Exit code 1 for any failure.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import traceback
from importlib.metadata import entry_points
from pathlib import Path
from types import TracebackType

GROUP = "cisbot.skills"


class SkillFailure(Exception):
    """A failure that needs no traceback; the text is for people."""


def load(name: str) -> object:
    """The skill's callable. Raises `SkillFailure` for an unknown one, or whatever its import raises."""
    found = [point for point in entry_points(group=GROUP) if point.name == name]
    if not found:
        known = ", ".join(sorted(entry_points(group=GROUP).names)) or "none"
        raise SkillFailure(f"unknown skill {name[:80]!r}; installed: {known}")
    return found[0].load()


async def _finish(awaitable: object) -> object:
    return await awaitable if inspect.isawaitable(awaitable) else awaitable


def call(skill: object, args: dict[str, object]) -> dict[str, str]:
    """Call a sync or async skill and check what it returns. Raises whatever the skill raises."""
    if not callable(skill):
        raise SkillFailure("the skill's entry point is not callable")
    result = skill(**args)
    if inspect.isawaitable(result):
        result = asyncio.run(_finish(result))
    if result is None:
        return {}
    if not isinstance(result, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in result.items()
    ):
        raise SkillFailure("the skill must return None or a dict of str to str")
    return result


def main() -> None:
    """Run the skill; any failure ends in `sys.excepthook`, which writes it down."""
    name, output = sys.argv[1], Path(os.environ["CIS_OUTPUT"])
    stage = "can't be loaded"

    def report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, SkillFailure):
            text = str(error)
        else:
            traceback.print_exception(kind, error, trace)
            text = f"skill {name[:80]!r} {stage}: {kind.__name__}: {error}"
        print(text, file=sys.stderr)  # noqa: T201 - the task's log
        output.write_text(json.dumps({"error": text[:2_000]}))

    sys.excepthook = report
    args = json.load(sys.stdin)
    skill = load(name)
    stage = "failed"
    output.write_text(json.dumps({"outputs": call(skill, args)}))


if __name__ == "__main__":
    main()

"""Skill tasks: entry points of an installed distribution, in a process of their own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cisbot.core.frames import CancelRun, TaskEnded
from tests.worker.real_processes import CODE, Worker, start

MODULE = """
import asyncio, os, sys

def hello(name, times=1):
    print("hello " * times + name)
    return {"greeting": "hello " + name, "lines": "a\\nb=c"}

async def later(**args):
    await asyncio.sleep(0)
    return None

def broken():
    raise KeyError("no such thing")

def odd():
    return {"n": 1}

def env():
    return {"token": os.environ.get("SECRET_TOKEN", "none"), "path": sys.path[0]}

def sleeps():
    print("up", flush=True)
    asyncio.run(asyncio.sleep(1000))

def leaves():
    sys.exit(9)

value = 3
"""
POINTS = """[cisbot.skills]
hello = a_skill:hello
later = a_skill:later
broken = a_skill:broken
odd = a_skill:odd
env = a_skill:env
sleeps = a_skill:sleeps
leaves = a_skill:leaves
value = a_skill:value
bad_import = a_skill_that_fails:run
missing = no_such_module:run
"""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker beside which a distribution with skills is installed."""
    site = tmp_path / "site"
    (site / "a_skill-1.dist-info").mkdir(parents=True)
    (site / "a_skill-1.dist-info" / "METADATA").write_text("Name: a-skill\nVersion: 1\n")
    (site / "a_skill-1.dist-info" / "entry_points.txt").write_text(POINTS)
    (site / "a_skill.py").write_text(MODULE)
    (site / "a_skill_that_fails.py").write_text("raise RuntimeError('not today')\n")
    # A task's folder must not lend modules to the skill's process.
    (tmp_path / "json.py").write_text("raise SystemExit('hijacked')\n")
    paths = {"PYTHONPATH": f"{CODE}:{site}", "SECRET_TOKEN": "syt_x"}
    with Worker(tmp_path, env=paths) as worker:
        worker.hello()
        yield worker


def run(worker: Worker, folder: Path, skill: str, /, **args: Any) -> TaskEnded:
    """Run a skill to its end."""
    return worker.run(start(folder, skill, kind="skill", args=args, task=skill))


def test_arguments_prints_and_outputs(worker: Worker, tmp_path: Path) -> None:
    end = run(worker, tmp_path, "hello", name="you", times=2)
    assert (end.reason, end.exit_code, end.error) == ("exit", 0, "")
    assert end.tail == "hello hello you\n"
    assert end.outputs == {"greeting": "hello you", "lines": "a\nb=c"}


def test_an_async_skill(worker: Worker, tmp_path: Path) -> None:
    end = run(worker, tmp_path, "later", any="thing")
    assert (end.reason, end.exit_code, end.outputs) == ("exit", 0, {})


def test_large_arguments(worker: Worker, tmp_path: Path) -> None:
    end = run(worker, tmp_path, "later", text="x" * 500_000)
    assert end.exit_code == 0


def test_environment(worker: Worker, tmp_path: Path) -> None:
    end = run(worker, tmp_path, "env")
    assert end.outputs["token"] == "none"
    assert end.outputs["path"] != str(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("huh", "unknown skill 'huh'; installed: bad_import, broken, "),
        ("bad_import", "skill 'bad_import' can't be loaded: RuntimeError: not today"),
        ("missing", "skill 'missing' can't be loaded: ModuleNotFoundError: No module named"),
        ("broken", "skill 'broken' failed: KeyError: 'no such thing'"),
        ("hello", "skill 'hello' failed: TypeError: hello() missing 1 required positional"),
        ("odd", "the skill must return None or a dict of str to str"),
        ("value", "the skill's entry point is not callable"),
    ],
)
def test_failures_are_told(worker: Worker, tmp_path: Path, name: str, text: str) -> None:
    end = run(worker, tmp_path, name)
    assert (end.reason, end.exit_code, end.outputs) == ("error", 1, {})
    assert end.error.startswith(text)
    assert text in end.tail


def test_a_skill_that_exits(worker: Worker, tmp_path: Path) -> None:
    end = run(worker, tmp_path, "leaves")
    assert (end.reason, end.exit_code, end.error) == ("exit", 9, "")


def test_cancel(worker: Worker, tmp_path: Path) -> None:
    worker.send(start(tmp_path, "sleeps", kind="skill"))
    worker.started()
    worker.send(CancelRun("$run:example.org", 5.0))
    end = worker.ended()
    assert (end.reason, end.signal) == ("cancelled", 15)

"""The import contracts hold, and planted breaches are found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the code in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(folder)},
    )  # fmt: skip


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The code and its contracts, to be spoilt."""
    for name in ("cisbot", "plugins"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(file: str, line: str) -> Callable[[Path], None]:
    """Puts a line at the end of a file, which may be a new one."""

    def breach(folder: Path) -> None:
        path = folder / file
        path.parent.mkdir(exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(f"{path.read_text() if path.exists() else ''}\n{line}\n")

    return breach


def test_the_contracts_hold(copy: Path) -> None:
    done = lint(copy)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("breach", "found"),
    [
        (plant("cisbot/core/claims/fold.py", "import time"), "cisbot.core.claims.fold -> time"),
        (plant("cisbot/core/ids.py", "import cisbot.node.loop"), "cisbot.core.ids -> cisbot.node.loop"),
        (plant("cisbot/worker/procs.py", "import pydantic"), "cisbot.worker.procs -> pydantic"),
        (plant("cisbot/node/loop.py", "import mautrix"), "cisbot.node.loop -> mautrix"),
        (plant("cisbot/node/loop.py", "import aiosqlite"), "cisbot.node.loop -> aiosqlite"),
        (plant("cisbot/utils/lists.py", ""), "cisbot.utils"),
        (plant("cisbot/core/models/run.py", ""), "cisbot.core.models"),
    ],
    ids=["time", "upwards", "heavy-worker", "mautrix", "sqlite", "utils", "models"],
)
def test_a_planted_breach_is_found(copy: Path, breach: Callable[[Path], None], found: str) -> None:
    breach(copy)
    done = lint(copy)
    assert done.returncode != 0
    assert found in done.stdout, done.stdout + done.stderr

"""The import contracts hold, and a planted breach is found."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts on the code in `folder`."""
    return subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command; lint_imports_command()"],
        cwd=folder, capture_output=True, text=True, check=False, env={"PYTHONPATH": str(folder)},
    )  # fmt: skip


def test_a_planted_breach_is_found(tmp_path: Path) -> None:
    for name in ("cisbot", "plugins"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    assert lint(tmp_path).returncode == 0, lint(tmp_path).stdout
    fold = tmp_path / "cisbot" / "core" / "claims" / "fold.py"
    fold.write_text("import time\n" + fold.read_text())
    broken = lint(tmp_path)
    assert broken.returncode != 0
    assert "cisbot.core.claims.fold -> time" in broken.stdout

"""Build the maubot plugin from this checkout: `python -m homeserver.mbp FOLDER`.

maubot's own `mbc build` packs whole folders as they are, so it is run on a clean copy.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from homeserver.errors import HomeserverError
from homeserver.install import install_maubot

ROOT = Path(__file__).resolve().parent.parent
_FILES = ("maubot.yaml", "base-config.yaml")
_FOLDERS = ("cisbot", "plugins")
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", "*.egg-info", "build", "dist", ".*")


def export(into: Path) -> None:
    """Copy what belongs into the plugin, and nothing that came of running it, into an empty folder."""
    for name in _FILES:
        shutil.copy(ROOT / name, into)
    for name in _FOLDERS:
        shutil.copytree(ROOT / name, into / name, ignore=_LEFT_OUT)


def build(folder: Path) -> Path:
    """Build the `.mbp` into `folder` and return its path; one of the same version is replaced.

    Raises HomeserverError when maubot can't be installed or will not build.
    """
    python = install_maubot()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        clean, built = Path(scratch, "clean"), Path(scratch, "built")
        clean.mkdir()
        built.mkdir()
        export(clean)
        command = [str(python), "-m", "maubot.cli", "build", str(clean), "--output", str(built)]
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
        made = sorted(built.glob("*.mbp"))
        if done.returncode != 0 or not made:
            raise HomeserverError(f"`mbc build` failed: {done.stdout}{done.stderr}")
        return Path(shutil.move(made[0], folder / made[0].name))


def main(argv: list[str]) -> int:
    """Build and print the plugin's path."""
    if len(argv) != 1:
        print("usage: python -m homeserver.mbp FOLDER", file=sys.stderr)
        return 2
    try:
        print(build(Path(argv[0])))
    except HomeserverError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

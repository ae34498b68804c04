"""`cisbot.plugins` is found in a checkout, in a wheel and inside a `.mbp`, without maubot."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from homeserver.mbp import export

LOOK = """
import sys
import cisbot
assert not [name for name in sys.modules if name.startswith(("maubot", "mautrix"))]
from cisbot.node.mount import mount_plugins
mount_plugins()
mount_plugins()
import cisbot.plugins.settings
from cisbot.store.open import migrations
assert migrations()
print(cisbot.__file__, cisbot.plugins.__file__, cisbot.plugins.settings.__file__)
"""


def look(place: Path, folder: Path) -> list[str]:
    """Where Python finds the code when `place` comes first on its path."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", LOOK],
        capture_output=True,
        text=True,
        cwd=folder,
        env={"PYTHONPATH": str(place)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("form", ["checkout", "wheel", "zip"])
def test_all_code_is_found_in_one_place(form: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    export(place)
    beside = place / "plugins"
    if form == "wheel":
        beside = beside.rename(place / "cisbot" / "plugins")
    if form == "zip":
        archive = Path(shutil.make_archive(str(tmp_path / "made"), "zip", place))
        place, beside = archive, archive / "plugins"
    assert look(place, tmp_path) == [
        str(place / "cisbot" / "__init__.py"), str(beside / "__init__.py"), str(beside / "settings.py")
    ]  # fmt: skip

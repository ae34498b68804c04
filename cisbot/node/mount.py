"""Make `cisbot.plugins` importable from a wheel, a checkout, and inside a `.mbp`.

On disk `plugins/` stands beside `cisbot/`; its name for imports is `cisbot.plugins`, because another `.mbp`
that ships a top-level `plugins` would replace ours.
"""

from __future__ import annotations

import sys
import types
from pathlib import Path

import cisbot


def mount_plugins() -> None:
    """Mount the folder `plugins` beside the package as `cisbot.plugins`, unless a wheel has put it inside.

    What stands beside this very package is taken, never a `cisbot.plugins` that is installed elsewhere.
    """
    package = Path(cisbot.__path__[0])
    if "cisbot.plugins" in sys.modules or (package / "plugins").is_dir():
        return
    root = package.parent / "plugins"
    module = types.ModuleType("cisbot.plugins")
    module.__path__ = [str(root)]
    module.__file__ = str(root / "__init__.py")  # by which maubot finds what to forget at a reload
    sys.modules["cisbot.plugins"] = module
    cisbot.plugins = module

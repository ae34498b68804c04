"""Make `cisbot.plugins` importable from a wheel, a checkout, and inside a `.mbp`.

On disk `plugins/` stands beside `cisbot/`; its name for imports is `cisbot.plugins`, because another `.mbp`
that ships a top-level `plugins` would replace ours.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import cisbot


def mount_plugins() -> None:
    """Mount the folder `plugins` beside the package as `cisbot.plugins`, unless it is installed so."""
    if "cisbot.plugins" in sys.modules or importlib.util.find_spec("cisbot.plugins") is not None:
        return
    root = str(Path(cisbot.__path__[0]).parent / "plugins")
    module = types.ModuleType("cisbot.plugins")
    module.__path__ = [root]
    sys.modules["cisbot.plugins"] = module
    cisbot.plugins = module

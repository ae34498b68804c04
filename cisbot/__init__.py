"""cisbot: machines run workflows together with nothing but a Matrix room between them."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

if TYPE_CHECKING:  # maubot looks for the name of the main class in this module's code
    from cisbot.plugins.coordinator import CisBot as CisBot


def __getattr__(name: str) -> object:
    """Load the maubot plugin only when maubot asks for it, so that importing cisbot needs no maubot."""
    if name == "CisBot":
        import_module("cisbot.node.mount").mount_plugins()
        return import_module("cisbot.plugins.coordinator").CisBot
    raise AttributeError(f"module 'cisbot' has no attribute {name!r}")

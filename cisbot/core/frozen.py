"""Frozen dataclasses at the price of others.

One that is frozen at run time sets each field by a call of its own: a tenth of all that a node's steps cost.
mypy, which sees all code here, forbids to change a value just as well, and before it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
else:
    import dataclasses
    from functools import partial

    def dataclass(*, frozen: bool = False, **options: bool):
        """As that of `dataclasses`: a frozen one is hashed by its fields, but only mypy guards them."""
        return partial(dataclasses.dataclass, unsafe_hash=frozen, **options)

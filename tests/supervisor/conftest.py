"""What these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.real_processes import Box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """The tasks' mailbox."""
    box = Box(tmp_path / "box")
    yield box
    box.close()

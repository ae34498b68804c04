"""What these tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.worker.real_processes import Box, Worker


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    """The tasks' mailbox."""
    box = Box(tmp_path / "box")
    yield box
    box.close()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker that is ready for four tasks."""
    with Worker(tmp_path) as worker:
        worker.hello()
        yield worker

"""Every failure ever found stays: a transcript that says what was wrong, and a story that holds it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.sim.scenarios import test_found

FOUND = sorted((Path(__file__).parent.parent / "transcripts").glob("found_*.txt"))
TOLD = [story for name, story in vars(test_found).items() if name.startswith("test_")]
STORIES = {(story.__doc__ or "").partition(":")[0] for story in TOLD}


def test_each_has_its_story() -> None:
    assert {path.stem for path in FOUND} == STORIES


@pytest.mark.parametrize("path", FOUND, ids=lambda path: path.stem)
def test_it_says_what_was_wrong_and_what_mended_it(path: Path) -> None:
    first, blank, *told = path.read_text().splitlines()
    assert re.search(r'Mended by ([0-9a-f]{7}|".+")\.$', first)
    assert blank == ""
    assert "node-1 starts" in told[0]

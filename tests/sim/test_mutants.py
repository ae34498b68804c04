"""The checks bite: without any one protective rule, a violation is found within a bounded number of seeds."""

from __future__ import annotations

import pytest

from tests.sim.__main__ import TRANSCRIPTS
from tests.sim.mutants import MUTANTS, Mutant

SEEDS_MAX = 600


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_without_the_rule_a_violation_is_found(mutant: Mutant) -> None:
    assert mutant.found(range(SEEDS_MAX)) is not None


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=list(MUTANTS))
def test_what_the_rule_prevents_can_be_read(mutant: Mutant) -> None:
    text = (TRANSCRIPTS / f"{mutant.name}.txt").read_text()
    assert text.startswith(f"Without the rule {mutant.name}: {mutant.prevents}.")
    assert "is granted" in text or "runs" in text or "is sure of" in text or "stuck" in text

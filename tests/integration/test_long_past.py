"""A node joins a room with a past: its state is small, and so is the number of pages that the node reads."""

from __future__ import annotations

import asyncio

import pytest

from cisbot.matrix.sync import FIRST_PAGES_MAX
from tests.bench.state_size import fill, join_anew, settings_of, state_of
from tests.integration.nodes import Nodes

pytestmark = [pytest.mark.synapse, pytest.mark.timeout(300)]
RUNS = 260  # two messages each: more than the pages that are read hold
OTHER_REQUESTS = {
    "POST join", "GET state", "GET state/m.room.create", "GET state/m.room.encryption", "GET capabilities",
    "PUT send",  # of the delayed end
}  # fmt: skip


def test_a_newcomer_reads_a_bounded_number_of_pages(nodes: Nodes) -> None:
    nodes.accounts = {name: nodes.make_account(name) for name in ("node-1", "node-2")}
    nodes.make_room()
    nodes.person.stop()  # who follows the room makes its filling slower
    ids = asyncio.run(fill(nodes, 100, [], 1e12))
    early, early_bytes = state_of(nodes)
    asyncio.run(fill(nodes, RUNS, ids, 1e12))
    late, late_bytes = state_of(nodes)
    assert late == early
    assert late_bytes < early_bytes * 1.02  # numbers with more digits

    for name, pages in (("node-2", 0), ("node-1", FIRST_PAGES_MAX)):  # new; and back without its database
        took_s, requests = asyncio.run(join_anew(settings_of(nodes, nodes.accounts[name], name)))
        print(name, round(took_s, 2), dict(requests))
        assert took_s < 20
        assert requests.pop("GET sync") <= 6
        assert requests.pop("PUT state/io.cisbot.node") == 1
        assert requests.pop("GET messages", 0) == pages
        looked = requests.pop("GET event", 0) + requests.pop("GET relations", 0)
        assert looked <= 4  # a run whose publication is on the last page and its end before that
        assert requests.keys() <= OTHER_REQUESTS
        assert requests.total() <= 8

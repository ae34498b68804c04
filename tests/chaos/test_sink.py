"""The sink refuses whoever comes late, also when many write at once."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from tests.chaos.sink import Sink


def test_it_refuses_a_fence_below_the_highest(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    assert sink.write("a/b", 3, {"run": "x"})
    assert sink.write("a/b", 3, {"run": "x"})
    assert sink.write("a/b", 10, {"run": "y"})
    assert not sink.write("a/b", 9, {"run": "z"})
    assert sink.write("other", 1, {"run": "z"})
    taken = [json.loads(line) for line in sink.journal.read_text().splitlines()]
    assert [(line["key"], line["fence"]) for line in taken] == [
        ("a/b", 3), ("a/b", 3), ("a/b", 10), ("other", 1),
    ]  # fmt: skip


def test_many_at_once_are_taken_in_order(tmp_path: Path) -> None:
    sink = Sink(tmp_path)
    writers = [
        threading.Thread(target=lambda n=n: [sink.write("k", fence, {}) for fence in range(n, 400, 8)])
        for n in range(8)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    fences = [json.loads(line)["fence"] for line in sink.journal.read_text().splitlines()]
    assert fences == sorted(fences)
    assert fences[-1] == 399

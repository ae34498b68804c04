"""Power levels, findings and log files: the pure parts."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cisbot.core.effects import ReadLog
from cisbot.core.ids import RoomId
from cisbot.matrix.check import all_well, room_findings
from cisbot.matrix.power import levels_content, read_levels
from cisbot.matrix.reads import read_log

NODE, OP = "@node-1:test", "@op:test"


def create(version: str) -> dict[str, Any]:
    return {
        "type": "m.room.create",
        "state_key": "",
        "event_id": "$c",
        "sender": OP,
        "content": {"room_version": version, "additional_creators": ["@too:test"]},
    }


def test_creators_stand_above_from_version_12_on() -> None:
    power = {"users": {OP: 100}, "users_default": 0}
    old, new = read_levels(create("11"), power), read_levels(create("12"), power)
    assert (old.of(OP), old.of("@too:test"), old.of(NODE)) == (100, 0, 0)
    assert (new.of(OP), new.of("@too:test"), new.of(NODE)) == (float("inf"), float("inf"), 0)
    assert (new.needed("x", state=True), new.needed("x", state=False)) == (50, 0)
    none = read_levels(create("11"), None)
    assert (none.of(OP), none.needed("x", state=True)) == (100, 0)


def test_levels_are_completed_and_never_lowered() -> None:
    old = {"events": {"io.cisbot.lock": 60, "m.room.redaction": 0}, "users": {NODE: 75}, "redact": 50}
    new = levels_content(old, {NODE: 50, OP: 100}, fresh=False)
    events, users = new["events"], new["users"]
    assert isinstance(events, dict)
    assert (events["io.cisbot.lock"], events["io.cisbot.end"]) == (60, 50)
    assert (events["m.room.redaction"], events["io.cisbot.charter"], new["redact"]) == (100, 100, 100)
    assert users == {NODE: 75, OP: 100}
    assert levels_content(new, {NODE: 50, OP: 100}, fresh=False) == new


def test_findings_say_how_to_mend() -> None:
    power = {"type": "m.room.power_levels", "state_key": "", "content": {"events": {"io.cisbot.lock": 60}}}
    secret = {"type": "m.room.encryption", "state_key": "", "content": {"algorithm": "x"}}
    found = room_findings([create("11"), power, secret], NODE, RoomId("!r"))
    assert not all_well(found)
    mends = [f.how_to_mend for f in found if not f.ok]
    assert any(f"give {NODE} power 60" in mend for mend in mends)
    assert any("encryption can't be taken back" in mend for mend in mends)
    assert any("cisbot room init" in mend for mend in mends)


def test_the_end_of_a_log_comes_in_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one\ntwo\nthree\xff\n")
    assert read_log(ReadLog("t", str(path), 1000)).text == "one\ntwo\nthree\ufffd\n"
    assert read_log(ReadLog("t", str(path), 9)).text == "three\ufffd\n"
    assert read_log(ReadLog("t", str(path), 3)).text == "e\ufffd\n"


def test_only_an_ordinary_log_is_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("/etc/passwd")
    for name in ("none", "pipe", "link"):
        read = read_log(ReadLog("t", str(tmp_path / name), 10))
        assert read.text is None
        assert read.why

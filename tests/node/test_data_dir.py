"""What may lie in the data directory, or become of it: one clear error, never a traceback."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from cisbot.__main__ import main
from cisbot.errors import CisbotError
from cisbot.node.datadir import FILES, identities, watch
from cisbot.node.socket import LocalDoor
from cisbot.supervisor.lock import NodeLock
from tests.node.test_config_hostile import write


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_should_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    place = tmp_path / "data" / name
    (place / "more").mkdir(parents=True)
    assert main(["run", "--config", str(write(tmp_path, node__data_dir='"data"'))]) == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"cisbot: {place} is a folder, expected a file of the node's; remove it, or choose another "
        "node.data_dir"
    )


def test_a_lock_that_cannot_be_one(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "node.lock")
    with pytest.raises(CisbotError, match=r"node\.lock can't be locked: Invalid argument; remove what"):
        NodeLock(tmp_path)


async def test_a_door_where_a_folder_is(tmp_path: Path) -> None:
    (tmp_path / "node.sock").mkdir()
    door = LocalDoor(tmp_path / "node.sock", lambda item: None)
    with pytest.raises(CisbotError, match=r"node\.sock can't be made a socket: Is a directory; remove what"):
        await door.open()
    await door.close()
    assert (tmp_path / "node.sock").is_dir()


async def test_a_door_that_another_has_replaced_is_left(tmp_path: Path) -> None:
    first, second = (LocalDoor(tmp_path / "node.sock", lambda item: None) for _ in range(2))
    await first.open()
    await second.open()
    await first.close()
    assert (tmp_path / "node.sock").is_socket()
    await second.close()
    assert not (tmp_path / "node.sock").exists()


@pytest.mark.parametrize("way", ["removed", "replaced", "one file"])
async def test_a_data_dir_that_is_lost_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("cisbot.node.datadir.LOOK_S", 0.05)
    data = tmp_path / "data"
    with NodeLock(data) as lock:
        (data / "node.db").touch()
        with (data / "node.db").open():
            watching = asyncio.ensure_future(watch(identities([lock.path, data / "node.db"])))
            done, _ = await asyncio.wait([watching], timeout=0.3)
            assert not done
            if way == "one file":
                (data / "node.db").unlink()
            else:
                shutil.rmtree(data)
            if way == "replaced":
                data.mkdir()
                (data / "node.lock").touch()
                (data / "node.db").touch()
            with pytest.raises(
                CisbotError, match=r"data_dir was removed or replaced .* is (gone|another file)"
            ):
                await asyncio.wait_for(watching, 10)

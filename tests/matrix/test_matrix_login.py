"""Logging in: token or password, the kept session, errors for people."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError
from cisbot.matrix.login import load_session, log_in
from tests.matrix.scripted import NODE, Scripted, answer, limited, lose, refused, text

pytestmark = pytest.mark.usefixtures("brief")
ISSUED = {"user_id": NODE, "device_id": "D", "access_token": "issued"}


def matrix(scripted: Scripted, *, token: str | None = None, password: str | None = None) -> Matrix:
    return Matrix(
        homeserver=scripted.url,
        user_id=NODE,
        access_token=SecretStr(token) if token else None,
        password=SecretStr(password) if password else None,
        room="#tasks:test",
    )


async def test_a_token_is_checked(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("GET", "/whoami", lose, text("<html>", 502), answer({"user_id": NODE}))
    said: list[str] = []
    api = await log_in(matrix(scripted, token="t"), tmp_path, said.append)
    await api.close()
    assert api.token == "t"
    assert len(said) == 2
    assert load_session(tmp_path / "session.json") is None


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (answer({"user_id": "@other:test"}), "belongs to @other:test"),
        (refused(401, "M_UNKNOWN_TOKEN"), "doesn't know this access token"),
        (text("<html>", 404), "no Matrix homeserver"),
    ],
)
async def test_a_bad_token_is_explained(
    scripted: Scripted, tmp_path: Path, reply: object, words: str
) -> None:
    scripted.on("GET", "/whoami", reply)  # type: ignore[arg-type]
    with pytest.raises(CisbotError, match=words):
        await log_in(matrix(scripted, token="t"), tmp_path, print)


async def test_a_password_session_is_kept_and_used_again(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("POST", "/login", limited(20), answer(ISSUED))
    scripted.on("GET", "/whoami", answer({"user_id": NODE}))
    for _ in range(2):
        api = await log_in(matrix(scripted, password="p"), tmp_path, print)
        await api.close()
        assert api.token == "issued"
    kept = tmp_path / "session.json"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert len(scripted.of("POST", "/login")) == 2
    assert scripted.of("POST", "/login")[0].body["initial_device_display_name"] == "cisbot"


async def test_a_forgotten_session_logs_in_again_as_the_same_device(
    scripted: Scripted, tmp_path: Path
) -> None:
    scripted.on("POST", "/login", answer(ISSUED))
    scripted.on("GET", "/whoami", refused(401, "M_UNKNOWN_TOKEN"))
    for _ in range(2):
        api = await log_in(matrix(scripted, password="p"), tmp_path, print)
        await api.close()
    first, second = scripted.of("POST", "/login")
    assert "device_id" not in first.body
    assert second.body["device_id"] == "D"


async def test_a_damaged_session_is_no_obstacle(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("POST", "/login", answer(ISSUED))
    (tmp_path / "session.json").write_text("[1")
    api = await log_in(matrix(scripted, password="p"), tmp_path, print)
    await api.close()


async def test_a_wrong_password_is_explained(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("POST", "/login", refused(403, "M_FORBIDDEN"))
    with pytest.raises(CisbotError, match="wrong password"):
        await log_in(matrix(scripted, password="p"), tmp_path, print)


async def test_patience_ends(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("GET", "/whoami", lose)
    with pytest.raises(CisbotError):
        await log_in(matrix(scripted, token="t"), tmp_path, print, patience_s=0.1)

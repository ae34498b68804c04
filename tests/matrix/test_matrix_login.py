"""Logging in: token or password, the kept session, errors for people."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest
from pydantic import SecretStr

from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError
from cisbot.matrix.check import check_room
from cisbot.matrix.login import CHECK_DEVICE, load_session, log_in
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


async def test_a_limit_on_logins_is_said_and_waited_for(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("POST", "/login", limited(1100), answer(ISSUED))
    said: list[str] = []
    api = await log_in(matrix(scripted, password="p"), tmp_path, said.append, patience_s=0.1)
    await api.close()
    assert said == ["the homeserver asks to wait 2 s before the next login; waiting"]


async def test_an_absurd_limit_is_an_error(scripted: Scripted, tmp_path: Path) -> None:
    scripted.on("POST", "/login", limited(700_000))
    with pytest.raises(CisbotError, match="asks to wait 700 s before the next login"):
        await log_in(matrix(scripted, password="p"), tmp_path, print)


@pytest.mark.parametrize(
    ("reply", "well", "said"),
    [
        (answer({**ISSUED, "access_token": "brief"}), True, "the password of the settings is right"),
        (refused(403, "M_FORBIDDEN"), False, "the password of the settings does not work: wrong password"),
    ],
)
async def test_check_tries_the_password_beside_the_kept_session(
    scripted: Scripted, tmp_path: Path, reply: object, well: bool, said: str
) -> None:
    scripted.on("POST", "/login", answer(ISSUED), reply)  # type: ignore[arg-type]
    scripted.on("GET", "/whoami", answer({"user_id": NODE}))
    settings = matrix(scripted, password="p")
    first = await check_room(settings, tmp_path)
    assert first[0].what == f"logged in as {NODE} with the password of the settings"
    found = await check_room(settings, tmp_path)
    assert found[0].what == f"logged in as {NODE} with the session kept in session.json"
    assert (found[1].ok, found[1].what[: len(said)]) == (well, said)
    other = scripted.of("POST", "/login")[1]
    assert other.body["device_id"] == CHECK_DEVICE, "a login as the node's device would end its session"
    outs = scripted.of("POST", "/logout")
    assert [r.headers["Authorization"] for r in outs] == ["Bearer brief"] * well
    kept = load_session(tmp_path / "session.json")
    assert kept is not None and kept.access_token == "issued"

"""Logging in: by token, or by password with a session that is kept and used again.

Who holds the token is the account, so the token must belong to the account that the settings name. The
session of a password login is `session.json` in the data directory, readable by its owner alone; when the
homeserver no longer knows it, we log in again as the same device.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path as FilePath
from typing import Final

from cisbot.core.room.events import JsonMap
from cisbot.core.settings import Matrix
from cisbot.errors import CisbotError
from cisbot.matrix.http import Api, Method, Path, RateLimited, Refused, TokenDead, Unreachable
from cisbot.matrix.waiting import Backoff, pause

SESSION_FILE: Final = "session.json"
CHECK_DEVICE: Final = "cisbot-check"
LIMIT_WAIT_S_MAX: Final = 600.0
_NOT_FOUND: Final = (301, 302, 307, 308, 404, 405)

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Session:
    """What a login gave us."""

    homeserver: str
    user_id: str
    device_id: str
    access_token: str


@dataclass(frozen=True, slots=True)
class _Patience:
    """How long to try on while the homeserver is away (None: for ever), and whom to tell."""

    seed: str
    say: Say
    most_s: float | None

    async def call(self, api: Api, method: Method, path: str, body: JsonMap | None = None) -> JsonMap:
        clock = asyncio.get_running_loop().time
        until = None if self.most_s is None else clock() + self.most_s
        backoff = Backoff(self.seed)
        while True:
            try:
                return await api.call(method, getattr(Path.v3, path), body)
            except RateLimited as limited:
                await self._heed(limited, "login" if path == "login" else "request")
                continue
            except Unreachable as lost:
                if lost.status in _NOT_FOUND:
                    raise CisbotError(f"there is no Matrix homeserver at {api.base_url}: {lost}") from lost
                wait_s = backoff.next_s()
                if until is not None and clock() + wait_s > until:
                    raise
                self.say(f"{api.base_url}: {lost}; trying again in {wait_s:.0f} s")
                await pause(wait_s)

    async def _heed(self, limited: RateLimited, what: str) -> None:
        """A limit is no failure: said and waited for, whatever the patience, unless it is absurd."""
        wait_s = limited.retry_after_s
        if wait_s > LIMIT_WAIT_S_MAX:
            raise CisbotError(
                f"the homeserver asks to wait {wait_s:.0f} s before the next {what}; try again then, or ask "
                "its administrator for higher limits (Synapse: rc_login)"
            ) from limited
        self.say(f"the homeserver asks to wait {math.ceil(wait_s)} s before the next {what}; waiting")
        await pause(wait_s)


async def log_in(matrix: Matrix, data_dir: FilePath, say: Say, *, patience_s: float | None = None) -> Api:
    """The account's API, ready to use; the caller closes it.

    Tries on while the homeserver is away, at most `patience_s`, and tells `say` each time. A wait that the
    homeserver itself asks for is kept besides, and told too.

    Raises CisbotError when the credential is wrong or belongs to another account, when there is no Matrix
    homeserver, or when the patience is used up.
    """
    patience = _Patience(matrix.user_id, say, patience_s)
    api = Api(matrix.homeserver, user_id=matrix.user_id, say=say)
    try:
        if matrix.access_token is not None:
            await _use_token(api, matrix.access_token.get_secret_value(), patience)
        elif matrix.password is not None:
            await _use_password(api, matrix, data_dir, patience)
        else:
            raise CisbotError("matrix: no access token and no password is at hand")
    except BaseException:
        await api.close()
        raise
    return api


async def try_password(matrix: Matrix, say: Say, *, patience_s: float | None = None) -> None:
    """See whether the password is right, on a device for this alone that is gone again afterwards: a login
    as the node's own device would end the session of a node that runs.

    Raises CisbotError as `log_in` does.
    """
    patience = _Patience(matrix.user_id, say, patience_s)
    async with Api(matrix.homeserver, user_id=matrix.user_id, say=say) as api:
        session = await _log_in_anew(api, matrix, CHECK_DEVICE, "cisbot check", patience)
        api.token = session.access_token
        await log_out(api)


async def log_out(api: Api) -> None:
    """End the session at the homeserver, as well as that goes."""
    try:
        await api.call(Method.POST, Path.v3.logout)
    except (Refused, RateLimited, Unreachable):
        return


async def _use_token(api: Api, token: str, patience: _Patience) -> None:
    api.token = token
    try:
        await _check_owner(api, patience)
    except TokenDead as dead:
        raise CisbotError(
            f"the homeserver doesn't know this access token ({dead}); "
            f"log in as {api.user_id} again and put the new token into matrix.access_token"
        ) from dead


async def _check_owner(api: Api, patience: _Patience) -> None:
    try:
        answer = await patience.call(api, Method.GET, "account/whoami")
    except TokenDead:
        raise
    except Refused as refused:
        raise CisbotError(f"the homeserver does not say whose token this is: {refused}") from refused
    owner = answer.get("user_id")
    if owner != api.user_id:
        raise CisbotError(f"the access token belongs to {owner}, but matrix.user_id is {api.user_id}")


async def _use_password(api: Api, matrix: Matrix, data_dir: FilePath, patience: _Patience) -> None:
    path = data_dir / SESSION_FILE
    kept = load_session(path)
    if kept is not None and (kept.homeserver, kept.user_id) != (matrix.homeserver, matrix.user_id):
        kept = None  # another account's
    if kept is not None:
        api.token = kept.access_token
        try:
            await _check_owner(api, patience)
        except TokenDead:
            patience.say("the homeserver forgot our session; logging in again")
        else:
            return
    api.token = ""
    device_id = kept.device_id if kept is not None else ""
    session = await _log_in_anew(api, matrix, device_id, matrix.device_name, patience)
    api.token = session.access_token
    await asyncio.to_thread(save_session, path, session)


async def _log_in_anew(
    api: Api, matrix: Matrix, device_id: str, device_name: str, patience: _Patience
) -> Session:
    """Log in by password, on a new device unless `device_id` names one."""
    assert matrix.password is not None
    body: JsonMap = {
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": matrix.user_id},
        "password": matrix.password.get_secret_value(),
        "initial_device_display_name": device_name,
    }
    if device_id:
        body["device_id"] = device_id
    try:
        answer = await patience.call(api, Method.POST, "login", body)
    except Refused as refused:
        if refused.errcode == "M_FORBIDDEN":
            why = f"wrong password for {matrix.user_id}, or there is no such account"
        else:
            why = f"the homeserver refuses the login of {matrix.user_id}"
        raise CisbotError(f"{why} ({refused})") from refused
    user_id, device, token = (answer.get(k) for k in ("user_id", "device_id", "access_token"))
    if user_id != matrix.user_id:
        raise CisbotError(f"the homeserver logged us in as {user_id}, but matrix.user_id is {matrix.user_id}")
    if not isinstance(device, str) or not isinstance(token, str):
        raise CisbotError("the homeserver's answer to the login holds no token")
    return Session(matrix.homeserver, matrix.user_id, device, token)


def load_session(path: FilePath) -> Session | None:
    """The kept session, or None when there is none that can be read."""
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        return Session(*(str(kept[k]) for k in ("homeserver", "user_id", "device_id", "access_token")))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_session(path: FilePath, session: Session) -> None:
    """Replace the file, whole or not at all. Raises CisbotError when that can't be done."""
    new = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        new.unlink(missing_ok=True)
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(asdict(session), file)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
    except OSError as error:
        raise CisbotError(f"can't keep the session in {path}: {error.strerror or error}") from error

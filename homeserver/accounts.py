"""Make accounts on a homeserver whose registration secret is known."""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from homeserver.api import call
from homeserver.errors import AccountError

_REGISTER = "/_synapse/admin/v1/register"
_LOGIN = "/_matrix/client/v3/login"


@dataclass(frozen=True, slots=True)
class Account:
    """A user, logged in on one device."""

    user_id: str
    device_id: str
    access_token: str = field(repr=False)
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Accounts:
    """The accounts of one homeserver; methods raise AccountError when it refuses or is away."""

    base_url: str
    shared_secret: str = field(repr=False)

    def create(self, name: str, password: str, *, admin: bool = False, device_id: str = "") -> Account:
        """Register the user `name` (a localpart), or log in when there is one by that name.

        Raises AccountError when the user exists with another password, or exists without
        being an administrator although `admin` was asked for.
        """
        status, answer = self._call("GET", _REGISTER)
        nonce = str(self._good(status, answer, f"make the user {name!r}").get("nonce", ""))
        signed = "\0".join([nonce, name, password, "admin" if admin else "notadmin"])
        mac = hmac.new(self.shared_secret.encode(), signed.encode(), hashlib.sha1).hexdigest()
        body: dict[str, Any] = {"nonce": nonce, "username": name, "password": password}
        body |= {"admin": admin, "mac": mac}
        if device_id:
            body["device_id"] = device_id
        status, answer = self._call("POST", _REGISTER, body)
        if answer.get("errcode") != "M_USER_IN_USE":
            return _account(self._good(status, answer, f"make the user {name!r}"), password)
        account = self.login(name, password, device_id=device_id)
        if admin and not self.is_admin(account):
            raise AccountError(f"{account.user_id} exists and is no administrator; choose another name")
        return account

    def login(self, name: str, password: str, *, device_id: str = "") -> Account:
        """Log in by password, on a new device unless `device_id` names one.

        Raises AccountError when the password is wrong or the server's login limit is reached.
        """
        body: dict[str, Any] = {
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": name},
            "password": password,
        }
        if device_id:
            body["device_id"] = device_id
        status, answer = self._call("POST", _LOGIN, body)
        return _account(self._good(status, answer, f"log in as {name!r}"), password)

    def is_admin(self, account: Account) -> bool:
        """Say whether the account may use the admin API."""
        path = f"/_synapse/admin/v1/users/{quote(account.user_id, safe='')}/admin"
        status, answer = self._call("GET", path, token=account.access_token)
        if status == 403:
            return False
        return bool(self._good(status, answer, "ask for administrators").get("admin"))

    def lift_limits(self, user_id: str, *, admin: Account) -> None:
        """Free one user of the server's message rate limits, for good.

        Raises AccountError when `admin` is no administrator or there is no such user.
        """
        path = f"/_synapse/admin/v1/users/{quote(user_id, safe='')}/override_ratelimit"
        zeros = {"messages_per_second": 0, "burst_count": 0}
        status, answer = self._call("POST", path, zeros, token=admin.access_token)
        self._good(status, answer, f"lift the limits of {user_id}")

    def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, *, token: str = ""
    ) -> tuple[int, dict[str, Any]]:
        try:
            return call(method, self.base_url + path, body, token=token)
        except OSError as error:
            raise AccountError(
                f"no homeserver answers at {self.base_url} ({error}); "
                "start one with `python -m homeserver run --data DIR`"
            ) from error

    def _good(self, status: int, answer: dict[str, Any], what: str) -> dict[str, Any]:
        if status == 200:
            return answer
        reason = f"{answer.get('errcode', f'HTTP {status}')}: {answer.get('error', 'no reason')}"
        if (wait := answer.get("retry_after_ms")) is not None:
            reason += f"; try again in {wait / 1000:.0f} s"
        raise AccountError(f"{self.base_url} would not {what}: {reason}")


def _account(answer: dict[str, Any], password: str) -> Account:
    return Account(
        user_id=str(answer["user_id"]),
        device_id=str(answer["device_id"]),
        access_token=str(answer["access_token"]),
        password=password,
    )

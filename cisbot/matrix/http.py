"""The one HTTP client: mautrix's `HTTPAPI` with every wait bounded and every failure told apart.

mautrix forgets `retry_after_ms` and wraps what the network does; whether a request can have taken effect
is then lost. Here a request ends as its JSON object or as one of:

- `RateLimited`: the homeserver named a wait; nothing happened there.
- `Unreachable`: no usable answer (a proxy's page is none). `sent` tells whether the request may have taken
  effect all the same.
- `Refused`: the homeserver said no, with its error code (`TokenDead`: to the token itself).

aiohttp repeats a PUT by itself when a kept connection turns out to be closed. A state PUT has no transaction
id, so that is switched off, and connections are given up before a server's own idle limit.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Final, Self, TypeVar, cast

import aiohttp
from mautrix.api import HTTPAPI, Method, Path, PathBuilder
from typing_extensions import override
from yarl import URL

from cisbot.core.room.events import Json, JsonMap
from cisbot.core.settings import masked
from cisbot.errors import CisbotError, FieldError
from cisbot.matrix.waiting import Backoff, pause

__all__ = [
    "Api",
    "Method",
    "Path",
    "PathBuilder",
    "RateLimited",
    "Refused",
    "TokenDead",
    "Unreachable",
    "check_address",
]

REQUEST_S: Final = 20.0
CONNECT_S: Final = 10.0
PATIENCE_S: Final = 60.0
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
RETRY_AFTER_S_MAX: Final = 3600.0
SAID_S: Final = 3.0
Answer = TypeVar("Answer")
_KEEP_ALIVE_S: Final = 10.0
_DEAD: Final = ("M_UNKNOWN_TOKEN", "M_MISSING_TOKEN", "M_USER_DEACTIVATED")
_UNUSABLE: Final = (500, 502, 503, 504, 520, 521, 522, 523, 524)


class RateLimited(CisbotError):
    """The homeserver asks us to wait; the request did nothing."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(f"the homeserver's rate limit: try again in {retry_after_s:.1f} s")


class Unreachable(CisbotError):
    """No usable answer came. `sent`: the request may have taken effect all the same."""

    def __init__(self, why: str, *, sent: bool, status: int = 0) -> None:
        self.sent = sent
        self.status = status  # of an answer that could not be used, else 0
        super().__init__(why)


class Refused(CisbotError):
    """The homeserver said no."""

    def __init__(self, status: int, errcode: str, why: str) -> None:
        self.status = status
        self.errcode = errcode
        self.why = why
        super().__init__(f"{errcode} (HTTP {status}): {why}")


class TokenDead(Refused):
    """The access token is no longer good: the device was logged out, or the account is gone."""


class Api(HTTPAPI):
    """A homeserver's client API under one account's token. Made inside a running loop; close it."""

    def __init__(
        self,
        homeserver: str,
        token: str = "",
        *,
        user_id: str = "",
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(keepalive_timeout=_KEEP_ALIVE_S, limit=16),
            timeout=aiohttp.ClientTimeout(total=None, connect=CONNECT_S),
            headers={"User-Agent": f"cisbot {HTTPAPI.default_ua}"},
        )
        session._retry_connection = False
        super().__init__(homeserver.rstrip("/"), token, client_session=session)
        self.user_id = user_id
        self._say = say

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.session.close()

    async def call(
        self,
        method: Method,
        path: PathBuilder,
        body: Mapping[str, Json] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout_s: float = REQUEST_S,
    ) -> JsonMap:
        """One request for a JSON object, never repeated.

        Raises RateLimited, Unreachable or Refused.
        """
        content = dict(body or {})
        answer = await self._bounded(method, path, content, query or {}, timeout_s)
        if not isinstance(answer, dict):
            raise Unreachable("the answer is not a JSON object", sent=True)
        return cast("JsonMap", answer)

    async def listing(self, path: PathBuilder, *, patience_s: float = PATIENCE_S) -> list[Json]:
        """One GET for a JSON list, tried again as in `read`. Raises what that raises."""

        async def ask() -> list[Json]:
            answer = await self._bounded(Method.GET, path, {}, {}, REQUEST_S)
            if not isinstance(answer, list):
                raise Unreachable("the answer is not a JSON list", sent=True)
            return cast("list[Json]", answer)

        return await self._patiently(ask, path, patience_s)

    async def _bounded(
        self,
        method: Method,
        path: PathBuilder,
        body: dict[str, Json],
        query: Mapping[str, str],
        timeout_s: float,
    ) -> object:
        try:
            async with asyncio.timeout(timeout_s):
                hide = method is not Method.GET  # no content in anybody's debug log
                return await self.request(method, path, body, query_params=dict(query), sensitive=hide)
        except TimeoutError as late:
            raise Unreachable(f"no answer within {timeout_s:.0f} s", sent=True) from late

    async def read(
        self,
        method: Method,
        path: PathBuilder,
        body: Mapping[str, Json] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        patience_s: float = PATIENCE_S,
    ) -> JsonMap:
        """A request that may be repeated: tried again after limits and failures of the network.

        Raises RateLimited or Unreachable once `patience_s` is used up, and Refused at once.
        """
        return await self._patiently(lambda: self.call(method, path, body, query=query), path, patience_s)

    async def _patiently(
        self, ask: Callable[[], Awaitable[Answer]], path: PathBuilder, patience_s: float
    ) -> Answer:
        loop = asyncio.get_running_loop()
        until = loop.time() + patience_s
        backoff = Backoff(f"{self.user_id} {path}", most_s=10.0)
        while True:
            try:
                return await ask()
            except RateLimited as limited:
                wait_s = limited.retry_after_s
                if loop.time() + wait_s > until:
                    raise
                if wait_s >= SAID_S:  # shorter ones are nobody's concern
                    self._say(f"the homeserver asks to wait {math.ceil(wait_s)} s; waiting")
            except Unreachable:
                wait_s = backoff.next_s()
                if loop.time() + wait_s > until:
                    raise
            await pause(wait_s)

    @override
    async def _send(
        self,
        method: Method,
        url: URL,
        content: Any,
        query_params: dict[str, str],
        headers: dict[str, str],
    ) -> tuple[Any, aiohttp.ClientResponse]:
        try:
            async with self.session.request(
                str(method),
                url,
                data=content,
                params=query_params,
                headers=headers,
                allow_redirects=False,
            ) as response:
                raw = await read_bounded(response, ANSWER_BYTES_MAX)
                return self._understand(response, raw), response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreachable(f"can't connect to {self.base_url}: {error}", sent=False) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Unreachable(f"{type(error).__name__}: {error}", sent=True) from error

    def _understand(self, response: aiohttp.ClientResponse, raw: bytes) -> Any:
        try:
            answer = json.loads(raw)
        except (ValueError, RecursionError) as error:
            if response.status == 429:
                raise RateLimited(_header_wait_s(response)) from error
            if response.status == 413:
                raise Refused(413, "M_TOO_LARGE", _excerpt(raw)) from error
            why = f"HTTP {response.status} with no JSON: {_excerpt(raw)}"
            raise Unreachable(why, sent=True, status=response.status) from error
        if 200 <= response.status < 300:
            return answer
        fields = answer if isinstance(answer, dict) else {}
        if response.status == 429:
            raise RateLimited(_wait_s(fields, response))
        errcode, why = str(fields.get("errcode", "M_UNKNOWN")), str(fields.get("error", ""))
        if response.status in _UNUSABLE or 300 <= response.status < 400:
            raise Unreachable(f"HTTP {response.status} {errcode}: {why}", sent=True, status=response.status)
        kind = TokenDead if errcode in _DEAD else Refused
        raise kind(response.status, errcode[:64], why[:400])


def check_address(text: str, field: str = "matrix.homeserver") -> str:
    """A homeserver's address that a client can use. Raises `FieldError`, which never shows a password."""
    expected = "the homeserver's address, such as https://example.org"
    try:
        url = URL(text)
        (url.host or "").encode("idna")  # as the look-up does, without an error of ours there
    except ValueError as error:
        why = "" if "@" in text else f": {error}"  # it may quote the part with a password
        raise FieldError(field, f"is not an address{why}", expected) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise FieldError(field, "is not an http or https address", expected)
    if url.user is not None or url.password is not None:
        hint = "The account goes into matrix.user_id, its secret into matrix.password_file"
        raise FieldError(field, "has a user or password in it", expected, hint)
    if url.explicit_port == 0:
        raise FieldError(field, "has port 0", "a port from 1 to 65535, or none")
    if "/_matrix" in url.path:
        raise FieldError(field, f"has the path {masked(url.path)[:40]!r}", f"{url.origin()} without it")
    return text


async def read_bounded(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    """The whole body. Raises Unreachable when it is longer than `bytes_max`."""
    length = response.content_length
    if length is not None and length > bytes_max:
        raise Unreachable(f"the answer has {length} bytes, more than {bytes_max}", sent=True)
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(65_536):
        size += len(part)
        if size > bytes_max:
            raise Unreachable(f"the answer has more than {bytes_max} bytes", sent=True)
        parts.append(part)
    return b"".join(parts)


def _excerpt(raw: bytes) -> str:
    return raw[:120].decode("utf-8", "replace")


def _header_wait_s(response: aiohttp.ClientResponse) -> float:
    header = response.headers.get("Retry-After", "")
    return _bounded_s(float(header)) if header.isdecimal() else 1.0


def _wait_s(fields: Mapping[str, object], response: aiohttp.ClientResponse) -> float:
    wait_ms = fields.get("retry_after_ms")
    if isinstance(wait_ms, int | float) and not isinstance(wait_ms, bool):
        return _bounded_s(wait_ms / 1000.0)
    return _header_wait_s(response)


def _bounded_s(seconds: float) -> float:
    return min(max(seconds, 0.05), RETRY_AFTER_S_MAX)

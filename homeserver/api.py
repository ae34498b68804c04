"""One HTTP call to the homeserver."""

import json
import urllib.error
import urllib.request
from typing import Any

# The homeserver is on loopback: never by way of a proxy.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def call(
    method: str,
    url: str,
    body: dict[str, Any] | None = None,
    *,
    token: str = "",
    timeout: float = 30,
) -> tuple[int, dict[str, Any]]:
    """Send `body` as JSON; return the HTTP status and the answer's JSON object.

    Error answers (429 and the like) are returned, not raised; an answer that is no JSON object
    counts as an empty one.

    Raises OSError (urllib's URLError is one) when the server cannot be reached or is too slow.
    """
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            return answer.status, _json_object(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, _json_object(error.read())


def _json_object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(raw)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}

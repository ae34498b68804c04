"""Files attached to messages: fetched under the account's token, never more than was asked for."""

from __future__ import annotations

import asyncio
from typing import Final

import aiohttp

from cisbot.core.effects import ReadMedia
from cisbot.core.inputs import TextRead
from cisbot.matrix.http import Api, Unreachable, read_bounded

MEDIA_S: Final = 30.0


async def read_media(api: Api, ask: ReadMedia) -> TextRead:
    """The file's text, or why there is none."""
    try:
        server, media_id = api.parse_mxc_uri(ask.url)
    except ValueError:
        return TextRead(ask.tag, None, f"{ask.url[:80]!r} is not the address of a file")
    if not server or not media_id:
        return TextRead(ask.tag, None, f"{ask.url[:80]!r} is not the address of a file")
    try:
        async with asyncio.timeout(MEDIA_S):
            status, raw = await _download(api, ask, authenticated=True)
            if status == 404:  # a homeserver from before Matrix 1.11, or no such file
                status, raw = await _download(api, ask, authenticated=False)
    except TimeoutError:
        return TextRead(ask.tag, None, f"the file did not come within {MEDIA_S:.0f} s")
    except Unreachable as lost:
        return TextRead(ask.tag, None, str(lost))
    except (aiohttp.ClientError, OSError) as error:
        return TextRead(ask.tag, None, f"{type(error).__name__}: {error}")
    if status != 200:
        return TextRead(ask.tag, None, f"the homeserver does not give the file (HTTP {status})")
    try:
        return TextRead(ask.tag, raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        return TextRead(ask.tag, None, f"the file is not UTF-8 text (byte {error.start})")


async def _download(api: Api, ask: ReadMedia, *, authenticated: bool) -> tuple[int, bytes]:
    url = api.get_download_url(ask.url, authenticated=authenticated)
    headers = {"Authorization": f"Bearer {api.token}"} if authenticated else {}
    async with api.session.get(url, headers=headers) as response:
        if response.status != 200:
            return response.status, b""
        return 200, await read_bounded(response, ask.bytes_max)

"""Fixtures: a scripted homeserver, and an API on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from cisbot.matrix import waiting
from cisbot.matrix.http import Api
from tests.matrix.scripted import NODE, Inbox, Scripted, serve


@pytest.fixture
async def scripted() -> AsyncIterator[Scripted]:
    """A homeserver that does as it is told."""
    script = Scripted()
    server = await serve(script)
    yield script
    await server.close()


@pytest.fixture
async def api(scripted: Scripted) -> AsyncIterator[Api]:
    """An API on the scripted homeserver."""
    async with Api(scripted.url, "token", user_id=NODE) as made:
        yield made


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Pauses between attempts are a thousandth as long."""
    whole = waiting.Backoff.next_s
    monkeypatch.setattr(waiting.Backoff, "next_s", lambda self: whole(self) / 1000)
    yield


@pytest.fixture
def inbox() -> Inbox:
    """Where a test's inputs go."""
    return Inbox()
